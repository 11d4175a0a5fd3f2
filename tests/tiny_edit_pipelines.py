"""Instruction-editing pipelines of diffusers with random weights, built from config: an edit takes part of a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny_pipelines
import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from sdg.training import tiny

AREA = 64 * 64
"""Pixels that these see and draw, in place of a million."""
HIDDEN = 32


def kontext() -> FluxKontextPipeline:
    """FLUX.1 Kontext."""
    return _quiet(FluxKontextPipeline(**tiny_pipelines.flux().components))


def qwen() -> QwenImageEditPipeline:
    """Qwen-Image-Edit, that of one picture."""
    return _quiet(QwenImageEditPipeline(**_qwen_parts()))


def qwen_plus() -> QwenImageEditPlusPipeline:
    """Qwen-Image-Edit-2509 and later, those of several pictures."""
    return _quiet(QwenImageEditPlusPipeline(**_qwen_parts()))


BUILDERS: tuple[Callable[[], Any], ...] = (kontext, qwen, qwen_plus)


def small_area(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the Qwen pipelines see :data:`AREA` pixels: the million is written into their code."""
    for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus):
        scaled = module.calculate_dimensions
        monkeypatch.setattr(module, "calculate_dimensions", lambda _, ratio, scaled=scaled: scaled(AREA, ratio))


def _quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _qwen_parts() -> dict[str, Any]:
    torch.manual_seed(0)
    processor = tiny.build_processor(tiny_pipelines.WORDS, side=32)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=HIDDEN,
        axes_dims_rope=(4, 6, 6),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": vae.eval(),
        "text_encoder": _encoder(processor),
        "tokenizer": processor.tokenizer,
        "processor": processor,
        "transformer": transformer.eval(),
    }


def _encoder(processor: Any) -> Qwen2_5_VLForConditionalGeneration:
    """The Qwen2.5-VL that reads instruction and pictures."""
    tokenizer, images = processor.tokenizer, processor.image_processor
    token = {name: tokenizer.convert_tokens_to_ids(name) for name in tiny.SPECIAL_TOKENS}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN,
            "intermediate_size": HIDDEN,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]},
            "pad_token_id": token["<|endoftext|>"],
        },
        vision_config={
            "depth": 1,
            "hidden_size": HIDDEN,
            "intermediate_size": HIDDEN,
            "num_heads": 2,
            "patch_size": images.patch_size,
            "spatial_merge_size": images.merge_size,
            "temporal_patch_size": images.temporal_patch_size,
            "window_size": 4 * images.patch_size,
            "fullatt_block_indexes": [0],
            "out_hidden_size": HIDDEN,
        },
        image_token_id=token["<|image_pad|>"],
        video_token_id=token["<|video_pad|>"],
        vision_start_token_id=token["<|vision_start|>"],
        vision_end_token_id=token["<|vision_end|>"],
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()
