"""Muon for the matrices, AdamW for the rest, as one optimizer to trainers and schedulers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class MuonWithAdamW(torch.optim.Optimizer):
    """``torch.optim.Muon`` for the weight matrices of linear layers, ``torch.optim.AdamW`` for everything else.

    Embeddings and whatever is no matrix go to AdamW. One learning rate serves both, since Muon's updates are scaled to
    the size of AdamW's.

    Args:
        modules: whose trainable parameters are optimized; one that occurs twice (tied weights) counts once.
        lr: learning rate.
        weight_decay: of matrices and embeddings.
        betas: of AdamW.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.95),
    ) -> None:
        modules = list(modules)
        embedded = {id(m.weight) for module in modules for m in module.modules() if isinstance(m, nn.Embedding)}
        seen: dict[int, nn.Parameter] = {}
        for module in modules:
            seen.update({id(p): p for p in module.parameters() if p.requires_grad})
        matrices = [p for i, p in seen.items() if p.ndim == 2 and i not in embedded]
        chosen = {id(p) for p in matrices}
        tables = [p for i, p in seen.items() if i not in chosen and p.ndim > 1]
        rest = [p for p in seen.values() if p.ndim <= 1]
        super().__init__([{"params": list(seen.values())}], {"lr": lr})
        groups = [{"params": tables, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            self.parts.append(
                torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        self.parts.append(torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=betas))
        self._share_groups()

    def _share_groups(self) -> None:
        """Schedulers write learning rates into ``param_groups``: they must be the parts' own dictionaries."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of both parts."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of both parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()
