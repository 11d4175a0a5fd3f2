"""The Evaluate tab as a person meets it, in a real headless Chromium."""

import json
import re
import threading

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from test_browser import DESKTOP, PHONE, chromium, url, visit  # noqa: F401  (fixtures)

from sdg.embedding import Embedder
from sdg.web import scoring

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True)
def quick_embedder(monkeypatch):
    """Reasons are compared by their lengths: the real embedder takes seconds to load."""
    toy = Embedder("toy", lambda: lambda texts: np.array([[len(text), 10.0] for text in texts]))
    monkeypatch.setattr(scoring, "_loadable", lambda name: toy)


@pytest.fixture
def tab(url, visit):  # noqa: F811
    def go(viewport: dict = DESKTOP, **options) -> Page:
        page = visit(url, viewport, **options)
        page.get_by_role("tab", name="Evaluate").click()
        expect(page.locator("#score")).to_be_visible()
        return page

    return go


def choose(page: Page, example: str) -> None:
    page.get_by_role("button", name=example).click()
    expect(page.locator("[data-state=scored]")).to_be_visible(timeout=40_000)


def drop(page: Page, box: str, name: str, content: str) -> None:
    page.set_input_files(
        f"#{box} input[type=file]", {"name": name, "mimeType": "application/json", "buffer": content.encode()}
    )
    expect(page.locator(f"#{box}")).to_contain_text(name[:6])


def test_an_example_is_scored_at_a_click(tab):
    page = tab()
    choose(page, "One detector")
    expect(page.locator("#score-verdict")).to_contain_text("microworld-predictions.jsonl: 40 pictures scored")
    expect(page.locator("#score-verdict")).to_contain_text("Reasons compared by toy")
    expect(page.locator(".sdg-card.artifact .sdg-metric")).to_have_count(6)
    expect(page.get_by_role("alert").first).to_contain_text("1 of 40 answers could not be read")
    published = page.locator("#published-part table").first
    expect(published.locator("tr.quiet").nth(3)).to_contain_text("SDG (GRPO) *0.7720.560")
    expect(published.locator("tr.own")).to_contain_text("microworld-predictions.jsonl0.")
    expect(page.locator("#published-part")).to_contain_text("to be compared with results on the same images")
    expect(page.locator("#published-part")).to_contain_text("the others are of toy: not to be compared")
    expect(page.locator("#curve-part svg polyline")).to_have_count(2)
    expect(page.locator("#image-level-part table")).to_have_count(2)
    expect(page.locator("#worst-part tbody tr").first).to_contain_text("microworld-test-0-")
    pictures = page.locator("#worst-part img")
    expect(pictures).to_have_count(12)
    assert pictures.first.evaluate("image => image.naturalWidth") == 512
    expect(page.locator("#unread-part tbody tr")).to_have_count(1)
    expect(page.locator("#against-part")).to_have_count(0)
    page.get_by_text("By tier", exact=True).click()
    expect(page.locator("#tables-part table").filter(has_text="artifact, major").first).to_be_visible()


def test_two_detectors_are_compared_and_the_report_is_taken_home(tab):
    page = tab()
    choose(page, "Two compared")
    row = page.locator("#against-part tr", has_text="artifact BoxF1@0.5")
    assert re.search(
        r"\+0\.\d{3} ?\[0\.\d{3}, 0\.\d{3}\]0\.\d{4}$", row.inner_text().replace("\t", "").replace("\n", "")
    )
    expect(page.locator("#curve-part svg polyline")).to_have_count(4)
    for button, check in (
        ("#report-json", lambda text: json.loads(text)["results"]["against"]["n_images"] == 40),
        ("#report-markdown", lambda text: text.startswith("## SDG-Eval of microworld-predictions.jsonl against")),
    ):
        with page.expect_download() as download:
            page.locator(button).click()
        assert check(download.value.path().read_text())


def test_own_files_are_dropped_and_options_count(tab):
    page = tab()
    box = '"box": [0, 0, 500, 400], "type": "artifact", "reason": "a hand", "importance": 40'
    drop(page, "predictions", "mine.jsonl", f'{{"id": 1, "defects": [{{{box}}}]}}')
    drop(page, "references", "truth.jsonl", f'{{"id": 1, "defects": [{{{box}}}]}}')
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("not compared").check()
    page.get_by_label("none", exact=True).check()
    page.locator("#score").click()
    verdict = page.locator("#score-verdict")
    expect(verdict).to_contain_text("mine.jsonl: 1 picture scored")
    expect(verdict).to_contain_text("Reasons not compared")
    expect(verdict).not_to_contain_text("Intervals")
    expect(page.locator(".sdg-card.artifact .sdg-metric").first).to_contain_text("1.000")
    expect(page.locator(".sdg-card.misalignment .sdg-metric").first).to_contain_text("undefined")


def test_a_broken_line_is_named_and_the_figures_before_are_gone(tab):
    page = tab()
    choose(page, "One detector")
    page.locator("#predictions").get_by_role("button", name=re.compile("clear|remove", re.I)).first.click()
    drop(page, "predictions", "broken.jsonl", '{"defects": []}\n{"defects": [}')
    page.locator("#score").click()
    expect(page.locator("[data-state=failed]")).to_contain_text("broken.jsonl, line 2: Expecting value at column")
    expect(page.get_by_test_id("toast-body")).to_contain_text("line 2")
    for trace in (".sdg-card", "#curve-part", "#report-json"):
        expect(page.locator(trace)).to_have_count(0)


def test_stop_stops_the_scoring(tab, monkeypatch):
    gate = threading.Event()

    def slow(texts):
        gate.wait(60)
        return np.ones((len(texts), 2))

    monkeypatch.setattr(scoring, "_loadable", lambda name: Embedder("slow", lambda: slow))
    page = tab()
    page.get_by_role("button", name="One detector").click()
    page.locator("#score-stop").click()
    expect(page.locator("#score-verdict")).to_contain_text("Stopped")
    expect(page.locator("#score")).to_be_visible()
    expect(page.locator("#score-stop")).to_have_count(0)
    gate.set()
    choose(page, "Two compared")


def test_it_is_used_by_keyboard(tab):
    page = tab()
    page.get_by_role("button", name="One detector").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[data-state=scored]")).to_be_visible(timeout=40_000)
    page.get_by_text("Every metric", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#tables-part")).to_contain_text("BoxPr@0.1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(tab, scheme):
    page = tab(PHONE, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    choose(page, "Two compared")
    for fold in page.locator("#tables-part summary").all():
        fold.click()
    expect(page.locator("#tables-part table").last).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
