"""What happens between the steps of a run: saves on boundaries, averaged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

EMA_FILE = "ema.safetensors"


class SavesOnBoundaries(TrainerCallback):
    """Puts a checkpoint off until the pictures at hand are used up, so that a resumed run goes on exactly.

    Pictures of a half-used batch are in no checkpoint; after a resume they would be drawn anew by another policy.

    Args:
        trainer: whose count of micro-steps tells where boundaries are.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._owed = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """TRL's count of micro-steps is in no checkpoint: a resumed run must not start it at 0."""
        accumulated, batches = args.gradient_accumulation_steps, kwargs["train_dataloader"]
        epochs, steps, of_epoch = 0, state.global_step, 0
        if has_length(batches):  # the last step of an epoch takes the micro-steps that are left
            of_epoch = len(batches)
            epochs, steps = divmod(steps, -(-of_epoch // accumulated))
        self._trainer._step = epochs * of_epoch + steps * accumulated

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save now what is due, if this is a boundary or the end."""
        due = control.should_save or self._owed
        done = control.should_training_stop or state.global_step >= state.max_steps
        boundary = self._trainer._step % self._trainer.generate_every == 0
        control.should_save = due and (boundary or done)
        self._owed = due and not control.should_save


class Average(TrainerCallback):
    """An exponential moving average of what is trained (diffusers' EMAModel), after every optimiser step.

    Args:
        model: whose trainable parameters are averaged.
        decay: of the average; it grows to this value over the first steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._ema = EMAModel(self._trained.values(), decay=decay)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take the new weights in."""
        self._ema.step(self._trained.values())

    def __enter__(self) -> Average:
        """The model has the averaged weights until the context ends."""
        self._ema.to(next(iter(self._trained.values())).device)
        self._ema.store(self._trained.values())
        self._ema.copy_to(self._trained.values())
        return self

    def __exit__(self, *error: object) -> None:
        self._ema.restore(self._trained.values())

    def save(self, folder: str | Path) -> None:
        """Write the average into a checkpoint."""
        weights = dict(zip(self._trained, self._ema.shadow_params, strict=True))
        steps = {"optimization_step": str(self._ema.optimization_step)}
        save_file({name: w.detach().cpu().contiguous() for name, w in weights.items()}, Path(folder, EMA_FILE), steps)

    def load(self, folder: str | Path) -> None:
        """Go on from the average of a checkpoint; one without starts from the weights as they are."""
        path = Path(folder, EMA_FILE)
        if not path.exists():
            return
        weights = load_file(path)
        for name, shadow in zip(self._trained, self._ema.shadow_params, strict=True):
            shadow.data.copy_(weights[name])
        with safe_open(path, framework="pt") as file:
            self._ema.optimization_step = int(file.metadata()["optimization_step"])
