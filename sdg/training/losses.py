"""The loss on the target tokens, with soft coordinates: near misses cost little."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sdg.boxes import GRID


def soft_targets(sigma: float, size: int = GRID + 1) -> Tensor:
    """Row v: a Gaussian of ``sigma`` round the number v, over the numbers 0..size-1; (size, size), rows sum to 1."""
    values = torch.arange(size, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((values[:, None] - values) / sigma) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def target_loss(
    logits: Tensor,
    labels: Tensor,
    coordinates: Tensor | None = None,
    numbers: Tensor | None = None,
    targets: Tensor | None = None,
    coordinate_weight: float = 2.0,
) -> dict[str, Tensor]:
    """Negative log-likelihood of the target tokens, coordinates against soft targets.

    Args:
        logits: (B, L, V); position i predicts label i+1.
        labels: (B, L), -100 where a token is no target.
        coordinates: (B, L), the value of a coordinate label, -1 elsewhere; None treats every label alike.
        numbers: (1001,), token ids of the numbers 0..1000.
        targets: (1001, 1001) of :func:`soft_targets`.
        coordinate_weight: weight of a coordinate beside another token.

    Returns:
        ``loss``, the weighted mean over target tokens; ``weight``, the sum of their weights; ``text`` and
        ``coordinate``, the means of each sort, where the batch has any.

    Raises:
        ValueError: for coordinates without numbers and targets.
    """
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    label = labels[:, 1:].reshape(-1)
    place = torch.full_like(label, -1) if coordinates is None else coordinates[:, 1:].reshape(-1)
    is_place = place >= 0
    is_text = (label >= 0) & ~is_place
    text = F.cross_entropy(flat[is_text], label[is_text], reduction="sum")
    total, weight = text, is_text.sum().float()
    parts = {"text": (text / is_text.sum().clamp(min=1)).detach()}
    if is_place.any():
        if numbers is None or targets is None:
            raise ValueError("coordinates are given: numbers and targets must be, too")
        chosen = flat[is_place]
        log_p = chosen[:, numbers] - chosen.logsumexp(dim=1, keepdim=True)
        coordinate = -(targets[place[is_place]] * log_p).sum()
        total = total + coordinate_weight * coordinate
        weight = weight + coordinate_weight * is_place.sum()
        parts["coordinate"] = (coordinate / is_place.sum()).detach()
    return parts | {"loss": total / weight.clamp(min=1), "weight": weight}
