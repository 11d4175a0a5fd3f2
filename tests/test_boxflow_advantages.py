"""From rewards to advantages: whatever the scale, a slow version agrees; without boxes all are the scalar one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdg.boxflow.advantages import advantages, artifact_heatmap, combine, fit_heatmaps, found_on_average
from sdg.defects import Defect, DefectSet

GRID = (2, 4)
LEFT = DefectSet((Defect((0, 0, 500, 1000), "artifact", "smear", 60),))
BOTH = DefectSet((*LEFT, Defect((0, 0, 1000, 500), "misalignment", "blue", None)))
CLEAN = DefectSet()


@pytest.mark.parametrize(
    ("weights", "normalise", "expected"),
    [
        ([1.0, 0.0], False, [0.0, 2.0, 5.0, 5.0]),
        ([1.0, 2.0], False, [20.0, 2.0, 25.0, 45.0]),
        ([1.0, 0.0], True, [-(2**-0.5), 2**-0.5, 0.0, 0.0]),
        ([1.0, 2.0], True, [2**-0.5, -(2**-0.5), -(2**0.5), 2**0.5]),
    ],
)
def test_several_rewards_become_one(weights, normalise, expected):
    parts = torch.tensor([[0.0, 10.0], [2.0, 0.0], [5.0, 10.0], [5.0, 20.0]])
    one = combine(parts, torch.tensor(weights), 2, normalise_first=normalise)
    torch.testing.assert_close(one, torch.tensor(expected), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_slow_version_agrees(scale, data):
    k = data.draw(st.integers(2, 4))
    groups = data.draw(st.integers(1, 3))
    reward = st.floats(-3, 3, width=16)
    rewards = torch.tensor(data.draw(st.lists(reward, min_size=k * groups, max_size=k * groups)))
    sets = data.draw(st.lists(st.sampled_from([CLEAN, LEFT, BOTH]), min_size=len(rewards), max_size=len(rewards)))
    found = advantages(rewards, k, sets, GRID, c_artifact=0.5, c_misalignment=0.2, eps=1e-2, scale=scale)
    assert found.values.shape == (len(rewards), *GRID)
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            at = []
            for i, (value, defects) in enumerate(zip(rewards, sets, strict=True)):
                group = rewards[i // k * k : i // k * k + k]
                sigma = (rewards if scale == "batch" else group).std()
                artifact = 0.6 if len(defects.artifacts) and column < 2 else 0.0
                misalignment = 1.0 if len(defects.misalignments) and row < 1 else 0.0
                at.append(value - sigma * (0.5 * artifact + 0.2 * misalignment))
            slow = torch.stack(at)
            torch.testing.assert_close(found.rewards[:, row, column], slow)
            for start in range(0, len(slow), k):
                group = slow[start : start + k]
                value = group - group.mean()
                if scale != "none":
                    value = value / ((group if scale == "group" else slow).std() + 1e-2)
                torch.testing.assert_close(found.values[start : start + k, row, column], value, atol=1e-4, rtol=1e-4)
    assert torch.equal(found.weights, torch.ones_like(found.weights))


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_without_boxes_every_location_has_the_scalar_advantage(scale):
    rewards = torch.tensor([0.1, 0.7, 0.3, 0.3, 0.3, 0.3])
    box = advantages(rewards, 3, [CLEAN] * 6, GRID, scale=scale)
    scalar = advantages(rewards, 3, None, GRID, scale=scale)
    for name in ("values", "rewards", "weights", "group_std"):
        assert torch.equal(getattr(box, name), getattr(scalar, name)), name
    assert bool((scalar.values == scalar.values[:, :1, :1]).all())
    torch.testing.assert_close(scalar.values[3:], torch.zeros(3, *GRID))
    assert float(scalar.values.abs().max()) > 0.1


def test_rewards_that_agree_give_no_advantage_even_under_boxes():
    found = advantages(torch.full((4,), 0.3), 4, [LEFT, CLEAN, BOTH, CLEAN], GRID)
    assert float(found.values.abs().max()) == 0


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="scale='mean' is none of group, batch, none"):
        advantages(torch.rand(4), 2, None, GRID, scale="mean")


def test_heatmaps_weigh_by_what_they_leave():
    heat = fit_heatmaps([[[1.0, 0.0]], [[0.5, 0.25]]], 2, GRID)
    assert heat[0].tolist() == [[1, 1, 0, 0]] * 2
    found = advantages(torch.tensor([0.0, 1.0]), 2, None, GRID, heatmaps=heat)
    assert found.weights[:, 0].tolist() == [[0, 0, 1, 1], [0.5, 0.5, 0.75, 0.75]]
    assert torch.equal(found.values, advantages(torch.tensor([0.0, 1.0]), 2, None, GRID).values)
    assert fit_heatmaps(torch.rand(1, 64, 32), 1, GRID).shape == (1, *GRID)
    torch.testing.assert_close(artifact_heatmap([BOTH], GRID), torch.tensor([[[0.6, 0.6, 0.0, 0.0]] * 2]))


@pytest.mark.parametrize(
    ("heat", "message"),
    [
        (torch.rand(3, 4, 4), r"shape \(3, 4, 4\) for 2 pictures"),
        (torch.rand(2, 4), r"must give \(2, h, w\)"),
        (torch.full((2, 4, 4), 255.0), r"values in 255\.\.255"),
        (torch.full((2, 4, 4), torch.nan), r"0\.\.1"),
    ],
)
def test_what_is_no_heatmap_is_refused(heat, message):
    with pytest.raises(ValueError, match=message):
        fit_heatmaps(heat, 2, GRID)


def test_what_is_logged_of_boxes():
    assert found_on_average([BOTH, CLEAN], GRID) == pytest.approx(
        {
            "defects/artifact_boxes": 0.5,
            "defects/misalignment_boxes": 0.5,
            "penalty/artifact": 0.6 / 2 / 2,
            "penalty/misalignment": 1 / 2 / 2,
        }
    )
