"""Supervised fine-tuning of a detector: TRL's trainer with soft coordinates, dense heads and a quick forward pass.

With the options of this module off it is TRL's ``SFTTrainer`` and its chunked loss, which is what a large model wants.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Sampler
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from sdg.training.checkpoint import last_complete_checkpoint
from sdg.training.collator import LENGTH_STEP
from sdg.training.data import LengthGroupedBatches, text_length
from sdg.training.dense import DenseHeads, DenseVocabulary, dense_loss
from sdg.training.fast import speed_up
from sdg.training.losses import soft_targets, target_loss
from sdg.training.optim import MuonWithAdamW
from sdg.training.tiny import number_ids

DENSE_FILE = "dense_heads.safetensors"
WEIGHT_FILE = "target_weight.json"


@dataclass
class DetectorSFTConfig(SFTConfig):
    """TRL's ``SFTConfig`` and what a detector's training adds.

    Args:
        coordinate_jitter: amplitude of the coordinate jitter in grid units (App. D); 0 turns it off.
        degrade: share of training pictures that are blurred, noised, compressed or rescaled.
        think_without: steps left out of think texts, an ablation (Table 4): 1, 2 or 3.
        answer_without: ``description`` or ``importance``, left out of answers, an ablation (Table 4).
        coordinate_sigma: width of the soft coordinate targets in grid units; 0 treats coordinates like other tokens.
            Needs a tokenizer in which the numbers 0..1000 are single tokens.
        coordinate_weight: weight of a coordinate beside another target token.
        dense_weight: weight of the dense heads' loss; 0 trains none. Needs records that know their objects.
        muon: Muon for matrices and AdamW for the rest, instead of ``optim``.
        fast_forward: rearranged forward pass of a small Qwen3-VL on a CPU (:mod:`sdg.training.fast`).
        length_pool: batches that are sorted by length together; 0 draws batches at random.
        freeze_vision: leave the vision tower as it is (App. D).
        save_minutes: minutes between checkpoints, beside ``save_strategy``; 0 leaves it to ``save_strategy``.
    """

    coordinate_jitter: int = field(default=10, metadata={"help": "Coordinate jitter in grid units; 0 turns it off."})
    degrade: float = field(default=0.0, metadata={"help": "Share of training pictures that are degraded first."})
    think_without: list[int] = field(default_factory=list, metadata={"help": "Steps left out of think texts."})
    answer_without: list[str] = field(default_factory=list, metadata={"help": "description or importance, left out."})
    coordinate_sigma: float = field(default=0.0, metadata={"help": "Width of soft coordinate targets; 0: hard."})
    coordinate_weight: float = field(default=2.0, metadata={"help": "Weight of a soft coordinate beside a token."})
    dense_weight: float = field(default=0.0, metadata={"help": "Weight of the dense heads' loss; 0: no heads."})
    muon: bool = field(default=False, metadata={"help": "Muon for matrices, AdamW for the rest."})
    fast_forward: bool = field(default=False, metadata={"help": "Quick forward pass of a small Qwen3-VL on a CPU."})
    length_pool: int = field(default=0, metadata={"help": "Batches sorted by length together; 0: none."})
    freeze_vision: bool = field(default=True, metadata={"help": "Leave the vision tower as it is."})
    save_minutes: float = field(default=0.0, metadata={"help": "Minutes between checkpoints; 0: save_strategy alone."})

    def __post_init__(self) -> None:
        # The collator reads columns that no model takes.
        self.remove_unused_columns = False
        super().__post_init__()


class _ClearGradients(TrainerCallback):
    """``Trainer`` clears the gradients of its model between steps, not those of the heads beside it."""

    def __init__(self, heads: torch.nn.Module) -> None:
        self.heads = heads

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.heads.zero_grad()


class DetectorSFTTrainer(SFTTrainer):
    """TRL's trainer of a detector.

    Args:
        vocabulary: names of the dense heads' classes; wanted with ``dense_weight``.
        **kwargs: as ``trl.SFTTrainer``; ``args`` is a :class:`DetectorSFTConfig` and ``data_collator`` an
            :class:`~sdg.training.collator.SFTCollator`.
    """

    args: DetectorSFTConfig

    def __init__(self, *, vocabulary: DenseVocabulary | None = None, **kwargs: Any) -> None:
        args: DetectorSFTConfig = kwargs["args"]
        model = kwargs["model"]
        if args.freeze_vision:
            model.model.visual.requires_grad_(False)
        self.dense_heads: DenseHeads | None = None
        if args.dense_weight:
            if vocabulary is None:
                raise ValueError(f"dense_weight={args.dense_weight} needs the vocabulary of the dense labels")
            if args.world_size > 1:
                raise ValueError("dense_weight needs one process: the dense heads are not kept equal between several")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(args.seed)
                heads = DenseHeads(model.config.text_config.hidden_size, vocabulary)
            self.dense_heads = heads.to(model.device)
        self._numbers: Tensor | None = None
        self._soft: Tensor | None = None
        self._typical: float | None = None
        if args.coordinate_sigma:
            self._numbers = number_ids(kwargs["processing_class"].tokenizer)
            if self._numbers is None:
                raise ValueError(
                    f"coordinate_sigma={args.coordinate_sigma} needs a tokenizer in which 0..1000 are single tokens; "
                    "set coordinate_sigma=0"
                )
            self._numbers = self._numbers.to(model.device)
            self._soft = soft_targets(args.coordinate_sigma).to(model.device)
        super().__init__(**kwargs)
        if self.dense_heads is not None:
            self.add_callback(_ClearGradients(self.dense_heads))
        if args.fast_forward:
            speed_up(self.model)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW (or what ``optim`` names), or Muon with AdamW; the dense heads are trained with the model."""
        args = self.args
        if self.optimizer is None and args.muon:
            modules = [m for m in (model or self.model, self.dense_heads) if m is not None]
            betas = (args.adam_beta1, args.adam_beta2)
            self.optimizer = MuonWithAdamW(modules, args.learning_rate, args.weight_decay, betas)
            return self.optimizer
        optimizer = super().create_optimizer(model)
        if self.dense_heads is not None:
            optimizer.add_param_group({"params": list(self.dense_heads.parameters()), "weight_decay": 0.0})
        return optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        if not self.args.length_pool:
            return super()._get_train_sampler(train_dataset)
        data: Any = train_dataset if train_dataset is not None else self.train_dataset
        columns = data.select_columns(["caption", "reasoning", "defects"])
        lengths = [text_length(row) for row in columns]
        return LengthGroupedBatches(lengths, self.args.train_batch_size, self.args.length_pool, self.args.seed)

    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a batch of :class:`~sdg.training.collator.SFTCollator`."""
        dense = {name: inputs.pop(name) for name in list(inputs) if name.startswith("dense_")}
        coordinates = inputs.pop("coordinates", None)
        if self._soft is None and self.dense_heads is None and not self.args.fast_forward:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs.pop("labels")
        if self.args.fast_forward:
            # Padding is on the right: no token sees it, and without a mask the quick attention runs.
            inputs.pop("attention_mask", None)
        first = int((labels >= 0).int().argmax(dim=1).min())
        kept = min(-(-(labels.shape[1] - first + 1) // LENGTH_STEP) * LENGTH_STEP, labels.shape[1])
        outputs = model(**inputs, logits_to_keep=kept, use_cache=False)
        parts = target_loss(
            outputs.logits,
            labels[:, -kept:],
            None if coordinates is None or self._soft is None else coordinates[:, -kept:],
            self._numbers,
            self._soft,
            self.args.coordinate_weight,
        )
        loss = parts.pop("loss") * self._share(float(parts.pop("weight")))
        if self.dense_heads is not None:
            tokens = torch.cat(list(outputs.image_outputs.pooler_output))
            dense_parts = dense_loss(self.dense_heads(tokens), dense)
            loss = loss + self.args.dense_weight * torch.stack(list(dense_parts.values())).sum()
            parts |= {f"dense_{name}": value.detach() for name, value in dense_parts.items()}
        mode = "train" if model.training else "eval"
        for name, value in parts.items():
            self._metrics[mode][f"loss_{name}"].append(float(value))
        return (loss, outputs) if return_outputs else loss

    def _share(self, weight: float) -> float:
        """Factor that makes a target token count the same in a batch of long answers and in one of short answers."""
        self._typical = weight if self._typical is None else 0.98 * self._typical + 0.02 * weight
        return weight / self._typical

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.dense_heads is not None:
            save_file(self.dense_heads.state_dict(), Path(output_dir) / DENSE_FILE)
        (Path(output_dir) / WEIGHT_FILE).write_text(json.dumps(self._typical))
        super()._save_optimizer_and_scheduler(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.dense_heads is not None:
            self.dense_heads.load_state_dict(load_file(Path(checkpoint) / DENSE_FILE))
        if checkpoint is not None and (path := Path(checkpoint) / WEIGHT_FILE).exists():
            self._typical = json.loads(path.read_text())
        super()._load_optimizer_and_scheduler(checkpoint)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As ``Trainer.train``; ``resume_from_checkpoint=True`` picks the last complete checkpoint, if there is one."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_complete_checkpoint(self.args.output_dir or ".")
        return super().train(resume_from_checkpoint, *args, **kwargs)
