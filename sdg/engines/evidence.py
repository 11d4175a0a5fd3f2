"""What a model knew while it wrote: the probability of each token, and what its vision tower made of the picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import LogitsProcessor

from sdg.calibration.evidence import Evidence


class Notes:
    """All that is noted of one batch while it is generated; with :meth:`watching` around ``generate``.

    Args:
        model: an image-text-to-text model of transformers.
        tokenizer: its tokenizer.
        pictures: how many the batch holds, one a row.
    """

    def __init__(self, model: Any, tokenizer: Any, pictures: int) -> None:
        self.model, self.tokenizer, self.pictures = model, tokenizer, pictures
        self.logprobs = LogProbs()
        self._features: list[list[float]] = []
        self._rows: list[list[float]] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Looks into the vision tower while it lasts."""
        with vision_features(self.model, self.pictures) as self._features:
            yield

    def finish(self, ids: Tensor) -> None:
        """Take the last step's log-probabilities; ``ids`` is what ``generate`` returned."""
        self._rows = self.logprobs.finish(ids)

    def evidence(self, row: int, ids: Sequence[int], text: str) -> Evidence:
        """What is known of the answer of a row.

        Args:
            row: in the batch.
            ids: the answer's tokens, without end mark and padding.
            text: what they decode to.
        """
        return Evidence(
            logprobs=tuple(self._rows[row][: len(ids)]),
            token_ends=token_ends(self.tokenizer, ids, text),
            picture=tuple(self._features[row]) if self._features else None,
        )


class LogProbs(LogitsProcessor):
    """Notes the log-probability of every token that is generated, and changes nothing.

    It keeps one step's logits, never all of them, and comes first among the processors, so that what it notes are the
    model's own probabilities at temperature 1, before a grammar or a sampler changes them.
    """

    def __init__(self) -> None:
        self._taken: list[tuple[Tensor, Tensor]] = []
        self._last: Tensor | None = None
        self._rows: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``scores`` (batch, vocabulary) as they are."""
        self._take(input_ids)
        self._last = scores.float().log_softmax(-1)
        return scores

    def _take(self, ids: Tensor) -> None:
        if self._last is not None:
            rows = torch.arange(len(ids), device=ids.device) if self._rows is None else self._rows
            self._taken.append((rows, self._last.gather(1, ids[:, -1:])[:, 0]))
            self._last = None

    def keep(self, rows: Tensor, input_ids: Tensor) -> None:
        """From now on ``rows`` of the present batch, in that order, are the batch."""
        self._take(input_ids)
        self._rows = rows if self._rows is None else self._rows[rows]

    def finish(self, ids: Tensor) -> list[list[float]]:
        """The log-probabilities once generation has ended.

        Args:
            ids: what ``generate`` returned, (batch, prompt + new).

        Returns:
            For each row as many natural logarithms as there are new tokens, or more where it was padded.
        """
        self._take(ids if self._rows is None else ids[self._rows])
        noted: list[list[float]] = [[] for _ in ids]
        for rows, values in self._taken:
            for row, value in zip(rows.tolist(), values.tolist(), strict=True):
                noted[row].append(value)
        return noted


def token_ends(tokenizer: Any, ids: Sequence[int], text: str) -> tuple[int, ...] | None:
    """How many characters of ``text`` are written once each token is; None where the tokens do not spell the text.

    A character that several tokens spell byte by byte is counted at the last of them.

    Args:
        tokenizer: a fast tokenizer of transformers.
        ids: the tokens.
        text: what they decode to.
    """
    rust = getattr(tokenizer, "backend_tokenizer", None)
    if rust is None:
        return None
    stream, written, ends = DecodeStream(skip_special_tokens=False), 0, []
    for token in ids:
        piece = stream.step(rust, token) or ""
        if not text.startswith(piece, written):
            return None
        written += len(piece)
        ends.append(written)
    if ends:
        ends[-1] = len(text)  # what breaks off inside a character was not written yet
    return tuple(ends)


@contextmanager
def vision_features(model: Any, pictures: int) -> Iterator[list[list[float]]]:
    """Collects, while it lasts, the mean of the vision tower's last hidden states over each picture.

    Args:
        model: an image-text-to-text model of transformers.
        pictures: how many the batch holds, one a row.

    Yields:
        A list that is filled by the first pass through the tower: one vector a picture, none where the model has no
        vision tower of a known shape.
    """
    found: list[list[float]] = []

    def note(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if found:
            return
        hidden = output[0] if isinstance(output, tuple) else getattr(output, "last_hidden_state", None)
        if not isinstance(hidden, Tensor):
            return
        if hidden.ndim == 3 and len(hidden) == pictures:
            found.extend(hidden.float().mean(1).tolist())
        elif hidden.ndim == 2 and (grid := kwargs.get("grid_thw")) is not None and len(grid) == pictures:
            # The patches of all pictures in one row, each picture's one after the other.
            patches = grid.prod(-1)
            sizes = (patches * len(hidden) // patches.sum()).tolist()
            found.extend(part.float().mean(0).tolist() for part in torch.split(hidden, sizes))

    # An adapter's wrapper has the method of the model that it wraps.
    tower = model.get_encoder("image") if hasattr(model, "get_encoder") else None
    if tower is None or not isinstance(tower, torch.nn.Module) or tower is model or tower is model.base_model:
        yield found
        return
    handle = tower.register_forward_hook(note, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()
