"""Callbacks of detector training: free-running evaluation with its curve, and checkpoints by the clock."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from sdg.defects import DefectSet
from sdg.detector import SDGDetector
from sdg.evaluation import SDGEval
from sdg.prompts import Prompt
from sdg.records import Record
from sdg.training.checkpoint import save_detector

CURVE_KEYS = (
    *(f"{t}/{m}" for t in ("artifact", "misalignment") for m in ("box_f1@0.5", "box_f1@0.1", "cln_acc")),
    "parse_rate",
)
LOGGED = ("loss", "learning_rate", "reward", "detector_reward/", "kl", "entropy", "completions/")
"""Beginnings of the names of what a trainer logs and the curve repeats."""


def mean_f1(metrics: dict[str, Any]) -> float:
    """Mean over the two types of BoxF1@0.5, what checkpoints are chosen by; an undefined one counts as 0."""
    scores = [metrics.get(f"{t}/box_f1@0.5") for t in ("artifact", "misalignment")]
    return sum(0.0 if s is None or math.isnan(s) else float(s) for s in scores) / len(scores)


class FreeRunningEvaluation(TrainerCallback):
    """SDG-Eval on answers that the model in memory writes by itself, every ``every`` steps and at the end.

    Teacher-forced loss says little about boxes: models of equal loss differ widely in what they write. Each evaluation
    adds a line to ``curve.jsonl``; the model with the best mean F1 is kept in ``best/``.

    Args:
        records: validation records.
        processor: the model's processor.
        prompt: the instruction.
        folder: where ``curve.jsonl`` and ``best/`` go.
        every: steps between evaluations; 0 evaluates at the end only.
        max_new_tokens: longest answer.
        batch_size: pictures answered at a time.
        made_for: for ``sdg_config.json``.
        before: evaluate the model that training starts from, too, so that ``best/`` is never worse than that.
        compute: predictions and references to metrics; SDG-Eval without an embedder by default.
    """

    def __init__(
        self,
        records: Sequence[Record],
        processor: Any,
        *,
        prompt: Prompt,
        folder: str | Path,
        every: int,
        max_new_tokens: int,
        batch_size: int = 64,
        made_for: str | None = None,
        before: bool = False,
        compute: Callable[..., dict[str, Any]] | None = None,
    ) -> None:
        self.records, self.processor, self.prompt = list(records), processor, prompt
        self.folder, self.every, self.max_new_tokens, self.batch_size = Path(folder), every, max_new_tokens, batch_size
        self.made_for, self.at_start = made_for, before
        self.compute = compute or SDGEval(embedder=None).compute
        self.curve = self.folder / "curve.jsonl"
        self.losses: dict[str, float] = {}
        self.started, self.before, self.best = time.monotonic(), 0.0, -1.0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Go on with the curve of the run that is resumed; lines after its checkpoint are dropped."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = read_curve(self.curve) if state.global_step else []
        lines = [line for line in lines if line["step"] <= state.global_step]
        self.curve.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        self.best = max((line["mean_f1"] for line in lines), default=-1.0)
        self.before = lines[-1]["seconds"] if lines else 0.0
        clock = read_curve(self.folder / "clock.jsonl") if state.global_step else []
        self.before = max([self.before, *(c["seconds"] for c in clock if c["step"] == state.global_step)])
        self.started = time.monotonic()
        if self.at_start and not state.global_step:
            self.evaluate(args, state, model)

    def seconds(self) -> float:
        """Seconds of training so far, those of the runs that this one resumes included."""
        return round(self.before + time.monotonic() - self.started, 1)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time of the checkpoint, for the run that resumes from it."""
        with (self.folder / "clock.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, "seconds": self.seconds()}) + "\n")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Remember the last losses for the curve."""
        self.losses |= {k: v for k, v in (logs or {}).items() if k.startswith(LOGGED) and not k.startswith("rewards/")}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Evaluate where it is time."""
        if self.every and state.global_step % self.every == 0 and state.global_step < state.max_steps:
            self.evaluate(args, state, model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Evaluate the model that training ends with."""
        self.evaluate(args, state, model)

    def evaluate(self, args: Any, state: Any, model: Any) -> None:
        """Answer, score, note, and keep the model where it is the best so far."""
        if not state.is_world_process_zero:
            return
        seconds = self.seconds()
        found = self.predict(model)
        metrics = self.compute(predictions=found, references=[r.defects for r in self.records])
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        batch //= getattr(args, "num_generations", 1)  # GRPO answers a picture several times
        line = {"step": state.global_step, "pictures": state.global_step * batch, "seconds": seconds}
        line |= {"mean_f1": mean_f1(metrics)} | {k: metrics.get(k) for k in CURVE_KEYS} | self.losses
        line["defects_a_picture"] = sum(len(d) for d in found) / max(len(found), 1)
        with self.curve.open("a", encoding="utf-8") as file:
            file.write(json.dumps({k: _plain(v) for k, v in line.items()}) + "\n")
        self.note_samples(found)
        if line["mean_f1"] >= self.best:
            self.best = line["mean_f1"]
            save_detector(
                model,
                self.processor,
                self.folder / "best",
                prompt=self.prompt,
                max_new_tokens=self.max_new_tokens,
                made_for=self.made_for,
            )

    def predict(self, model: Any) -> list[DefectSet]:
        """What the model finds on the validation records."""
        detector = SDGDetector.from_model(
            model, self.processor, prompt=self.prompt, max_new_tokens=self.max_new_tokens, name="in training"
        )
        images, captions = [r.image for r in self.records], [r.caption for r in self.records]
        return detector(images, captions, batch_size=self.batch_size)

    def note_samples(self, found: Sequence[DefectSet], n: int = 12) -> None:
        """The first few answers beside what is true, for a reader: ``samples.txt``."""
        parts = []
        for record, answer in zip(self.records[:n], found, strict=False):
            true = "\n".join(f"  {d.type} {d.box} {d.importance} {d.reason}" for d in record.defects)
            parts.append(f"{record.id}: {record.caption}\n{true or '  clean'}\n> {answer.raw}\n")
        (self.folder / "samples.txt").write_text("\n".join(parts), encoding="utf-8")


def read_curve(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a ``curve.jsonl``; a last line that was cut off is left out."""
    lines = []
    if Path(path).exists():
        for text in Path(path).read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines


def _plain(value: Any) -> Any:
    """JSON has no NaN: an undefined metric is null."""
    return None if isinstance(value, float) and math.isnan(value) else value


class TimedCheckpoints(TrainerCallback):
    """Ask for a checkpoint every ``minutes``, so that a killed run loses no more than that.

    Args:
        minutes: 0 never asks.
        every: only after a multiple of so many steps.
    """

    def __init__(self, minutes: float, every: int = 1) -> None:
        self.seconds, self.every = minutes * 60, every
        self.last = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save where the time is up."""
        if self.seconds and state.global_step % self.every == 0 and time.monotonic() - self.last >= self.seconds:
            control.should_save = True
            self.last = time.monotonic()
