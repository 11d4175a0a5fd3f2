"""The site of docs/ builds without a warning, and its reference has every public name."""

import subprocess
import sys

import pages
import pytest
from sphinx.util.inventory import InventoryFile
from typer.main import get_command

import sdg
from sdg.cli import app

NAMES = [
    *(f"sdg.{name}" for name in sdg.__all__),
    *(f"sdg.SDGDetector.{name}" for name in ("from_pretrained", "from_endpoint", "stream", "push_to_hub")),
    *("sdg.Defect.to_pixels", "sdg.DefectSet.to_json", "sdg.SDGEval.compute", "sdg.DetectorReward.score"),
    *("sdg.draw.overlay", "sdg.boxes.iou", "sdg.boxes.diou", "sdg.matching.match", "sdg.readers.read"),
    *("sdg.boxflow.maps.reward_map", "sdg.boxflow.maps.spatial_advantage", "sdg.boxflow.sde.step"),
    *("sdg.microworld.generate", "sdg.embedding.load_embedder"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    done = subprocess.run([*build, "docs", folder], cwd=pages.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_in_the_site(site):
    missing = [
        name for name, path in pages.PAGES.items() if path.parent != pages.ROOT and not page(site, name).exists()
    ]
    assert not missing
    assert page(site, "notebooks/quickstart.ipynb").read_text(encoding="utf-8").count("<img") >= 3


def page(site, name):
    return (site / name).with_suffix(".html")


@pytest.mark.slow
def test_the_reference_has_every_public_name(site):
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    known = {name for role in inventory.data for name in inventory.data[role] if role.startswith("py:")}
    assert not [name for name in NAMES if name not in known]


@pytest.mark.slow
def test_the_reference_has_every_command(site):
    told = page(site, "reference/command.md").read_text(encoding="utf-8")

    def walk(command, words):
        yield " ".join(words)
        for name, sub in getattr(command, "commands", {}).items():
            yield from walk(sub, [*words, name])

    for words in list(walk(get_command(app), ["sdg"]))[1:]:
        assert f"Usage: {words} " in told, words


@pytest.mark.slow
def test_pages_are_read_without_a_network(site):
    """Fonts, scripts and styles are the site's own."""
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for part in text.split("<")[1:]:
            tag = part.split(">")[0]
            if tag.startswith(("script", "img", 'link rel="stylesheet"')):
                assert 'src="http' not in tag, f"{path.name}: {tag}"
                assert 'href="http' not in tag, f"{path.name}: {tag}"
