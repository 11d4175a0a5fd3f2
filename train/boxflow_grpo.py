"""Align a text-to-image generator with the defects that a detector sees (BoxFlow-GRPO): build, train, evaluate, save.

    python train/boxflow_grpo.py --config train/configs/boxflow_tiny.yaml
    accelerate launch --config_file train/configs/accelerate_ddp.yaml train/boxflow_grpo.py \
        --config train/configs/boxflow_flux_paper.yaml

Every option of the dataclasses below, of ``sdg.BoxFlowGRPOConfig`` and of ``trl.ModelConfig`` can stand in the file or
on the command line, which wins. ``--advantage scalar`` and ``--advantage heatmap`` run the rivals.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import PartialState
from diffusers.utils import logging as diffusers_logging
from trl import ModelConfig, TrlParser, get_peft_config

from sdg import BoxFlowGRPOConfig, BoxFlowGRPOTrainer
from sdg.boxflow.base_rewards import CLIPScore, JudgeReward, MicroworldReward, PickScore, Reward
from sdg.boxflow.data import load_prompts
from sdg.detector import load_detector
from sdg.engines.pipelines import load_pipeline
from sdg.training.checkpoint import last_complete_checkpoint
from sdg.training.precision import without_emulated_bf16


@dataclass
class AlignmentArguments:
    """What to draw, and who judges it."""

    prompts: str = field(metadata={"help": "Text file, table, folder of parquet, or microworld for its captions."})
    prompts_size: int = field(default=0, metadata={"help": "Prompts used, the first ones; 0: all."})
    prompt_column: str = field(default="prompt", metadata={"help": "Column of a table that holds the prompts."})
    eval_prompts: str | None = field(default=None, metadata={"help": "Like prompts; judged every eval_steps."})
    eval_prompts_size: int = field(default=64, metadata={"help": "Evaluation prompts used, the first ones."})
    rewards: list[str] = field(
        default_factory=lambda: ["pick"],
        metadata={
            "help": "Scalar rewards, weighted by reward_weights: clip, pick, microworld or judge; NAME=MODEL for "
            "another model than the usual one, which judge always needs."
        },
    )
    judge_url: str | None = field(default=None, metadata={"help": "OpenAI-compatible API of the judge, ending in /v1."})
    judge_concurrency: int = field(default=16, metadata={"help": "Requests to the judge under way at a time."})
    detector: str | None = field(default=None, metadata={"help": "Detector: embedded name, folder, Hub id; or none."})
    detector_url: str | None = field(default=None, metadata={"help": "API of a server that has the detector."})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 leaves torch's choice."})


def build_reward(name: str, arguments: AlignmentArguments) -> Reward:
    """A scalar reward by NAME or NAME=MODEL."""
    name, _, model = name.partition("=")
    ready = {"clip": CLIPScore, "pick": PickScore, "microworld": MicroworldReward}
    if name in ready:
        return ready[name](model) if model else ready[name]()
    if name != "judge":
        raise ValueError(f"rewards: {name!r} is none of {', '.join(ready)}, judge")
    if not (model and arguments.judge_url):
        raise ValueError("rewards: judge needs its model, judge=NAME, and judge_url, the address of its server")
    judge = JudgeReward(arguments.judge_url, model, concurrency=arguments.judge_concurrency)
    judge.engine.check()
    return judge


def build(arguments: AlignmentArguments, args: BoxFlowGRPOConfig, model_args: ModelConfig) -> BoxFlowGRPOTrainer:
    """The trainer, with all that it needs."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    without_emulated_bf16(args)
    if not model_args.model_name_or_path:
        raise ValueError("model_name_or_path is missing: the text-to-image pipeline to align, a folder or a Hub id")

    # Prompts are strings; no picture is needed.
    prompts = load_prompts(arguments.prompts, arguments.prompts_size, arguments.prompt_column, seed=args.seed)
    held_out = None
    if arguments.eval_prompts:
        size, column = arguments.eval_prompts_size, arguments.prompt_column
        held_out = load_prompts(arguments.eval_prompts, size, column, split="test")

    # Who judges. A detector in this process has this process's own device.
    rewards = [build_reward(name, arguments) for name in arguments.rewards]
    detector = None
    if arguments.detector:
        device = PartialState().device
        place = {} if arguments.detector_url or device.type == "cpu" else {"device_map": {"": device}}
        detector = load_detector(arguments.detector, arguments.detector_url, **place)

    # The generator.
    dtype = None if model_args.dtype in (None, "auto") else getattr(torch, model_args.dtype)
    pipeline = load_pipeline(model_args.model_name_or_path, revision=model_args.model_revision, torch_dtype=dtype)
    lora = get_peft_config(model_args)
    if lora is not None:
        lora.task_type = None  # ModelConfig thinks of text; a transformer of pictures has no task in PEFT
    return BoxFlowGRPOTrainer(
        model=pipeline,
        reward_funcs=rewards,
        args=args,
        train_dataset=prompts,
        eval_dataset=held_out,
        detector=detector,
        peft_config=lora,
    )


def main(arguments: AlignmentArguments, args: BoxFlowGRPOConfig, model_args: ModelConfig) -> None:
    """Build, train, evaluate, save."""
    folder = Path(args.output_dir)
    trainer = build(arguments, args, model_args)

    # "--resume_from_checkpoint true" goes on from the last complete checkpoint, or starts.
    resume = args.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(folder) if str(resume).lower() == "true" else resume)
    if trainer.eval_dataset is not None:
        trainer.log_metrics("eval", trainer.evaluate())

    # final/lora for load_lora_weights and PEFT, or final/transformer.
    trainer.save_model(str(folder / "final"))
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()  # closes the process group: a process that ends before its threads may abort


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    diffusers_logging.set_verbosity_error()  # else every rollout repeats that a prompt was cut short
    logging.getLogger("httpx").setLevel(logging.WARNING)  # else every request to a server is a line
    main(*TrlParser((AlignmentArguments, BoxFlowGRPOConfig, ModelConfig)).parse_args_and_config())
