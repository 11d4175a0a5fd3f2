"""A detector over many pictures: batch by batch, and what became of each picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from sdg.defects import DefectSet

if TYPE_CHECKING:
    from PIL import Image

Detector = Callable[..., list[DefectSet]]
"""Called as ``detector(images, captions, batch_size=n)``: one set a picture, in order."""


REQUESTS_AHEAD = 4
"""Pictures of a batch for each request that is under way at a time, so that the end of a batch idles few of them."""


@dataclass(frozen=True)
class Picture:
    """A picture to look at.

    Args:
        name: how the results name it: its path, or where in a data set it lies.
        source: what :func:`sdg.engines.images.open_image` takes; it is opened when its turn comes.
        caption: the prompt that it was made from; None where only artifacts are looked for.
        id: what a data set calls it; None where the name says it all.
        generator: the model that made it, where that is known.
        error: why there is nothing to look at, where its data set says so already.
    """

    name: str
    source: Any = None
    caption: str | None = None
    id: str | None = None
    generator: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a picture: its defects, or the sentence that says why there are none.

    Args:
        picture: which one.
        image: as it was shown to the detector, RGB; None where it could not be opened.
        found: the answer; None where there was none.
        error: what went wrong, None where nothing did.
    """

    picture: Picture
    image: Image.Image | None = None
    found: DefectSet | None = None
    error: str | None = None

    @property
    def failure(self) -> str | None:
        """Why this picture failed; an answer that could not be read is a failure, not a clean picture."""
        if self.error is not None or self.found is None:
            return self.error or "no answer"
        return None if self.found.parse_error is None else f"the answer could not be read: {self.found.parse_error}"

    def to_line(self) -> dict[str, Any]:
        """The outcome as one line of results: ``id`` and ``generator`` where known, ``image``, ``caption``, then what
        :meth:`DefectSet.to_json` holds, or ``error``."""
        picture = self.picture
        named = {"id": picture.id, "generator": picture.generator}
        line: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
        line["image"] = picture.name
        line |= {"caption": None} if self.found is None else self.found.to_json()
        line["caption"] = picture.caption
        return line if self.error is None else line | {"error": self.error}


def detect_many(detector: Detector, pictures: Iterable[Picture], batch_size: int = 8) -> Iterator[Outcome]:
    """One outcome a picture, in order, as they come; only a batch of pictures is in memory at a time.

    Args:
        detector: what finds defects. Where its engine works on many requests at a time, a batch is at least
            :data:`REQUESTS_AHEAD` times as many.
        pictures: read a batch at a time.
        batch_size: pictures that the detector answers at a time, 1 or more.

    Raises:
        EndpointError: for what would fail every picture; the outcomes before it were handed out.
    """
    concurrency = getattr(getattr(detector, "engine", None), "concurrency", None)
    if concurrency is not None:
        batch_size = max(batch_size, REQUESTS_AHEAD * concurrency)
    waiting = iter(pictures)
    while batch := list(islice(waiting, batch_size)):
        yield from run_batch(detector, batch)


def run_batch(detector: Detector, pictures: Sequence[Picture]) -> list[Outcome]:
    """The outcomes of one batch, in order. A picture that fails does not cost its neighbours."""
    outcomes = [_opened(picture) for picture in pictures]
    ready = [outcome for outcome in outcomes if outcome.image is not None]
    answers = iter(_answers(detector, [(o.image, o.picture.caption) for o in ready]))
    return [outcome if outcome.image is None else _answered(outcome, next(answers)) for outcome in outcomes]


def _opened(picture: Picture) -> Outcome:
    from sdg.engines.images import open_image

    if picture.error is not None:
        return Outcome(picture, error=picture.error)
    try:
        return Outcome(picture, open_image(picture.source))
    except (OSError, ValueError) as error:
        return Outcome(picture, error=str(error))


def _answered(outcome: Outcome, answer: DefectSet | Exception) -> Outcome:
    if isinstance(answer, DefectSet):
        unanswered = answer.info.get("error")  # a request that failed: a line with an error, which --retry repeats
        if unanswered is not None:
            return Outcome(outcome.picture, outcome.image, error=unanswered)
        return Outcome(outcome.picture, outcome.image, answer)
    return Outcome(outcome.picture, outcome.image, error=f"{type(answer).__name__}: {answer}")


def _answers(detector: Detector, asked: Sequence[tuple[Any, str | None]]) -> list[DefectSet | Exception]:
    """The sets of a batch. Where a batch fails, its pictures go one by one."""
    if not asked:
        return []
    try:
        images, captions = [image for image, _ in asked], [caption for _, caption in asked]
        return list(detector(images, captions, batch_size=len(asked)))
    except Exception as error:  # a model, a driver or a server: anything may be raised
        from sdg.engines.base import EndpointError

        if isinstance(error, EndpointError):
            raise
        if len(asked) == 1:
            return [error]
    return [answer for one in asked for answer in _answers(detector, [one])]
