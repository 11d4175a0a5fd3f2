"""Does it help to know where? Base, scalar (Flow-GRPO), heatmap (DenseFlow-GRPO) and box (BoxFlow-GRPO), side by side.

    python benchmarks/boxflow.py all --out runs/boxflow/results   # the four arms one after another, then the summary
    python benchmarks/boxflow.py box --out runs/boxflow/results   # one arm; goes on where it stopped
    python benchmarks/boxflow.py summary --plot docs/img/boxflow.png

All arms share generator, captions, seeds, number of pictures and settings (``--config``, and any of its options on the
command line); only ``advantage`` differs. Every ``--every`` steps held-out captions are drawn without noise from the
averaged weights, each several times, the same noise in all arms. Judges: the oracle, which no training sees; the scalar
scorer, which every arm is rewarded by; the detector, which box and heatmap see. OUT holds for each arm ARM.csv (a line
an evaluation), ARM_pictures.csv (a line a picture), ARM_training.csv (a line a logged step).
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import Tensor
from transformers import TrainerCallback
from trl import ModelConfig, TrlParser

from sdg import BoxFlowGRPOConfig, BoxFlowGRPOTrainer
from sdg.boxflow.base_rewards import MicroworldReward
from sdg.boxflow.data import load_prompts
from sdg.boxflow.rollout import Sampler, generators
from sdg.defects import TYPES, DefectSet
from sdg.draw import blank_figure, contact_sheet
from sdg.microworld.oracle import measure
from sdg.provenance import write_result
from sdg.records import Record
from sdg.training.checkpoint import last_complete_checkpoint

ROOT = Path(__file__).resolve().parents[1]
ARMS = {"scalar": "scalar (Flow-GRPO)", "heatmap": "heatmap (DenseFlow-GRPO)", "box": "box (BoxFlow-GRPO)"}
COLOURS = {"base": "#666666", "scalar": "#0072B2", "heatmap": "#009E73", "box": "#D55E00"}
EVALUATION_SEED = 70_000
LOADS = [f"{judge}_{t}" for judge in ("oracle", "detector") for t in TYPES]
PER_PICTURE = [*LOADS, "reward", "boxes", "unreadable"]
COLUMNS = {
    "oracle_artifact": "oracle: load of artifacts",
    "oracle_misalignment": "oracle: load of misalignments",
    "reward": "scorer's reward",
    "detector_artifact": "detector: load of artifacts",
    "detector_misalignment": "detector: load of misalignments",
    "boxes": "detector: boxes a picture",
    "unreadable": "share of unreadable answers",
    "agreement_artifact": "Spearman of oracle and detector, artifacts",
    "agreement_misalignment": "Spearman of oracle and detector, misalignments",
    "kl": "KL from base in a stochastic step, per latent value",
    "velocity": "velocity: distance from base, relative",
    "moved": "distance from base's picture of the same noise",
    "diversity": "distance within a prompt",
}
PANELS = ["oracle_artifact", "oracle_misalignment", "reward", "detector_artifact", "kl", "diversity"]


def training_script() -> ModuleType:
    """``train/boxflow_grpo.py``, whose arms these are."""
    spec = importlib.util.spec_from_file_location("train_boxflow_grpo", ROOT / "train" / "boxflow_grpo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def build(arm: str, options: argparse.Namespace, overrides: Sequence[str]) -> BoxFlowGRPOTrainer:
    """The trainer of an arm; ``base`` is the scalar one before its first step."""
    script = training_script()
    advantage = "scalar" if arm == "base" else arm
    words = ["--config", str(options.config), *overrides, "--advantage", advantage]
    words += ["--output_dir", str(options.runs / arm), "--eval_strategy", "no"]
    arguments, args, model_args = TrlParser(
        (script.AlignmentArguments, BoxFlowGRPOConfig, ModelConfig)
    ).parse_args_and_config(words)
    arguments.eval_prompts = None
    trainer: BoxFlowGRPOTrainer = script.build(arguments, args, model_args)
    if trainer.detector is None:
        raise SystemExit("detector is missing: the arms are compared by what it finds, too")
    return trainer


class Evaluation(TrainerCallback):
    """Draws held-out captions, judges the pictures, and adds a line to the arm's tables.

    Args:
        trainer: of the arm.
        arm: its name.
        options: of the command line.
    """

    def __init__(self, trainer: BoxFlowGRPOTrainer, arm: str, options: argparse.Namespace) -> None:
        self.trainer, self.arm, self.out, self.every = trainer, arm, options.out, options.every
        self.sheet = options.runs / arm / "sheet.png"
        self.probes = options.runs / "base.safetensors"
        captions = list(
            load_prompts("microworld", options.captions, split=options.split, seed=EVALUATION_SEED)["prompt"]
        )
        self.k = options.pictures
        self.captions = [caption for caption in captions for _ in range(self.k)]
        self.scorer = MicroworldReward()
        a = trainer.args
        steps = a.eval_sampling_steps or a.num_sampling_steps
        policy, size = trainer.policy, (a.height, a.width)
        self.sampler = Sampler(policy, policy.sigmas(steps, *size), a.guidance_scale, *size)
        self.noisy = Sampler(
            policy,
            policy.sigmas(a.num_sampling_steps, *size),
            a.guidance_scale,
            *size,
            a.noise_level,
            a.dynamics,
            a.sigma_max,
        )
        self.window = range(*a.sde_window)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate when it is time; an evaluation that stands in the table already is not repeated."""
        due = state.global_step % self.every == 0 or state.global_step >= state.max_steps
        if due and not any(int(row["step"]) == state.global_step for row in read(self.out / f"{self.arm}.csv")):
            self.measure(state.global_step)

    @torch.no_grad()
    def measure(self, step: int) -> None:
        """Evaluate the weights as they are at ``step``."""
        trainer, base = self.trainer, self.arm == "base"
        was_training = trainer.model.training
        trainer.model.eval()
        # Autocast by hand: base is measured before training puts it into the model's forward.
        with trainer.average or nullcontext(), trainer.accelerator.autocast():
            images = self.draw()
            velocities = self.velocities(None if base else load_file(self.probes))
        trainer.model.train(was_training)
        pixels = torch.stack([torch.from_numpy(np.array(image.convert("RGB"))) for image in images])
        if base:
            self.probes.parent.mkdir(parents=True, exist_ok=True)
            save_file(velocities | {"pixels": pixels}, self.probes)
        rows, found = self.judge(images)
        table = {name: np.array([row[name] for row in rows]) for name in PER_PICTURE}
        means = {name: float(column.mean()) for name, column in table.items()}
        for t in TYPES:
            means[f"agreement_{t}"] = agreement(table[f"oracle_{t}"], table[f"detector_{t}"])
        means |= drift(velocities, load_file(self.probes), pixels, self.noisy, self.window)
        means["diversity"] = diversity(pixels, self.k)
        a = trainer.args
        drawn = math.ceil(step * a.gradient_accumulation_steps / trainer.generate_every) * a.generation_batch_size
        add(self.out / f"{self.arm}.csv", [{"step": step, "pictures": drawn, **{c: means[c] for c in COLUMNS}}])
        add(self.out / f"{self.arm}_pictures.csv", [{"step": step, "picture": i, **r} for i, r in enumerate(rows)])
        first = range(0, len(images), self.k)
        self.sheet.parent.mkdir(parents=True, exist_ok=True)
        shown = [Record(images[i], self.captions[i], found[i]) for i in first]
        contact_sheet(shown[:24], columns=6).save(self.sheet)
        print(f"{self.arm} {step}: " + ", ".join(f"{c} {means[c]:.3f}" for c in COLUMNS), flush=True)

    def draw(self) -> list[Image.Image]:
        """A picture of each caption, by the ODE; picture i has the same noise in all arms."""
        images: list[Image.Image] = []
        a, device = self.trainer.args, self.trainer.accelerator.device
        for start in range(0, len(self.captions), a.rollout_batch_size):
            captions = self.captions[start : start + a.rollout_batch_size]
            conditions = self.trainer.policy.encode(captions, a.guidance_scale, device)
            noise = generators(EVALUATION_SEED, first=start, count=len(captions))
            x, _, _ = self.sampler.run(self.trainer.model, conditions, noise, [], device)
            images += self.trainer.policy.decode(x, a.height, a.width)
        return images

    def velocities(self, probes: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Velocities where training takes stochastic steps, at the latents that base passes through.

        Args:
            probes: of base; None runs base's own sampler and notes where it passes.

        Returns:
            latents ``x_j`` and velocities ``v_j`` of each step j of the window, of one picture a caption.
        """
        a, device, network = self.trainer.args, self.trainer.accelerator.device, self.trainer.model
        captions = self.captions[:: self.k][: a.rollout_batch_size]
        conditions = self.trainer.policy.encode(captions, a.guidance_scale, device)
        seen: dict[str, Tensor] = {}
        if probes is None:
            noise = generators(EVALUATION_SEED, first=0, count=len(captions))
            clean = self.noisy._replace(noise_level=0.0)  # as training passes, but without its noise
            _, _, before = clean.run(network, conditions, noise, self.window, device)
            probes = {f"x_{j}": x for j, x in zip(self.window, before, strict=True)}
        for j in self.window:
            seen[f"x_{j}"] = probes[f"x_{j}"].to(device)
            seen[f"v_{j}"] = self.noisy.velocity(network, seen[f"x_{j}"], j, conditions)
        return {name: tensor.cpu() for name, tensor in seen.items()}

    def judge(self, images: list[Image.Image]) -> tuple[list[dict[str, float]], list[DefectSet]]:
        """What oracle, scorer and detector say of each picture; and the detector's boxes."""
        rewards = self.scorer(images, self.captions)
        found = self.trainer.detector(images, self.captions, batch_size=self.trainer.args.detector_batch_size)
        rows = []
        for image, caption, reward, boxes in zip(images, self.captions, rewards, found, strict=True):
            measured = measure(image, caption)
            row: dict[str, float] = {f"oracle_{t}": measured.load(t) for t in TYPES}
            for t in TYPES:
                row[f"detector_{t}"] = sum(d.importance or 100 for d in boxes.of_type(t)) / 100
            rows.append(row | {"reward": reward, "boxes": len(boxes), "unreadable": int(boxes.parse_error is not None)})
        return rows, found


def agreement(oracle: np.ndarray, detector: np.ndarray) -> float:
    """Spearman correlation over pictures; NaN where one of the two says the same of all."""
    if np.ptp(oracle) == 0 or np.ptp(detector) == 0:
        return math.nan
    return float(spearmanr(oracle, detector).statistic)


def drift(
    now: dict[str, Tensor], base: dict[str, Tensor], pixels: Tensor, noisy: Sampler, window: range
) -> dict[str, float]:
    """How far from base: KL and velocity at the same latents, and pictures of the same noise.

    Args:
        now: of :meth:`Evaluation.velocities`.
        base: the same of base, and its ``pixels``.
        pixels: (N, H, W, 3), 0..255.
        noisy: the sampler of training.
        window: its stochastic steps.
    """
    kl, apart, size = [], 0.0, 0.0
    for j in window:
        x, mine, its = base[f"x_{j}"], now[f"v_{j}"], base[f"v_{j}"]
        a, b = noisy.step(mine, x, j, x), noisy.step(its, x, j, x)
        kl.append(float(((a.mean - b.mean) ** 2).mean() / (2 * a.std**2)))
        apart, size = apart + float(((mine - its) ** 2).sum()), size + float((its**2).sum())
    moved = ((pixels.float() - base["pixels"].float()) / 255).square().mean(dim=(1, 2, 3)).sqrt().mean()
    return {"kl": sum(kl) / len(kl), "velocity": math.sqrt(apart / max(size, 1e-12)), "moved": float(moved)}


def diversity(pixels: Tensor, k: int) -> float:
    """Mean distance (root mean square, pictures in 0..1) between two pictures of a prompt; NaN for k = 1."""
    groups = (pixels.float() / 255).unflatten(0, (-1, k))
    pairs = [(groups[:, i] - groups[:, j]).square().mean(dim=(1, 2, 3)).sqrt() for i, j in combinations(range(k), 2)]
    return float(torch.stack(pairs).mean()) if pairs else math.nan


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file; none where it is not there."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Add rows to a CSV file, in place of rows of the same step; whole or not at all."""
    steps = {str(row["step"]) for row in rows}
    kept = [row for row in read(path) if row["step"] not in steps]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        writer.writerows({n: f"{v:.5g}" if isinstance(v, float) else v for n, v in row.items()} for row in rows)
    part.rename(path)


def run(arm: str, options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """One arm, from where it stopped; base first, where it was not measured yet."""
    remember(options, overrides)
    measured, probes = bool(read(options.out / "base.csv")), options.runs / "base.safetensors"
    if measured and not probes.exists():  # of a generator that may have changed since
        raise SystemExit(f"{options.out} holds results of a run that is not in {options.runs}: choose another --out")
    if not measured:
        trainer = build("base", options, overrides)
        Evaluation(trainer, "base", options).measure(0)
    if arm == "base":
        return
    for kind in ("", "_pictures"):
        path = options.out / f"{arm}{kind}.csv"
        if not path.exists():
            path.write_text((options.out / f"base{kind}.csv").read_text(encoding="utf-8"), encoding="utf-8")
    trainer = build(arm, options, overrides)
    trainer.add_callback(Evaluation(trainer, arm, options))
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(options.runs / arm))
    logged = [log for log in trainer.state.log_history if "loss" in log]
    names = list(dict.fromkeys(["step", *(name for log in logged for name in log if "seconds" not in name)]))
    rows = [{name: log.get(name, math.nan) for name in names if name != "step_time"} for log in logged]
    (options.out / f"{arm}_training.csv").unlink(missing_ok=True)
    add(options.out / f"{arm}_training.csv", rows)
    trainer.save_model(str(options.runs / arm / "final"))


def remember(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Write down what is compared, and refuse to mix it with something else."""
    settings = {
        "config": options.config.read_text(encoding="utf-8").splitlines(),
        "overrides": list(overrides),
        **{name: getattr(options, name) for name in ("captions", "pictures", "every", "split")},
    }
    path = options.out / "settings.json"
    if not path.exists():
        write_result(path, settings)
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    if _meaning({name: there.get(name) for name in settings}) != _meaning(settings):
        raise SystemExit(f"{options.out} holds results of other settings ({path}): choose another --out and --runs")


def _meaning(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the configuration as it is read: a comment changes no result."""
    return {**settings, "config": yaml.safe_load("\n".join(settings["config"] or []))}


def change(arm: Path, other: Path, column: str, resamples: int = 2000) -> tuple[float, float, float]:
    """Mean difference of a column between the last evaluations of two arms, over the pictures of the same noise.

    Returns:
        the mean and its 95 % bootstrap interval, over captions.
    """
    ends = []
    for path in (arm, other):
        rows = read(path)
        last = max(int(row["step"]) for row in rows)
        ends.append(np.array([float(row[column]) for row in rows if int(row["step"]) == last]))
    k = json.loads((arm.parent / "settings.json").read_text(encoding="utf-8"))["pictures"]
    differences = (ends[0] - ends[1]).reshape(-1, k).mean(axis=1)  # pictures of a caption are no independent samples
    drawn = np.random.default_rng(0).integers(len(differences), size=(resamples, len(differences)))
    low, high = np.quantile(differences[drawn].mean(axis=1), [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)


def summary(out: Path, plot: Path | None) -> None:
    """Print the tables of the docs, and draw the curves."""
    curves = {arm: read(out / f"{arm}.csv") for arm in ("base", *ARMS)}
    curves = {arm: rows for arm, rows in curves.items() if rows}
    if "base" not in curves:
        raise SystemExit(f"{out} holds no base.csv: run base first")
    settings = json.loads((out / "settings.json").read_text(encoding="utf-8"))
    count = settings["captions"] * settings["pictures"]
    print(f"\n{count} pictures of {settings['captions']} captions of the split {settings['split']}, one run an arm\n")
    arms = list(curves)
    last = {arm: max(rows, key=lambda row: int(row["step"])) for arm, rows in curves.items()}
    print(f"| | {' | '.join(ARMS.get(arm, arm) for arm in arms)} |\n|---|{'---|' * len(arms)}")
    for column, words in {"step": "step", "pictures": "pictures drawn in training", **COLUMNS}.items():
        cells = [last[arm][column] if column in ("step", "pictures") else _cell(last[arm][column]) for arm in arms]
        print(f"| {words} | {' | '.join(cells)} |")
    pairs = [(arm, "base") for arm in arms if arm != "base"]
    pairs += [("box", rival) for rival in ("scalar", "heatmap") if rival in arms and "box" in arms]
    if pairs:
        print("\n| difference (95 % interval over captions) | artifacts | misalignments | reward |\n|---|---|---|---|")
    for arm, other in pairs:
        cells = []
        for column in ("oracle_artifact", "oracle_misalignment", "reward"):
            mean, low, high = change(out / f"{arm}_pictures.csv", out / f"{other}_pictures.csv", column)
            cells.append(f"{mean:+.3f} ({low:+.3f} to {high:+.3f})")
        print(f"| {arm} - {other} | {' | '.join(cells)} |")
    if plot:
        figure = blank_figure(12, 6.5)
        for axis, column in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
            axis.axhline(float(curves["base"][0][column]), color=COLOURS["base"], linestyle=":", label="base")
            for arm, rows in curves.items():
                if arm != "base":
                    points = sorted((int(row["pictures"]), float(row[column])) for row in rows)
                    axis.plot(*zip(*points, strict=True), "o-", color=COLOURS[arm], markersize=3, label=ARMS[arm])
            axis.set_title(COLUMNS[column], fontsize="medium")
            axis.set_xlabel("pictures drawn in training")
            axis.ticklabel_format(useOffset=False)
            axis.grid(alpha=0.3)
        figure.axes[0].legend(frameon=False, fontsize=8)
        plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(plot, dpi=120)


def _cell(value: str) -> str:
    """A number of a CSV file for a table of the docs; what is undefined is a dash."""
    number = float(value)
    return "-" if math.isnan(number) else f"{number:.4f}" if 0 < abs(number) < 0.01 else f"{number:.3f}"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("arm", choices=["base", *ARMS, "all", "summary"])
    parser.add_argument("--config", type=Path, default=ROOT / "train" / "configs" / "boxflow_tiny.yaml")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "boxflow", help="tables")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "boxflow", help="checkpoints, sheets of pictures")
    parser.add_argument("--captions", type=int, default=64, help="held-out captions of an evaluation")
    parser.add_argument("--pictures", type=int, default=4, help="pictures of each")
    parser.add_argument("--every", type=int, default=50, help="steps between evaluations")
    parser.add_argument("--split", default="test", help="split of the captions")
    parser.add_argument("--plot", type=Path, help="picture file for the curves")
    options, overrides = parser.parse_known_args(words)
    for arm in ARMS if options.arm == "all" else [] if options.arm == "summary" else [options.arm]:
        run(arm, options, overrides)
    if options.arm in ("all", "summary"):
        summary(options.out, options.plot)


if __name__ == "__main__":
    main()
