"""Qwen3-VL's vision tower on a CPU, rearranged: the same numbers, more pictures a second.

transformers runs the tower's attention picture by picture, rotates queries and keys in slow steps and embeds patches
with a 3-D convolution. Here pictures of the same size share one call of the fused kernel, and the convolution, whose
patches do not overlap, is the product that it amounts to. What is put on a model sits on its instance and comes off
again; weights, names and saved files are untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

PART = 1024
"""Patches that go through the tower at a time, for each thread: what they become still fits a core's own cache, and
more at a time is slower. Four pictures of sdg-tiny."""

Attention = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of ``x`` (..., d) by ``cos`` and ``sin`` (..., d/2), the same for both halves."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def fused(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Attention by torch's own kernel: query, key, value (B, n, heads, d) to (B, n, heads * d)."""
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=scaling).transpose(1, 2).flatten(2)


def vision_attention(module: Any, original: Any, attention: Attention = fused) -> Any:
    """A forward pass for a ``Qwen3VLVisionAttention``; pictures of unequal size take the ``original`` one.

    Args:
        module: the attention layer.
        original: its forward pass.
        attention: of query, key, value (B, n, heads, d) and the factor on their products, to (B, n, heads * d).
    """

    def forward(hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: Any = None, **kwargs: Any) -> Tensor:
        lengths = cu_seqlens.diff()
        n = int(lengths[0])
        if not bool((lengths == n).all()):
            return original(hidden_states, cu_seqlens=cu_seqlens, position_embeddings=position_embeddings, **kwargs)
        batch = len(lengths)
        cos, sin = position_embeddings
        half = cos.shape[-1] // 2
        qkv = module.qkv(hidden_states).view(batch, n, 3, module.num_heads, -1)
        cos, sin = (part[:, :half].reshape(batch, n, 1, half).to(qkv.dtype) for part in (cos, sin))
        query, key, value = qkv.unbind(2)
        out = attention(rotate(query, cos, sin), rotate(key, cos, sin), value, module.scaling)
        return module.proj(out.reshape(hidden_states.shape[0], -1))

    return forward


def patch_embedding(module: Any) -> Any:
    """A forward pass for a ``Qwen3VLVisionPatchEmbed``: its convolution as one product with the same weight."""

    def forward(hidden_states: Tensor) -> Tensor:
        weight = module.proj.weight
        return F.linear(hidden_states.to(weight.dtype), weight.flatten(1), module.proj.bias)

    return forward


def _in_parts(original: Any) -> Any:
    """A forward pass for a ``Qwen3VLVisionModel`` that takes some whole pictures at a time."""

    def forward(hidden_states: Tensor, grid_thw: Tensor, **kwargs: Any) -> Any:
        sizes = _parts(grid_thw.prod(-1).tolist(), PART * torch.get_num_threads())
        if len(sizes) == 1 or kwargs != {"return_dict": True}:  # other arguments may be of the whole
            return original(hidden_states, grid_thw=grid_thw, **kwargs)
        grids = grid_thw.split([pictures for pictures, _ in sizes])
        patches = hidden_states.split([count for _, count in sizes])
        outputs = [original(x, grid_thw=grid, **kwargs) for x, grid in zip(patches, grids, strict=True)]
        whole = outputs[0]
        for name in whole:
            found = [output[name] for output in outputs]
            layered = not isinstance(found[0], Tensor)  # the features that some layers hand out
            whole[name] = [torch.cat(layer) for layer in zip(*found, strict=True)] if layered else torch.cat(found)
        return whole

    return forward


def _parts(patches: list[int], most: int) -> list[tuple[int, int]]:
    """Pictures and patches of each part: as many neighbours as stay within ``most`` patches, one at least."""
    parts: list[tuple[int, int]] = []
    for count in patches:
        pictures, filled = parts[-1] if parts else (0, most)
        if filled + count > most:
            parts.append((1, count))
        else:
            parts[-1] = (pictures + 1, filled + count)
    return parts


def _fits(tower: Any) -> bool:
    """Whether a vision tower is Qwen3-VL's own, in float32 on a CPU, with attention that the fused kernel stands for.

    In bfloat16 transformers rotates in float32, and answers would change with the rounding. A GPU keeps what the tower
    was loaded with: flash attention takes pictures of any size in one call, and parts only make its products smaller.
    """
    # By name, since the module with the class takes long to import and is there only where such a model is.
    named = type(tower).__module__, type(tower).__name__
    if named != ("transformers.models.qwen3_vl.modeling_qwen3_vl", "Qwen3VLVisionModel"):
        return False
    weight = tower.patch_embed.proj.weight
    # What is offloaded is not on a CPU either; who replaced a forward pass, training or a hook, keeps it.
    return bool(
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and tower.config._attn_implementation in ("eager", "sdpa")
        and not any("forward" in vars(module) for module in tower.modules())
    )


@contextmanager
def quick_vision(model: Any) -> Iterator[None]:
    """``with quick_vision(model): ...``: the rearranged tower where it fits the model, and the model's own after.

    Args:
        model: any image-text-to-text model of transformers; most are left as they are.
    """
    tower: Any = model.get_encoder("image") if hasattr(model, "get_encoder") else None
    if not _fits(tower):
        yield
        return
    attentions = [block.attn for block in tower.blocks]
    try:
        tower.forward = _in_parts(tower.forward)
        tower.patch_embed.forward = patch_embedding(tower.patch_embed)
        for attention in attentions:
            attention.forward = vision_attention(attention, attention.forward)
        yield
    finally:
        for module in (tower, tower.patch_embed, *attentions):
            vars(module).pop("forward", None)
