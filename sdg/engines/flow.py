"""Many pictures through an engine: opened when their turn comes, answered in batches or many at a time, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future
from itertools import islice
from typing import Any

from PIL import Image

from sdg.engines.base import Engine, Generation
from sdg.engines.images import ImageError, fit, open_image

Opened = tuple[Image.Image | ImageError, str | None]
"""A picture as RGB, or why it cannot be used, and its caption."""

Answered = tuple[Image.Image | ImageError, str | None, Generation | None]
"""The same, and the answer; None where the picture cannot be used."""


def pairs(images: Iterable[Any], captions: Any) -> Iterable[tuple[Any, str | None]]:
    """Each picture with its caption.

    Raises:
        ValueError: for one caption for many pictures, and for lists of unlike length.
    """
    if captions is None:
        return ((image, None) for image in images)
    if isinstance(captions, str):
        raise ValueError(f"captions={captions!r:.60} is one caption for many pictures: give a list, one a picture")
    if isinstance(images, Sized) and isinstance(captions, Sized) and len(images) != len(captions):
        raise ValueError(f"{len(images)} images but {len(captions)} captions")
    return zip(images, captions, strict=True)


def answered(
    engine: Engine,
    pictures: Iterable[tuple[Any, str | None]],
    write_prompt: Callable[[str | None], str],
    batch_size: int,
    stop_at_error: bool,
) -> Iterator[Answered]:
    """The answer to each picture, in order; it is handed out as soon as it and those before it are ready.

    Args:
        engine: one with ``submit`` works on many at a time and needs no batch.
        pictures: pictures as :func:`~sdg.engines.images.open_image` takes them, with captions; read as they are needed.
        write_prompt: the instruction for a caption.
        batch_size: pictures of one call of ``generate``.
        stop_at_error: end with the first picture that cannot be used.
    """
    opened = _opened(pictures, stop_at_error)
    submit = getattr(engine, "submit", None)
    if submit is None:
        return _in_batches(engine, opened, write_prompt, batch_size)
    # Twice as many are begun as are worked on, so that the slow one at the head keeps nobody waiting.
    return _in_flight(submit, opened, write_prompt, ahead=2 * engine.concurrency)  # type: ignore[attr-defined]


def _opened(pictures: Iterable[tuple[Any, str | None]], stop_at_error: bool) -> Iterator[Opened]:
    for source, caption in pictures:
        image: Image.Image | ImageError
        try:
            image = open_image(source)
        except ImageError as error:
            image = error
        yield image, caption
        if stop_at_error and isinstance(image, ImageError):
            return


def _in_batches(
    engine: Engine, opened: Iterator[Opened], write_prompt: Callable[[str | None], str], batch_size: int
) -> Iterator[Answered]:
    while batch := list(islice(opened, batch_size)):
        usable = [(image, caption) for image, caption in batch if isinstance(image, Image.Image)]
        images = [fit(image) for image, _ in usable]
        answers = iter(engine.generate(images, [write_prompt(caption) for _, caption in usable]) if usable else ())
        for image, caption in batch:
            yield image, caption, next(answers) if isinstance(image, Image.Image) else None


def _in_flight(
    submit: Callable[[Image.Image, str], Future[Generation]],
    opened: Iterator[Opened],
    write_prompt: Callable[[str | None], str],
    ahead: int,
) -> Iterator[Answered]:
    begun: deque[tuple[Image.Image | ImageError, str | None, Future[Generation] | None]] = deque()
    try:
        while True:
            for image, caption in islice(opened, ahead - len(begun)):
                future = submit(fit(image), write_prompt(caption)) if isinstance(image, Image.Image) else None
                begun.append((image, caption, future))
            if not begun:
                return
            image, caption, future = begun[0]  # left there, so that a wait that is broken off cancels it too
            yield image, caption, None if future is None else future.result()
            begun.popleft()
    finally:
        for *_, future in begun:
            if future is not None:
                future.cancel()
