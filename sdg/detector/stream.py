"""One detection as it is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

from sdg.defects import DefectSet
from sdg.engines.base import Generation


class DetectionStream(Iterator[str]):
    """The text of one detection as it is written, and the set that it names.

    Args:
        pieces: of an engine.
        read: from an answer to the set that it names.

    Example:
        >>> stream = detector.stream(image, caption)  # doctest: +SKIP
        >>> for piece in stream: print(piece, end="")  # doctest: +SKIP
        >>> stream.result  # doctest: +SKIP
    """

    def __init__(self, pieces: Generator[str, None, Generation], read: Callable[[Generation], DefectSet]):
        self._pieces, self._read = pieces, read
        self._started = time.perf_counter()
        self._answer = Generation("", None, None, 0.0, finished=False)

    def __next__(self) -> str:
        try:
            piece = next(self._pieces)
        except StopIteration as end:
            if end.value is not None:
                self._answer = end.value
            raise
        text, seconds = self._answer.text + piece, time.perf_counter() - self._started
        self._answer = replace(self._answer, text=text, seconds=seconds)
        return piece

    def close(self) -> None:
        """Stop the model."""
        self._pieces.close()

    @property
    def result(self) -> DefectSet:
        """The set that the text so far names; before the end, of the objects that are complete."""
        return self._read(self._answer)
