"""The transformer of a pipeline as TRL's trainer takes it: a PreTrainedModel that hands everything through."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel


class PolicyNetwork(PreTrainedModel):
    """A diffusers transformer behind the interface of a transformers model.

    Args:
        transformer: the policy network; it is held, not copied.

    Raises:
        ValueError: for a transformer that holds a LoRA, beside which another would be trained.
    """

    config_class = PretrainedConfig
    supports_gradient_checkpointing = True

    def __init__(self, transformer: nn.Module) -> None:
        if getattr(transformer, "peft_config", None):
            raise ValueError(
                "the pipeline holds a LoRA: make it part of the weights by pipeline.fuse_lora() and "
                "pipeline.unload_lora_weights(), or take it out by the latter"
            )
        # Without a name: PEFT would ask the Hub for the vocabulary of a model that has one.
        super().__init__(PretrainedConfig())
        self.transformer: Any = transformer
        self.generation_config = GenerationConfig()  # asked for, never used: nothing here writes text

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the base class would overwrite the pretrained weights without a word."""

    def forward(self, **inputs: Any) -> Any:
        """What the transformer gives."""
        return self.transformer(**inputs)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None, **kwargs: Any) -> None:
        """As diffusers does it; its checkpoints are always non-reentrant."""
        self.transformer.enable_gradient_checkpointing()

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        self.transformer.disable_gradient_checkpointing()

    def enable_input_require_grads(self) -> None:
        """Nothing: there are no token embeddings, and non-reentrant checkpoints need no gradient at the input."""
