"""Records into batches: the chat around the target, coordinate jitter, labels for the dense heads.

The collator takes rows of :func:`sdg.records.features` (or :class:`sdg.records.Record`), so that a data set is read as
it lies on disk and every epoch sees its boxes jittered anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdg.boxes import GRID
from sdg.defects import DefectSet
from sdg.engines.images import fit
from sdg.prompts import DEFAULT, Prompt
from sdg.records import Record, from_row
from sdg.response import render_response
from sdg.training.degrade import degrade
from sdg.training.dense import DenseVocabulary, dense_labels
from sdg.training.tiny import BOX_OPEN, number_ids

IGNORE = -100
STEP = re.compile(r"^[ \t#*_>-]*Step\s*(\d+)", re.IGNORECASE | re.MULTILINE)
ABLATABLE = {"description": ("reason", ""), "importance": ("importance", None)}
"""Parts of an answer that can be left out of the target: the defect's field, and what it is set to."""
LENGTH_STEP = 16
"""Batches are padded to a multiple of this: a CPU compiles its matrix products anew for every length it has not met,
which costs more time than the padding and gigabytes of memory; GPUs like round lengths as well."""


def jitter_box(box: Sequence[int], amplitude: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Each coordinate moved by its own uniform integer offset (App. D), clamped to the grid, order kept valid.

    Args:
        box: x0, y0, x1, y1 on the 0..1000 grid.
        amplitude: offsets are drawn from [-amplitude, amplitude].
        rng: source of the offsets.

    Returns:
        the jittered box; an axis whose ends would meet or cross keeps its own ends.
    """
    moved = np.clip(np.asarray(box) + rng.integers(-amplitude, amplitude + 1, size=4), 0, GRID).tolist()
    for low, high in ((0, 2), (1, 3)):
        if moved[low] >= moved[high]:
            moved[low], moved[high] = box[low], box[high]
    x0, y0, x1, y1 = moved
    return x0, y0, x1, y1


def jitter(defects: DefectSet, amplitude: int, rng: np.random.Generator) -> DefectSet:
    """The set with every box jittered by :func:`jitter_box`; order, text and think text stay as they are."""
    if not amplitude:
        return defects
    return replace(
        defects, defects=tuple(replace(d, box=jitter_box(d.box, amplitude, rng), mended=()) for d in defects)
    )


def without_steps(reasoning: str, steps: Sequence[int]) -> str:
    """A think text without some of its steps, for ablations (Table 4).

    Args:
        reasoning: steps begin with ``Step 1`` and the like at the beginning of a line, marked up or not.
        steps: numbers of the steps to leave out.

    Raises:
        ValueError: where there is no such step, since leaving nothing out would pass for an ablation.
    """
    starts = [*STEP.finditer(reasoning)]
    places = [*(start.start() for start in starts), len(reasoning)]
    spans = {int(start[1]): span for start, span in zip(starts, pairwise(places), strict=True)}
    for step in sorted(set(steps), reverse=True):
        if step not in spans:
            raise ValueError(f"the think text has no 'Step {step}' to leave out: {reasoning!r:.80}")
        low, high = spans[step]
        reasoning = reasoning[:low] + reasoning[high:]
    return reasoning.strip()


def ablate(defects: DefectSet, think_without: Sequence[int], answer_without: Sequence[str]) -> DefectSet:
    """The set with steps of the think text left out, and descriptions emptied or importances dropped."""
    if think_without and defects.reasoning:
        defects = replace(defects, reasoning=without_steps(defects.reasoning, think_without))
    if answer_without:
        blank: dict[str, Any] = {ABLATABLE[name][0]: ABLATABLE[name][1] for name in answer_without}
        defects = replace(defects, defects=tuple(replace(d, mended=(), **blank) for d in defects))
    return defects


@dataclass
class SFTCollator:
    """Collate records into a right-padded batch whose labels cover the target (think and answer) only.

    Args:
        processor: a Qwen-VL style processor (image processor, tokenizer, chat template).
        prompt: the instruction, as the detector will give it.
        jitter: amplitude of the coordinate jitter in grid units; 0 turns it off (App. D: 10).
        max_length: longer examples raise, because a cut-off answer teaches cut-off answers; None accepts any.
        vocabulary: names for the dense labels, or None for a batch without them.
        degrade: share of pictures that go through :func:`sdg.training.degrade.degrade`, drawn anew every epoch.
        think_without: numbers of the steps that are left out of think texts.
        answer_without: names in :data:`ABLATABLE` that are left out of answers.
        seed: of jitter and degradation.

    Raises:
        ValueError: for another name in ``answer_without``.
    """

    processor: Any
    prompt: Prompt = DEFAULT
    jitter: int = 10
    max_length: int | None = None
    vocabulary: DenseVocabulary | None = None
    degrade: float = 0.0
    think_without: Sequence[int] = ()
    answer_without: Sequence[str] = ()
    seed: int = 0
    rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if unknown := sorted({*self.answer_without} - {*ABLATABLE}):
            raise ValueError(
                f"answer_without={unknown} names no part that can be left out; choose {', '.join(ABLATABLE)}"
            )
        self.rng = np.random.default_rng(self.seed)
        tokenizer = self.processor.tokenizer
        self._numbers = number_ids(tokenizer)
        self._value_of: NDArray[np.int64] | None = None
        if self._numbers is not None:
            self._value_of = np.full(len(tokenizer), -1, dtype=np.int64)
            self._value_of[self._numbers.numpy()] = np.arange(GRID + 1)
            self._box_open = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(BOX_OPEN))
        self._pad = tokenizer.pad_token_id
        self._image = tokenizer.convert_tokens_to_ids("<|image_pad|>")

    def __call__(self, examples: Sequence[Mapping[str, Any] | Record]) -> dict[str, Tensor]:
        """The batch of ``examples``.

        Returns:
            input_ids, attention_mask, labels, mm_token_type_ids (B, L); pixel_values, image_grid_thw as the processor
            gives them; coordinates (B, L): the value at coordinate positions and -1 elsewhere, where numbers are single
            tokens; and with a vocabulary the labels of :func:`sdg.training.dense.dense_labels`, one row a merged token.
        """
        records = [e if isinstance(e, Record) else from_row(e) for e in examples]
        records = [self._to_learn(r) for r in records]
        pictures = [fit(r.image) for r in records]
        if self.degrade:
            pictures = [degrade(p, self.rng) if self.rng.random() < self.degrade else p for p in pictures]
        images = pixel_batch(self.processor.image_processor, pictures)
        merge = self.processor.image_processor.merge_size
        counts = [int(grid.prod()) // merge**2 for grid in images["image_grid_thw"]]
        prompts, targets = self._tokenise(records, counts)
        length = max(len(p) + len(t) for p, t in zip(prompts, targets, strict=True))
        if self.max_length and length > self.max_length:
            worst = max(range(len(records)), key=lambda i: len(prompts[i]) + len(targets[i]))
            raise ValueError(
                f"record {records[worst].id!r} is {length} tokens long, max_length={self.max_length}: "
                "raise max_length or leave the record out"
            )
        length = -(-length // LENGTH_STEP) * LENGTH_STEP
        ids = torch.full((len(records), length), self._pad)
        labels = torch.full((len(records), length), IGNORE)
        for row, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
            end = len(prompt) + len(target)
            ids[row, :end] = torch.tensor(prompt + target)
            labels[row, len(prompt) : end] = ids[row, len(prompt) : end]
        lengths = torch.tensor([len(p) + len(t) for p, t in zip(prompts, targets, strict=True)])
        batch = {
            "input_ids": ids,
            "attention_mask": (torch.arange(length) < lengths[:, None]).long(),
            "labels": labels,
            "mm_token_type_ids": (ids == self._image).int(),
            **images,
        }
        if self._value_of is not None:
            batch["coordinates"] = self._coordinates(labels)
        if self.vocabulary is not None:
            batch |= dense_labels(records, images["image_grid_thw"] // torch.tensor([1, merge, merge]), self.vocabulary)
        return batch

    def _to_learn(self, record: Record) -> Record:
        """The record as it is learnt this time: boxes jittered, parts left out."""
        try:
            kept = ablate(record.defects, self.think_without, self.answer_without)
        except ValueError as error:
            raise ValueError(f"record {record.id!r}: {error}") from None
        return replace(record, defects=jitter(kept, self.jitter, self.rng))

    def _tokenise(self, records: Sequence[Record], counts: Sequence[int]) -> tuple[list[list[int]], list[list[int]]]:
        prompts = []
        for record, count in zip(records, counts, strict=True):
            content = [{"type": "image"}, {"type": "text", "text": self.prompt.format(record.caption)}]
            chat = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            prompts.append(chat.replace("<|image_pad|>", "<|image_pad|>" * count, 1))
        targets = [render_response(record.defects) + "<|im_end|>" for record in records]
        tokenizer = self.processor.tokenizer
        return tokenizer(prompts)["input_ids"], tokenizer(targets)["input_ids"]

    def _coordinates(self, labels: Tensor) -> Tensor:
        """Value of every coordinate label, -1 where a label is none; (B, L)."""
        assert self._value_of is not None
        ids = labels.numpy()
        width = len(self._box_open)
        padded = np.pad(ids, ((0, 0), (0, width + 8)), constant_values=IGNORE)
        opens = np.logical_and.reduce([padded[:, i : i + ids.shape[1]] == t for i, t in enumerate(self._box_open)])
        rows, starts = np.nonzero(opens)
        places = starts[:, None] + width + np.arange(0, 8, 2)
        tokens = padded[rows[:, None], places]
        values = np.where(tokens >= 0, self._value_of[np.maximum(tokens, 0)], -1)
        whole = (values >= 0).all(axis=1)
        coordinates = np.full(ids.shape, -1, dtype=np.int64)
        coordinates[rows[whole, None], places[whole]] = values[whole]
        return torch.from_numpy(coordinates)


def pixel_batch(image_processor: Any, images: Sequence[Any]) -> dict[str, Tensor]:
    """``pixel_values`` and ``image_grid_thw`` of pictures, as the image processor gives them.

    Pictures that need no resizing take a short cut of the same arithmetic, several times faster.

    Args:
        image_processor: a Qwen2-VL style image processor.
        images: PIL pictures in RGB.
    """
    side = int(image_processor.size["longest_edge"] ** 0.5)
    ready = all(image.size == (side, side) for image in images) and side * side == image_processor.size["shortest_edge"]
    if not ready or side % (image_processor.patch_size * image_processor.merge_size):
        out = image_processor(images=list(images), return_tensors="pt")
        return {"pixel_values": out["pixel_values"], "image_grid_thw": out["image_grid_thw"]}
    pixels = np.stack([np.asarray(image) for image in images])
    patch, merge = image_processor.patch_size, image_processor.merge_size
    cells = side // patch // merge
    mean = np.asarray(image_processor.image_mean, dtype=np.float32)
    std = np.asarray(image_processor.image_std, dtype=np.float32)
    scaled = (pixels.astype(np.float32) * np.float32(image_processor.rescale_factor) - mean) / std
    parts = scaled.reshape(len(images), cells, merge, patch, cells, merge, patch, 3)
    parts = parts.transpose(0, 1, 4, 2, 5, 7, 3, 6)[:, :, :, :, :, :, None]
    parts = np.broadcast_to(parts, (*parts.shape[:6], image_processor.temporal_patch_size, *parts.shape[7:]))
    grid = side // patch
    return {
        "pixel_values": torch.from_numpy(np.ascontiguousarray(parts).reshape(len(images) * grid * grid, -1)),
        "image_grid_thw": torch.tensor([[1, grid, grid]] * len(images)),
    }
