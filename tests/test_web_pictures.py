"""Whatever people bring as a picture ends in an answer or in a sentence; what is shown is what the model saw."""

import base64
import io
import re
import struct
import time
import zlib

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from scripted_detector import ScriptedDetector

from sdg.defects import Defect, DefectSet
from sdg.web import Models, result
from sdg.web.detect import _runner
from sdg.web.examples import Kept
from sdg.web.places import while_wanted

RED, BLUE = (200, 20, 20), (20, 20, 200)


class Watching(ScriptedDetector):
    """Remembers the picture that it was given."""

    seen = None

    def stream(self, image, caption=None):
        self.seen = image
        return super().stream(image, caption)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Hands a file to the tab as the browser does; the model's picture and the last view of the tab come back."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))

    def go(content: bytes, name: str = "picture.png", caption: str = "a red house"):
        (tmp_path / name).write_bytes(content)
        detector, views = Watching(), []
        run = _runner(Models(detector), Kept([]))
        try:
            for view in run({"path": str(tmp_path / name), "orig_name": name}, caption, None):
                views.append(view)
        except gr.Error as error:
            return detector.seen, views[-1], str(error.message)
        return detector.seen, views[-1], None

    return go


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def shown(view) -> Image.Image:
    """The picture inside the tab's HTML."""
    data = re.search(r"base64,([\w+/=]+)", view["picture"]["value"])[1]
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def halves(mode: str = "RGB", size: tuple[int, int] = (64, 32)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image.convert(mode)


def turned() -> bytes:
    """Stored on its side, with a note that says so: a viewer shows it red on the left."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(halves().rotate(90, expand=True), "JPEG", exif=exif, quality=95)


def sixteen_bits() -> bytes:
    ramp = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    return encoded(Image.fromarray(ramp), "TIFF")


def animation() -> bytes:
    return encoded(halves(), "GIF", save_all=True, append_images=[Image.new("RGB", (64, 32), "white")])


def transparent() -> bytes:
    image = halves("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    return encoded(image)


def bomb(width: int, height: int) -> bytes:
    """A small file that claims to hold a large picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "left", "right"),
    [
        (encoded(halves()), RED, BLUE),
        (encoded(halves(size=(640, 320)), "JPEG", quality=95), RED, BLUE),
        (encoded(halves("CMYK"), "JPEG", quality=95), RED, BLUE),
        (encoded(halves("P")), RED, BLUE),
        (encoded(halves("RGBA")), RED, BLUE),
        (encoded(halves(), "WEBP", lossless=True), RED, BLUE),
        (turned(), RED, BLUE),
        (animation(), RED, BLUE),
        (transparent(), (255, 255, 255), (255, 255, 255)),
        (sixteen_bits(), (127, 127, 127), (127, 127, 127)),
    ],
    ids=["png", "jpeg", "cmyk", "palette", "alpha", "webp", "exif", "animated", "transparent", "16-bit"],
)
def test_the_picture_shown_is_the_one_that_the_model_saw(ask, content, left, right):
    seen, view, error = ask(content)
    assert error is None
    assert 'data-state="found"' in view["verdict"]
    on_page = shown(view)
    assert on_page.size == seen.size
    width, height = seen.size
    assert width == 2 * height
    for picture in (seen, on_page):
        for x, colour in ((width // 4, left), (3 * width // 4, right)):
            assert np.abs(np.array(picture.getpixel((x, height // 2))) - colour).max() < 40


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"Dear reader", "'picture.png' is not an image that Pillow can read"),
        (b"", "'picture.png' is not an image that Pillow can read"),
        (encoded(halves())[:60], "'picture.png' is damaged or cut off"),
        (encoded(halves(size=(640, 320)), "JPEG")[:900], "'picture.png' is damaged or cut off"),
        (encoded(Image.new("RGB", (1, 1))), "is 1x1, too small to look at: each side needs 8 pixels"),
        (encoded(Image.new("RGB", (20000, 10))), "is 20000x10, longer than 50:1: cut it into pieces"),
        (bomb(20000, 20000), "more than 100 million pixels: scale it down"),
        (bomb(60000, 60000), "more than 100 million pixels: scale it down"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "is not an image"),
    ],
    ids=["text", "empty", "truncated-png", "truncated-jpeg", "1x1", "20000x10", "bomb", "larger-bomb", "svg"],
)
def test_what_cannot_be_looked_at_is_refused_in_a_sentence(ask, tmp_path, content, sentence):
    seen, view, error = ask(content)
    assert seen is None
    assert sentence in error
    assert str(tmp_path) not in error
    assert 'data-state="failed"' in view["verdict"]
    assert "<img" not in view["picture"]["value"]
    assert view["stop"]["visible"] is False


def test_a_question_that_was_replaced_stops_the_model(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr("sdg.web.detect.REFRESH", 0)
    (tmp_path / "a.png").write_bytes(encoded(halves()))
    detector, read = Watching(), []
    run = _runner(Models(detector), Kept([]))
    asked = run({"path": str(tmp_path / "a.png")}, "slowly", None, lambda: len(read) < 2)
    for view in asked:
        read += ["words"] if sorted(view) == ["words"] else []
    assert len(read) == 2
    ((_, stream),) = detector.streams
    until = time.monotonic() + 20
    while not stream.closed and time.monotonic() < until:  # the model's thread ends at its next word
        time.sleep(0.01)
    assert stream.closed
    assert not stream.ended
    assert list(run({"path": str(tmp_path / "a.png")}, "clean", None, lambda: False)) == []


def test_a_question_that_was_replaced_and_fails_leaves_the_new_one_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "a.png").write_bytes(encoded(halves()))
    run = _runner(Models(ScriptedDetector()), Kept([]))
    views = []
    for view in run({"path": str(tmp_path / "a.png")}, "broken", None, lambda: not views):
        views.append(view)
    assert [sorted(view) for view in views] == [["picture", "verdict", "words"]]


def test_the_last_view_of_a_stopped_question_says_nothing():
    views, shown = ({"verdict": number} for number in range(9)), []
    for view in while_wanted(views, lambda: len(shown) < 2, {}):
        shown.append(view)
    assert shown == [{"verdict": 0}, {"verdict": 1}, {}]
    assert list(views) == []  # closed


def test_large_pictures_are_sent_small():
    page = result.picture(Image.effect_noise((3000, 2000), 90).convert("RGB"), DefectSet())
    assert "aspect-ratio:3000/2000" in page
    assert len(page) < 1_500_000


def test_frames_lie_where_the_boxes_are_and_large_ones_below():
    found = DefectSet(
        (Defect((400, 400, 500, 480), "artifact", "x", 30), Defect((100, 0, 1000, 900), "misalignment", "y", 90))
    )
    page = result.picture(halves(), found)
    frames = re.findall(r'<g class="(\w+)" data-defect="(\d)".*?<rect (.*?)/>', page)
    assert frames == [
        ("misalignment", "1", 'x="100" y="0" width="900" height="900"'),
        ("artifact", "2", 'x="400" y="400" width="100" height="80"'),
    ]
    assert re.findall(r'<span class="sdg-tag \w+".*?>(\d)<', page) == ["1", "2"]
