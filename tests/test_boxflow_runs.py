"""Whole runs: killed and resumed, in two processes, with trackers; what is not exact in them shows as another curve."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import boxflow_runs as runs
import pytest
import tiny_pipelines
import torch
from datasets import Dataset
from peft import PeftModel

from sdg.training.checkpoint import last_complete_checkpoint

TESTS = Path(__file__).parent
CURVE = ("loss", "grad_norm", "reward", "ratio/std")


def curve(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: line.get(name) for name in CURVE} for line in history if "loss" in line]


def process(folder: Path, kill_at: int = 0, resume: str = "", rank: int = 0, port: int = 0, **options: Any) -> Any:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    if port:
        env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, str(TESTS / "boxflow_runs.py"), str(folder), str(kill_at), resume, json.dumps(options)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(run: Any) -> None:
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said[-2000:]


def result(folder: Path, rank: int = 0) -> dict[str, Any]:
    return torch.load(folder / f"{rank}.pt", weights_only=False)


EXACT: dict[str, Any] = {"num_iterations": 2, "learning_rate": 1e-2, "max_steps": 12, "save_strategy": "steps"}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="lora"),
        pytest.param({"peft_config": None, "learning_rate": 1e-3, "beta": 0.1}, id="full-kl"),
        pytest.param({"build": tiny_pipelines.flux, "sde_steps": 2, "height": 16, "width": 48}, id="flux-two-steps"),
        pytest.param({"gradient_accumulation_steps": 2, "max_steps": 6, "num_iterations": 1}, id="accumulated"),
        pytest.param(
            {
                "gradient_accumulation_steps": 2,
                "steps_per_generation": 1,
                "max_steps": 6,
                "num_iterations": 1,
                "train_dataset": runs.prompts(6),
            },
            id="epochs-of-a-step-and-a-half",
        ),
    ],
)
def test_a_resumed_run_goes_on_exactly_in_a_later_epoch(tmp_path, options):
    """Four prompts, two a rollout, two steps a rollout: checkpoint 6 lies in the second epoch."""
    options = EXACT | {"save_steps": 1, "train_dataset": runs.prompts()} | options
    build = options.pop("build", tiny_pipelines.sd3)
    whole = runs.trainer(tmp_path, pipeline=build(), **options)
    whole.train()
    saved = sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*"))
    assert saved
    assert whole.generate_every < 4 or all(step % 2 == 0 for step in saved)  # between rollouts only
    middle = saved[len(saved) // 2]
    again = runs.trainer(tmp_path, pipeline=build(), **options)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{middle}"))
    assert curve(again.state.log_history) == curve(whole.state.log_history)
    expected = runs.weights(whole)
    found = runs.weights(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.slow
def test_kill_9_and_resume_gives_the_same_curve(tmp_path):
    options = EXACT | {"save_steps": 2}
    finished(process(tmp_path / "whole", **options))
    killed = process(tmp_path / "killed", kill_at=5, **options)  # the first call is about a grey picture
    killed.communicate(timeout=300)
    assert killed.returncode == -9
    checkpoint = last_complete_checkpoint(tmp_path / "killed")
    assert checkpoint is not None
    assert checkpoint.endswith("checkpoint-6")
    finished(process(tmp_path / "killed", resume=checkpoint, **options))
    whole, resumed = result(tmp_path / "whole"), result(tmp_path / "killed")
    assert curve(resumed["log"]) == curve(whole["log"])
    assert all(torch.equal(whole["weights"][name], resumed["weights"][name]) for name in whole["weights"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"sde_steps": 2, "beta": 0.1, "steps_per_generation": 2, "gradient_checkpointing": True},
        {"peft_config": None, "learning_rate": 1e-3, "sde_steps": 2},
    ],
)
def test_two_processes_give_what_one_gives(tmp_path, options):
    """Twelve pictures, groups of four: the second group lies half in each process."""
    options = {"learning_rate": 1e-2, "max_steps": 2, **options}
    share = options.get("steps_per_generation", 1)
    finished(process(tmp_path / "one", per_device_train_batch_size=12 // share, **options))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    two = [
        process(
            tmp_path / "two",
            rank=rank,
            port=port,
            per_device_train_batch_size=6 // share,
            **options,
        )
        for rank in range(2)
    ]
    for run in two:
        finished(run)
    one, parts = result(tmp_path / "one"), [result(tmp_path / "two", rank) for rank in range(2)]
    first = one["batches"][0]
    for name in ("x", "next_x", "log_probs", "advantages", "indices"):
        both = torch.cat([part["batches"][0][name] for part in parts])
        torch.testing.assert_close(both, first[name], rtol=1e-4, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    assert float(first["advantages"].abs().max()) > 0.1
    for name in parts[0]["weights"]:
        assert torch.equal(parts[0]["weights"][name], parts[1]["weights"][name])
    if share == 1:  # else each process shuffles its own pictures between the steps
        rewards = [[line["reward"] for line in run["log"] if "reward" in line] for run in (one, parts[0])]
        assert rewards[0] == pytest.approx(rewards[1], abs=1e-4)


def test_a_checkpoint_holds_one_adapter(tmp_path):
    """PEFT would take the folder lora/ of a checkpoint for a second one."""
    options = EXACT | {"save_steps": 2, "max_steps": 4, "train_dataset": runs.prompts()}
    runs.trainer(tmp_path, **options).train()
    again = runs.trainer(tmp_path, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert list(again.model.peft_config) == ["default"]


@pytest.mark.parametrize("build", [tiny_pipelines.sd3, tiny_pipelines.flux])
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_lora_in_a_checkpoint_draws_what_evaluation_draws(tmp_path, build, decay):
    """Alpha is eight times the rank: at diffusers' own scale of 1 pictures would differ."""
    size = {"height": 16, "width": 48}
    options = {"save_strategy": "steps", "save_steps": 2, "learning_rate": 2e-2, "ema_decay": decay} | size
    run = runs.trainer(tmp_path, pipeline=build(), peft_config=runs.lora(r=2, lora_alpha=16), **options)
    run.train()

    def draw(pipeline: Any) -> torch.Tensor:
        noise = torch.Generator().manual_seed(0)
        call = {"num_inference_steps": 2, "max_sequence_length": 12, "output_type": "pt", "generator": noise} | size
        return pipeline("a red car", **call).images

    with run.average or contextlib.nullcontext():
        trained = draw(run.policy.pipeline)
    last = draw(run.policy.pipeline)
    folder = tmp_path / "checkpoint-2" / "lora"
    diffusers, peft = build(), build()
    diffusers.load_lora_weights(folder)
    peft.transformer = PeftModel.from_pretrained(peft.transformer, folder)
    torch.testing.assert_close(draw(diffusers), trained, atol=1e-5, rtol=0)
    torch.testing.assert_close(draw(peft), trained, atol=1e-5, rtol=0)
    assert float((draw(build()) - trained).abs().max()) > 1e-3
    assert (float((last - trained).abs().max()) > 1e-5) == (decay > 0)


def test_several_evaluation_sets_leave_the_weights_alone(tmp_path):
    sets = {"near": runs.prompts(2), "far": runs.prompts(1)}
    run = runs.trainer(tmp_path, eval_dataset=sets, learning_rate=1e-2, num_generations_eval=2, max_steps=3)
    run.train()
    before = runs.weights(run)
    run.evaluate()
    after = runs.weights(run)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {"eval_near_loss", "eval_far_loss"} <= {name for line in run.state.log_history for name in line}


def test_tensorboard_is_written_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    run = runs.trainer(
        tmp_path, report_to=["tensorboard"], eval_dataset=runs.prompts(1), eval_strategy="steps", eval_steps=1
    )
    run.train()
    (events,) = (tmp_path / "board").rglob("events.out.tfevents.*")
    board = EventAccumulator(str(events))
    board.Reload()
    assert {"train/reward", "train/ratio/mean", "train/defects/artifact_boxes"} <= set(board.Tags()["scalars"])
    assert "eval/panel" in board.Tags()["images"]
    assert sorted(path.name for path in (tmp_path / "panels").iterdir()) == ["step_000001.png", "step_000002.png"]


@pytest.mark.parametrize("value", [2.0, -0.5, math.nan])
def test_a_heatmap_out_of_range_is_refused(tmp_path, value):
    def heat(images: list[Any]) -> torch.Tensor:
        return torch.full((len(images), 4, 4), value)

    run = runs.trainer(tmp_path, advantage="heatmap", detector=None, heatmap=heat)
    with pytest.raises(ValueError, match=r"heatmap.*0\.\.1"):
        run.train()


def test_a_reward_without_a_number_is_refused(tmp_path):
    def broken(images: list[Any], prompts: list[str]) -> list[Any]:
        return [None] * len(images)

    run = runs.trainer(tmp_path, reward_funcs=broken)
    with pytest.raises(ValueError, match=r"'broken'.*finite"):
        run.train()


def test_modules_and_functions_are_rewards_side_by_side(tmp_path):
    class Half(torch.nn.Module):  # TRL would take a module for a text classifier
        def forward(self, images: list[Any], prompts: list[str]) -> list[float]:
            return [0.5] * len(images)

    run = runs.trainer(tmp_path, reward_funcs=[Half(), runs.brightness], reward_weights=[2.0, 0.0], max_steps=1)
    run.train()
    assert runs.logged(run, "rewards/Half/mean") == [0.5]
    assert runs.logged(run, "reward") == [1.0]
    assert runs.logged(run, "frac_reward_zero_std") == [1.0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (runs.prompts(1), "1 prompts.*the 2 of a rollout"),
        (Dataset.from_dict({"prompt": []}), "0 prompts"),
    ],
)
def test_too_few_prompts_are_refused(tmp_path, data, message):
    with pytest.raises(ValueError, match=f"train_dataset.*{message}"):
        runs.trainer(tmp_path, train_dataset=data)


def test_a_pipeline_that_holds_a_lora_is_refused(tmp_path):
    pipeline = tiny_pipelines.sd3()
    pipeline.transformer.add_adapter(runs.lora(target_modules=["attn.to_q"]))
    with pytest.raises(ValueError, match="LoRA"):
        runs.trainer(tmp_path, pipeline=pipeline)
