"""What a user gives the trainer, in the form that TRL takes: rewards of pictures, data sets of prompts."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import nn
from trl.trainer.utils import RepeatSampler, get_callable_name

from sdg.boxflow.base_rewards import Reward

Heatmap = Callable[[list[Image.Image]], Any]
"""``heatmap(images)``: (N, h, w) in 0..1 of any size, 1 where the loss is masked."""


def as_trl_calls_it(reward: Reward) -> Callable[..., Any]:
    """A reward of pictures in the form in which TRL calls its reward functions."""
    called = reward.forward if isinstance(reward, nn.Module) else reward  # a module's own call takes everything
    takes = inspect.signature(called).parameters
    everything = any(p.kind is p.VAR_KEYWORD for p in takes.values())

    def chosen(columns: dict[str, Any]) -> dict[str, Any]:
        return {name: column for name, column in columns.items() if everything or name in takes}

    if inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(type(reward).__call__):

        async def later(prompts: list[str], completions: list[Any], completion_ids: Any, **columns: Any) -> Any:
            values: Any = reward(completions, prompts, **chosen(columns))
            return await values

        function: Callable[..., Any] = later
    else:

        def now(prompts: list[str], completions: list[Any], completion_ids: Any, **columns: Any) -> Any:
            values = reward(completions, prompts, **chosen(columns))
            return [math.nan if value is None else float(value) for value in values]  # a NaN is refused by name

        function = now
    function.__name__ = get_callable_name(reward)
    return function


def with_prompts(data: Any, name: str, at_least: int) -> Any:
    """The data set with a column ``prompt``, or each of a dictionary of them.

    Args:
        data: of ``datasets``, with a column ``prompt`` or ``caption`` of plain strings.
        name: what errors call it.
        at_least: prompts that a rollout takes: of fewer none would ever be drawn.

    Raises:
        ValueError: for a data set that is missing, too small, or without such a column.
    """
    if isinstance(data, dict):
        return {key: with_prompts(part, f"{name}[{key!r}]", at_least) for key, part in data.items()}
    if data is None:
        raise ValueError(f"{name} is missing; give a data set with a column prompt")
    columns = data.column_names
    if "prompt" not in columns and "caption" in columns:
        data = data.rename_column("caption", "prompt")
    elif "prompt" not in columns:
        raise ValueError(f"{name} has the columns {columns}; it needs prompt (or caption), plain strings")
    if hasattr(data, "__len__") and len(data) < at_least:
        raise ValueError(
            f"{name} has {len(data)} prompts, fewer than the {at_least} of a rollout; give more, or a smaller "
            "generation_batch_size (by default the pictures of one optimizer step) or more num_generations"
        )
    first = next(iter(data))["prompt"]
    if not isinstance(first, str):
        raise ValueError(f"{name}: prompt is {type(first).__name__}; it must be a plain string, not a conversation")
    return data


class EpochSampler(RepeatSampler):
    """TRL's sampler of prompts, whose order in an epoch depends on seed and epoch only.

    TRL's own draws the order of an epoch after that of the one before, so a run that resumes at the end of an epoch
    repeats its order.
    """

    def set_epoch(self, epoch: int) -> None:
        """Shuffle for this epoch; Trainer calls it."""
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + epoch)
