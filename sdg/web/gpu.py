"""Where a page borrows its GPU for every picture (ZeroGPU of Hugging Face Spaces); anywhere else nothing changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from PIL import Image

Function = TypeVar("Function", bound=Callable[..., Any])

LEAST, MOST, MOST_REFINING = 20, 120, 240
"""Seconds. ZeroGPU refuses to lend a GPU for more than about 300."""
EDIT = 6
"""Seconds that a large editor takes for a candidate."""


def placed(endpoint: str | None = None) -> dict[str, Any]:
    """Where a model goes when it is loaded: options of :func:`~sdg.detector.load_detector`, none off ZeroGPU.

    There models are put on ``cuda`` when the page starts, before there is a GPU, and no later than that.

    Args:
        endpoint: address of the server that has the model, or None where it is loaded here.
    """
    zero = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")
    return {"device_map": "cuda"} if zero and not endpoint else {}


def placed_editor(name: str, endpoint: str | None = None) -> dict[str, Any]:
    """Where an editor goes when it is loaded: options of :func:`~sdg.refine.loading.load_editor`, as :func:`placed`.

    Args:
        name: of the editor. The embedded one is as quick on a CPU and stays there.
        endpoint: address of the server that has it, or None where it is loaded here.
    """
    return {"device": "cuda"} if placed(endpoint) and name != "sdg-tiny-t2i" else {}


def on_gpu(function: Function, duration: Callable[..., int] | None = None) -> Function:
    """The function as ZeroGPU runs it, with a GPU for as long as ``duration`` says; as it is without ``spaces``.

    Args:
        function: of a model's name, a picture, a caption and more. It runs in a process of its own: what it is given,
            returns or yields goes through pickle, so that a model is named and not handed over. What it raises arrives
            as the name of its class: what a visitor is to read is checked before.
        duration: seconds that a call needs, by the same arguments; None is :func:`seconds`.
    """
    try:
        import spaces
    except ImportError:
        return function
    decorate = getattr(spaces, "GPU", None)  # a folder called `spaces` is no such package
    return function if decorate is None else decorate(duration=duration or seconds)(function)


def seconds(name: str | None, image: Image.Image, caption: str) -> int:
    """How long a GPU is asked for: less for a small picture and a short caption, so that visitors wait less.

    Args:
        name: of the model; not looked at.
        image: RGB; models see it at 1024 pixels of the longer side at most.
        caption: every 100 characters are about one more sentence that the model thinks about.
    """
    return int(min(MOST, LEAST + _looking(image, caption)))


def refining_seconds(name: str | None, image: Image.Image, caption: str, options: Mapping[str, Any], *_: Any) -> int:
    """How long a GPU is asked for to repair a picture: more for more rounds and candidates.

    Args:
        name: of the model; not looked at.
        image: RGB.
        caption: of the picture.
        options: ``rounds`` and ``candidates`` of :class:`~sdg.refine.DefectRefiner`; one place to repair is reckoned
            with, since what there is to repair is not known yet.
    """
    edits = options["rounds"] * options["candidates"]
    # Candidates are looked at together, which costs less than one after another.
    return int(min(MOST_REFINING, LEAST + _looking(image, caption) * (1 + edits / 8) + EDIT * edits))


def _looking(image: Image.Image, caption: str) -> float:
    """Seconds that a large model needs for one picture."""
    shrunk = min(1.0, 1024 / max(image.size))
    megapixels = image.width * image.height * shrunk**2 / 2**20
    return 40 * megapixels + len(caption) / 20
