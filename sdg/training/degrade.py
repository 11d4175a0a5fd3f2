"""What happens to a picture between its maker and a detector: blur, noise, JPEG, rescaling.

A detector that only ever saw pristine renders learns their marks (exact edges, flat colours) instead of the defects.
The strengths are mild, so that a defect that the labels name can still be seen.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

SCALERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Gaussian blur, radius 0.3 to 0.8 pixels at 128 pixels of width, in proportion at others."""
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8) * image.width / 128))


def noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Gaussian noise on every channel, std 2 to 12 of 255."""
    pixels = np.asarray(image, dtype=np.float32)
    noisy = pixels + rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(2, 12)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """JPEG, quality 45 to 95."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=int(rng.integers(45, 96)))
    return Image.open(buffer).convert("RGB")


def rescale(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Down to 60 to 95 % of the size and up again."""
    share = rng.uniform(0.6, 0.95)
    small = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    down, up = rng.choice(len(SCALERS), size=2)
    return image.resize(small, SCALERS[down]).resize(image.size, SCALERS[up])


DEGRADATIONS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "rescale": rescale,
}


def degrade(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture after one or two different degradations, in an order drawn from ``rng``; its size stays.

    Args:
        image: RGB picture.
        rng: source of kinds and strengths.
    """
    for name in rng.permutation(list(DEGRADATIONS))[: rng.integers(1, 3)]:
        image = DEGRADATIONS[str(name)](image, rng)
    return image
