"""Pictures as people bring them, to RGB of a size that a model can take."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000
"""More pixels than this are refused before they are decoded: a small file can unpack to gigabytes."""
MIN_SIDE = 8
MAX_ASPECT = 50
"""Longer side over shorter side. Image processors refuse more than 200, and at 50 little is left to see."""
LONGER_SIDE = 1024
"""Pictures are scaled down to this, as in training (App. D)."""


class ImageError(ValueError):
    """A picture that cannot be used; the message is one sentence that says why."""


def open_image(source: Any) -> Image.Image:
    """A picture as RGB, upright, in its full size (:func:`fit` scales it down).

    Args:
        source: a PIL image, a path, the bytes of an image file, or an array (height, width), (height, width, 3 or 4);
            uint8 in 0..255, uint16 in 0..65535, or floats in 0..1. Of an animation the first frame counts;
            transparency is laid on white. An address is not fetched.

    Raises:
        ImageError: saying in one sentence what is wrong.
    """
    image, what = _load(source)
    _check_size(image.size, what)
    try:
        image.load()
        return _rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Exception as error:  # decoders raise what they like: OSError, SyntaxError, struct.error, ValueError
        raise ImageError(f"{what} is damaged or cut off ({error})") from error


def fit(image: Image.Image, longer_side: int = LONGER_SIDE) -> Image.Image:
    """The picture scaled down, aspect ratio kept, until its longer side is at most ``longer_side`` pixels."""
    size = fitted_size(image.size, longer_side)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def fitted_size(size: tuple[int, int], longer_side: int = LONGER_SIDE) -> tuple[int, int]:
    """The (width, height) that :func:`fit` gives a picture of ``size``."""
    scale = min(1, longer_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _load(source: Any) -> tuple[Image.Image, str]:
    """The picture, not decoded yet where it comes from a file, and how messages name it."""
    if isinstance(source, Image.Image):
        return source, "the image"
    if isinstance(source, np.ndarray):
        return _from_array(source), "the array"
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        if isinstance(text, str) and text.split("://")[0] in ("http", "https", "ftp", "s3", "hf", "data"):
            raise ImageError(
                f"{text!r:.80} is an address, and addresses are not fetched: download it and give the path"
            )
        path = Path(os.fsdecode(text))
        if not path.is_file():
            raise ImageError(f"{str(path)!r} is not a file")
        return _open(path, repr(str(path)))
    if isinstance(source, bytes | bytearray | memoryview):
        return _open(io.BytesIO(bytes(source)), f"the image of {len(source)} bytes")
    raise ImageError(f"{type(source).__name__} is not a picture: give a PIL image, a path, bytes or an array")


def _open(file: Path | io.BytesIO, what: str) -> tuple[Image.Image, str]:
    try:
        with warnings.catch_warnings():
            # Pillow's own bound warns at 90 and raises at 180 megapixels; ours is checked below, from the header.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(file), what
    except Image.DecompressionBombError:
        raise ImageError(f"{what} holds more than {MAX_PIXELS // 10**6} million pixels: scale it down") from None
    except UnidentifiedImageError:
        raise ImageError(f"{what} is not an image that Pillow can read") from None
    except Exception as error:
        raise ImageError(f"{what} cannot be opened ({error})") from error


def _check_size(size: tuple[int, int], what: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{what} is {width}x{height}, more than {MAX_PIXELS // 10**6} million pixels: scale it down")
    if min(size) < MIN_SIDE:
        raise ImageError(f"{what} is {width}x{height}, too small to look at: each side needs {MIN_SIDE} pixels")
    if max(size) > MAX_ASPECT * min(size):
        raise ImageError(f"{what} is {width}x{height}, longer than {MAX_ASPECT}:1: cut it into pieces")


def _rgb(image: Image.Image) -> Image.Image:
    """The picture as RGB; it keeps its colour profile where that is one of RGB."""
    if image.mode == "RGB":
        return image
    converted = _converted(image)
    converted.info.pop("icc_profile", None)
    if image.mode in ("RGBA", "RGBa", "RGBX", "P", "PA") and "icc_profile" in image.info:
        converted.info["icc_profile"] = image.info["icc_profile"]
    return converted


def _converted(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _from_array(np.asarray(image)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info or image.mode in ("La", "RGBa"):
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(f"an array of shape {array.shape} is not (height, width) or (height, width, 3 or 4)")
    if array.size == 0:
        raise ImageError(f"an array of shape {array.shape} holds no pixel")
    return Image.fromarray(_eight_bit(array))


def _eight_bit(array: np.ndarray) -> np.ndarray:
    """Grey or colour values to 0..255: floats from 0..1, wide integers from 0..65535, bytes as they are."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError("the picture holds values that are not finite numbers")
    low, high = values.min(), values.max()
    if np.issubdtype(array.dtype, np.floating) and low >= 0 and high <= 1:
        scale = 255.0
    elif low >= 0 and high <= 255 and array.dtype != np.uint16:
        scale = 1.0
    elif low >= 0 and high <= 65535:
        scale = 255 / 65535
    else:
        raise ImageError(f"the picture holds values from {low:g} to {high:g}: give 0..1, 0..255 or 0..65535")
    return np.floor(values * scale + 0.5).astype(np.uint8)
