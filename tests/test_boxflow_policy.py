"""Policies: a rollout without noise is the pipeline's own output, whatever the family, size and guidance."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pipelines
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from sdg.boxflow import sde
from sdg.boxflow.policy import FluxPolicy, Policy, SD3Policy

PROMPTS = ["a red car", "the tree by a blue house"]
STEPS = 3
TOKENS = 12
BUILDERS = [tiny_pipelines.sd3, tiny_pipelines.flux]
GUIDE = Path(__file__).parent.parent / "docs" / "add-a-model-family.md"


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@torch.no_grad()
def rollout(policy: Policy, x: Tensor, prompts: list[str], guidance: float, height: int, width: int) -> Tensor:
    """All steps by the ODE."""
    conditions = policy.encode(prompts, guidance, "cpu")
    for sigma, sigma_next in pairwise(policy.sigmas(STEPS, height, width)):
        velocity = policy.velocity(policy.transformer, x, sigma, conditions, guidance, height, width)
        x = sde.step(velocity, x, sigma, sigma_next, noise_level=0).next_x
    return x


def own_output(pipeline: Any, guidance: float, height: int, width: int, output: str, **options: Any) -> Any:
    """What the pipeline itself gives for seeds 3 and 4."""
    options = {"max_sequence_length": TOKENS, "generator": generators(3, 4)} | options
    size = {"height": height, "width": width, "num_inference_steps": STEPS}
    return pipeline(PROMPTS, guidance_scale=guidance, output_type=output, **size, **options).images


def dynamic_shift() -> FlowMatchEulerDiscreteScheduler:
    """With a shift that differs much between the small pictures here."""
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_image_seq_len=2, max_image_seq_len=20)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 64), (64, 16)])
@pytest.mark.parametrize(
    ("build", "guidance"),
    [
        pytest.param(tiny_pipelines.sd3, 1.0, id="sd3"),
        pytest.param(tiny_pipelines.sd3, 4.5, id="sd3-guided"),
        pytest.param(lambda: tiny_pipelines.sd3(third=False), 4.5, id="sd3-without-t5"),
        pytest.param(lambda: tiny_pipelines.sd3(dynamic_shift()), 1.0, id="sd3-dynamic-shift"),
        pytest.param(tiny_pipelines.microworld, 4.5, id="microworld"),
        pytest.param(tiny_pipelines.flux, 3.5, id="flux-dev"),
        pytest.param(lambda: tiny_pipelines.flux(guidance_embeds=False), 3.5, id="flux-schnell"),
        pytest.param(lambda: tiny_pipelines.flux(dynamic_shift()), 3.5, id="flux-dynamic-shift"),
    ],
)
def test_a_rollout_without_noise_is_the_pipelines_own(
    build: Callable[[], Any], guidance: float, height: int, width: int
) -> None:
    pipeline = build()
    policy = Policy.for_pipeline(pipeline, max_sequence_length=TOKENS)
    x = rollout(
        policy, policy.initial_latents(generators(3, 4), height, width, "cpu"), PROMPTS, guidance, height, width
    )
    own = own_output(pipeline, guidance, height, width, "latent")
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, own, rtol=1e-5, atol=1e-5)
    pictures = policy.decode(x, height, width)
    assert [picture.size for picture in pictures] == [(width, height)] * 2
    for picture, its in zip(pictures, own_output(pipeline, guidance, height, width, "pil"), strict=True):
        assert np.abs(np.asarray(picture, int) - np.asarray(its, int)).max() <= 1  # rounding to 8 bits


@pytest.mark.parametrize("build", BUILDERS)
def test_a_silent_max_sequence_length_is_the_pipelines_own(build: Callable[[], Any]) -> None:
    pipeline = build()
    policy = Policy.for_pipeline(pipeline)
    x = rollout(policy, policy.initial_latents(generators(3, 4), 16, 16, "cpu"), PROMPTS, 4.5, 16, 16)
    own = pipeline(
        PROMPTS,
        guidance_scale=4.5,
        height=16,
        width=16,
        num_inference_steps=STEPS,
        output_type="latent",
        generator=generators(3, 4),
    )
    torch.testing.assert_close(x, own.images, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("what", ["guidance", "prompt", "size"])
def test_the_equalities_above_depend_on(what: str, build: Callable[[], Any]) -> None:
    """On pipelines that ignored their prompt, guidance or size the tests above would show nothing."""
    policy = Policy.for_pipeline(build(dynamic_shift()), max_sequence_length=TOKENS)
    x = policy.initial_latents(generators(3), 32, 64, "cpu")
    reference = rollout(policy, x, PROMPTS[:1], 2.0, 32, 64)
    other = {
        "guidance": lambda: rollout(policy, x, PROMPTS[:1], 4.0, 32, 64),
        "prompt": lambda: rollout(policy, x, PROMPTS[1:], 2.0, 32, 64),
        "size": lambda: (
            rollout(policy, x.transpose(2, 3), PROMPTS[:1], 2.0, 64, 32).transpose(2, 3)
            if x.ndim == 4
            else rollout(policy, x, PROMPTS[:1], 2.0, 64, 32)
        ),
    }[what]()
    assert float((other - reference).abs().max()) > 0.01


@pytest.mark.parametrize("build", BUILDERS)
def test_bfloat16_weights(build: Callable[[], Any]) -> None:
    pipeline = build().to(torch.bfloat16)
    policy = Policy.for_pipeline(pipeline, max_sequence_length=TOKENS)
    start = policy.initial_latents(generators(3, 4), 32, 64, "cpu")
    assert start.dtype == torch.float32
    x = rollout(policy, start, PROMPTS, 4.5, 32, 64)
    assert x.dtype == torch.float32
    own = own_output(pipeline, 4.5, 32, 64, "latent", latents=start.bfloat16())
    assert float((x - own.float()).abs().mean()) < 0.05 * float(own.float().std())
    for picture, its in zip(
        policy.decode(own.float(), 32, 64),
        own_output(pipeline, 4.5, 32, 64, "pil", latents=start.bfloat16()),
        strict=True,
    ):
        assert np.abs(np.asarray(picture, int) - np.asarray(its, int)).mean() < 2


@pytest.mark.parametrize("build", BUILDERS)
def test_latents_do_not_depend_on_the_batch(build: Callable[[], Any]) -> None:
    policy = Policy.for_pipeline(build())
    together = policy.initial_latents(generators(5, 6, 7), 32, 64, "cpu")
    alone = torch.cat([policy.initial_latents(generators(seed), 32, 64, "cpu") for seed in (5, 6, 7)])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize(("build", "grid"), [(tiny_pipelines.sd3, (4, 8)), (tiny_pipelines.flux, (2, 4))])
def test_the_grid_is_that_of_log_probabilities(build: Callable[[], Any], grid: tuple[int, int]) -> None:
    policy = Policy.for_pipeline(build())
    assert policy.grid(32, 64) == grid
    x = policy.initial_latents(generators(0), 32, 64, "cpu")
    log_prob = sde.step(torch.zeros_like(x), x, 0.5, 0.4, noise_level=0.7).log_prob
    assert log_prob is not None
    assert tuple(log_prob.shape[1:]) in (grid, (grid[0] * grid[1],))


def test_a_location_of_flux_is_where_it_is_in_the_picture() -> None:
    """Row-major tokens: a change at row 1, column 2 of the grid moves pixels there and leaves the far corner."""
    policy = Policy.for_pipeline(tiny_pipelines.flux())
    x = torch.zeros(1, 8, 16)
    x[0, 1 * 4 + 2] = 1.0
    latents = policy.unpack(x, 32, 64)
    assert latents.shape == (1, 4, 4, 8)
    changed = latents[0].abs().sum(0).nonzero()
    assert changed.tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_conditions_are_sample_first_and_of_one_shape(build: Callable[[], Any], guidance: float) -> None:
    policy = Policy.for_pipeline(build(), max_sequence_length=TOKENS)
    both = policy.encode(PROMPTS, guidance, "cpu")
    for index, prompt in enumerate(PROMPTS):
        alone = policy.encode([prompt], guidance, "cpu")
        assert alone.keys() == both.keys()
        for name, tensor in alone.items():
            torch.testing.assert_close(tensor[0], both[name][index])
            assert not tensor.requires_grad


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_each_image_may_have_its_own_noise_level(build: Callable[[], Any], guidance: float) -> None:
    policy = Policy.for_pipeline(build(), max_sequence_length=TOKENS)
    conditions = policy.encode(PROMPTS, guidance, "cpu")
    x = policy.initial_latents(generators(0, 1), 16, 32, "cpu")
    with torch.no_grad():
        first, second, both = (
            policy.velocity(policy.transformer, x, sigma, conditions, guidance, 16, 32)
            for sigma in (0.9, torch.tensor(0.3), torch.tensor([0.9, 0.3]))
        )
    torch.testing.assert_close(both, torch.stack([first[0], second[1]]))


class Doubled(nn.Module):
    """What a trainer hands over: something around the transformer, called in its stead."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer, self.batches = transformer, []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        (output,) = self.transformer(*args, **kwargs)
        self.batches.append(len(output))
        return (2 * output,)


@pytest.mark.parametrize(
    ("build", "guidance", "batch"), [(BUILDERS[0], 1.0, 2), (BUILDERS[0], 4.5, 4), (BUILDERS[1], 4.5, 2)]
)
def test_the_given_network_is_the_one_that_is_called(build: Callable[[], Any], guidance: float, batch: int) -> None:
    policy = Policy.for_pipeline(build(), max_sequence_length=TOKENS)
    network = Doubled(policy.transformer)
    conditions = policy.encode(PROMPTS, guidance, "cpu")
    x = policy.initial_latents(generators(0, 1), 16, 16, "cpu")
    arguments = (x, 0.7, conditions, guidance, 16, 16)
    velocity = policy.velocity(network, *arguments)
    assert network.batches == [batch]
    torch.testing.assert_close(velocity, 2 * policy.velocity(policy.transformer, *arguments))
    velocity.square().mean().backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in policy.transformer.parameters())


@pytest.mark.parametrize(("build", "kind"), [(BUILDERS[0], SD3Policy), (BUILDERS[1], FluxPolicy)])
def test_every_lora_target_is_a_layer_of_the_network(build: Callable[[], Any], kind: type[Policy]) -> None:
    policy = Policy.for_pipeline(build())
    assert type(policy) is kind
    layers = [name for name, module in policy.transformer.named_modules() if isinstance(module, nn.Linear)]
    for target in policy.lora_targets:
        assert any(name.endswith("." + target) for name in layers), target


@pytest.mark.parametrize(
    ("build", "options", "size", "sentence"),
    [
        (
            tiny_pipelines.aura_flow,
            {},
            None,
            r"AuraFlowPipeline has no policy.*FluxPipeline.*add-a-model-family",
        ),
        (tiny_pipelines.sd3, {}, (60, 64), r"height=60 must be a multiple of 16 .*nearest is 64"),
        (tiny_pipelines.sd3, {}, (64, 0), r"width=0 must be a multiple of 16"),
        (tiny_pipelines.sd3, {}, (64, 144), r"64 x 144 pixels are more .*: 128 a side"),
        (tiny_pipelines.flux, {}, (64, 40), r"width=40 must be a multiple of 16 .*nearest is 32"),
        (tiny_pipelines.sd3, {"max_sequence_length": 0}, None, r"max_sequence_length=0 .*1..512 tokens"),
        (tiny_pipelines.flux, {"max_sequence_length": 513}, None, r"max_sequence_length=513 .*FluxPipeline reads"),
        (
            lambda: tiny_pipelines.sd3(DPMSolverMultistepScheduler()),
            {},
            None,
            r"DPMSolverMultistepScheduler is not flow matching; load the pipeline with FlowMatchEuler",
        ),
    ],
)
def test_refusals(build: Callable[[], Any], options: dict, size: tuple[int, int] | None, sentence: str) -> None:
    pipeline = build()
    with pytest.raises(ValueError, match=sentence):
        Policy.for_pipeline(pipeline, **options).initial_latents(generators(0), *(size or (16, 16)), "cpu")


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_the_guides_third_family(monkeypatch: pytest.MonkeyPatch, guidance: float) -> None:
    monkeypatch.setattr(Policy, "_families", dict(Policy._families))
    family, check = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert len(family.splitlines()) <= 60
    names: dict[str, Any] = {}
    exec(family, names)
    exec(check, names)
    pipeline = tiny_pipelines.aura_flow()
    pictures = names["rollout"](pipeline, PROMPTS, generators(3, 4), guidance, 32, 64, STEPS)
    for picture, its in zip(
        pictures, own_output(pipeline, guidance, 32, 64, "pil", max_sequence_length=256), strict=True
    ):
        assert np.abs(np.asarray(picture, int) - np.asarray(its, int)).max() <= 1
    policy = Policy.for_pipeline(pipeline, max_sequence_length=TOKENS)
    x = rollout(policy, policy.initial_latents(generators(3, 4), 32, 64, "cpu"), PROMPTS, guidance, 32, 64)
    torch.testing.assert_close(x, own_output(pipeline, guidance, 32, 64, "latent"), rtol=1e-5, atol=1e-5)
