"""The embedded editor: the microworld's tiny generator, masked, so that the whole loop runs without a download."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from sdg.defects import DefectType
from sdg.refine.editors import EditError, Task
from sdg.refine.loading import quiet, quiet_pipeline
from sdg.refine.regions import cells, feathered, mixed

STEPS = 20
STRENGTHS = (0.5, 0.6)
"""Noise levels that candidates start from, in turns: little keeps more of what was there, much frees from it. It was
trained at 0.3 to 0.65; of these the two were chosen on validation pictures."""
NOTICEABLE = 16
"""Difference of a channel, of 255, up to which an edit is taken for the autoencoder's own inaccuracy."""
MAX_SPREAD = 0.4
"""Of candidates: chosen on validation pictures (docs/refine.md)."""
MIN_GAIN = 0.5
"""Share of a place's load that has to go: nearly all that fell by less was harm, on validation pictures."""
FEATHER = 0.015
"""Over how much of the picture's side an edit fades out."""
SIZE = 128
"""Side of the generator's pictures in pixels."""


class TinyEditor:
    """Masked flow matching with sdg-tiny-t2i, which was trained to mend as well as to draw.

    The picture is edited at the generator's 128 x 128; larger ones get the edit enlarged, so their repairs are soft.
    It reads the caption, not the reasons. A task without a mask is drawn anew from the caption.

    Args:
        pipeline: of :mod:`sdg.training.generator`, trained by :mod:`sdg.training.repair`.
        name: how results name it.
        steps: of the sampler, for a whole run.
        strengths: noise levels that masked candidates start from, in turns, each in 0..1.
    """

    local = True
    made_for = "microworld"
    types = (DefectType.ARTIFACT,)
    """What it can repair. To turn one object into another it would have to draw well."""
    max_spread = MAX_SPREAD
    """Where its candidates differ in more than that of what they do, too many of them are wrong."""
    min_gain = MIN_GAIN
    min_better = 1.0
    """All: a place that some seeds do not mend is one where the editor is not sure, on validation pictures."""

    def __init__(
        self, pipeline: Any, name: str = "sdg-tiny-t2i", steps: int = STEPS, strengths: Sequence[float] = STRENGTHS
    ) -> None:
        if not strengths or not all(0 < s <= 1 for s in strengths):
            raise ValueError(f"strengths={strengths!r} are not noise levels in 0..1")
        self.pipeline, self.name, self.steps, self.strengths = pipeline, name, steps, tuple(strengths)

    @classmethod
    def from_pretrained(cls, name_or_path: str = "sdg-tiny-t2i", **options: Any) -> TinyEditor:
        """Load the generator.

        Args:
            name_or_path: embedded name, or a folder of the same layout.
            **options: of the class.

        Raises:
            OSError: where there is no such pipeline.
            ModuleNotFoundError: without diffusers, saying how to install it.
        """
        from sdg.training.generator import find_pipeline

        folder = find_pipeline(name_or_path)
        with quiet():
            pipeline = quiet_pipeline(folder, torch_dtype=torch.float32)
        return cls(pipeline, name_or_path, **options)

    @torch.no_grad()
    def __call__(self, task: Task, seeds: Sequence[int]) -> list[Image.Image | EditError]:
        """A candidate for each seed; see :class:`~sdg.refine.editors.Editor`."""
        small = _small(task.image)
        edits: list[Any] = [None] * len(seeds)
        if task.mask is None:
            whole = np.ones((SIZE // 8, SIZE // 8), dtype=bool)
            edits = self._run(small, task.caption, whole, seeds, 1.0)
        else:
            for turn, strength in enumerate(self.strengths):
                chosen = seeds[turn :: len(self.strengths)]
                if chosen:
                    edits[turn :: len(self.strengths)] = self._run(
                        small, task.caption, cells(task.mask, SIZE // 8), chosen, strength
                    )
        return list(self.pasted(task, edits))

    def decoded(self, image: Image.Image) -> Image.Image:
        """A picture as the autoencoder gives it back, at the generator's size."""
        with torch.no_grad():
            return self._decoded(self._latents(_small(image)))[0]

    def pasted(self, task: Task, edits: Sequence[Image.Image]) -> list[Image.Image]:
        """The task's picture with what edits, at the generator's size, changed inside the mask."""
        size = task.image.size
        mask = Image.new("L", size, 255) if task.mask is None else task.mask
        share, plain = feathered(mask, FEATHER * min(size)), self.decoded(task.image)
        return [
            mixed(task.image, edit.resize(size, Image.Resampling.LANCZOS), share * _changed(edit, plain, size))
            for edit in edits
        ]

    def _run(
        self, image: Image.Image, caption: str, free: np.ndarray, seeds: Sequence[int], strength: float
    ) -> list[Image.Image]:
        """Candidates at the generator's size; latent cells outside ``free`` stay as they are, free of noise."""
        from sdg.training.generator import SHORT

        pipeline = self.pipeline
        with quiet():  # the third encoder is asked for no more than its end mark
            tokens, _, pooled, _ = pipeline.encode_prompt(
                caption,
                caption,
                caption,
                num_images_per_prompt=len(seeds),
                do_classifier_free_guidance=False,
                max_sequence_length=SHORT,
            )
        known = self._latents(image)
        noise = torch.cat([_noise(known, seed) for seed in seeds])
        mask = torch.from_numpy(free)[None, None]
        sigmas = torch.linspace(strength, 0, max(1, round(self.steps * strength)) + 1)
        x = torch.where(mask, torch.lerp(known, noise, strength), known)
        for sigma, following in pairwise(sigmas):
            velocity = pipeline.transformer(
                hidden_states=x,
                timestep=(sigma * 1000).expand(len(x)),
                encoder_hidden_states=tokens,
                pooled_projections=pooled,
                return_dict=False,
            )[0]
            x = torch.where(mask, x + (following - sigma) * velocity, known)
        return self._decoded(x)

    def _latents(self, image: Image.Image) -> Tensor:
        vae = self.pipeline.vae
        pixels = self.pipeline.image_processor.preprocess(image).to(vae.dtype)
        return (vae.encode(pixels).latents - vae.config.shift_factor) * vae.config.scaling_factor

    def _decoded(self, latents: Tensor) -> list[Image.Image]:
        vae = self.pipeline.vae
        decoded = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample
        return list(self.pipeline.image_processor.postprocess(decoded))


def _changed(edit: Image.Image, plain: Image.Image, size: tuple[int, int]) -> NDArray[np.float32]:
    """Where an edit differs from what the autoencoder alone makes of the picture, (H, W) in 0..1.

    The autoencoder blurs a little; where the edit changed nothing, the picture's own pixels are better.
    """
    apart = np.abs(np.asarray(edit, dtype=np.float32) - np.asarray(plain, dtype=np.float32)).max(axis=2)
    share = np.clip(ndimage.gaussian_filter(ndimage.maximum_filter(apart, 3), 0.7) / NOTICEABLE - 1, 0, 1)
    return np.asarray(Image.fromarray(share).resize(size, Image.Resampling.BILINEAR))


def _small(image: Image.Image) -> Image.Image:
    return image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _noise(like: Tensor, seed: int) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=like.dtype)
