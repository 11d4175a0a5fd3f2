"""What a user gives the trainer: any callable is a reward, a prompt may be called caption."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from torch import nn

from sdg.boxflow.inputs import as_trl_calls_it, with_prompts


def plain(images: list[Any], prompts: list[str], colour: list[str]) -> list[float]:
    assert (images, prompts, colour) == (["i", "j"], ["p", "q"], ["red", "blue"])
    return [1, 2]


def greedy(images: list[Any], prompts: list[str], **columns: Any) -> list[float]:
    assert sorted(columns) == ["colour", "number"]
    return [1, 2]


class Module(nn.Module):
    def forward(self, images: list[Any], prompts: list[str]) -> list[float]:
        return [1, 2]


class Marks:
    def score(self, images: list[Any], prompts: list[str]) -> list[float]:
        return [1, 2]


def scaled(factor: float, images: list[Any], prompts: list[str]) -> list[float]:
    return [factor, 2 * factor]


COLUMNS = {"colour": ["red", "blue"], "number": [0, 1]}


@pytest.mark.parametrize(
    ("reward", "name"),
    [
        (plain, "plain"),
        (greedy, "greedy"),
        (Module(), "Module"),
        (Marks().score, "score"),
        (functools.partial(scaled, 1.0), "scaled"),
    ],
)
def test_any_callable_is_a_reward(reward, name):
    function = as_trl_calls_it(reward)
    assert function.__name__ == name
    assert function(prompts=["p", "q"], completions=["i", "j"], completion_ids=[None] * 2, **COLUMNS) == [1.0, 2.0]


def test_a_coroutine_stays_one():
    async def later(images: list[Any], prompts: list[str]) -> list[float]:
        return [1, 2]

    function = as_trl_calls_it(later)
    assert inspect.iscoroutinefunction(function)
    assert asyncio.run(function(["p", "q"], ["i", "j"], None, **COLUMNS)) == [1, 2]


def test_a_missing_mark_is_a_nan_which_the_trainer_refuses_by_name():
    first, second = as_trl_calls_it(lambda images, prompts: [None, 2])(["p", "q"], ["i", "j"], None)
    assert math.isnan(first)
    assert second == 2


def test_a_caption_is_a_prompt():
    data = Dataset.from_dict({"caption": ["a car"], "prompts": [3]})
    assert with_prompts(data, "train_dataset", 1)["prompt"] == ["a car"]
    both = with_prompts(DatasetDict(near=data, far=data), "eval_dataset", 1)
    assert {name: part["prompt"][0] for name, part in both.items()} == {"near": "a car", "far": "a car"}
    own = Dataset.from_dict({"caption": ["a car"], "prompt": ["draw a car"]})
    assert with_prompts(own, "train_dataset", 1)["prompt"] == ["draw a car"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "train_dataset is missing"),
        (Dataset.from_dict({"text": ["a"] * 3}), r"columns \['text'\]; it needs prompt"),
        (Dataset.from_dict({"prompt": [[{"role": "user", "content": "a"}]] * 3}), "plain string"),
        (Dataset.from_dict({"prompt": ["a", "b"]}), "2 prompts, fewer than the 3 of a rollout"),
        ({"near": None}, r"train_dataset\['near'\] is missing"),
    ],
)
def test_data_without_prompts_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        with_prompts(data, "train_dataset", 3)
