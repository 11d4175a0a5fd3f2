"""Pictures as a generator would have drawn them, with labels that stay: how a detector meets generated pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusion3Img2ImgPipeline
from PIL import Image

from sdg.records import Record
from sdg.training.generator import SHORT

STEPS = 20
"""Sampler steps of a whole run."""


@torch.no_grad()
def redraw(
    pipeline: Any,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    strength: float,
    generator: torch.Generator,
    steps: int = STEPS,
) -> list[Image.Image]:
    """Pictures as the generator would have drawn them: through its autoencoder, and through some noise.

    Args:
        pipeline: of :mod:`sdg.training.generator`.
        images: N pictures of one size.
        captions: their captions.
        strength: share of noise that is put in and taken away again, 0..1; 0 is the autoencoder alone.
        generator: of the noise.
        steps: of a whole run; a share of ``strength`` is taken.
    """
    if int(steps * strength) < 1:
        pixels = pipeline.image_processor.preprocess(list(images)).to(pipeline.vae.dtype)
        decoded = pipeline.vae.decode(pipeline.vae.encode(pixels).latents).sample
        return list(pipeline.image_processor.postprocess(decoded))
    # Not by from_pipe, which does not know that this class runs with a tiny autoencoder, too.
    again: Any = StableDiffusion3Img2ImgPipeline(**pipeline.components)
    again.set_progress_bar_config(disable=True)
    return list(
        again(
            prompt=list(captions),
            image=list(images),
            strength=strength,
            num_inference_steps=steps,
            guidance_scale=1.0,
            max_sequence_length=SHORT,
            generator=generator,
        ).images
    )


def redraw_records(
    records: Sequence[Record] | Iterator[Record],
    pipeline: Any,
    rng: np.random.Generator,
    share: float = 1.0,
    most: float = 0.4,
    noisy: float = 0.6,
    batch: int = 25,
) -> Iterator[Record]:
    """Records whose pictures went through a generator, batch by batch; ``provenance["redrawn"]`` is the strength.

    Args:
        records: with pictures of one size.
        pipeline: of :mod:`sdg.training.generator`.
        rng: draws what happens to a batch.
        share: of the batches that are redrawn; others stay as they are.
        most: largest strength. Far above the default defects go the way of the noise, and labels with them.
        noisy: share of the redrawn batches that get noise at all; others go through the autoencoder only.
        batch: pictures of one strength.
    """
    left = iter(records)
    while some := list(islice(left, batch)):
        if rng.random() >= share:
            yield from some
            continue
        strength = float(rng.uniform(0, most)) if rng.random() < noisy else 0.0
        strength *= strength * STEPS >= 1  # less than a step of noise is none
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        images = redraw(pipeline, [r.image for r in some], [r.caption for r in some], strength, generator)
        for record, image in zip(some, images, strict=True):
            about = {**record.provenance, "redrawn": round(strength, 3)}
            yield replace(record, image=image, clean_image=None, provenance=about)
