"""Training runs of seconds: a tiny pipeline, a reward that a picture's brightness decides, a detector of the dark."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tiny_pipelines
import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image

from sdg import BoxFlowGRPOConfig, BoxFlowGRPOTrainer, Defect, DefectSet

PROMPTS = ["a red car", "the tree by a blue house", "a green house", "the car of the tree"]


def brightness(images: list[Image.Image], prompts: list[str]) -> list[float]:
    return [float(np.asarray(image, dtype=np.float32).mean()) / 255 for image in images]


def find_dark(images: list[Image.Image], captions: list[str], batch_size: int) -> list[DefectSet]:
    """The darkest quarter of each picture as an artifact."""
    found = []
    for image in images:
        small = np.asarray(image.convert("L").resize((2, 2), Image.Resampling.BOX)).astype(int)
        row, column = divmod(int(small.argmin()), 2)
        box = (column * 500, row * 500, column * 500 + 500, row * 500 + 500)
        found.append(DefectSet((Defect(box, "artifact", "dark", 80),)))
    return found


def find_nothing(images: list[Image.Image], captions: list[str], batch_size: int) -> list[DefectSet]:
    return [DefectSet() for _ in images]


def config(folder: str | Path, **options: Any) -> BoxFlowGRPOConfig:
    small: dict[str, Any] = {
        "height": 32,
        "width": 32,
        "num_sampling_steps": 4,
        "sde_window": [1, 3],
        "guidance_scale": 1.0,
        "max_sequence_length": 12,
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 4,
        "gradient_checkpointing": False,
        "max_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "bf16": False,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": [],
    }
    return BoxFlowGRPOConfig(str(folder), **(small | options))


def prompts(n: int = 4) -> Dataset:
    return Dataset.from_dict({"prompt": [PROMPTS[i % 4] for i in range(n)], "number": list(range(n))})


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(**({"r": 4, "lora_alpha": 8} | options))


def trainer(folder: str | Path, *, pipeline: Any = None, **options: Any) -> BoxFlowGRPOTrainer:
    """A trainer; options that are not its own arguments are the configuration's."""
    own = {"reward_funcs": brightness, "train_dataset": prompts(), "detector": find_dark, "peft_config": lora()}
    names = [*own, "eval_dataset", "heatmap", "callbacks"]
    own |= {name: options.pop(name) for name in names if name in options}
    return BoxFlowGRPOTrainer(model=pipeline or tiny_pipelines.sd3(), args=config(folder, **options), **own)


def logged(run: BoxFlowGRPOTrainer, name: str) -> list[float]:
    return [entry[name] for entry in run.state.log_history if name in entry]


def weights(run: BoxFlowGRPOTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in run.model.named_parameters() if p.requires_grad}


def keep_batches(run: BoxFlowGRPOTrainer) -> list[dict[str, torch.Tensor]]:
    """The batches that the trainer will make, as they come."""
    kept: list[dict[str, torch.Tensor]] = []
    make = run._generate_and_score_completions

    def keeping(inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        kept.append(make(inputs))
        return kept[-1]

    run._generate_and_score_completions = keeping  # type: ignore[method-assign]
    return kept


def main(folder: str, kill_at: str, resume: str, options: str) -> None:
    """A run as a process: its batches in ``FOLDER/RANK.pt``; killed at a call of the reward, where that is not 0."""
    calls = 0

    def reward(images: list[Image.Image], prompts: list[str]) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return brightness(images, prompts)

    run = trainer(folder, reward_funcs=reward, train_dataset=prompts(6), **json.loads(options))
    batches = keep_batches(run)
    run.train(resume_from_checkpoint=resume or None)
    state = {"batches": batches, "weights": weights(run), "log": run.state.log_history}
    torch.save(state, Path(folder, f"{run.accelerator.process_index}.pt"))
    run.accelerator.wait_for_everyone()
    run.accelerator.end_training()  # a process that ends while gloo's threads still run may be aborted


if __name__ == "__main__":
    main(*sys.argv[1:])
