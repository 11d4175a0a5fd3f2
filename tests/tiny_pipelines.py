"""Text-to-image pipelines of diffusers with random weights, built from config: an image takes milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from sdg.training.generator import LENGTH, build_pipeline, build_third_tokenizer, build_tokenizer

WORDS = ["a", "red", "green", "blue", "car", "tree", "house", "by", "the", "under", "of"]
WIDTH = 32


def _vae(channels: int = 4, **config: Any) -> AutoencoderKL:
    """Eight pixels a cell."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=64,
        **config,
    )


def _clip(kind: Any, tokenizer: Any) -> Any:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH // 2 if kind is CLIPTextModelWithProjection else WIDTH,
        intermediate_size=WIDTH,
        projection_dim=WIDTH // 2,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config).eval()


def _t5(kind: Any, config: Any, tokenizer: Any) -> Any:
    return kind(
        config(
            vocab_size=len(tokenizer),
            d_model=WIDTH,
            d_kv=8,
            d_ff=WIDTH,
            num_layers=1,
            num_heads=2,
            is_encoder_decoder=False,
            use_cache=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).eval()


def _quiet(pipeline: Any, seed: int) -> Any:
    """Weights large enough that prompt and noise level matter to the output, and no progress bar."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in pipeline.transformer.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sd3(scheduler: Any = None, third: bool = True, seed: int = 0, channels: int = 4) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5 (``third=False``: without its T5, as people load it to save memory).

    To fill in masks it wants 16 channels.
    """
    torch.manual_seed(seed)
    tokenizer, third_tokenizer = build_tokenizer(WORDS), build_third_tokenizer(WORDS)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=channels,
        out_channels=channels,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(
            channels, scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False
        ).eval(),
        text_encoder=_clip(CLIPTextModelWithProjection, tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=_clip(CLIPTextModelWithProjection, tokenizer),
        tokenizer_2=tokenizer,
        text_encoder_3=_t5(T5EncoderModel, T5Config, third_tokenizer) if third else None,
        tokenizer_3=third_tokenizer if third else None,
    )
    return _quiet(pipeline, seed)


def microworld(seed: int = 0) -> StableDiffusion3Pipeline:
    """The microworld's generator before its training, with another autoencoder than the others'."""
    return _quiet(build_pipeline(WORDS, seed), seed)


def flux(scheduler: Any = None, guidance_embeds: bool = True, seed: int = 0) -> FluxPipeline:
    """FLUX.1 [dev] (``guidance_embeds=False``: [schnell])."""
    return _flux(FluxPipeline, 16, scheduler, guidance_embeds, seed)


def flux_fill(seed: int = 0) -> FluxFillPipeline:
    """FLUX.1 Fill [dev], which sees the picture round the hole (16 channels) and the hole (256) as well."""
    return _flux(FluxFillPipeline, 16 + 16 + 256, None, True, seed)


def _flux(kind: Any, channels: int, scheduler: Any, guidance_embeds: bool, seed: int) -> Any:
    torch.manual_seed(seed)
    tokenizer, second_tokenizer = build_tokenizer(WORDS), build_third_tokenizer(WORDS)
    transformer = FluxTransformer2DModel(
        in_channels=channels,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 4, 8),
    )
    pipeline = kind(
        transformer=transformer.eval(),
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(scaling_factor=0.4, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False).eval(),
        text_encoder=_clip(CLIPTextModel, tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=_t5(T5EncoderModel, T5Config, second_tokenizer),
        tokenizer_2=second_tokenizer,
    )
    return _quiet(pipeline, seed)


def aura_flow(scheduler: Any = None, seed: int = 0) -> AuraFlowPipeline:
    """AuraFlow, for which there is no policy."""
    torch.manual_seed(seed)
    tokenizer = build_third_tokenizer(WORDS)
    transformer = AuraFlowTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=WIDTH,
        pos_embed_max_size=64,
    )
    pipeline = AuraFlowPipeline(
        transformer=transformer.eval(),
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=1.73),
        vae=_vae(scaling_factor=0.2).eval(),
        text_encoder=_t5(UMT5EncoderModel, UMT5Config, tokenizer),
        tokenizer=tokenizer,
    )
    return _quiet(pipeline, seed)
