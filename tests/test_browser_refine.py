"""The Refine tab in a real headless Chromium: a broken picture is mended, one that cannot be is left as it was."""

import io
import time

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import Page, expect
from refine_hands import GREY, LEFT, RIGHT, Eye, Hand, mend, picture
from test_browser import PHONE, chromium, visit  # noqa: F401  (fixtures)

from sdg.refine import EditError
from sdg.web import build_page, launch_options, microworld_examples

pytestmark = pytest.mark.browser


def act(task, seed):
    """Mends; a slow one while the caption says so, none while it says that, and an error."""
    if task.caption == "slow":
        time.sleep(0.5)
    if task.caption == "refused":
        return EditError("its safety filter refused the picture")
    return mend(task, seed)


@pytest.fixture(scope="module")
def site():
    page = build_page(Eye(), microworld_examples(2), editor=Hand(act))
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield address
    page.close(verbose=False)


@pytest.fixture
def broken(tmp_path):
    picture(LEFT, RIGHT).save(tmp_path / "broken.png")
    picture().save(tmp_path / "clean.png")
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


def test_a_broken_picture_is_mended_and_its_steps_are_told(site, visit, broken):  # noqa: F811
    page = visit(site)
    repair(page, broken / "broken.png", "grey", "clean")
    expect(page.locator("#refine-verdict")).to_contain_text("Repaired: defect load 1.00 → 0.00")
    steps = page.locator("#refine-steps .sdg-step")
    expect(steps).to_have_count(2)
    expect(steps.first).to_contain_text("✓ repaired")
    expect(page.locator("#refine-slider img")).to_have_count(2)
    expect(page.locator("#refine-stop")).to_have_count(0)
    page.locator("#refine-which").get_by_text("Step 2").click()
    expect(page.locator("#refine-slider img")).to_have_count(2)
    with page.expect_download() as download:
        page.click("#refine-download")
    saved = Image.open(io.BytesIO(download.value.path().read_bytes()))
    assert (np.asarray(saved.convert("RGB")) == GREY).all()


def test_the_result_becomes_the_input(site, visit, broken):  # noqa: F811
    page = visit(site)
    repair(page, broken / "broken.png", "grey", "clean")
    before = page.locator("#refine-picture img").get_attribute("src")
    page.click("#refine-again")
    expect(page.locator("#refine-picture img")).not_to_have_attribute("src", before)
    page.click("#refine-run")
    expect(page.locator("#refine-verdict")).to_contain_text("Nothing to repair")


@pytest.mark.parametrize(
    ("file", "caption", "state", "words"),
    [
        ("clean.png", "grey", "clean", "as it was, to the bit"),
        ("broken.png", "refused", "found", "safety filter refused the picture"),
        ("letter.png", "grey", "failed", "'letter.png' is not an image"),
    ],
)
def test_what_is_not_repaired_says_why(site, visit, broken, file, caption, state, words):  # noqa: F811
    page = visit(site)
    repair(page, broken / file, caption, state)
    expect(page.locator("#refine-verdict")).to_contain_text(words)


def test_stop_ends_it(site, visit, broken):  # noqa: F811
    page = visit(site)
    repair(page, broken / "broken.png", "slow", "busy")
    expect(page.locator("#refine-verdict")).to_contain_text("Repairing")
    page.click("#refine-stop")
    expect(page.locator("#refine-verdict")).to_contain_text("Stopped")
    expect(page.locator("#refine-stop")).to_have_count(0)
    page.fill("#refine-caption textarea", "grey")
    page.click("#refine-run")
    expect(page.locator("#refine-verdict")).to_contain_text("Repaired", timeout=40_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(site, visit, broken, scheme):  # noqa: F811
    page = visit(site, PHONE, color_scheme=scheme)
    repair(page, broken / "broken.png", "grey", "clean")
    expect(page.locator("#refine-steps .sdg-step")).to_have_count(2)
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
