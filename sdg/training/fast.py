"""Qwen3-VL's forward pass on a CPU, rearranged: the same numbers, more pictures a second.

transformers runs the attention of the vision tower picture by picture and embeds patches with a 3-D convolution, which
a CPU does slowly. When all pictures of a batch have the same size, one batched product does. The patches sit on the
instances of one model and can be taken off; weights, names and saved files are untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of ``x`` (..., n, heads, d) by ``cos`` and ``sin`` (n, 1, d/2), the same for both halves."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None = None) -> Tensor:
    """Attention by two products and a softmax: on a CPU quicker than the fused kernel at a few hundred tokens.

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


def _vision_attention(module: Any, original: Any) -> Any:
    def forward(hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: Any = None, **kwargs: Any) -> Tensor:
        lengths = cu_seqlens.diff()
        n = int(lengths[0])
        if not bool((lengths == n).all()):
            return original(hidden_states, cu_seqlens=cu_seqlens, position_embeddings=position_embeddings, **kwargs)
        batch = len(lengths)
        cos, sin = position_embeddings
        half = cos.shape[-1] // 2
        shape = (batch, n, 1, half)
        qkv = module.qkv(hidden_states).view(batch, n, 3, module.num_heads, -1)
        cos, sin = (part[:, :half].reshape(shape).to(qkv.dtype) for part in (cos, sin))
        query, key, value = qkv.unbind(2)
        out = attend(_rotate(query, cos, sin), _rotate(key, cos, sin), value, module.scaling)
        return module.proj(out.reshape(hidden_states.shape[0], -1))

    return forward


def _patch_embedding(module: Any) -> Any:
    def forward(hidden_states: Tensor) -> Tensor:
        weight = module.proj.weight
        return F.linear(hidden_states.to(weight.dtype), weight.flatten(1), module.proj.bias)

    return forward


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
        key = _rotate(key, cos, sin)
        repeats = module.num_key_value_groups
        if repeats > 1:
            key, value = key.repeat_interleave(repeats, dim=2), value.repeat_interleave(repeats, dim=2)
        n = hidden_states.shape[1]
        mask = torch.full((n, n), float("-inf"), dtype=query.dtype).triu(1)
        out = attend(_rotate(query, cos, sin), key, value, module.scaling, mask)
        return module.o_proj(out), None

    return forward


def speed_up(model: Any) -> None:
    """Put the quick forward passes on a ``Qwen3VLForConditionalGeneration``; pictures of unequal size take the old way.

    The text attention is quick where no attention mask is passed: right padding needs none, since a token never sees
    what comes after it.
    """
    visual = model.model.visual
    visual.patch_embed.forward = _patch_embedding(visual.patch_embed)
    for block in visual.blocks:
        block.attn.forward = _vision_attention(block.attn, block.attn.forward)
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
