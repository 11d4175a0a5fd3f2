"""From rewards and defects to advantages: BoxFlow-GRPO and the two rivals that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sdg.boxflow.maps import penalty_maps, reward_map, spatial_advantage
from sdg.defects import TYPES, DefectSet


class Advantages(NamedTuple):
    """What a batch of N pictures is trained with."""

    values: Tensor
    """Advantage at each location, (N, H, W)."""
    weights: Tensor
    """Factor of the loss at each location, (N, H, W): 1 but for ``heatmap``."""
    rewards: Tensor
    """Reward at each location, (N, H, W), in reward units."""
    group_std: Tensor
    """Std of the scalar rewards of each picture's group, (N,)."""


def combine(per_function: Tensor, weights: Tensor, k: int, normalise_first: bool = False) -> Tensor:
    """One scalar reward a picture of several rewards.

    Args:
        per_function: (N, F), groups of k pictures one after another.
        weights: (F,).
        k: pictures of a prompt.
        normalise_first: bring each reward to mean 0 and std 1 within its group before they are summed, so that
            rewards of unlike scale weigh what ``weights`` say.

    Returns:
        (N,).
    """
    if normalise_first:
        groups = per_function.unflatten(0, (-1, k))
        per_function = torch.cat([spatial_advantage(group) for group in groups])
    return per_function @ weights.to(per_function)


def advantages(
    rewards: Tensor,
    k: int,
    defect_sets: Sequence[DefectSet] | None,
    grid: tuple[int, int],
    c_artifact: float = 0.5,
    c_misalignment: float = 0.05,
    eps: float = 1e-4,
    scale: str = "group",
    heatmaps: Tensor | None = None,
) -> Advantages:
    """Advantages of N pictures, groups of ``k`` one after another.

    Args:
        rewards: scalar rewards, (N,).
        k: pictures of a prompt, at least 2.
        defect_sets: what was found in each picture (``box``, Eq. 4 and 5); None gives the scalar advantage at every
            location (Flow-GRPO).
        grid: rows and columns of the latent grid.
        c_artifact: weight of artifacts, in stds of the reward.
        c_misalignment: weight of misalignments, likewise.
        eps: added to the std.
        scale: whose std divides: the "group"'s, the whole "batch"'s, or "none".
        heatmaps: H in 0..1, (N, H, W), where DenseFlow-GRPO masks the loss: 1 - H are the weights.

    Raises:
        ValueError: for an unknown ``scale``, or a group of one picture.
    """
    groups = rewards.float().unflatten(0, (-1, k))
    std = groups.std(dim=1) if scale != "batch" else rewards.float().std().expand(len(groups))
    group_std = std.repeat_interleave(k)
    if defect_sets is None:
        maps = rewards.float()[:, None, None].expand(-1, *grid)
    else:
        maps = reward_map(rewards, defect_sets, grid, group_std, c_artifact, c_misalignment)
    by_group = maps.unflatten(0, (-1, k))
    if scale == "group":
        values = torch.stack([spatial_advantage(group, eps) for group in by_group])
    elif scale in ("batch", "none"):
        values = by_group - by_group.mean(dim=1, keepdim=True)
        if scale == "batch":
            values = values / (maps.std(dim=0) + eps)
    else:
        raise ValueError(f"scale={scale!r} is none of group, batch, none")
    weights = torch.ones_like(maps) if heatmaps is None else 1 - heatmaps.to(maps)
    return Advantages(values.flatten(0, 1), weights, maps, group_std)


def fit_heatmaps(heatmaps: Any, n: int, grid: tuple[int, int]) -> Tensor:
    """Heatmaps of a user's function at the locations of the latent grid, each the mean of what it covers.

    Args:
        heatmaps: H in 0..1, (n, h, w) of any size.
        n: number of pictures.
        grid: rows and columns of the latent grid.

    Returns:
        (n, H, W), float32.

    Raises:
        ValueError: for another shape, or values out of 0..1.
    """
    values = torch.as_tensor(heatmaps, dtype=torch.float32)
    if values.ndim != 3 or len(values) != n:
        raise ValueError(f"heatmap gave the shape {tuple(values.shape)} for {n} pictures; it must give ({n}, h, w)")
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(
            f"heatmap gave values in {float(values.min()):g}..{float(values.max()):g}; they must be in 0..1, 1 where "
            "the loss is masked"
        )
    return F.interpolate(values[:, None], grid, mode="area")[:, 0]


def artifact_heatmap(defect_sets: Sequence[DefectSet], grid: tuple[int, int]) -> Tensor:
    """H of DenseFlow-GRPO from boxes: the importance / 100 of the artifacts at each location, (N, H, W)."""
    return penalty_maps(defect_sets, grid)[0]


def found_on_average(defect_sets: Sequence[DefectSet], grid: tuple[int, int]) -> dict[str, float]:
    """Boxes a picture and mean penalty W of a location, by type, under the names that they are logged by."""
    found: dict[str, float] = {}
    for kind, weights in zip(TYPES, penalty_maps(defect_sets, grid), strict=True):
        found[f"defects/{kind}_boxes"] = sum(len(defects.of_type(kind)) for defects in defect_sets) / len(defect_sets)
        found[f"penalty/{kind}"] = float(weights.mean())
    return found
