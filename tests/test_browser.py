"""The page as a person meets it, in a real headless Chromium."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from scripted_detector import ScriptedDetector

from sdg import embedded
from sdg.web import build_page, launch_options, microworld_examples

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[1]
expect.set_options(timeout=20_000)  # of milliseconds; a busy machine draws a page in ten seconds
DESKTOP, PHONE = {"width": 1320, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def chromium():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        message = "no Chromium on this machine (on Debian: apt-get install chromium)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url():
    page = build_page(ScriptedDetector(), microworld_examples(2))
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield address
    page.close(verbose=False)


@pytest.fixture
def visit(chromium):
    """Opens a page; in the end no visit may have met an error, or asked anything of another host."""
    contexts, errors, hosts = [], [], set()

    def go(address: str, viewport: dict = DESKTOP, **options) -> Page:
        context = chromium.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: hosts.add(re.sub(r"^(\w+):(//([^:/]+))?.*", r"\3", request.url, flags=re.S)))
        page.goto(address)
        expect(page.locator("#run")).to_be_visible()
        return page

    yield go
    for context in contexts:
        context.close()
    assert errors == []
    assert hosts <= {"127.0.0.1", ""}


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (300, 200), "grey").save(path)
    return path


def detect(page: Page, picture: Path, caption: str, state: str) -> None:
    """Upload, describe, run, and wait for the verdict."""
    if page.locator("#picture input[type=file]").count() == 0:
        page.get_by_role("button", name="Remove Image").click()
    page.set_input_files("#picture input[type=file]", picture)
    expect(page.locator("#picture img")).to_be_visible()
    page.fill("#caption textarea", caption)
    page.click("#run")
    expect(page.locator(f"[data-state={state}]")).to_be_visible(timeout=20_000)


def test_a_picture_is_uploaded_and_its_defects_are_read(url, visit, picture):
    page = visit(url)
    detect(page, picture, "a red house", "found")
    rows = page.locator(".sdg-table tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("the <b>house</b> is blue, not red")
    expect(rows.nth(0)).to_contain_text("critical")
    expect(rows.nth(1)).to_contain_text("the chimney melts")
    expect(page.locator(".sdg-reasoning.done")).to_contain_text("the chimney <melts>")
    expect(page.locator("#drawn .sdg-legend")).to_be_visible()
    drawn = page.locator("#drawn img")
    expect(drawn).to_be_visible()
    assert drawn.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [300, 200]
    expect(page.locator("#drawn g[data-defect]")).to_have_count(2)
    page.locator("#json").get_by_text("JSON").click()
    expect(page.locator("#json .cm-content")).to_contain_text('"box": [50, 200, 900, 950]')


def test_the_json_is_copied_whole(url, visit, picture):
    page = visit(url, permissions=["clipboard-read", "clipboard-write"])
    detect(page, picture, "a red house", "found")
    page.locator("#json").get_by_text("JSON").click()
    page.locator("#json").get_by_role("button", name=re.compile("copy", re.I)).click()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert [defect["importance"] for defect in copied["defects"]] == [30, 92]


@pytest.mark.parametrize(
    ("caption", "state", "words"),
    [
        ("clean", "clean", "No defect found"),
        ("unreadable", "unread", "could not be read"),
        ("broken", "failed", "The model failed on this picture"),
    ],
)
def test_the_other_outcomes_look_different(url, visit, picture, caption, state, words):
    page = visit(url)
    detect(page, picture, caption, state)
    expect(page.locator("#verdict")).to_contain_text(words)
    expect(page.locator(".sdg-table")).to_have_count(0)
    expect(page.locator("#drawn img")).to_have_count(1 if state == "clean" else 0)
    if state == "unread":
        expect(page.locator(".sdg-reasoning.raw")).to_contain_text("say <script>alert(1)</script> ${1+1} {{value}}")
    if state == "failed":
        expect(page.get_by_test_id("toast-body")).to_contain_text(words)


def test_a_failure_leaves_nothing_of_the_answer_before(url, visit, picture):
    page = visit(url)
    detect(page, picture, "a red house", "found")
    page.fill("#caption textarea", "broken")
    page.click("#run")
    expect(page.locator("[data-state=failed]")).to_be_visible()
    for trace in (".sdg-table", "#drawn img", ".sdg-words", ".sdg-legend", "#json", "#raw", "#take-json"):
        expect(page.locator(trace)).to_have_count(0)


def test_what_is_no_picture_is_refused_in_a_sentence(url, visit, tmp_path):
    page = visit(url)
    (tmp_path / "letter.png").write_text("Dear reader")
    page.set_input_files("#picture input[type=file]", tmp_path / "letter.png")
    expect(page.locator("#picture img")).to_have_count(1)
    page.click("#run")
    expect(page.locator("[data-state=failed]")).to_contain_text("'letter.png' is not an image")


def test_a_very_long_caption_is_cut_with_a_warning(url, visit, picture):
    page = visit(url)
    detect(page, picture, "clean " * 2000, "found")
    expect(page.get_by_test_id("toast-body")).to_contain_text("The caption is long")


def test_running_without_a_picture_says_what_is_missing(url, visit):
    page = visit(url)
    page.click("#run")
    expect(page.locator("[data-state=failed]")).to_contain_text("upload one or choose an example")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(url, visit, picture, scheme):
    page = visit(url, PHONE, color_scheme=scheme)

    def widest() -> int:
        return page.evaluate("document.documentElement.scrollWidth")

    assert widest() == 390
    detect(page, picture, "a red house", "found")
    expect(page.locator(".sdg-table tbody tr").nth(1)).to_contain_text("minor")
    page.locator("#json").get_by_text("JSON").click()
    expect(page.locator("#json .cm-content")).to_be_visible()
    assert widest() == 390
    page.get_by_role("tab", name="About").click()
    expect(page.get_by_text("What a defect is")).to_be_visible()
    assert widest() == 390
    light = sum(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]))
    assert (light > 382) is (scheme == "light")


@pytest.mark.slow
@pytest.mark.skipif(not (embedded.ROOT / "sdg-tiny").is_dir(), reason="the embedded checkpoint is not in this tree")
def test_the_app_serves_the_embedded_detector(visit, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k not in ("SDG_MODEL", "HF_HUB_OFFLINE")}
    environment |= {"GRADIO_SERVER_PORT": str(port), "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    log = (tmp_path / "log").open("w+")
    app = subprocess.Popen(
        [sys.executable, str(ROOT / "app.py")], env=environment, cwd=tmp_path, stdout=log, stderr=log
    )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            assert app.poll() is None, (tmp_path / "log").read_text()
            try:
                urllib.request.urlopen(f"{address}/config", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        page = visit(address)
        expect(page.locator("#notice")).to_contain_text("outside its world")
        page.locator("#examples button").first.click()
        expect(page.locator("[data-state=found], [data-state=clean]")).to_be_visible(timeout=60_000)
        expect(page.locator(".sdg-reasoning.done .sdg-words")).not_to_be_empty()
        page.close()  # it would complain of the server's end
    finally:
        app.terminate()
        app.wait(20)
        log.close()
