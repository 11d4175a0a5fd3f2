"""Reward and advantage maps: the reference's numbers, hand-checked cells, properties."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdg import Defect, DefectSet
from sdg.boxflow import maps

DATA = Path(__file__).parent / "data"


def cases(name: str) -> list[dict]:
    return json.loads((DATA / f"{name}.json").read_text())["cases"]


def one(*boxes: tuple) -> DefectSet:
    return DefectSet(tuple(Defect(box, type, "", importance) for box, type, importance in boxes))


@pytest.mark.parametrize("case", cases("reward_map"))
def test_reward_map_agrees_with_the_reference_where_rounding_has_no_say(case):
    sets = [DefectSet.of(case["defects"])]
    got = maps.reward_map(
        torch.tensor([case["reward"]]),
        sets,
        (case["size"],) * 2,
        1.0,
        case["alpha_artifact"],
        case["alpha_misalignment"],
    )
    sure = torch.tensor(case["certain"]).bool()
    torch.testing.assert_close(got[0][sure], torch.tensor(case["map"])[sure], atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", cases("dense_advantage"))
def test_spatial_advantage_agrees_with_the_reference(case):
    groups = torch.tensor(case["maps"]).split(case["per_group"])
    got = torch.cat([maps.spatial_advantage(group, eps=1e-8) for group in groups])
    torch.testing.assert_close(got, torch.tensor(case["advantages"]), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("box", "shape", "rows", "columns"),
    [
        ((0, 0, 500, 1000), (4, 8), (0, 4), (0, 4)),  # not square: the columns are the x axis
        ((0, 0, 251, 251), (4, 4), (0, 2), (0, 2)),  # one unit over an edge touches the next cell
        ((250, 250, 500, 500), (4, 4), (1, 2), (1, 2)),  # an edge that is met is not crossed
        ((999, 0, 1000, 1), (4, 4), (0, 1), (3, 4)),  # smaller than a cell
        ((0, 0, 1000, 1000), (1, 1), (0, 1), (0, 1)),
    ],
)
def test_a_box_marks_the_cells_it_touches(box, shape, rows, columns):
    expected = torch.zeros(shape)
    expected[slice(*rows), slice(*columns)] = 0.4
    torch.testing.assert_close(maps.penalty_map(one((box, "artifact", 40)), shape), expected)


def test_overlap_takes_the_maximum_within_a_type_and_adds_across_types():
    everywhere = (0, 0, 1000, 1000)
    sets = [one((everywhere, "artifact", 40), (everywhere, "artifact", 80), (everywhere, "misalignment", None))]
    got = maps.reward_map(torch.tensor([2.0]), sets, (2, 3), group_std=0.5)
    torch.testing.assert_close(got, torch.full((1, 2, 3), 2 - 0.5 * 0.5 * 0.8 - 0.05 * 0.5 * 1.0))


def test_group_std_may_differ_by_image():
    sets = [one(((0, 0, 1000, 1000), "artifact", 100))] * 2
    got = maps.reward_map(torch.ones(2), sets, (1, 1), group_std=torch.tensor([1.0, 2.0]))
    assert got.flatten().tolist() == [0.5, 0.0]


boxes = st.tuples(*[st.integers(0, 999)] * 2, *[st.integers(1, 1000)] * 2).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], 1000), min(b[1] + b[3], 1000))
)
defects = st.lists(st.tuples(boxes, st.sampled_from(["artifact", "misalignment"]), st.integers(1, 100)), max_size=5)
grids = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(defects, grids)
@settings(max_examples=40, deadline=None)
def test_cells_equal_the_slow_definition(found, shape):
    height, width = shape
    got = maps.reward_map(torch.tensor([1.0]), [one(*found)], shape, group_std=1.0)[0]
    for row in range(height):
        for column in range(width):
            worst = {"artifact": 0.0, "misalignment": 0.0}
            for (x0, y0, x1, y1), type, importance in found:
                over = min(x1 * width, (column + 1) * 1000) > max(x0 * width, column * 1000)
                if over and min(y1 * height, (row + 1) * 1000) > max(y0 * height, row * 1000):
                    worst[type] = max(worst[type], importance / 100)
            expected = 1 - 0.5 * worst["artifact"] - 0.05 * worst["misalignment"]
            assert math.isclose(got[row, column].item(), expected, abs_tol=1e-6)


@given(st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=8), grids)
@settings(max_examples=40, deadline=None)
def test_without_boxes_every_location_has_the_scalar_advantage(values, shape):
    rewards = torch.tensor(values)
    got = maps.spatial_advantage(maps.reward_map(rewards, [DefectSet()] * len(values), shape, rewards.std()))
    scalar = maps.spatial_advantage(rewards)
    torch.testing.assert_close(got, scalar[:, None, None].expand(-1, *shape), atol=1e-3, rtol=1e-4)


def test_rewards_that_agree_have_no_advantage_whatever_the_boxes():
    sets = [one(((0, 0, 100, 100), "artifact", 90))] + [DefectSet()] * 3
    rewards = torch.full((4,), 0.5)
    assert maps.spatial_advantage(maps.reward_map(rewards, sets, (4, 6), rewards.std())).abs().max() == 0


def test_rounding_noise_is_no_signal():
    noisy = torch.full((8, 4, 4), 0.3) + 1e-8 * torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(0))
    assert maps.spatial_advantage(noisy).abs().max() < 0.01


def test_packed_tokens_are_row_major():
    grid = torch.arange(6.0).view(1, 2, 3)
    assert maps.to_tokens(grid, (6,)).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert maps.to_tokens(grid, (2, 3)) is grid
    with pytest.raises(ValueError, match=r"\(2, 3\) cells do not fit"):
        maps.to_tokens(grid, (3, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: maps.spatial_advantage(torch.zeros(1, 2, 2)), "at least 2 images a prompt"),
        (lambda: maps.reward_map(torch.zeros(2), [DefectSet()], (2, 2), 1.0), r"shape \(2,\) for 1 defect sets"),
        (lambda: maps.reward_map(torch.zeros(1), [DefectSet()], (0, 2), 1.0), "has no cells"),
    ],
)
def test_refusals_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
