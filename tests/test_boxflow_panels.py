"""Panels of an evaluation: colours say what a map says, all rows on one scale."""

import sys
import types

import numpy as np
import pytest
import torch
from standins import picture

from sdg.boxflow.advantages import advantages
from sdg.boxflow.panels import BETTER, WORSE, Panel, draw_panels, map_picture
from sdg.defects import Defect, DefectSet

WHITE = [255, 255, 255]
HAND = DefectSet((Defect((100, 200, 600, 900), "artifact", "the hand has six fingers", 60),))


@pytest.mark.parametrize(
    ("value", "most", "colour"),
    [
        (0.0, 2.0, WHITE),
        (2.0, 2.0, BETTER.tolist()),
        (-2.0, 2.0, WORSE.tolist()),
        (9.0, 2.0, BETTER.tolist()),
        (1.0, 2.0, ((255 + BETTER) / 2).round().tolist()),
        (0.0, 0.0, WHITE),
    ],
)
def test_colours(value, most, colour):
    pixels = np.asarray(map_picture(torch.full((2, 3), value), most, (30, 20)))
    assert pixels.shape == (20, 30, 3)
    assert np.abs(pixels.reshape(-1, 3).astype(int) - np.array(colour)).max() <= 1


def test_a_location_is_a_rectangle_at_its_own_place():
    values = torch.zeros(2, 4)
    values[1, 3] = -1
    pixels = np.asarray(map_picture(values, 1.0, (40, 20))).astype(int)
    marked = (pixels == WORSE).all(axis=2)
    assert marked[10:, 30:].all()
    assert marked.sum() == 100


@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
def test_a_page_has_a_row_a_picture_and_its_scales(size):
    images = [picture(i, size) for i in range(2)]
    rewards = torch.tensor([0.5, 0.8])[:, None, None].repeat(1, 4, 4)
    rewards[0, 2:, :2] -= 0.3
    page = draw_panels(images, ["a hand", "a car"], [HAND, DefectSet()], rewards, rewards - rewards.mean(0))
    one = draw_panels(images[:1], ["a hand"], [HAND], rewards[:1], rewards[:1] * 0)
    assert page.height > one.height + 100
    pixels = np.asarray(page).astype(int)
    loss = pixels[:, page.width // 3 : 2 * page.width // 3].reshape(-1, 3)
    assert (loss == WORSE).all(axis=1).mean() > 0.02  # the box's quarter of the first row
    assert (pixels[-56:] != pixels[-1, 0]).any()  # the foot is no blank strip


def test_maps_of_nothing_but_zeros_are_white_and_divide_by_nothing():
    zeros = torch.zeros(1, 4, 4)
    with np.errstate(all="raise"):
        draw_panels([picture()], ["a"], [DefectSet()], zeros, zeros)


def test_a_map_that_holds_nan_is_refused():
    maps = torch.zeros(1, 4, 4)
    with pytest.raises(ValueError, match="not finite"):
        draw_panels([picture()], ["a"], [DefectSet()], maps, maps.log() * 0)


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_a_tracker_gets_the_panel_under_the_name_of_the_evaluation(tmp_path, monkeypatch, tracker):
    logged = []
    module = types.SimpleNamespace(Image=lambda array: array.shape, log=logged.append)
    monkeypatch.setitem(sys.modules, tracker, module)
    trainer = types.SimpleNamespace(
        state=types.SimpleNamespace(global_step=3),
        args=types.SimpleNamespace(output_dir=str(tmp_path), report_to=[tracker]),
        callback_handler=types.SimpleNamespace(callbacks=[]),
    )
    whole = advantages(torch.tensor([0.0, 1.0]), 2, None, (2, 2))
    panel = Panel(1)
    panel.keep([picture(i, (32, 32)) for i in range(2)], ["a", "a"], None, whole, slice(0, 2))
    panel.show(trainer, "eval_small")
    assert [list(entry) for entry in logged] == [["eval_small/panel"]]
    assert (tmp_path / "panels" / "small_step_000003.png").is_file()
