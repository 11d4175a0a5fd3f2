"""A batch that shrinks: answers that have ended leave it, and the others no longer wait for the longest one.

This is a decoding loop for ``generate(custom_generate=…)`` of transformers, which prepares everything and calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

SHARE = 8
"""A batch is rebuilt once an eighth of its rows has ended: rebuilding copies the cache."""


@runtime_checkable
class FollowsRows(Protocol):
    """A logits processor that can be told which rows stay in the batch."""

    def keep(self, rows: Tensor, input_ids: Tensor) -> None:
        """Rows (k,) of the present batch stay, in this order; ``input_ids`` are the present batch's."""


def shrinking(ended: frozenset[int], pad: int) -> Callable[..., Tensor]:
    """The loop for answers that end with one of the tokens ``ended``; what is short is filled with ``pad``."""

    def decode(
        model: Any,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **model_kwargs: Any,
    ) -> Tensor:
        """As ``_sample`` of transformers; returns (batch, prompt + new) token ids."""
        ends = torch.tensor(sorted(ended), device=input_ids.device)
        rows = torch.arange(len(input_ids), device=input_ids.device)  # of the whole batch, in the present one
        whole: list[Tensor] = list(input_ids)
        may_shrink = all(isinstance(processor, FollowsRows) for processor in logits_processor)
        done = torch.zeros(len(rows), dtype=torch.bool, device=input_ids.device)
        outputs = model._prefill(input_ids, generation_config, model_kwargs)
        while True:
            model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
            logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
            scores = logits_processor(input_ids, logits)
            if generation_config.do_sample:
                chosen = torch.multinomial(scores.softmax(-1), 1)[:, 0]
            else:
                chosen = scores.argmax(-1)
            chosen = torch.where(done, pad, chosen)
            input_ids = torch.cat([input_ids, chosen[:, None]], dim=1)
            done = done | torch.isin(chosen, ends) | stopping_criteria(input_ids, scores)
            if done.all():
                break
            if may_shrink and int(done.sum()) * SHARE >= len(rows):
                kept = (~done).nonzero()[:, 0]
                for row in done.nonzero()[:, 0].tolist():
                    whole[int(rows[row])] = input_ids[row]
                for processor in logits_processor:
                    processor.keep(kept, input_ids)
                _select(model, model_kwargs, kept)
                input_ids, rows, done = input_ids[kept], rows[kept], done[kept]
            inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **model_kwargs)
            outputs = model(**inputs, return_dict=True)
        for row, ids in zip(rows.tolist(), input_ids, strict=True):
            whole[row] = ids
        return torch.nn.utils.rnn.pad_sequence(whole, batch_first=True, padding_value=pad)

    return decode


def _select(model: Any, model_kwargs: dict[str, Any], rows: Tensor) -> None:
    """Keep rows of everything that grows with the batch: cache, mask, positions."""
    model_kwargs["cache"].batch_select_indices(rows)
    for name in ("attention_mask", "mm_token_type_ids"):
        if (grown := model_kwargs.get(name)) is not None:
            model_kwargs[name] = grown[rows]
    if (positions := model_kwargs.get("position_ids")) is not None:
        # Qwen-VL's positions have an axis for time, height and width in front.
        model_kwargs["position_ids"] = positions[..., rows, :]
    for module in model.modules():
        # It keeps the prompt's positions on itself, one row an answer.
        if (deltas := module.__dict__.get("rope_deltas")) is not None:
            module.rope_deltas = deltas[rows]
