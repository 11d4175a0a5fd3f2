"""From rewards and defects to advantages: BoxFlow-GRPO and the two rivals that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sdg.boxflow.maps import penalty_maps, reward_map, spatial_advantage
from sdg.defects import DefectSet


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
        per_function = torch.cat([spatial_advantage(group)[None] for group in groups]).flatten(0, 1)
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


def artifact_heatmap(defect_sets: Sequence[DefectSet], grid: tuple[int, int]) -> Tensor:
    """H of DenseFlow-GRPO from boxes: the importance / 100 of the artifacts at each location, (N, H, W)."""
    return penalty_maps(defect_sets, grid)[0]
