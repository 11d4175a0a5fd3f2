"""One step of a flow-matching sampler, and the log-probability of that step at each latent location (§4.2).

Symbols: ``sigma`` is the noise level t of the flow x_t = (1 - t) x_0 + t noise, ``velocity`` the model's noise - x_0,
``dt = sigma_next - sigma`` < 0, ``noise_level`` the amount of noise a. Everything is computed in float32.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

Dynamics = Literal["flow_sde", "dance_sde", "cps", "ode"]


class Step(NamedTuple):
    """What one sampler step gives."""

    next_x: Tensor
    """The latents after the step, float32, the shape of x."""
    mean: Tensor
    """Mean of the step's Gaussian, the shape of x."""
    std: float
    """Its standard deviation, one number for all locations; 0 for a step without noise."""
    log_prob: Tensor | None
    """Log-density of ``next_x`` averaged over channels, (B, H, W) or (B, tokens); None for a step without noise."""


def step(
    velocity: Tensor,
    x: Tensor,
    sigma: float | Tensor,
    sigma_next: float | Tensor,
    noise_level: float,
    dynamics: Dynamics = "flow_sde",
    next_x: Tensor | None = None,
    sigma_max: float | None = None,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> Step:
    """Go from ``sigma`` to ``sigma_next``, or measure a step that was taken.

    Args:
        velocity: the model's output at ``x``, its shape.
        x: latents (B, C, H, W) or packed tokens (B, N, C).
        sigma: noise level of ``x``, in (0, 1].
        sigma_next: noise level after the step, in [0, sigma).
        noise_level: a, at least 0; 0 makes every dynamics deterministic.
        dynamics: ``flow_sde`` (Flow-GRPO), ``dance_sde`` (DanceGRPO), ``cps`` (coefficient-preserving) or ``ode``.
        next_x: the step that was taken; None draws one.
        sigma_max: stands for sigma in 1 - sigma where sigma = 1 (``flow_sde``); None takes ``sigma_next``.
        generator: one for the batch, or a list with one an image, so that a draw does not depend on the batch.

    Returns:
        A :class:`Step`.

    Raises:
        ValueError: for levels that do not fall, a negative noise level, an unknown dynamics, latents of other rank.
    """
    s, s_next = float(sigma), float(sigma_next)
    if not 0 <= s_next < s <= 1:
        raise ValueError(f"sigma={s}, sigma_next={s_next}: a step goes down, 0 <= sigma_next < sigma <= 1")
    if noise_level < 0:
        raise ValueError(f"noise_level={noise_level} is negative; 0 is the deterministic sampler")
    if x.ndim not in (3, 4):
        raise ValueError(f"x has shape {tuple(x.shape)}; latents are (B, C, H, W), packed tokens (B, N, C)")
    x, velocity = x.float(), velocity.float()
    mean, std = _moments(velocity, x, s, s_next, float(noise_level), dynamics, sigma_max)
    if next_x is None:
        next_x = mean
        if std > 0:
            next_x = mean + std * randn_tensor(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    next_x = next_x.float()
    return Step(next_x, mean, std, log_prob(next_x, mean, std) if std > 0 else None)


def _moments(
    v: Tensor, x: Tensor, s: float, s_next: float, a: float, dynamics: Dynamics, sigma_max: float | None
) -> tuple[Tensor, float]:
    """Mean and std of the step's Gaussian."""
    dt = s_next - s
    if dynamics == "ode":
        return x + v * dt, 0.0
    if dynamics == "flow_sde":
        below = 1 - s if s < 1 else 1 - (s_next if sigma_max is None else sigma_max)
        if below <= 0:
            raise ValueError(
                f"sigma_max={sigma_max} must be below 1: it replaces sigma = 1, where sigma/(1-sigma) ends"
            )
        diffusion = a * math.sqrt(s / below)
        drift = diffusion**2 / (2 * s)
        return x * (1 + drift * dt) + v * (1 + drift * (1 - s)) * dt, diffusion * math.sqrt(-dt)
    clean = x - s * v
    if dynamics == "dance_sde":
        score = -(x - (1 - s) * clean) / s**2
        return x + v * dt - 0.5 * a**2 * score * dt, a * math.sqrt(-dt)
    if dynamics == "cps":
        if a > 1:
            raise ValueError(f"noise_level={a} is above 1, where all of the noise of a cps step is new")
        std = s_next * math.sin(a * math.pi / 2)
        noise = x + (1 - s) * v
        return (1 - s_next) * clean + math.sqrt(max(s_next**2 - std**2, 0.0)) * noise, std
    raise ValueError(f"dynamics={dynamics!r} is none of {', '.join(get_args(Dynamics))}")


def log_prob(next_x: Tensor, mean: Tensor, std: float) -> Tensor:
    """Log-density of a Gaussian step, averaged over channels: (B, C, H, W) -> (B, H, W), (B, N, C) -> (B, N)."""
    density = -((next_x - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    return density.mean(dim=1 if density.ndim == 4 else -1)


def schedule(scheduler: Any, num_steps: int, tokens: int, linear: bool = False) -> Tensor:
    """Noise levels of a run, with the shift that the scheduler gives a picture of this size.

    Args:
        scheduler: diffusers' FlowMatchEulerDiscreteScheduler; it is left as it is.
        num_steps: n, the number of sampler steps.
        tokens: patches of the picture, on which a dynamic shift depends.
        linear: start from evenly spaced levels 1 .. 1/n (FLUX) instead of the scheduler's own (SD3).

    Returns:
        (n + 1,), float32, falling to 0.

    Raises:
        ValueError: for a scheduler that is not flow matching.
    """
    if type(scheduler).__name__ != "FlowMatchEulerDiscreteScheduler":
        raise ValueError(
            f"scheduler {type(scheduler).__name__} is not flow matching; load the pipeline with "
            "FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config)"
        )
    scheduler, options = copy.deepcopy(scheduler), {}
    config = scheduler.config
    if config.get("use_dynamic_shifting"):
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        base, top = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        options["mu"] = base + (tokens - low) * (top - base) / (high - low)
    if linear and not config.get("use_flow_sigmas"):
        options["sigmas"] = np.linspace(1.0, 1 / num_steps, num_steps)
    else:
        options["num_inference_steps"] = num_steps
    scheduler.set_timesteps(**options)
    return scheduler.sigmas.float().cpu()


def draw_steps(window: tuple[int, int], count: int, generator: torch.Generator | None = None) -> list[int]:
    """``count`` different steps drawn from ``window`` (first, last + 1), in order: those get noise, others the ODE.

    Raises:
        ValueError: where the window holds fewer steps.
    """
    first, end = window
    if not 0 <= first < end or not 1 <= count <= end - first:
        raise ValueError(f"sde_window={window} cannot give sde_steps={count}: it holds steps first .. end - 1")
    return sorted((first + torch.randperm(end - first, generator=generator)[:count]).tolist())
