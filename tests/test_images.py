"""Pictures as people bring them: what is mended, and what is refused in a sentence."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdg.engines.images import LONGER_SIDE, MAX_ASPECT, ImageError, fit, open_image

RED = (200, 30, 40)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixel."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def rotated() -> bytes:
    """20 x 10, stored on its side: the viewer has to turn it by a quarter."""
    image = Image.new("RGB", (20, 10), RED)
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif)


def animated(format: str) -> bytes:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 0, 255))]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100, lossless=True)


def palette_with_hole() -> bytes:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([0, 0, 0, *RED])
    image.paste(1, (0, 0, 8, 16))
    return encoded(image, transparency=0)


GREY16 = Image.fromarray(np.full((16, 16), 32896, np.uint16))
CASES = {
    "rgb": (encoded(Image.new("RGB", (16, 16), RED)), (16, 16), RED),
    "grey": (encoded(Image.new("L", (16, 16), 90)), (16, 16), (90, 90, 90)),
    "one bit": (encoded(Image.new("1", (16, 16), 1)), (16, 16), (255, 255, 255)),
    "16 bit": (encoded(GREY16), (16, 16), (128, 128, 128)),
    "32 bit": (Image.fromarray(np.full((16, 16), 32896, np.int32)), (16, 16), (128, 128, 128)),
    "float": (Image.fromarray(np.full((16, 16), 0.5, np.float32)), (16, 16), (128, 128, 128)),
    "clear": (encoded(Image.new("RGBA", (16, 16), (*RED, 0))), (16, 16), (255, 255, 255)),
    "opaque": (encoded(Image.new("RGBA", (16, 16), (*RED, 255))), (16, 16), RED),
    "grey alpha": (encoded(Image.new("LA", (16, 16), (0, 0))), (16, 16), (255, 255, 255)),
    "palette": (palette_with_hole(), (16, 16), RED),
    "cmyk": (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), (16, 16), (255, 0, 0)),
    "gif": (animated("GIF"), (16, 16), RED),
    "webp": (animated("WEBP"), (16, 16), RED),
    "array": (np.full((16, 24, 3), 7, np.uint8), (24, 16), (7, 7, 7)),
    "grey array": (np.full((16, 24), 7, np.uint8), (24, 16), (7, 7, 7)),
    "one channel": (np.full((16, 24, 1), 7, np.uint8), (24, 16), (7, 7, 7)),
    "bool array": (np.ones((16, 16), bool), (16, 16), (255, 255, 255)),
    "float array": (np.full((16, 16, 3), 1.0), (16, 16), (255, 255, 255)),
    "float array of bytes": (np.full((16, 16, 3), 7.0), (16, 16), (7, 7, 7)),
    "uint16 array": (np.full((16, 16, 3), 32896, np.uint16), (16, 16), (128, 128, 128)),
    "dark uint16 array": (np.full((16, 16, 3), 200, np.uint16), (16, 16), (1, 1, 1)),
    "alpha array": (np.zeros((16, 16, 4), np.uint8), (16, 16), (255, 255, 255)),
    "limit of aspect": (Image.new("RGB", (MAX_ASPECT * 10, 10), RED), (MAX_ASPECT * 10, 10), RED),
}


@pytest.mark.parametrize(("source", "size", "pixel"), CASES.values(), ids=CASES)
def test_a_usable_picture_becomes_rgb(source, size, pixel):
    image = open_image(source)
    assert image.mode == "RGB"
    assert image.size == size
    assert np.abs(np.subtract(image.getpixel((2, 2)), pixel)).max() <= 2


def test_a_hole_in_a_palette_is_laid_on_white():
    assert open_image(palette_with_hole()).getpixel((12, 2)) == (255, 255, 255)


def test_a_cmyk_jpeg_file_is_read(tmp_path):
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path)
    assert open_image(path).getpixel((2, 2))[0] > 200


def test_a_picture_on_its_side_is_turned_upright():
    assert open_image(rotated()).size == (10, 20)


REFUSED = {
    "text": (b"This is no picture.", "not an image"),
    "empty": (b"", "not an image"),
    "cut jpeg": (encoded(Image.effect_noise((64, 64), 90), "JPEG")[:900], "damaged or cut off"),
    "cut png": (encoded(Image.effect_noise((64, 64), 90))[:900], "damaged or cut off"),
    "1x1": (Image.new("RGB", (1, 1)), "1x1, too small"),
    "thin": (Image.new("RGB", (400, 7)), "400x7, too small"),
    "20000x10": (encoded(Image.new("RGB", (20000, 10))), "20000x10, longer than 50:1"),
    "10x20000": (encoded(Image.new("RGB", (10, 20000))), "10x20000, longer than 50:1"),
    "bomb": (png_header(60_000, 60_000), "more than 100 million pixels"),
    "half a bomb": (png_header(11_000, 11_000), "11000x11000, more than 100 million pixels"),
    "address": ("https://example.org/a.png", "not fetched"),
    "absent": ("no/such/picture.png", "is not a file"),
    "none": (None, "NoneType is not a picture"),
    "number": (7, "int is not a picture"),
    "vector": (np.zeros(16), r"shape \(16,\)"),
    "five channels": (np.zeros((16, 16, 5)), r"shape \(16, 16, 5\)"),
    "no pixel": (np.zeros((0, 16, 3), np.uint8), "holds no pixel"),
    "nan": (np.full((16, 16), np.nan), "not finite"),
    "negative": (np.full((16, 16), -1.0), "values from -1 to -1"),
}


@pytest.mark.parametrize(("source", "message"), REFUSED.values(), ids=REFUSED)
def test_an_unusable_picture_is_refused_in_a_sentence(source, message):
    with pytest.raises(ImageError, match=message) as caught:
        open_image(source)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_file_is_named_in_the_refusal(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    with pytest.raises(ImageError, match=r"notes\.png"):
        open_image(str(path))
    with pytest.raises(ImageError, match="is not a file"):
        open_image(Path(tmp_path))


@settings(deadline=None, max_examples=30)
@given(st.integers(8, 3000), st.integers(8, 3000))
def test_fit_bounds_the_longer_side_and_keeps_the_aspect(width, height):
    image = fit(Image.new("L", (width, height)))
    assert max(image.size) <= LONGER_SIDE
    scale = min(1, LONGER_SIDE / max(width, height))
    assert abs(image.width - width * scale) <= 1
    assert abs(image.height - height * scale) <= 1


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF"]))
def test_no_bytes_raise_anything_but_image_error(data, magic):
    with contextlib.suppress(ImageError):
        assert open_image(magic + data).mode == "RGB"


@pytest.mark.parametrize(
    ("mode", "kept"), [("RGB", True), ("RGBA", True), ("P", True), ("L", False), ("LA", False), ("CMYK", False)]
)
def test_a_colour_profile_is_carried_on_where_it_is_one_of_rgb(mode, kept):
    image = Image.new("RGB", (40, 30), "teal").convert(mode)
    image.info["icc_profile"] = b"a profile"
    assert open_image(image).info.get("icc_profile") == (b"a profile" if kept else None)
    assert image.info["icc_profile"] == b"a profile"
