"""Qwen3-VL's forward pass on a CPU, rearranged for training: the same numbers, more pictures a second.

The vision tower is that of :mod:`sdg.engines.fast`; its attention here has gradients that are quick in bfloat16.
The text attention does without a mask. The patches sit on the instances of one model and can be taken off; weights,
names and saved files are untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sdg.engines.fast import patch_embedding, rotate, vision_attention


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None = None) -> Tensor:
    """Attention by two products and a softmax, quicker on a CPU than the fused kernel in bfloat16.

    With gradients more than twice as quick, at 256 tokens; in float32 the fused kernel wins.

    Args:
        query: (B, n, heads, d).
        key: (B, n, heads, d).
        value: (B, n, heads, d).
        scaling: factor on the products.
        mask: added to the scores, broadcast to (B, heads, n, n), or None.

    Returns:
        (B, n, heads * d).
    """
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    scores = torch.matmul(query * scaling, key.transpose(-1, -2))
    if mask is not None:
        scores = scores + mask
    weights = scores.softmax(dim=-1).to(value.dtype)
    return torch.matmul(weights, value).transpose(1, 2).flatten(2)


def _text_attention(module: Any, original: Any) -> Any:
    def forward(
        hidden_states: Tensor, position_embeddings: Any, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Any:
        if attention_mask is not None or kwargs.get("cache") is not None:
            return original(
                hidden_states, position_embeddings=position_embeddings, attention_mask=attention_mask, **kwargs
            )
        shape = (*hidden_states.shape[:-1], -1, module.head_dim)
        query = module.q_norm(module.q_proj(hidden_states).view(shape))
        key = module.k_norm(module.k_proj(hidden_states).view(shape))
        value = module.v_proj(hidden_states).view(shape)
        half = module.head_dim // 2
        cos, sin = (part[..., None, :half].to(query.dtype) for part in position_embeddings)
        key = rotate(key, cos, sin)
        repeats = module.num_key_value_groups
        if repeats > 1:
            key, value = key.repeat_interleave(repeats, dim=2), value.repeat_interleave(repeats, dim=2)
        n = hidden_states.shape[1]
        mask = torch.full((n, n), float("-inf"), dtype=query.dtype).triu(1)
        out = attend(rotate(query, cos, sin), key, value, module.scaling, mask)
        return module.o_proj(out), None

    return forward


def speed_up(model: Any) -> None:
    """Put the quick forward passes on a ``Qwen3VLForConditionalGeneration``; pictures of unequal size take the old way.

    The text attention is quick where no attention mask is passed: right padding needs none, since a token never sees
    what comes after it.
    """
    visual = model.model.visual
    visual.patch_embed.forward = patch_embedding(visual.patch_embed)
    for block in visual.blocks:
        block.attn.forward = vision_attention(block.attn, block.attn.forward, attend)
    for layer in model.model.language_model.layers:
        layer.self_attn.forward = _text_attention(layer.self_attn, layer.self_attn.forward)


def slow_down(model: Any) -> None:
    """Take the patches of :func:`speed_up` off again."""
    for module in model.modules():
        if type(module).__name__ in ("Qwen3VLVisionPatchEmbed", "Qwen3VLVisionAttention", "Qwen3VLTextAttention"):
            module.__dict__.pop("forward", None)


@contextmanager
def fast(model: Any) -> Iterator[Any]:
    """``with fast(model): ...``: :func:`speed_up` inside, :func:`slow_down` after."""
    speed_up(model)
    try:
        yield model
    finally:
        slow_down(model)
