"""A scalar mark for a microworld picture under its caption, without a place: what a person's overall rating would be.

It plays the part of a learned reward model beside the detector: a regression of ``1 - min(1, sum of importance / 100)``
over a picture's defects. It shares no weights with a detector, and nothing at all with :mod:`sdg.microworld.oracle`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from sdg import embedded
from sdg.hub import HubError, HubOptions, because, download

FILES = ("config.json", "model.safetensors")
"""What a scorer is saved as."""
SIZE = 128
"""Side in pixels at which pictures are looked at; others are scaled."""
CELLS = 16
"""Cells a side of the map that the words look at."""
LENGTH = 28
"""Longest caption in words; what follows is not read."""
_WORD = re.compile(r"[a-z]+|[^\w\s]")


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.norm = nn.GroupNorm(8, width)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(self.norm(x)))))


class MicroworldScorer(nn.Module, PyTorchModelHubMixin, library_name="sdg", tags=["microworld"]):
    """Convolutions over the picture, a recurrent net over the words, which look at the picture's cells.

    Args:
        words: that captions are made of; others are read as one unknown word.
        fine: channels at a quarter of the picture's side.
        width: channels at an eighth of it.
        text: width of a word.

    Example:
        >>> score = MicroworldScorer.from_pretrained("sdg-tiny-scorer").score
        >>> len(score([Image.new("RGB", (128, 128))], ["a red car"]))
        1
    """

    def __init__(self, words: Sequence[str], fine: int = 40, width: int = 88, text: int = 64) -> None:
        super().__init__()
        self.index = {word: i for i, word in enumerate(dict.fromkeys(w.lower() for w in words), start=2)}
        self.picture = nn.Sequential(
            nn.Conv2d(3, fine, 7, stride=4, padding=2),
            nn.ReLU(),
            _Residual(fine),
            nn.Conv2d(fine, width, 3, stride=2, padding=1),
            _Residual(width),
            _Residual(width),
        )
        self.norm = nn.GroupNorm(8, width)
        self.position = nn.Parameter(0.02 * torch.randn(CELLS * CELLS, width))
        self.embedding = nn.Embedding(len(self.index) + 2, text, padding_idx=0)
        self.reader = nn.GRU(text, text // 2, batch_first=True, bidirectional=True)
        self.query, self.key, self.value = nn.Linear(text, text), nn.Linear(width, text), nn.Linear(width, text)
        self.judge = nn.GRU(2 * text, text // 2, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Linear(2 * width + 2 * text, 64), nn.ReLU(), nn.Linear(64, 2))

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> MicroworldScorer:
        """An embedded scorer by its name, a local folder, or a repository of the Hub, ready to score.

        Args:
            name: name, folder or id.
            revision: as in :class:`~sdg.hub.HubOptions`, and so are the others.
            token: see there.
            cache_dir: see there.
            local_files_only: see there.
            force_download: see there.

        Raises:
            HubError: saying what is the matter and what to do.
        """
        hub = HubOptions(revision, token, cache_dir, local_files_only, force_download)
        folder = embedded.find(name) or Path(name)
        if not folder.is_dir():
            folder = download(str(name), hub, patterns=FILES)
        for file in FILES:  # the mixin would go on to pickles, or to the Hub
            if not (folder / file).is_file():
                raise HubError(f"{str(name)!r} has no {file}: it is no scorer of the microworld")
        try:
            model = super().from_pretrained(folder)
        except Exception as error:
            reason = because(error, folder, str(name))
            raise HubError(f"{str(name)!r} could not be loaded as a scorer of the microworld: {reason}") from error
        return model.eval()

    def ids(self, captions: Sequence[str]) -> Tensor:
        """Word numbers of captions, (B, LENGTH): 0 is no word, 1 an unknown one."""
        rows = [[self.index.get(w, 1) for w in _WORD.findall(c.lower())][:LENGTH] for c in captions]
        return torch.tensor([row + [0] * (LENGTH - len(row)) for row in rows], dtype=torch.long)

    def look(self, pixels: Tensor) -> Tensor:
        """Features of the cells of pictures in [-1, 1], (B, 3, SIZE, SIZE) -> (B, CELLS * CELLS, width)."""
        features = self.picture(pixels.contiguous(memory_format=torch.channels_last))
        return F.relu(self.norm(features)).flatten(2).transpose(1, 2)

    def loads(self, cells: Tensor, ids: Tensor) -> Tensor:
        """Loads of artifacts and of misalignments, (B, 2), 0 or more, from what was seen and the words.

        Args:
            cells: of :meth:`look`.
            ids: of :meth:`ids`.
        """
        placed = cells + self.position
        known = (ids > 0).unsqueeze(-1)
        words = self.reader(self.embedding(ids))[0] * known
        heads = 4
        query, key, value = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in (self.query(words), self.key(placed), self.value(placed))
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        seen = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        judged = self.judge(torch.cat([words, seen], dim=-1) * known)[0]
        judged = torch.cat([(judged * known).amax(1), (judged * known).sum(1) / known.sum(1).clamp(min=1)], dim=-1)
        summary = torch.cat([cells.amax(1), cells.mean(1), judged], dim=-1)
        return F.softplus(self.head(summary).float())

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Scores in 0..1, (B,), of pictures in [-1, 1], (B, 3, SIZE, SIZE), and captions of :meth:`ids`."""
        return 1 - self.loads(self.look(pixels), ids).sum(1).clamp(max=1)

    @torch.no_grad()
    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], batch_size: int = 64, **columns: Any
    ) -> list[float]:
        """A mark in 0..1 for each picture, 1 for a faultless one: a reward function.

        Args:
            images: pictures; any size, looked at as squares of SIZE pixels.
            prompts: their captions.
            batch_size: pictures at a time.
            **columns: further columns that a trainer hands to every reward; not looked at.

        Raises:
            ValueError: where there are not as many prompts as images.
        """
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images and {len(prompts)} prompts: every image needs its own prompt")
        was_training = self.training
        self.eval()
        marks: list[float] = []
        for start in range(0, len(images), batch_size):
            pixels = to_pixels(images[start : start + batch_size])
            marks += self(pixels, self.ids(prompts[start : start + batch_size])).tolist()
        self.train(was_training)
        return marks


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """Pictures as (B, 3, SIZE, SIZE) in [-1, 1]."""
    square = [image.convert("RGB") for image in images]
    square = [i if i.size == (SIZE, SIZE) else i.resize((SIZE, SIZE), Image.Resampling.BICUBIC) for i in square]
    arrays = np.stack([np.asarray(image, dtype=np.float32) for image in square])
    return torch.from_numpy(arrays / 127.5 - 1).permute(0, 3, 1, 2)
