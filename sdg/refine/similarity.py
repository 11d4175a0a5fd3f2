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
    size = before.size
    scale = min(1.0, LONGEST / max(size))
    small = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    old, new = (
        np.asarray(image.convert("L").resize(small, Image.Resampling.BOX), dtype=np.float64)
        for image in (before, after)
    )
    outside = np.ones(old.shape, dtype=bool)
    if mask is not None:
        outside = np.asarray(mask.resize(small, Image.Resampling.NEAREST)) == 0
    if not outside.any():
        outside[:] = True
    return float(_ssim(old, new)[outside].mean())


def spread(images: Sequence[Image.Image], mask: Image.Image | None = None) -> float:
    """How far pictures lie from their mean: the mean absolute difference inside a mask, of 255; 0 for equal pictures.

    Where an editor draws the same from every seed it knows what belongs there; where it does not, it guesses.

    Args:
        images: at least one, RGB, of one size.
        mask: mode L, of that size; pixels above 0 count. None, or one that is empty: all do.
    """
    stack = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    apart = np.abs(stack - stack.mean(axis=0)).mean(axis=(0, 3))
    inside = np.ones(apart.shape, dtype=bool) if mask is None else np.asarray(mask) > 0
    return float(apart[inside].mean() if inside.any() else apart.mean())


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
