"""Muon for the matrices, AdamW for the rest, as one optimizer to trainers and schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sdg.engines.checkpoints import cpu_dtype

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of torch's Newton-Schulz iteration: five rounds bring singular values to about 0.7 .. 1.2."""


class Muon(torch.optim.Muon):
    """``torch.optim.Muon``, in the precision that the machine is quick in and with matrices of one shape as a batch.

    torch's own works in bfloat16 always, which a CPU without units for it emulates slowly. The
    learning rate is scaled so that updates are as large as AdamW's.

    Args:
        params: matrices.
        lr: learning rate.
        weight_decay: of all of them.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(list(params), lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            alike: dict[tuple[torch.Size, torch.device], list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault((p.shape, p.device), []).append(p)
            for (shape, _), parameters in alike.items():
                rate = group["lr"] * 0.2 * math.sqrt(max(shape))
                updates = orthogonal(torch.stack([self._momentum(p, group["momentum"]) for p in parameters]))
                for p, update in zip(parameters, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)
        return loss

    def _momentum(self, p: nn.Parameter, share: float) -> Tensor:
        """Nesterov's: the gradient, drawn towards the running mean of the gradients."""
        assert p.grad is not None
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p.grad)
        return p.grad.lerp(state["momentum_buffer"].lerp_(p.grad, 1 - share), share)


def orthogonal(matrices: Tensor, rounds: int = 5) -> Tensor:
    """The nearest orthogonal matrices, roughly, by Newton-Schulz.

    Args:
        matrices: (N, rows, columns).
        rounds: of the iteration.

    Returns:
        (N, rows, columns), in bfloat16 where the device multiplies it fast and in float32 elsewhere.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.to(cpu_dtype() if matrices.device.type == "cpu" else torch.bfloat16)
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonWithAdamW(torch.optim.Optimizer):
    """:class:`Muon` for the weight matrices of linear layers, ``torch.optim.AdamW`` for everything else.

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
            self.parts.append(Muon(matrices, lr, weight_decay))
        self.parts.append(torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=betas))
        self._share_groups()

    def _share_groups(self) -> None:
        """Schedulers write learning rates into ``param_groups``: they must be the parts' own dictionaries."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of both parts."""
        loss = None if closure is None else torch.enable_grad()(closure)()
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
