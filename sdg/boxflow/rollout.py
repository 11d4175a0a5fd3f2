"""Sampling for training: a run of the sampler with noise in a few steps, which are kept to be trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sdg.boxflow import sde
from sdg.boxflow.policy import Policy


class Sampler(NamedTuple):
    """How pictures are sampled: the arguments that policy and steps need."""

    policy: Policy
    sigmas: Tensor
    """Noise levels, (n + 1,)."""
    guidance_scale: float
    height: int
    width: int
    noise_level: float = 0.0
    dynamics: str = "ode"
    sigma_max: float | None = None

    def velocity(self, network: nn.Module, x: Tensor, index: int, conditions: dict[str, Tensor]) -> Tensor:
        """The network's velocity at ``x``, which has the noise level of step ``index``."""
        sigma = float(self.sigmas[index])
        return self.policy.velocity(network, x, sigma, conditions, self.guidance_scale, self.height, self.width)

    def step(
        self,
        velocity: Tensor,
        x: Tensor,
        index: int,
        next_x: Tensor | None = None,
        generator: list[torch.Generator] | None = None,
    ) -> sde.Step:
        """The stochastic step ``index``, drawn or measured (:func:`sdg.boxflow.sde.step`)."""
        return sde.step(
            velocity,
            x,
            self.sigmas[index],
            self.sigmas[index + 1],
            self.noise_level,
            self.dynamics,  # type: ignore[arg-type]
            next_x,
            self.sigma_max,
            generator,
        )

    @torch.no_grad()
    def run(
        self,
        network: nn.Module,
        conditions: dict[str, Tensor],
        generators: list[torch.Generator],
        noisy: Sequence[int],
        device: torch.device,
    ) -> tuple[Tensor, list[sde.Step], list[Tensor]]:
        """Sample from noise to picture.

        Args:
            network: the policy network.
            conditions: of B prompts.
            generators: one an image, so that an image does not depend on its batch.
            noisy: indices of the stochastic steps; the others follow the ODE.
            device: of the latents.

        Returns:
            latents at sigma = 0; the stochastic steps; the latents before each of these. All float32.
        """
        x = self.policy.initial_latents(generators, self.height, self.width, device)
        taken, before = [], []
        for index in range(len(self.sigmas) - 1):
            velocity = self.velocity(network, x, index, conditions)
            if index in noisy:
                step = self.step(velocity, x, index, generator=generators)
                taken.append(step)
                before.append(x)
            else:
                step = sde.step(velocity, x, self.sigmas[index], self.sigmas[index + 1], 0.0, "ode")
            x = step.next_x
        return x, taken, before


@contextmanager
def text_encoders(pipeline: Any, device: torch.device, offload: bool) -> Iterator[None]:
    """The text encoders of a pipeline are on the device; with ``offload`` they go back to main memory afterwards."""
    encoders = [
        part
        for name, part in pipeline.components.items()
        if offload and name.startswith("text_encoder") and isinstance(part, nn.Module)
    ]
    try:
        for encoder in encoders:
            encoder.to(device)
        yield
    finally:
        for encoder in encoders:
            encoder.to("cpu")


def encode(policy: Policy, prompts: Sequence[str], guidance_scale: float, device: torch.device) -> dict[str, Tensor]:
    """The conditions of N prompts, first dimension N; the pictures of a group share a prompt, which is encoded once."""
    unique = list(dict.fromkeys(prompts))
    rows = torch.tensor([unique.index(prompt) for prompt in prompts], device=device)
    return {name: tensor.to(device)[rows] for name, tensor in policy.encode(unique, guidance_scale, device).items()}


def seed(*keys: int) -> int:
    """A seed made of numbers, the same on every machine and in every process."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1)


def generators(*keys: int, first: int, count: int) -> list[torch.Generator]:
    """One generator for each of the samples first .. first + count - 1 of the batch that ``keys`` name."""
    return [torch.Generator().manual_seed(seed(*keys, index)) for index in range(first, first + count)]
