"""Attention of one new token over what came before, for CPUs.

The fused kernel of a CPU splits its work along the queries. With one query a row, as in decoding, it is several times
slower than two plain products, and slower still in bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdg_decode"


def decode_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As transformers' ``sdpa_attention_forward``, which it calls for more than one query a row.

    Args:
        module: the attention layer.
        query: (B, heads, n, d).
        key: (B, key heads, m, d).
        value: (B, key heads, m, d).
        attention_mask: (B or 1, 1, n, m), true or 0 where a key is seen, or None.
        dropout: as there.
        scaling: factor on the products; d ** -0.5 by default.
        **kwargs: as there.

    Returns:
        (B, n, heads, d), and no weights.
    """
    if query.shape[2] != 1 or query.device.type != "cpu":
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    batch, heads, _, d = query.shape
    groups = key.shape[1]
    # Heads that share a key are rows of one product.
    rows = query.reshape(batch, groups, heads // groups, d) * (d**-0.5 if scaling is None else scaling)
    scores = rows @ key.transpose(-1, -2)
    if attention_mask is not None:
        seen = attention_mask[..., : key.shape[2]]
        scores = scores.masked_fill(~seen, float("-inf")) if seen.dtype == torch.bool else scores + seen
    out = scores.float().softmax(-1).to(value.dtype) @ value
    return out.reshape(batch, 1, heads, d), None


AttentionInterface.register(NAME, decode_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
