"""How alike pictures are: two where neither was to be changed, and several that were meant to show the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

LONGEST = 1024
"""Pictures are compared at most this large: what is judged is structure, not grain."""


def similarity(before: Image.Image, after: Image.Image, mask: Image.Image | None = None) -> float:
    """Mean structural similarity (SSIM, Wang et al. 2004, on luminance) outside a mask; 1 for equal pictures.

    Args:
        before: RGB.
        after: RGB of the same size.
        mask: mode L; pixels above 0 are left out. None, or one that covers all, leaves none out.
    """
    old, new = (np.asarray(_small(image.convert("L")), dtype=np.float64) for image in (before, after))
    outside = np.ones(old.shape, dtype=bool)
    if mask is not None:
        outside = np.asarray(_small(mask, Image.Resampling.NEAREST)) == 0
    if not outside.any():
        outside[:] = True
    return float(_ssim(old, new)[outside].mean())


def spread(image: Image.Image, edits: Sequence[Image.Image], mask: Image.Image | None = None) -> float:
    """The share of what edits do to a picture in which they differ, 0..1; 0 for equal edits.

    It is ``apart / (apart + change)``, where ``apart`` is how far the edits lie from their mean and ``change`` how far
    that mean lies from the picture, both as mean absolute differences inside the mask. Where an editor does the same
    from every seed it knows what belongs there; where it does not, it guesses.

    Args:
        image: RGB, what was edited.
        edits: at least one, of its size.
        mask: mode L, of that size; pixels above 0 count. None, or one that is empty: all do.
    """
    if mask is None or (place := mask.getbbox()) is None:
        mask, place = Image.new("L", image.size, 255), (0, 0, *image.size)
    inside = np.asarray(_small(mask.crop(place), Image.Resampling.NEAREST)) > 0
    if not inside.any():  # a few pixels far apart
        inside[:] = True
    before, *stacked = (np.asarray(_small(one.convert("RGB").crop(place)), dtype=np.float32) for one in (image, *edits))
    stack = np.stack(stacked)
    mean = stack.mean(axis=0)
    apart = float(np.abs(stack - mean).mean(axis=(0, 3))[inside].mean())
    change = float(np.abs(mean - before).mean(axis=2)[inside].mean())
    return apart / (apart + change) if apart else 0.0


def _small(image: Image.Image, by: Image.Resampling = Image.Resampling.BOX) -> Image.Image:
    """The picture at most ``LONGEST`` pixels large."""
    width, height = image.size
    scale = LONGEST / max(image.size)
    return image if scale >= 1 else image.resize((max(1, round(width * scale)), max(1, round(height * scale))), by)


def _ssim(a: np.ndarray, b: np.ndarray, sigma: float = 1.5) -> np.ndarray:
    """SSIM at each pixel of two pictures in 0..255, with a Gaussian window."""
    from scipy.ndimage import gaussian_filter

    def blur(x: np.ndarray) -> np.ndarray:
        return np.asarray(gaussian_filter(x, sigma, truncate=3.5, mode="reflect"))

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return np.asarray(above / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
