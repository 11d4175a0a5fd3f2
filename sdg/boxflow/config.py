"""Settings of a BoxFlow-GRPO run: those of TRL's GRPOConfig that mean something for pictures, and what pictures add."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, get_args

from trl import GRPOConfig

from sdg.boxflow.sde import Dynamics, draw_steps

ADVANTAGES = ("box", "scalar", "heatmap")

OF_TEXT = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs", "chat_template_kwargs"),
    *("max_completion_length", "mask_truncated_completions", "pad_to_multiple_of", "cache_implementation"),
    *("cast_lm_head_to_fp32", "use_liger_kernel", "router_aux_loss_coef", "top_entropy_quantile"),
    *("use_adaptive_entropy", "max_tool_calling_iterations", "log_completions", "log_multimodal"),
    *("num_completions_to_print", "log_unique_prompts", "log_completions_hub_repo"),
    *("neftune_noise_alpha", "label_smoothing_factor"),
)
"""Fields about tokens, sampling text, and logging it."""
OF_OTHER_LOSSES = (
    *("loss_type", "delta", "off_policy_mask_threshold", "use_bias_correction_kl"),
    *("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"),
)
"""Fields of losses other than Eq. 6, and of a moving reference."""
PREFIXES = ("vllm_", "use_vllm", "use_transformers_", "transformers_continuous", "sapo_", "vespo_", "entropy_")


@dataclass
class BoxFlowGRPOConfig(GRPOConfig):
    """Configuration of :class:`sdg.BoxFlowGRPOTrainer`.

    Everything about batches, groups, optimiser, precision, logging, evaluation and checkpoints is TRL's and means what
    it means there; ``num_generations`` is K, ``num_iterations`` the passes over a batch of pictures, ``beta`` weighs
    the KL to the reference, ``importance_sampling_level="sequence"`` takes one ratio a picture (Flow-GRPO) instead of
    one a location, ``scale_rewards`` chooses the std of advantages: "group", "batch" (global) or "none".

    Raises:
        ValueError: for fields of GRPOConfig that mean nothing here, once they are set, and for values out of range.
    """

    learning_rate: float = field(default=3e-4, metadata={"help": "Initial learning rate; the paper's, for a LoRA."})
    epsilon: float = field(
        default=1e-4, metadata={"help": "Clip range; ratios of pictures stay far nearer 1 than text's."}
    )
    disable_dropout: bool = field(default=True, metadata={"help": "Dropout would make ratios wrong."})
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Every weight takes part in every step; searching costs time and can fail."}
    )

    height: int = field(default=512, metadata={"help": "Height of the pictures in pixels."})
    width: int = field(default=512, metadata={"help": "Width of the pictures in pixels."})
    guidance_scale: float = field(default=3.5, metadata={"help": "Guidance, as the pipeline takes it."})
    max_sequence_length: int | None = field(
        default=None, metadata={"help": "Tokens of a prompt; by default the pipeline's own number."}
    )
    num_sampling_steps: int = field(default=10, metadata={"help": "Steps of the sampler in training."})
    eval_sampling_steps: int | None = field(
        default=None, metadata={"help": "Steps of the noiseless sampler in evaluation; num_sampling_steps by default."}
    )
    dynamics: str = field(default="flow_sde", metadata={"help": "flow_sde, dance_sde or cps."})
    noise_level: float = field(default=0.7, metadata={"help": "a, the amount of noise of a stochastic step."})
    sde_window: list[int] = field(
        default_factory=lambda: [1, 4],
        metadata={"help": "Stochastic steps are drawn from first .. end - 1, counted from 0."},
    )
    sde_steps: int = field(default=1, metadata={"help": "How many steps of a run are stochastic, and trained on."})
    sigma_max: float | None = field(
        default=None,
        metadata={"help": "Stands for sigma = 1 in 1 - sigma (flow_sde); by default the next level."},
    )

    advantage: str = field(
        default="box", metadata={"help": "box (BoxFlow-GRPO), scalar (Flow-GRPO) or heatmap (DenseFlow-GRPO)."}
    )
    c_artifact: float = field(default=0.5, metadata={"help": "Weight of artifacts, in stds of the reward (Eq. 4)."})
    c_misalignment: float = field(default=0.05, metadata={"help": "Weight of misalignments, likewise."})
    advantage_eps: float = field(default=1e-4, metadata={"help": "Added to the std of advantages."})
    ema_decay: float = field(default=0.9, metadata={"help": "Of the averaged weights that are evaluated; 0: none."})

    rollout_batch_size: int = field(default=8, metadata={"help": "Pictures that are sampled at once."})
    detector_batch_size: int = field(default=8, metadata={"help": "Pictures that the detector looks at at once."})
    offload_text_encoders: bool = field(
        default=False, metadata={"help": "Keep text encoders in main memory except while prompts are encoded."}
    )
    max_unreadable_share: float = field(
        default=0.5,
        metadata={"help": "Stop when the detector's answers on more than this share of a batch cannot be read."},
    )
    panel_images: int = field(default=4, metadata={"help": "Pictures drawn into the panel of an evaluation; 0: none."})

    def __post_init__(self) -> None:
        self._refuse_what_means_nothing()
        super().__post_init__()
        if self.importance_sampling_level not in ("token", "sequence"):
            raise ValueError(
                f"importance_sampling_level={self.importance_sampling_level!r} is neither 'token' (one ratio a "
                "location) nor 'sequence' (one a picture)"
            )
        if self.advantage not in ADVANTAGES:
            raise ValueError(f"advantage={self.advantage!r} is none of {', '.join(ADVANTAGES)}")
        stochastic = [name for name in get_args(Dynamics) if name != "ode"]
        if self.dynamics not in stochastic:
            raise ValueError(
                f"dynamics={self.dynamics!r} is none of {', '.join(stochastic)}; training needs a stochastic step"
            )
        if not self.disable_dropout:
            raise ValueError("disable_dropout=False makes ratios differ from 1 before anything is learnt; leave it out")
        if self.noise_level <= 0:
            raise ValueError(f"noise_level={self.noise_level} must be above 0: without noise nothing can be learnt")
        for name in ("num_sampling_steps", "rollout_batch_size", "detector_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("c_artifact", "c_misalignment", "advantage_eps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is negative: defects would be rewarded, or stds vanish")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay} is not in 0 .. 1; 0 keeps no average")
        if not 0 <= self.max_unreadable_share <= 1:
            raise ValueError(f"max_unreadable_share={self.max_unreadable_share} is not a share, 0..1")
        window = tuple(self.sde_window)
        if len(window) != 2 or window[1] > self.num_sampling_steps:
            raise ValueError(
                f"sde_window={self.sde_window} is not [first, end] within the num_sampling_steps="
                f"{self.num_sampling_steps} steps"
            )
        draw_steps((window[0], window[1]), self.sde_steps)
        if self.dynamics == "cps" and window[1] == self.num_sampling_steps:
            raise ValueError(
                f"sde_window={self.sde_window} holds the last step, which has no noise under cps; "
                f"end it at {self.num_sampling_steps - 1}"
            )

    @property
    def prompts_a_rollout(self) -> int:
        """How many prompts all processes together draw pictures for at a time."""
        assert self.generation_batch_size is not None  # GRPOConfig sets it
        assert self.num_generations is not None
        return self.generation_batch_size // self.num_generations

    def _refuse_what_means_nothing(self) -> None:
        """Say which fields a user set that would be ignored."""
        for f in fields(GRPOConfig):
            meaningless = f.name in (*OF_TEXT, *OF_OTHER_LOSSES) or f.name.startswith(PREFIXES)
            if meaningless and getattr(self, f.name) != _default(f):
                what = "another loss" if f.name in OF_OTHER_LOSSES else "text"
                raise ValueError(
                    f"{f.name}={getattr(self, f.name)!r} is a setting of GRPOConfig for {what} and would change "
                    "nothing here; leave it out"
                )
        if self.trust_remote_code:
            raise ValueError("trust_remote_code=True: load such a pipeline yourself and pass it as the model")


def _default(f: Field[Any]) -> Any:
    return f.default if f.default is not MISSING else f.default_factory() if f.default_factory is not MISSING else None
