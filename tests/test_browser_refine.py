"""The Refine tab in a real headless Chromium: what gets better, what stays as it was and why, and the words for it."""

import io
import time

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import Page, expect
from refine_hands import GREY, LEFT, RIGHT, Eye, Hand, mend, picture
from scripted_detector import OUTSIDE
from test_browser import PHONE, chromium, visit  # noqa: F401  (fixtures)

from sdg.defects import Defect, DefectSet, DefectType
from sdg.refine import EditError
from sdg.web import Example, build_page, launch_options

pytestmark = pytest.mark.browser


def act(task, seed):
    """Mends; a slow one while the caption says so, none while it says that, and an error."""
    if task.caption == "slow":
        time.sleep(1)
    if task.caption == "refused":
        return EditError("its safety filter refused the picture")
    return mend(task, seed)


class Judge(Eye):
    """Cannot be read on blue, is out of its world on green, and finds a misalignment on yellow."""

    def one(self, image):
        red, green, blue = np.asarray(image)[0, 0]
        if blue > 200:
            return DefectSet(parse_error="no list", raw="sorry")
        if green > 200 and red < 100:
            return DefectSet(super().one(image).defects, info=OUTSIDE)
        if green > 200:
            return DefectSet((Defect((100, 100, 500, 500), "misalignment", "not blue", 70),))
        return super().one(image)


class Artist(Hand):
    types = (DefectType.ARTIFACT,)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    picture(LEFT, size=(64, 64)).save(folder / "red.png")
    Image.new("RGB", (64, 64), "yellow").save(folder / "yellow.png")
    kinds = {"red": {DefectType.ARTIFACT}, "yellow": {DefectType.MISALIGNMENT}}
    return [Example(folder / f"{name}.png", name, frozenset(types)) for name, types in kinds.items()]


@pytest.fixture(scope="module")
def site(examples):
    page = build_page(Judge(), examples, editor=Artist(act))
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield address
    page.close(verbose=False)


@pytest.fixture
def broken(tmp_path):
    picture(LEFT, RIGHT).save(tmp_path / "broken.png")
    picture().save(tmp_path / "clean.png")
    for colour in ("blue", "lime", "yellow"):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{colour}.png")
    (tmp_path / "letter.png").write_text("Dear reader")
    return tmp_path


def repair(page: Page, path, caption: str, state: str) -> None:
    page.get_by_role("tab", name="Refine").click()
    if page.locator("#refine-picture input[type=file]").count() == 0:
        page.locator("#refine-picture").get_by_role("button", name="Remove Image").click()
    page.set_input_files("#refine-picture input[type=file]", path)
    expect(page.locator("#refine-picture img")).to_be_visible()
    page.fill("#refine-caption textarea", caption)
    page.click("#refine-run")
    expect(page.locator(f"#refine-verdict [data-state={state}]")).to_be_visible()


def test_a_broken_picture_gets_better_and_its_steps_are_told(site, visit, broken):  # noqa: F811
    page = visit(site)
    repair(page, broken / "broken.png", "grey", "better")
    expect(page.locator("#refine-verdict")).to_contain_text("2 defects before, none after; defect load 1.00 → 0.00")
    expect(page.locator("#refine-verdict")).to_contain_text("the model's own judgement")
    gone = page.locator("#refine-fates .sdg-fate.gone")
    expect(gone).to_have_count(2)
    expect(gone.first).to_contain_text("no longer found")
    expect(page.locator("#refine-facts")).to_contain_text("Seed 0 · found by eye · edited by hand")
    steps = page.locator("#refine-steps .sdg-step")
    expect(steps).to_have_count(2)
    expect(steps.first).to_be_hidden()
    page.locator("#refine-steps summary").click()
    expect(steps.first).to_contain_text("✓ kept")
    expect(page.locator("#refine-slider img")).to_have_count(2)
    expect(page.locator("#refine-stop")).to_have_count(0)
    with page.expect_download() as download:
        page.click("#refine-download")
    saved = Image.open(io.BytesIO(download.value.path().read_bytes()))
    assert (np.asarray(saved.convert("RGB")) == GREY).all()


def test_the_slider_shows_a_step_and_hides_the_frames(site, visit, broken):  # noqa: F811
    page = visit(site)
    repair(page, broken / "broken.png", "grey", "better")
    halves = page.locator("#refine-slider img")
    first = halves.first.get_attribute("src")
    page.locator("#refine-which").get_by_text("Step 2").click()
    expect(halves.first).not_to_have_attribute("src", first)
    second = halves.first.get_attribute("src")
    page.locator("#refine-frames input").uncheck()
    expect(halves.first).not_to_have_attribute("src", second)


def test_an_example_is_repaired_at_a_click_and_the_second_time_at_once(visit, examples):  # noqa: F811
    artist = Artist(act)
    page = build_page(Judge(), examples, editor=artist)
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        for _ in range(2):
            tab = visit(address)
            tab.get_by_role("tab", name="Refine").click()
            pictures = tab.locator("#refine-examples button")
            expect(pictures).to_have_count(1)  # the other one shows nothing that this editor repairs
            pictures.first.click()
            expect(tab.locator("#refine-verdict [data-state=better]")).to_be_visible()
            assert len(artist.tasks) == 1
        tab.click("#refine-another")
        expect(tab.locator("#refine-facts")).to_contain_text("Seed 1")
        assert len(artist.tasks) == 2
        expect(tab.locator("#refine-verdict [data-state=better]")).to_be_visible()
    finally:
        page.close(verbose=False)


def test_the_result_becomes_the_input(site, visit, broken):  # noqa: F811
    page = visit(site)
    repair(page, broken / "broken.png", "grey", "better")
    before = page.locator("#refine-picture img").get_attribute("src")
    page.click("#refine-again")
    expect(page.locator("#refine-picture img")).not_to_have_attribute("src", before)
    page.click("#refine-run")
    expect(page.locator("#refine-verdict")).to_contain_text("Nothing to repair")
    expect(page.locator("#refine-slider")).to_have_count(0)
    expect(page.locator("#refine-drawn img")).to_be_visible()


@pytest.mark.parametrize(
    ("file", "caption", "state", "words"),
    [
        ("clean.png", "grey", "clean", "as it was, to the bit"),
        ("broken.png", "refused", "same", "safety filter refused the picture"),
        ("yellow.png", "blue", "same", "1 defect found, but this editor repairs artifacts only"),
        ("blue.png", "grey", "unread", "not a clean picture: no list. Nothing was changed"),
        ("lime.png", "grey", "outside", "Nothing was changed"),
        ("letter.png", "grey", "failed", "'letter.png' is not an image"),
    ],
)
def test_what_is_not_repaired_says_why_and_looks_different(site, visit, broken, file, caption, state, words):  # noqa: F811
    page = visit(site)
    repair(page, broken / file, caption, state)
    expect(page.locator("#refine-verdict")).to_contain_text(words)
    for absent in ("#refine-slider", "#refine-download", "#refine-again", "#refine-stop"):
        expect(page.locator(absent)).to_have_count(0)
    expect(page.locator("#refine-drawn img")).to_have_count(0 if state in ("unread", "failed") else 1)


def test_stop_ends_it(site, visit, broken):  # noqa: F811
    page = visit(site)
    repair(page, broken / "broken.png", "slow", "busy")
    expect(page.locator("#refine-verdict")).to_contain_text("Repairing")
    page.click("#refine-stop")
    expect(page.locator("#refine-verdict")).to_contain_text("Stopped")
    expect(page.locator("#refine-stop")).to_have_count(0)
    page.fill("#refine-caption textarea", "grey")
    page.click("#refine-run")
    expect(page.locator("#refine-verdict")).to_contain_text("less wrong now", timeout=40_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(site, visit, broken, scheme):  # noqa: F811
    page = visit(site, PHONE, color_scheme=scheme)
    repair(page, broken / "broken.png", "grey", "better")
    page.locator("#refine-steps summary").click()
    expect(page.locator("#refine-steps .sdg-step").nth(1)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_program_gets_the_picture_and_what_was_done(site, broken):
    client = Client(site, verbose=False)
    file, said = client.predict(handle_file(broken / "broken.png"), "grey", api_name="/refine")
    path = file["path"] if isinstance(file, dict) else file
    assert (np.asarray(Image.open(path).convert("RGB")) == GREY).all()
    assert said["changed"]
    assert said["load"] == {"before": 1.0, "after": 0.0}
    with pytest.raises(Exception, match="rounds=99 is above 4"):
        client.predict(handle_file(broken / "broken.png"), "grey", rounds=99, api_name="/refine")
    with pytest.raises(Exception, match="seed=-1 is not a whole number"):
        client.predict(handle_file(broken / "broken.png"), "grey", seed=-1, api_name="/refine")


def test_a_page_without_an_editor_says_how_to_get_one(visit):  # noqa: F811
    page = build_page(Eye())
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        tab = visit(address)
        tab.get_by_role("tab", name="Refine").click()
        expect(tab.locator("#no-editor")).to_contain_text("SDG_EDITOR")
    finally:
        page.close(verbose=False)
