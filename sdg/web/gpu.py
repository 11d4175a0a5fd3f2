"""Where a page borrows its GPU for every picture (ZeroGPU of Hugging Face Spaces); anywhere else nothing changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from PIL import Image

Function = TypeVar("Function", bound=Callable[..., Any])

LEAST, MOST = 20, 120
"""Seconds."""


def placed(endpoint: str | None = None) -> dict[str, Any]:
    """Where a model goes when it is loaded: options of :func:`~sdg.detector.load_detector`, none off ZeroGPU.

    There models are put on ``cuda`` when the page starts, before there is a GPU, and no later than that.

    Args:
        endpoint: address of the server that has the model, or None where it is loaded here.
    """
    zero = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")
    return {"device_map": "cuda"} if zero and not endpoint else {}


def on_gpu(function: Function) -> Function:
    """The function as ZeroGPU runs it, with a GPU for as long as :func:`seconds` says; as it is without ``spaces``.

    Args:
        function: of a model's name, a picture and a caption. It runs in a process of its own: what it is given and
            returns must be small, so that a model is named and not handed over.
    """
    try:
        import spaces
    except ImportError:
        return function
    decorate = getattr(spaces, "GPU", None)  # a folder called `spaces` is no such package
    return function if decorate is None else decorate(duration=seconds)(function)


def seconds(name: str | None, image: Image.Image, caption: str) -> int:
    """How long a GPU is asked for: less for a small picture and a short caption, so that visitors wait less.

    Args:
        name: of the model; not looked at.
        image: RGB; models see it at 1024 pixels of the longer side at most.
        caption: every 100 characters are about one more sentence that the model thinks about.
    """
    shrunk = min(1.0, 1024 / max(image.size))
    megapixels = image.width * image.height * shrunk**2 / 2**20
    return int(min(MOST, LEAST + 40 * megapixels + len(caption) / 20))
