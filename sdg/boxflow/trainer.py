"""BoxFlow-GRPO as a trainer: TRL's GRPOTrainer, whose completions are pictures (§4.2, Eq. 4-6).

Sampling of prompts, buffering, accumulation, logging, checkpoints and distribution are TRL's. Three methods differ:
making the pictures and their advantages, the loss, and what is saved.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from peft import PeftModel
from PIL import Image
from torch import Tensor, nn
from transformers import TrainerCallback
from trl import GRPOTrainer
from trl.trainer.utils import use_adapter

from sdg.boxflow.advantages import Advantages, advantages, artifact_heatmap, combine, fit_heatmaps, found_on_average
from sdg.boxflow.base_rewards import Reward
from sdg.boxflow.callbacks import Average, SavesOnBoundaries
from sdg.boxflow.config import BoxFlowGRPOConfig
from sdg.boxflow.inputs import EpochSampler, Heatmap, as_trl_calls_it, with_prompts
from sdg.boxflow.lora import save_lora
from sdg.boxflow.maps import to_tokens
from sdg.boxflow.network import PolicyNetwork
from sdg.boxflow.panels import Panel
from sdg.boxflow.policy import Policy
from sdg.boxflow.push import PushesWhatIsLoaded
from sdg.boxflow.rollout import Sampler, encode, generators, seed, text_encoders
from sdg.boxflow.sde import draw_steps
from sdg.defects import DefectSet
from sdg.engines.pipelines import load_pipeline


class BoxFlowGRPOTrainer(PushesWhatIsLoaded, GRPOTrainer):  # type: ignore[misc]
    """Aligns a flow-matching pipeline of diffusers with scalar rewards and the defects that a detector finds.

    Args:
        model: the pipeline, or its id or folder. Its transformer is trained; the rest is frozen.
        reward_funcs: one or several scalar rewards, weighted by ``args.reward_weights``: called as
            ``reward(images, prompts, **columns)`` with the columns of the data set that they name (all, where they take
            ``**kwargs``; TRL's ``log_metric`` and ``log_extra`` among them), they return a number a picture. They may
            be coroutines.
        args: the configuration.
        train_dataset: with a column ``prompt`` or ``caption``, of plain strings.
        eval_dataset: likewise; drawn with the noiseless sampler and the averaged weights.
        detector: an :class:`sdg.SDGDetector`, or any callable ``detector(images, captions, batch_size=n)``. Needed for
            ``advantage="box"``, and for ``"heatmap"`` without ``heatmap``; else it is used in evaluation only.
        heatmap: for ``advantage="heatmap"``; by default the importance map of the artifact boxes.
        peft_config: trains a LoRA; without ``target_modules`` it gets the family's usual ones. None trains all weights.
        callbacks: as in TRL.
        optimizers: as in TRL.

    Raises:
        ValueError: before any time is spent, for a family without a policy, a scheduler that is not flow matching, a
            size that the pipeline cannot draw, a missing detector or prompt; and from :meth:`train`, for a reward that
            is not a finite number.
    """

    args: BoxFlowGRPOConfig
    model: Any
    loss_is_scaled_for_ga = False  # the loss is a mean over the micro-batch
    _tag_names = ["trl", "grpo", "boxflow-grpo"]  # noqa: RUF012
    _name = "BoxFlow-GRPO"

    def __init__(
        self,
        model: Any,
        reward_funcs: Reward | list[Reward],
        args: BoxFlowGRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        detector: Any = None,
        heatmap: Heatmap | None = None,
        peft_config: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        args = args or BoxFlowGRPOConfig("boxflow-grpo")
        if isinstance(model, str):
            options: Any = args.model_init_kwargs or {}
            model = load_pipeline(model, **options)
        self.policy = Policy.for_pipeline(model, args.max_sequence_length)
        self.policy.check_size(args.height, args.width)
        needs_boxes = args.advantage == "box" or (args.advantage == "heatmap" and heatmap is None)
        if needs_boxes and detector is None:
            raise ValueError(f"advantage={args.advantage!r} needs a detector; pass one, or choose advantage='scalar'")
        self.detector, self.heatmap, self._needs_boxes = detector, heatmap, needs_boxes
        self.grid = self.policy.grid(args.height, args.width)
        self._samplers = {mode: self._sampler(args, mode) for mode in ("train", "eval")}
        self._seconds: dict[str, defaultdict[str, float]] = {m: defaultdict(float) for m in ("train", "eval")}
        self.generate_every = (args.steps_per_generation or 1) * args.num_iterations
        if peft_config is not None and peft_config.target_modules is None:
            peft_config = copy.deepcopy(peft_config)
            peft_config.target_modules = list(self.policy.lora_targets)

        functions = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        if not functions:
            raise ValueError("reward_funcs is empty; BoxFlow-GRPO needs at least one scalar reward")
        for part in model.components.values():  # PEFT or the lines below decide what of the transformer is trained
            if isinstance(part, nn.Module):
                part.requires_grad_(part is self.policy.transformer).eval()
        network = PolicyNetwork(self.policy.transformer)

        beta, args.beta = args.beta, 0.0 if peft_config is None else args.beta  # TRL would load a reference by name
        super().__init__(
            model=network,
            reward_funcs=[as_trl_calls_it(function) for function in functions],
            args=args,
            train_dataset=with_prompts(train_dataset, "train_dataset", args.prompts_a_rollout),
            eval_dataset=None if eval_dataset is None else with_prompts(eval_dataset, "eval_dataset", 1),
            processing_class=copy.deepcopy(model.tokenizer),  # TRL may give it a padding token
            callbacks=callbacks,
            optimizers=optimizers,
            peft_config=peft_config,
        )
        self.args.beta = self.beta = beta
        if beta and peft_config is None:
            # Not a copy of the network: the forward that TRL put into it would go on calling the original.
            frozen = PolicyNetwork(copy.deepcopy(self.policy.transformer)).requires_grad_(False)
            self.ref_model = self.accelerator.prepare_model(frozen, evaluation_mode=True)

        for name, part in model.components.items():
            waits = args.offload_text_encoders and name.startswith("text_encoder")
            if isinstance(part, nn.Module) and not waits:
                part.to(self.accelerator.device)
        self.average = Average(self.model, args.ema_decay) if args.ema_decay else None
        if self.average:
            self.add_callback(self.average)
        self.add_callback(SavesOnBoundaries(self))
        self._eval_batches = 0
        self._panel = Panel(0)

    # Making pictures.

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in TRL, after each reward was asked about one grey picture."""
        data: Any = self.train_dataset
        row = dict(next(iter(data)))
        blank = Image.new("RGB", (self.args.width, self.args.height), "grey")
        self._rewards([row], [row["prompt"]], [blank])
        self._pending_metrics.clear()
        self._pending_extra_logs.clear()
        return super().train(*args, **kwargs)

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        ours: Any = super()._get_train_sampler(dataset)
        return EpochSampler(
            ours.data_source, ours.mini_repeat_count, ours.batch_size, ours.repeat_count, ours.shuffle, ours.seed
        )

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Draw a picture for each row, and say at each location how good it was.

        Tensors are sample-first: TRL splits them. Groups are the sampler's: ``num_generations`` rows one after another,
        over all processes.
        """
        mode = "train" if self.model.training else "eval"
        k = int((self.num_generations if mode == "train" else self.num_generations_eval) or 1)
        prompts = [row["prompt"] for row in inputs]
        images, tensors = self._draw(prompts, mode)
        with self._clock("rewards"):
            per_function = self._rewards(inputs, prompts, images)
        found = None
        if self.detector is not None and (self._needs_boxes or mode == "eval"):
            with self._clock("detector"), torch.no_grad():
                found = self._detect(images, prompts)

        rewards = combine(
            per_function,
            self.reward_weights,
            k,
            normalise_first=self.multi_objective_aggregation == "normalize_then_sum" and k > 1,
        )
        whole = self._advantages(rewards, k, images, found) if k > 1 else None
        self._log_rewards(per_function, rewards, whole, mode)
        mine = slice(self.accelerator.process_index * len(prompts), (self.accelerator.process_index + 1) * len(prompts))
        if mode == "eval":
            self._panel.keep(images, prompts, None if found is None else found[mine], whole, mine)
            return {"rewards": rewards[mine]}
        assert whole is not None  # GRPOConfig refuses groups of one
        layout = tensors["log_probs"].shape[2:]
        return tensors | {
            "advantages": to_tokens(whole.values[mine], layout),
            "weights": to_tokens(whole.weights[mine], layout),
        }

    def _draw(self, prompts: list[str], mode: str) -> tuple[list[Image.Image], dict[str, Tensor]]:
        """Pictures of the prompts; in training also what the loss needs of their stochastic steps."""
        args, device = self.args, self.accelerator.device
        if mode == "train":
            keys = (args.seed, 0, self._step)
            chooser = torch.Generator().manual_seed(seed(*keys))
            noisy = draw_steps((args.sde_window[0], args.sde_window[1]), args.sde_steps, chooser)
        else:  # the same noise in every evaluation, so that pictures can be compared
            keys, noisy = (args.seed, 1, self._eval_batches), []
            self._eval_batches += 1
        sampler = self._samplers[mode]
        with self._clock("encode"), text_encoders(self.policy.pipeline, device, args.offload_text_encoders):
            conditions = encode(self.policy, prompts, args.guidance_scale, device)

        images: list[Image.Image] = []
        parts: list[dict[str, Tensor]] = []
        first = self.accelerator.process_index * len(prompts)
        for start in range(0, len(prompts), args.rollout_batch_size):
            chunk = slice(start, start + args.rollout_batch_size)
            some = {name: tensor[chunk] for name, tensor in conditions.items()}
            count = len(prompts[chunk])
            with self._clock("rollout"), self.compute_loss_context_manager():
                # Through self.model: accelerate's autocast lives in the prepared model's forward.
                x, taken, before = sampler.run(
                    self.model, some, generators(*keys, first=first + start, count=count), noisy, device
                )
                if taken:
                    parts.append(self._record(sampler, some, noisy, taken, before))
            with self._clock("decode"):
                images.extend(self.policy.decode(x, args.height, args.width))
        if not parts:
            return images, {}
        kept = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return images, kept | {f"condition_{name}": tensor for name, tensor in conditions.items()}

    def _record(
        self, sampler: Sampler, conditions: dict[str, Tensor], noisy: list[int], taken: list[Any], before: list[Tensor]
    ) -> dict[str, Tensor]:
        """What the loss needs of the stochastic steps of B pictures, (B, steps, …), float32."""
        steps = {
            "x": torch.stack(before, dim=1),
            "next_x": torch.stack([step.next_x for step in taken], dim=1),
            "log_probs": torch.stack([step.log_prob for step in taken], dim=1),
            "indices": torch.tensor(noisy, device=before[0].device).expand(len(before[0]), -1),
        }
        if self.beta:
            with torch.no_grad(), self._reference() as reference:
                means = [
                    sampler.step(sampler.velocity(reference, x, index, conditions), x, index, step.next_x).mean
                    for x, index, step in zip(before, noisy, taken, strict=True)
                ]
            steps["reference_means"] = torch.stack(means, dim=1)
        return steps

    def _sampler(self, a: BoxFlowGRPOConfig, mode: str) -> Sampler:
        """The training sampler, or the noiseless one of evaluations."""
        steps = a.num_sampling_steps if mode == "train" else a.eval_sampling_steps or a.num_sampling_steps
        sampler = Sampler(
            self.policy, self.policy.sigmas(steps, a.height, a.width), a.guidance_scale, a.height, a.width
        )
        if mode == "eval":
            return sampler
        return sampler._replace(noise_level=a.noise_level, dynamics=a.dynamics, sigma_max=a.sigma_max)

    @contextmanager
    def _reference(self) -> Iterator[nn.Module]:
        """The model that KL is measured against: the start."""
        if self.ref_model is not None:
            yield self.ref_model
        else:
            with use_adapter(self.accelerator.unwrap_model(self.model), adapter_name=None):
                yield self.model

    # Judging them.

    def _rewards(self, inputs: list[dict[str, Any]], prompts: list[str], images: list[Image.Image]) -> Tensor:
        """Every reward of every picture of all processes, (N, F)."""
        per_function: Tensor = self._calculate_rewards(inputs, prompts, images, [None] * len(prompts))
        bad = (~per_function.isfinite()).nonzero()
        if len(bad):
            name = self.reward_func_names[int(bad[0, 1])]
            raise ValueError(
                f"reward {name!r} gave {float(per_function[tuple(bad[0])])} for a picture; it must give a finite "
                "number for every one"
            )
        return per_function

    def _detect(self, images: list[Image.Image], prompts: list[str]) -> list[DefectSet]:
        """What is wrong with the pictures of all processes; answers that cannot be read are empty sets, and counted."""
        found = list(self.detector(images, prompts, batch_size=self.args.detector_batch_size))
        found = gather_object(found)
        errors = [one.parse_error for one in found if one.parse_error]
        mode = "train" if self.model.training else "eval"
        share = len(errors) / len(found)
        self._metrics[mode]["defects/unreadable"].append(share)
        if share > self.args.max_unreadable_share:
            raise RuntimeError(
                f"the detector's answers on {len(errors)} of {len(found)} pictures could not be read (the first: "
                f"{errors[0]}). Above max_unreadable_share={self.args.max_unreadable_share} training would follow "
                "nothing; look at a picture, or give a detector that knows such pictures"
            )
        for name, value in found_on_average(found, self.grid).items():
            self._metrics[mode][name].append(value)
        return found

    def _advantages(
        self, rewards: Tensor, k: int, images: list[Image.Image], found: list[DefectSet] | None
    ) -> Advantages:
        """Advantages of the pictures of all processes."""
        args, heatmaps = self.args, None
        if args.advantage == "heatmap" and self.heatmap is not None:
            local = fit_heatmaps(self.heatmap(images), len(images), self.grid)
            heatmaps = self.accelerator.gather(local.to(rewards.device))
        elif args.advantage == "heatmap" and found is not None:
            heatmaps = artifact_heatmap(found, self.grid)
        return advantages(
            rewards,
            k,
            found if args.advantage == "box" else None,
            self.grid,
            args.c_artifact,
            args.c_misalignment,
            args.advantage_eps,
            args.scale_rewards,
            heatmaps,
        )

    # Learning from them.

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Eq. 6: the clipped objective at each location of each stochastic step; in evaluation minus the reward."""
        if "rewards" in inputs:
            return -inputs["rewards"].mean()
        sampler = self._samplers["train"]
        conditions = {
            name.removeprefix("condition_"): tensor for name, tensor in inputs.items() if name.startswith("condition_")
        }
        indices = [int(index) for index in inputs["indices"][0]]
        losses = []
        for j, index in enumerate(indices):
            x, next_x, old = (inputs[name][:, j] for name in ("x", "next_x", "log_probs"))
            step = sampler.step(sampler.velocity(model, x, index, conditions), x, index, next_x)
            assert step.log_prob is not None
            change = step.log_prob - old
            if self.importance_sampling_level == "sequence":
                change = change.flatten(1).mean(dim=1).reshape(-1, *[1] * (change.ndim - 1)).expand_as(change)
            ratio = change.exp()
            advantage = inputs["advantages"]
            clipped = ratio.clamp(1 - self.epsilon_low, 1 + self.epsilon_high)
            objective = torch.minimum(ratio * advantage, clipped * advantage) * inputs["weights"]
            loss = -objective.mean()
            if self.beta:
                # Between Gaussians of one std, per latent dimension as log-probabilities are.
                kl = ((step.mean - inputs["reference_means"][:, j]) ** 2).mean() / (2 * step.std**2)
                loss = loss + self.beta * kl
                self._log("kl", kl)
            self._log("ratio/mean", ratio.mean())
            self._log("ratio/std", ratio.std())
            self._log("clip_ratio/low_mean", ((ratio < 1 - self.epsilon_low) & (advantage < 0)).float().mean())
            self._log("clip_ratio/high_mean", ((ratio > 1 + self.epsilon_high) & (advantage > 0)).float().mean())
            losses.append(loss)
        return torch.stack(losses).mean()

    # Telling about it.

    def _log(self, name: str, value: Tensor) -> None:
        """Log the mean of a number over processes."""
        self._metrics["train"][name].append(self.accelerator.gather(value.detach()).mean().item())

    def _log_rewards(self, per_function: Tensor, rewards: Tensor, whole: Advantages | None, mode: str) -> None:
        log = self._metrics[mode]
        for name, column in zip(self.reward_func_names, per_function.T, strict=True):
            log[f"rewards/{name}/mean"].append(float(column.mean()))
            log[f"rewards/{name}/std"].append(float(column.std()) if len(column) > 1 else 0.0)
        log["reward"].append(float(rewards.mean()))
        log["reward_std"].append(float(rewards.std()) if len(rewards) > 1 else 0.0)
        for name in sorted(set(gather_object(list(self._pending_metrics)))):
            values = gather_object(self._pending_metrics.get(name, []))
            log[name].append(sum(values) / len(values))
        self._pending_metrics.clear()
        self._pending_extra_logs.clear()  # a table of texts is not kept
        if whole is not None:
            zero = torch.isclose(whole.group_std, torch.zeros_like(whole.group_std))
            log["frac_reward_zero_std"].append(float(zero.float().mean()))
            log["advantages/abs_mean"].append(float(whole.values.abs().mean()))

    @contextmanager
    def _clock(self, phase: str) -> Iterator[None]:
        """Count the seconds of a phase, chunks of a batch together."""
        began = time.perf_counter()
        yield
        self._seconds["train" if self.model.training else "eval"][phase] += time.perf_counter() - began

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in TRL, with the seconds of each phase since the last time."""
        mode = "train" if self.model.training else "eval"
        for phase, seconds in self._seconds[mode].items():
            self._metrics[mode][f"seconds/{phase}"].append(seconds)
        self._seconds[mode].clear()
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Draw and judge the evaluation prompts with the noiseless sampler and the averaged weights; draw a panel."""
        asked = eval_dataset, ignore_keys, metric_key_prefix
        if isinstance(self.eval_dataset if eval_dataset is None else eval_dataset, dict):
            return dict(super().evaluate(*asked))  # which comes back for each of them
        self._eval_batches = 0
        self._panel = Panel(self.args.panel_images)
        with self.average or nullcontext():
            metrics: dict[str, float] = super().evaluate(*asked)
        if self.accelerator.is_main_process:
            self._panel.show(self, metric_key_prefix)
        return metrics

    # Keeping it.

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if isinstance(self.model, PeftModel) and Path(resume_from_checkpoint, "adapter_model.safetensors").is_file():
            # transformers would take the folder lora/ for a second adapter, and put it into the model.
            self.model.load_adapter(resume_from_checkpoint, self.model.active_adapter, is_trainable=True)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.average and checkpoint is not None:
            self.average.load(checkpoint)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write a checkpoint's weights; a call of one's own also writes what others load.

        A LoRA goes to ``OUTPUT_DIR/lora`` for diffusers and PEFT (:func:`sdg.boxflow.lora.save_lora`), all weights go
        to ``OUTPUT_DIR/transformer`` as diffusers writes a transformer: averaged weights, where there is an average,
        else the last ones. A checkpoint has the folder lora/, too; what it resumes from are the last weights, under
        TRL's names.
        """
        super().save_model(output_dir, _internal_call)
        if not self.args.should_save:
            return
        folder = Path(str(output_dir or self.args.output_dir))
        if self.average and _internal_call:  # before the trainer's state, which marks a checkpoint as complete
            self.average.save(folder)
        with self.average or nullcontext():
            model = self.accelerator.unwrap_model(self.model)
            if isinstance(model, PeftModel):
                save_lora(model, self.policy.pipeline, folder / "lora")
            elif not _internal_call:
                self.policy.transformer.save_pretrained(folder / "transformer")
        self._write_recipe(folder)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: TRL's card describes a model that writes text."""
