"""GRPO of a detector: TRL's trainer, the paper's settings, and prompts that carry their picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig, GRPOTrainer

from sdg.engines.images import fit
from sdg.prompts import Prompt
from sdg.records import from_row
from sdg.training.fast import speed_up


@dataclass
class DetectorGRPOConfig(GRPOConfig):
    """TRL's ``GRPOConfig`` with the paper's settings as defaults (App. D), and what a detector's training adds.

    Args:
        freeze_vision: leave the vision tower as it is.
        fast_forward: rearranged vision tower of a small Qwen3-VL on a CPU (:mod:`sdg.training.fast`).
        save_minutes: minutes between checkpoints, beside ``save_strategy``; 0 leaves it to ``save_strategy``.

    Raises:
        ValueError: for settings under which the detector would not learn what it is rewarded for.
    """

    learning_rate: float = field(default=5e-6, metadata={"help": "Initial learning rate of AdamW."})
    num_train_epochs: float = field(default=2.0, metadata={"help": "Passes over the prompts."})
    num_generations: int | None = field(default=8, metadata={"help": "Answers sampled for a prompt."})
    temperature: float = field(default=1.0, metadata={"help": "Of sampling, and of the log-probabilities."})
    top_p: float = field(default=0.85, metadata={"help": "Share of the probability that answers are sampled from."})
    max_completion_length: int | None = field(default=4096, metadata={"help": "Longest answer in tokens."})
    beta: float = field(default=0.01, metadata={"help": "Weight of the KL to the model that training starts from."})
    loss_type: str = field(default="grpo", metadata={"help": "How token losses are summed; grpo: mean by answer."})
    use_bias_correction_kl: bool = field(default=False, metadata={"help": "Weight the KL by the clipped ratio, too."})
    freeze_vision: bool = field(default=True, metadata={"help": "Leave the vision tower as it is."})
    fast_forward: bool = field(default=False, metadata={"help": "Quick vision tower of a small Qwen3-VL on a CPU."})
    save_minutes: float = field(default=0.0, metadata={"help": "Minutes between checkpoints; 0: save_strategy alone."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vllm_structured_outputs_regex is not None:
            raise ValueError(
                f"vllm_structured_outputs_regex={self.vllm_structured_outputs_regex!r}: answers are sampled freely, so "
                "that the format is learnt; leave it out, and let the finished detector decode with constrained=True"
            )
        if self.remove_unused_columns:
            raise ValueError(
                "remove_unused_columns=True drops the column defects that the reward reads; leave it false"
            )
        if self.eval_strategy != "no":
            raise ValueError(
                f"eval_strategy={self.eval_strategy!s} samples answers at random; set it to 'no', and validation and "
                "evaluate_every for greedy answers scored by SDG-Eval"
            )
        if self.save_strategy == "steps" and self.save_steps % self.rollout_steps:
            raise ValueError(
                f"save_steps={self.save_steps} falls between two rollouts, whose answers a checkpoint does not hold; "
                f"choose a multiple of {self.rollout_steps} (steps_per_generation * num_iterations / "
                "gradient_accumulation_steps)"
            )

    @property
    def rollout_steps(self) -> int:
        """Optimizer steps from one sampling of answers to the next."""
        assert self.steps_per_generation is not None  # GRPOConfig sets it
        return max(1, self.steps_per_generation * self.num_iterations // self.gradient_accumulation_steps)


class DetectorGRPOTrainer(GRPOTrainer):
    """TRL's ``GRPOTrainer`` of a detector.

    Args:
        **kwargs: as ``trl.GRPOTrainer``; ``args`` is a :class:`DetectorGRPOConfig`, ``train_dataset`` comes from
            :func:`as_prompts`, and ``model`` is a Qwen-VL style model in memory.
    """

    args: DetectorGRPOConfig

    def __init__(self, **kwargs: Any) -> None:
        args: DetectorGRPOConfig = kwargs["args"]
        if args.freeze_vision:
            kwargs["model"].model.visual.requires_grad_(False)
        super().__init__(**kwargs)
        if args.fast_forward:
            for model in (self.model, self.ref_model):
                if model is not None:
                    whole: Any = self.accelerator.unwrap_model(model)
                    speed_up(whole.get_base_model() if hasattr(whole, "peft_config") else whole)

    @property
    def is_sharded(self) -> bool:
        """Whether no process holds all weights (FSDP, DeepSpeed's third stage)."""
        plugin = self.accelerator.state.deepspeed_plugin if self.is_deepspeed_enabled else None
        return bool(self.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3))


def as_prompts(rows: Any, prompt: Prompt) -> Any:
    """Rows of records as TRL wants them: a conversation, its picture, and what the reward reads.

    Args:
        rows: a ``datasets.Dataset`` of :func:`sdg.records.features`.
        prompt: the instruction, as the detector will give it.

    Returns:
        the data set, converted as it is read, with the columns ``prompt``, ``image``, ``defects`` and ``id``.
    """

    def convert(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        records = [from_row(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
        return {
            "prompt": [[{"role": "user", "content": prompt.format(r.caption)}] for r in records],
            "image": [fit(r.image) for r in records],
            "defects": columns["defects"],
            "id": columns["id"],
        }

    return rows.select_columns(["id", "image", "caption", "defects"]).with_transform(convert)
