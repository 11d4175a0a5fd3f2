"""Train a defect detector: load, build, train, evaluate, save.

    python train/sft.py --config train/configs/sft_tiny.yaml
    accelerate launch train/sft.py --config train/configs/sft_qwen3vl_4b.yaml

Every option of the dataclasses below and of ``trl.SFTConfig`` can stand in the file or on the command line; the
command line wins.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import ModelConfig, TrlParser, get_peft_config

from sdg.cards import write_recipe
from sdg.microworld import HEADINGS, VOCABULARY
from sdg.prompts import DEFAULT, Prompt
from sdg.records import from_row
from sdg.training.callbacks import FreeRunningEvaluation, TimedCheckpoints
from sdg.training.checkpoint import save_detector
from sdg.training.collator import SFTCollator
from sdg.training.data import hold_out, load_training_rows
from sdg.training.dense import DenseVocabulary
from sdg.training.precision import without_emulated_bf16
from sdg.training.sft import DetectorSFTConfig, DetectorSFTTrainer
from sdg.training.tiny import build_model, build_processor


@dataclass
class DataArguments:
    """What to train on, and what is evaluated on the way."""

    data: str = field(metadata={"help": "Parquet file or folder of records, or SDG-30K's folder (split train)."})
    validation: str | None = field(default=None, metadata={"help": "Like data; evaluated by free-running answers."})
    order: str | None = field(
        default=None, metadata={"help": "Box order where the data do not declare it: xyxy or yxyx."}
    )
    validation_size: int = field(default=256, metadata={"help": "Validation pictures used; the first ones."})
    hold_out: int = field(default=0, metadata={"help": "Training records kept aside to evaluate on, prompt by prompt."})
    evaluate_every: int = field(default=0, metadata={"help": "Steps between evaluations; 0: at the end only."})
    max_new_tokens: int = field(default=4096, metadata={"help": "Longest answer."})
    generation_batch_size: int = field(default=64, metadata={"help": "Pictures answered at a time in evaluation."})
    prompt: str | None = field(default=None, metadata={"help": "Instruction with {caption}; default: the library's."})
    prompt_without_caption: str | None = field(default=None, metadata={"help": "Instruction without a caption."})
    made_for: str | None = field(default=None, metadata={"help": "The world that the checkpoint knows, in words."})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 leaves torch's choice."})


def main(data_args: DataArguments, args: DetectorSFTConfig, model_args: ModelConfig) -> None:
    """The whole recipe."""
    if data_args.threads:
        torch.set_num_threads(data_args.threads)
    without_emulated_bf16(args)
    folder = Path(args.output_dir)
    prompt = DEFAULT
    if data_args.prompt:
        prompt = Prompt(data_args.prompt, data_args.prompt_without_caption or DEFAULT.template_without_caption)

    # Load.
    train = load_training_rows(data_args.data, "train", data_args.order)
    rows = None
    if data_args.hold_out:
        train, rows = hold_out(train, data_args.hold_out)
    elif data_args.validation:
        rows = load_training_rows(data_args.validation, "train", data_args.order)
        rows = rows.select(range(min(data_args.validation_size, len(rows))))
    validation = [] if rows is None else [from_row(row) for row in rows]

    # Build. The small model starts from nothing: its words are the microworld's.
    if model_args.model_name_or_path:
        processor = AutoProcessor.from_pretrained(model_args.model_name_or_path)
        model = AutoModelForImageTextToText.from_pretrained(
            model_args.model_name_or_path,
            dtype=model_args.dtype or "auto",
            attn_implementation=model_args.attn_implementation,
        )
    else:
        processor = build_processor(VOCABULARY, pieces=HEADINGS)
        model = build_model(processor, seed=args.seed)
    vocabulary = DenseVocabulary.of(train.select_columns(["objects", "defects"])) if args.dense_weight else None
    collator = SFTCollator(
        processor,
        prompt=prompt,
        jitter=args.coordinate_jitter,
        max_length=args.max_length,
        vocabulary=vocabulary,
        degrade=args.degrade,
        think_without=args.think_without,
        answer_without=args.answer_without,
        seed=args.seed,
    )
    settings = {"prompt": prompt, "max_new_tokens": data_args.max_new_tokens, "made_for": data_args.made_for}
    callbacks = [TimedCheckpoints(args.save_minutes)]
    if validation:
        callbacks.append(
            FreeRunningEvaluation(
                validation,
                processor,
                folder=folder,
                every=data_args.evaluate_every,
                batch_size=data_args.generation_batch_size,
                **settings,
            )
        )
    trainer = DetectorSFTTrainer(
        model=model,
        args=args,
        train_dataset=train,
        processing_class=processor,
        data_collator=collator,
        peft_config=get_peft_config(model_args),
        callbacks=callbacks,
        vocabulary=vocabulary,
    )

    # Train. "--resume_from_checkpoint true" goes on from the last complete checkpoint, or starts.
    resume = args.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=True if str(resume).lower() == "true" else resume)

    # Save. The best model by free-running F1 lies in best/ already.
    if trainer.is_world_process_zero():
        save_detector(trainer.accelerator.unwrap_model(trainer.model), processor, folder / "final", **settings)
        started = {"base_model": model_args.model_name_or_path, "data": data_args.data}
        for kept in filter(Path.is_dir, (folder / "final", folder / "best")):
            write_recipe(kept, "supervised fine-tuning", args, model_args, **started)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(*TrlParser((DataArguments, DetectorSFTConfig, ModelConfig)).parse_args_and_config())
