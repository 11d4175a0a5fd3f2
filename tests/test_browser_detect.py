"""The answer of the Detect tab in a real headless Chromium: frames, rows, filters, files; stopping and leaving."""

import json
import re
import time

import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from scripted_detector import ScriptedDetector
from test_browser import DESKTOP, PHONE, chromium, detect, picture, visit  # noqa: F401  (fixtures)

from sdg.web import Models, build_page, launch_options, microworld_examples

pytestmark = pytest.mark.browser
LIT = re.compile(r"\blit\b")


def load(model, endpoint, prompt, **options):
    if model == "gone":
        raise OSError("no such folder")
    detector = ScriptedDetector(name=model)
    detector.made_for = None
    return detector


@pytest.fixture(scope="module")
def site():
    """The address of a page that offers other models, and its own detector."""
    detector = ScriptedDetector()
    models = Models(detector, ["owner/other", "gone"], load=load)
    page = build_page(models, microworld_examples(2))
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield address, detector
    page.close(verbose=False)


@pytest.fixture
def found(site, visit, picture) -> Page:  # noqa: F811
    page = visit(site[0])
    detect(page, picture, "a red house", "found")
    expect(page.locator("#defects tbody tr")).to_have_count(2)
    return page


def parts(page: Page, number: int):
    return page.locator(f"#drawn [data-defect='{number}']"), page.locator(f"#defects tr[data-defect='{number}']")


def test_hovering_ties_frame_and_row(found):
    (marks, row), (other, other_row) = parts(found, 1), parts(found, 2)
    for hovered in (row, other.last):  # the row of the first, then the tag of the second
        hovered.hover()
        on, off = ((marks, row), (other, other_row)) if hovered is row else ((other, other_row), (marks, row))
        for part in (on[0].first, on[0].last, on[1]):
            expect(part).to_have_class(LIT)
        expect(off[1]).not_to_have_class(LIT)
    found.locator("h1").hover()
    expect(found.locator(".lit")).to_have_count(0)


def test_a_click_keeps_the_mark_and_escape_takes_it_away(found):
    marks, row = parts(found, 2)
    marks.last.click()
    found.locator("h1").hover()
    expect(row).to_have_attribute("aria-current", "true")
    expect(found.locator("#drawn .chosen")).to_have_count(2)
    parts(found, 1)[1].click()
    expect(row).not_to_have_attribute("aria-current", "true")
    found.keyboard.press("Escape")
    expect(found.locator(".chosen")).to_have_count(0)


def test_a_new_answer_is_not_dimmed_by_the_choice_before(site, found, picture):  # noqa: F811
    parts(found, 1)[1].click()
    found.locator("h1").hover()
    expect(parts(found, 2)[0].last).to_have_css("opacity", "0.3")
    detect(found, picture, "a red house", "found")
    for number in (1, 2):
        expect(parts(found, number)[0].last).to_have_css("opacity", "1")


def test_rows_are_reached_and_chosen_by_keyboard(found):
    found.locator("#defects [data-filter=confidence]").focus()
    found.keyboard.press("Tab")
    expect(parts(found, 1)[1]).to_be_focused()
    expect(found.locator("#drawn .lit")).to_have_count(2)
    found.keyboard.press("ArrowDown")
    expect(parts(found, 2)[1]).to_be_focused()
    found.keyboard.press("Enter")
    expect(parts(found, 2)[1]).to_have_attribute("aria-current", "true")


@pytest.mark.parametrize(
    ("name", "value", "said", "left"),
    [
        ("importance", "31", "31", [1]),
        ("importance", "30", "30", [1, 2]),
        ("importance", "100", "100", []),
        ("confidence", "0.5", "50 %", [1]),
    ],
)
def test_sliders_filter_frames_rows_and_count_at_once(site, found, name, value, said, left):
    before = len(site[1].streams)
    slider = found.locator(f"#defects [data-filter={name}]")
    slider.fill(value)
    expect(slider.locator("xpath=following-sibling::output")).to_have_text(said)
    expect(found.locator(".sdg-shown")).to_have_text(f"{len(left)} of 2 shown")
    for number in (1, 2):
        for part in (*parts(found, number)[0].all(), parts(found, number)[1]):
            expect(part).to_be_visible(visible=number in left)
    expect(found.locator(".sdg-none")).to_be_visible(visible=not left)
    assert len(site[1].streams) == before, "the model was asked again"


def test_a_new_answer_is_not_filtered_by_the_sliders_before(found):
    found.locator("#defects [data-filter=importance]").fill("100")
    found.click("#run")
    expect(found.locator(".sdg-shown")).to_have_text("2 of 2 shown")


def test_the_answer_is_taken_home(found):
    with found.expect_download() as download:
        found.locator("#take-json").click()
    assert len(json.loads(download.value.path().read_text())["defects"]) == 2
    with found.expect_download() as download:
        found.locator("#take-overlay").click()
    assert Image.open(download.value.path()).size == (768, 512)
    found.locator("#raw").get_by_text("Raw answer").click()
    expect(found.locator("#raw .cm-content")).to_contain_text("<think>The caption asks")


def test_a_picture_from_elsewhere_is_doubted(site, visit, picture):  # noqa: F811
    page = visit(site[0])
    detect(page, picture, "outside", "outside")
    expect(page.locator("#verdict")).to_contain_text("outside this model's world")
    expect(page.locator("#verdict code")).to_have_text("P1n3/sdg-detector-grpo")
    expect(page.locator("#drawn .sdg-picture.doubted .sdg-tag")).to_have_count(1)
    expect(page.locator(".sdg-table.doubted tbody tr")).to_have_count(1)


def test_stop_stops_the_model(site, visit, picture):  # noqa: F811
    page = visit(site[0])
    detect(page, picture, "slowly", "busy")
    expect(page.locator(".sdg-words")).to_contain_text("Step 3")
    expect(page.locator("#run")).to_be_hidden()
    page.click("#stop")
    expect(page.locator("#verdict")).to_contain_text("Stopped")
    expect(page.locator("#run")).to_be_visible()
    expect(page.locator("#stop")).to_be_hidden()
    assert closed_soon(site[1])
    expect(page.locator(".sdg-words")).to_have_count(0)
    detect(page, picture, "clean", "clean")


def test_a_closed_browser_frees_its_place(site, visit, picture):  # noqa: F811
    leaving, next_one = visit(site[0]), visit(site[0])
    detect(leaving, picture, "slowly", "busy")
    expect(leaving.locator(".sdg-words")).to_contain_text("Step 3")
    detect(next_one, picture, "clean", "busy")
    expect(next_one.locator("#verdict")).to_contain_text("1 request is before yours")
    leaving.close()
    expect(next_one.locator("[data-state=clean]")).to_be_visible()
    assert closed_soon(site[1], "slowly")


def closed_soon(detector: ScriptedDetector, caption: str = "slowly") -> bool:
    """Whether the last answer on that caption was broken off; it would take a minute by itself."""
    stream = [stream for asked, stream in detector.streams if asked == caption][-1]
    until = time.monotonic() + 20
    while not stream.closed and time.monotonic() < until:
        time.sleep(0.05)
    return stream.closed and not stream.ended


def test_a_new_question_replaces_the_one_before(site, visit, picture):  # noqa: F811
    page = visit(site[0])
    detect(page, picture, "slowly", "busy")
    expect(page.locator(".sdg-words")).to_contain_text("Step 3")
    page.locator("#examples button").first.click()
    expect(page.locator("[data-state=found]")).to_be_visible()
    assert closed_soon(site[1])
    expect(page.locator("#run")).to_be_visible()


def test_another_model_is_chosen_by_one_visitor_for_himself(site, visit, picture):  # noqa: F811
    page, other = visit(site[0]), visit(site[0])
    expect(page.locator("#served")).to_contain_text("scripted")
    expect(page.locator("#notice")).to_be_visible()
    page.locator("#model input").click()
    page.get_by_role("option", name="owner/other").click()
    expect(page.locator("#served")).to_contain_text("owner/other")
    expect(page.locator("#notice")).to_be_hidden()
    expect(other.locator("#served")).to_contain_text("scripted")
    detect(page, picture, "a red house", "found")
    page.locator("#json").get_by_text("JSON").click()
    expect(page.locator("#json .cm-content")).to_contain_text('"model": "owner/other"')


def test_a_model_that_cannot_be_loaded_leaves_the_one_before(site, visit):  # noqa: F811
    page = visit(site[0])
    page.locator("#model input").click()
    page.get_by_role("option", name="gone").click()
    expect(page.get_by_test_id("toast-body")).to_contain_text("gone could not be loaded on this server")
    expect(page.locator("#served")).to_contain_text("scripted")
    expect(page.locator("#model input")).to_have_value("scripted")


def test_an_example_runs_at_a_click_and_is_answered_once(site, visit):  # noqa: F811
    page = visit(site[0])
    page.locator("#examples button").first.click()
    expect(page.locator("[data-state=found]")).to_be_visible(timeout=20_000)
    expect(page.locator("#caption textarea")).not_to_have_value("")
    expect(page.locator("#picture img")).to_be_visible()
    asked = len(site[1].streams)
    page.reload()
    page.locator("#examples button").first.click()
    expect(page.locator("[data-state=found]")).to_be_visible(timeout=20_000)
    assert len(site[1].streams) == asked


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_what_is_on_the_picture_and_in_the_head_fits(site, visit, picture, viewport):  # noqa: F811
    page = visit(site[0], viewport)
    detect(page, picture, "a red house", "found")
    canvas = page.locator(".sdg-canvas").bounding_box()
    assert canvas["width"] / canvas["height"] == pytest.approx(1.5, rel=0.01)
    for tag in page.locator(".sdg-tag").all():
        box = tag.bounding_box()
        assert canvas["x"] <= box["x"]
        assert box["x"] + box["width"] <= canvas["x"] + canvas["width"] + 1
        assert canvas["y"] <= box["y"]
        assert box["y"] + box["height"] <= canvas["y"] + canvas["height"] + 1
    frame = page.locator("#drawn g[data-defect='2'] rect.line").bounding_box()
    assert frame["x"] - canvas["x"] == pytest.approx(0.1 * canvas["width"], abs=6)
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
