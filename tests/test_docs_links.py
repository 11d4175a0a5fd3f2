"""Links of README, CONTRIBUTING and docs/ lead somewhere: files, headings and pictures of this repository."""

import re

import pages
import pytest

SHOWN = {path.name: path for path in (pages.ROOT / "docs" / "img").iterdir()}
PLOTS = {"boxflow.png"}  # as large as a benchmark writes it


def prose(name):
    """A page without its code."""
    return re.sub(r"^```.*?^```$", "", pages.read(name)[0], flags=re.M | re.S)


def anchors(text):
    """Of a page's headings, as GitHub and MyST name them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", pages.PAGES)
def test_links_lead_somewhere(name):
    page = pages.PAGES[name]
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(name)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{name} links to {target}"


@pytest.mark.parametrize("name", pages.PAGES)
def test_files_that_are_named_are_there(name):
    rooms = "train|benchmarks|docs|tests|spaces|model_cards|sdg"
    for path in re.findall(rf"(?<![\w/-])((?:{rooms})/[\w/.-]+\.(?:py|yaml|md|ipynb))\b", prose(name)):
        assert (pages.ROOT / path).exists(), f"{name} names {path}"


def test_pictures_are_used_small_and_described():
    used = set()
    for name in pages.PAGES:
        for words, target in re.findall(r"!\[(.*?)\]\((\S+?)\)", prose(name)):
            assert len(words) > 20, f"{name}: what does {target} show to somebody who cannot see it?"
            used.add(target.rpartition("/")[2])
    assert used == set(SHOWN)
    assert not {n for n, path in SHOWN.items() if path.stat().st_size > 100_000} - PLOTS
