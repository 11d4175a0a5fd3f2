"""Train a detector on its own answers (GRPO): load, build, train, evaluate, save.

    python train/grpo.py --config train/configs/grpo_tiny.yaml
    accelerate launch --config_file train/configs/accelerate_ddp.yaml train/grpo.py \
        --config train/configs/grpo_qwen3vl_4b.yaml

The model starts from a checkpoint of ``train/sft.py``, whose instruction it keeps. Every option of the dataclasses
below and of ``trl.GRPOConfig`` (vLLM's switches among them) can stand in the file or on the command line, which wins.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import ModelConfig, TrlParser, get_peft_config

from sdg.cards import write_recipe
from sdg.engines.places import locate, read_settings, settings_folder
from sdg.hub import HubOptions
from sdg.prompts import as_prompt
from sdg.records import from_row
from sdg.rewards import DetectorReward
from sdg.training.callbacks import FreeRunningEvaluation, TimedCheckpoints
from sdg.training.checkpoint import last_complete_checkpoint, save_detector
from sdg.training.data import hold_out, load_training_rows
from sdg.training.grpo import DetectorGRPOConfig, DetectorGRPOTrainer, as_prompts
from sdg.training.precision import without_emulated_bf16


@dataclass
class DataArguments:
    """What to train on, how answers are rewarded, and what is evaluated on the way."""

    data: str = field(metadata={"help": "Parquet file or folder of records, or SDG-30K's folder (split train)."})
    data_size: int = field(default=0, metadata={"help": "Training records used, the first ones; 0: all."})
    validation: str | None = field(default=None, metadata={"help": "Like data; evaluated by free-running answers."})
    order: str = field(default="xyxy", metadata={"help": "Box order of an SDG-30K snapshot: xyxy or yxyx."})
    validation_size: int = field(default=256, metadata={"help": "Validation pictures used; the first ones."})
    hold_out: int = field(default=0, metadata={"help": "Training records kept aside to evaluate on, prompt by prompt."})
    evaluate_every: int = field(default=0, metadata={"help": "Steps between evaluations; 0: before and after only."})
    evaluation_batch: int = field(default=64, metadata={"help": "Pictures answered at a time in evaluation."})
    embedder: str = field(default="auto", metadata={"help": "Sentence embedder that the reward compares reasons with."})
    require_think: bool = field(default=True, metadata={"help": "Reward only answers with a think tag."})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 leaves torch's choice."})


def main(data_args: DataArguments, args: DetectorGRPOConfig, model_args: ModelConfig) -> None:
    """The whole recipe."""
    if data_args.threads:
        torch.set_num_threads(data_args.threads)
    without_emulated_bf16(args)
    folder = Path(args.output_dir)
    if not model_args.model_name_or_path:
        raise ValueError("model_name_or_path is missing: GRPO starts from a checkpoint of train/sft.py")
    start = locate(model_args.model_name_or_path)

    # Load.
    train = load_training_rows(data_args.data, "train", data_args.order)
    rows = None
    if data_args.hold_out:
        train, rows = hold_out(train, data_args.hold_out)
    elif data_args.validation:
        rows = load_training_rows(data_args.validation, "train", data_args.order)
        rows = rows.select(range(min(data_args.validation_size, len(rows))))
    if data_args.data_size:
        train = train.select(range(min(data_args.data_size, len(train))))
    validation = [] if rows is None else [from_row(row) for row in rows]

    # Build. Instruction and longest answer are the checkpoint's own.
    settings = read_settings(settings_folder(start, HubOptions(revision=model_args.model_revision)))
    prompt = as_prompt(settings)
    settings = {"prompt": prompt, "max_new_tokens": args.max_completion_length, "made_for": settings.get("made_for")}
    processor = AutoProcessor.from_pretrained(start, padding_side="left")
    model = AutoModelForImageTextToText.from_pretrained(
        start, dtype=model_args.dtype or "auto", attn_implementation=model_args.attn_implementation
    )
    trainer = DetectorGRPOTrainer(
        model=model,
        reward_funcs=DetectorReward(embedder=data_args.embedder, require_think=data_args.require_think),
        args=args,
        train_dataset=as_prompts(train, prompt),
        processing_class=processor,
        peft_config=get_peft_config(model_args),
        callbacks=[TimedCheckpoints(args.save_minutes, every=args.rollout_steps)],
    )
    if validation and trainer.is_sharded:
        raise ValueError(
            "validation needs all weights on one process: use train/configs/accelerate_ddp.yaml or _deepspeed.yaml, or "
            "leave validation and hold_out out and score the checkpoints with sdg detect and sdg eval"
        )
    if validation:
        trainer.add_callback(
            FreeRunningEvaluation(
                validation,
                processor,
                folder=folder,
                every=data_args.evaluate_every,
                batch_size=data_args.evaluation_batch,
                before=True,
                **settings,
            )
        )

    # Train. "--resume_from_checkpoint true" goes on from the last complete checkpoint, or starts.
    resume = args.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(folder) if str(resume).lower() == "true" else resume)

    # Save. The best model by free-running F1, the one that training started from included, lies in best/ already.
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        save_detector(trainer.accelerator.unwrap_model(trainer.model), processor, folder / "final", state, **settings)
        started = {"base_model": model_args.model_name_or_path, "data": data_args.data}
        for kept in filter(Path.is_dir, (folder / "final", folder / "best")):
            write_recipe(kept, "GRPO", args, model_args, **started)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)  # else it draws a bar for every batch
    main(*TrlParser((DataArguments, DetectorGRPOConfig, ModelConfig)).parse_args_and_config())
