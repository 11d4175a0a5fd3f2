"""A refiner over many pictures: one after another, each result on disk before the next one is begun."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdg.engines.images import open_image
from sdg.jobs.run import Picture
from sdg.refine.refiner import DefectRefiner
from sdg.refine.results import Refinement


@dataclass(frozen=True)
class Refined:
    """What became of a picture.

    Args:
        picture: which one.
        out: file of the picture that came out; None where there is none.
        refinement: how it came about; None where it failed.
        error: why it failed; None where it did not.
    """

    picture: Picture
    out: Path | None = None
    refinement: Refinement | None = None
    error: str | None = None

    @property
    def failure(self) -> str | None:
        """Why this picture failed; an answer of the detector that could not be read is a failure, too."""
        if self.error is not None or self.refinement is None:
            return self.error or "no answer"
        unread = self.refinement.before.parse_error
        return None if unread is None else f"the answer could not be read: {unread}"

    def to_line(self) -> dict[str, Any]:
        """One line of results: ``image``, ``out``, ``caption``, then what :meth:`Refinement.to_json` holds."""
        line: dict[str, Any] = {} if self.picture.id is None else {"id": self.picture.id}
        line |= {"image": self.picture.name, "out": None if self.out is None else self.out.name}
        if self.refinement is not None:
            line |= self.refinement.to_json() | {"parse_error": self.refinement.before.parse_error}
        line["caption"] = self.picture.caption
        return line if self.error is None else line | {"error": self.error}


def refine_many(refiner: DefectRefiner, pictures: Iterable[tuple[Picture, Path]], seed: int = 0) -> Iterator[Refined]:
    """One outcome a picture, in order. A picture that fails does not cost the others.

    Args:
        refiner: what repairs.
        pictures: each with the PNG file that it goes to. A file that was not changed and is a PNG is copied as it is.
        seed: of each picture.

    Raises:
        EndpointError: for what would fail every picture; the outcomes before it were handed out.
    """
    from sdg.engines.base import EndpointError

    for picture, out in pictures:
        if picture.error is not None:
            yield Refined(picture, error=picture.error)
            continue
        try:
            refinement = refiner(open_image(picture.source), picture.caption, seed=seed)
            unanswered = refinement.before.info.get("error")  # a request that failed, which --retry repeats
            if unanswered is not None:
                yield Refined(picture, error=unanswered)
                continue
            _write(refinement, picture, out)
        except EndpointError:
            raise
        except (OSError, ValueError) as error:
            yield Refined(picture, error=str(error))
        except Exception as error:  # a model, a driver or a server: anything may be raised
            yield Refined(picture, error=f"{type(error).__name__}: {error}")
        else:
            yield Refined(picture, out, refinement)


def _write(refinement: Refinement, picture: Picture, out: Path) -> None:
    unfinished = out.with_suffix(".unfinished")
    source = picture.source
    if not refinement.changed and isinstance(source, str | Path) and Path(source).suffix.lower() == ".png":
        shutil.copyfile(source, unfinished)
    else:
        refinement.image.save(unfinished, format="PNG")
    os.replace(unfinished, out)
