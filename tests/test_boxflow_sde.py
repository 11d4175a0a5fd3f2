"""Sampler steps: the reference's numbers, limits, properties, schedules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from sdg.boxflow import sde

CASES = json.loads((Path(__file__).parent / "data" / "sde_step.json").read_text())["cases"]
STOCHASTIC = ["flow_sde", "dance_sde", "cps"]


def latents(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


@pytest.mark.parametrize("case", CASES)
def test_step_agrees_with_the_reference(case):
    tensor = {name: torch.tensor(case[name]).view(case["shape"]) for name in ("x", "velocity", "next_x", "mean")}
    got = sde.step(
        tensor["velocity"],
        tensor["x"],
        case["sigma"],
        case["sigma_next"],
        case["noise_level"],
        case["dynamics"],
        next_x=tensor["next_x"],
        sigma_max=case["sigma_max"],
    )
    torch.testing.assert_close(got.mean, tensor["mean"], atol=1e-5, rtol=1e-5)
    assert got.std == pytest.approx(case["std"], abs=1e-5)
    if case["dynamics"] in ("flow_sde", "dance_sde"):  # for cps the reference gives a bare squared error
        expected = torch.tensor(case["log_prob"])
        torch.testing.assert_close(got.log_prob.flatten(), expected.flatten(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dynamics", STOCHASTIC)
@pytest.mark.parametrize(("shape", "locations"), [((2, 3, 4, 5), (2, 4, 5)), ((2, 20, 3), (2, 20))])
def test_log_prob_is_the_gaussian_density_averaged_over_channels(dynamics, shape, locations):
    velocity, x = latents(*shape)
    got = sde.step(velocity, x, 0.8, 0.6, 0.7, dynamics, generator=torch.Generator().manual_seed(1))
    density = torch.distributions.Normal(got.mean, got.std).log_prob(got.next_x)
    assert got.log_prob.shape == locations
    torch.testing.assert_close(got.log_prob, density.mean(dim=1 if len(shape) == 4 else 2))


@pytest.mark.parametrize("dynamics", STOCHASTIC)
def test_without_noise_every_dynamics_is_the_ode(dynamics):
    velocity, x = latents(1, 2, 3, 3)
    got, ode = sde.step(velocity, x, 0.8, 0.6, 0.0, dynamics), sde.step(velocity, x, 0.8, 0.6, 0.0, "ode")
    torch.testing.assert_close(got.next_x, ode.next_x, atol=1e-6, rtol=1e-5)
    assert got.std == 0
    assert got.log_prob is None


@pytest.mark.parametrize(("sigma_max", "denominator"), [(0.95, 0.05), (None, 0.1)])
def test_flow_sde_at_sigma_one(sigma_max, denominator):
    velocity, x = latents(1, 2, 3, 3)
    got = sde.step(velocity, x, 1.0, 0.9, 0.7, sigma_max=sigma_max)
    drift = 0.7**2 / denominator / 2
    torch.testing.assert_close(got.mean, x * (1 - 0.1 * drift) - 0.1 * velocity, atol=1e-5, rtol=1e-5)


def test_half_precision_inputs_are_measured_in_float32():
    velocity, x = latents(1, 2, 3, 3)
    got = sde.step(velocity.bfloat16(), x, 0.8, 0.6, 0.7, generator=torch.Generator().manual_seed(0))
    assert got.next_x.dtype == got.log_prob.dtype == torch.float32


def test_generators_by_image_make_a_draw_independent_of_its_batch():
    velocity, x = latents(3, 2, 4, 4)
    seeded = lambda *seeds: [torch.Generator().manual_seed(seed) for seed in seeds]  # noqa: E731
    together = sde.step(velocity, x, 0.8, 0.6, 0.7, generator=seeded(5, 6, 7))
    alone = sde.step(velocity[1:2], x[1:2], 0.8, 0.6, 0.7, generator=seeded(6))
    torch.testing.assert_close(together.next_x[1:2], alone.next_x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma_next": 0.9}, "a step goes down"),
        ({"noise_level": -1.0}, "noise_level=-1.0 is negative"),
        ({"dynamics": "euler"}, "none of flow_sde"),
        ({"dynamics": "cps", "noise_level": 1.5}, "above 1"),
        ({"sigma": 1.0, "sigma_max": 1.0}, "must be below 1"),
        ({"x": torch.zeros(2, 2)}, "has shape"),
    ],
)
def test_refusals_name_the_value(changes, message):
    velocity, x = latents(1, 2, 3, 3)
    arguments = {"velocity": velocity, "x": x, "sigma": 0.8, "sigma_next": 0.6, "noise_level": 0.7} | changes
    with pytest.raises(ValueError, match=message):
        sde.step(**arguments)


def test_a_dynamic_shift_depends_on_the_size_of_the_picture():
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    small, large = (sde.schedule(scheduler, 10, tokens, linear=True) for tokens in (256, 4096))
    assert len(small) == 11
    assert small[0] == 1
    assert small[-1] == 0
    assert (small.diff() < 0).all()
    assert (large[1:-1] > small[1:-1]).all()


def test_other_schedulers_are_refused():
    with pytest.raises(ValueError, match="DDIMScheduler is not flow matching"):
        sde.schedule(DDIMScheduler(), 10, 64)


def test_drawn_steps_stay_in_the_window():
    generator = torch.Generator().manual_seed(0)
    drawn = [sde.draw_steps((1, 4), 2, generator) for _ in range(50)]
    assert {tuple(steps) for steps in drawn} == {(1, 2), (1, 3), (2, 3)}
    with pytest.raises(ValueError, match="cannot give sde_steps=4"):
        sde.draw_steps((1, 4), 4)
