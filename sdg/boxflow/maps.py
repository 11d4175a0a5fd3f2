"""Reward and advantage on the latent grid (Eq. 4 and 5): pure functions of tensors and defect sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sdg.boxes import GRID
from sdg.defects import Defect, DefectSet, DefectType


def penalty_map(defects: Iterable[Defect], shape: tuple[int, int]) -> Tensor:
    """W(h, w) of Eq. 4: the largest importance / 100 of the boxes that touch a cell, 0 where none does.

    A box marks every cell that it touches, so none is too small to count. A missing importance counts as 100.

    Args:
        defects: boxes of one type.
        shape: rows and columns of the latent grid, of any aspect.

    Returns:
        (H, W), float32 in 0..1.
    """
    height, width = shape
    weight = torch.zeros(height, width)
    for defect in defects:
        x0, y0, x1, y1 = defect.box
        # Integers throughout: floor of the low edge, ceiling of the high edge, free of rounding.
        rows = slice(y0 * height // GRID, -(-y1 * height // GRID))
        columns = slice(x0 * width // GRID, -(-x1 * width // GRID))
        importance = 100 if defect.importance is None else defect.importance
        weight[rows, columns] = weight[rows, columns].clamp(min=importance / 100)
    return weight


def penalty_maps(defect_sets: Sequence[DefectSet], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """W_art and W_mis of K images, (K, H, W) each; a set that could not be parsed has no boxes.

    Args:
        defect_sets: one set an image.
        shape: rows and columns of the latent grid.
    """

    def of(type: DefectType) -> Tensor:
        return torch.stack([penalty_map(defects.of_type(type), shape) for defects in defect_sets])

    return of(DefectType.ARTIFACT), of(DefectType.MISALIGNMENT)


def reward_map(
    rewards: Tensor,
    defect_sets: Sequence[DefectSet],
    shape: tuple[int, int],
    group_std: float | Tensor,
    c_artifact: float = 0.5,
    c_misalignment: float = 0.05,
) -> Tensor:
    """R_D(h, w) = R - c_art sigma_R W_art(h, w) - c_mis sigma_R W_mis(h, w) (Eq. 4).

    Args:
        rewards: base scalar reward R of each image, (K,).
        defect_sets: what the detector found in each image.
        shape: rows and columns of the latent grid.
        group_std: sigma_R, the std of the rewards: one number, or one an image, (K,).
        c_artifact: weight of artifacts, in units of ``group_std``.
        c_misalignment: weight of misalignments, in units of ``group_std``.

    Returns:
        (K, H, W), float32, in reward units.

    Raises:
        ValueError: where rewards and defect sets are not equally many, or the grid has no cells.
    """
    if rewards.shape != (len(defect_sets),):
        raise ValueError(f"rewards has shape {tuple(rewards.shape)} for {len(defect_sets)} defect sets; give one each")
    if min(shape) < 1:
        raise ValueError(f"shape={shape} has no cells; give the rows and columns of the latent grid")
    scale = torch.as_tensor(group_std, dtype=torch.float32, device=rewards.device).reshape(-1, 1, 1)
    artifact, misalignment = (weight.to(rewards.device) for weight in penalty_maps(defect_sets, shape))
    return rewards.float()[:, None, None] - scale * (c_artifact * artifact + c_misalignment * misalignment)


def spatial_advantage(maps: Tensor, eps: float = 1e-4) -> Tensor:
    """Advantage of each location over one prompt group (Eq. 5): (R_D - mean) / (std + eps).

    The std is the unbiased one (divisor K - 1), as in TRL. Because eps is added to it, rewards that agree but for
    rounding get an advantage near 0, and rewards that agree get 0. Where no image of the group has a box this is the
    scalar advantage of the images' rewards.

    Args:
        maps: reward maps of the group's K images, (K, H, W), or scalar rewards (K,); in reward units.
        eps: added to the std.

    Returns:
        The same shape, mean 0 over K at every location.

    Raises:
        ValueError: for a group of one image, which has no advantage.
    """
    if len(maps) < 2:
        raise ValueError(f"a group of {len(maps)} image has no advantage; generate at least 2 images a prompt")
    centred = maps - maps.mean(dim=0, keepdim=True)
    return centred / (maps.std(dim=0, keepdim=True) + eps)


def to_tokens(maps: Tensor, layout: tuple[int, ...]) -> Tensor:
    """Maps (K, H, W) in the layout of per-location log-probabilities: unchanged, or row-major tokens (K, H * W).

    Args:
        maps: one map an image.
        layout: shape of the log-probabilities of one image: (H, W), or (H * W,) for packed tokens (FLUX).

    Raises:
        ValueError: where the grid and the layout have different numbers of locations.
    """
    if tuple(maps.shape[1:]) == tuple(layout):
        return maps
    if tuple(layout) != (maps[0].numel(),):
        raise ValueError(f"maps of {tuple(maps.shape[1:])} cells do not fit log-probabilities of shape {tuple(layout)}")
    return maps.flatten(1)
