"""Dense labels: the cells that a box marks, and which object or artifact a cell belongs to."""

import numpy as np
import pytest
import torch
from PIL import Image

from sdg.defects import Defect, DefectSet
from sdg.records import Record
from sdg.training.dense import DenseHeads, DenseVocabulary, box_distance, cover, dense_labels, dense_loss

VOCABULARY = DenseVocabulary(("none", "car", "tree"), ("none", "blue", "red"), ("none", "smear", "warp"))


@pytest.mark.parametrize(
    ("box", "cells"),
    [
        ((0, 0, 1000, 1000), [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ((0, 0, 500, 500), [(0, 0)]),
        ((0, 0, 500, 1000), [(0, 0), (1, 0)]),
        ((600, 100, 610, 110), [(0, 1)]),
        ((990, 990, 1000, 1000), [(1, 1)]),
        ((100, 0, 900, 240), [(0, 1)]),
    ],
)
def test_cover_of_a_grid_of_two_by_two(box, cells):
    assert list(zip(*np.nonzero(cover(np.array([box], float), 2, 2)[0]), strict=True)) == cells


def labels(objects, defects, kinds):
    record = Record(Image.new("RGB", (8, 8)), "", DefectSet(defects), kinds=kinds, objects=objects)
    return dense_labels([record], torch.tensor([[1, 2, 2]]), VOCABULARY)


def test_front_object_and_smallest_artifact_win():
    objects = (
        {"kind": "tree", "colour": "blue", "box": [0, 0, 1000, 1000]},
        {"kind": "car", "colour": "red", "box": [500, 0, 1000, 500]},
    )
    defects = [
        Defect((0, 0, 500, 500), "artifact", "", 1),
        Defect((0, 0, 1000, 1000), "artifact", "", 1),
        Defect((0, 500, 1000, 1000), "misalignment", "", 1),
    ]
    got = labels(objects, defects, ("smear", "warp", "wrong_colour"))
    assert got["dense_kind"].tolist() == [2, 1, 2, 2]
    assert got["dense_colour"].tolist() == [1, 2, 1, 1]
    assert got["dense_artifact"].tolist() == [1, 2, 2, 2]
    assert got["dense_object_box"][1].tolist() == [0.5, 0, 1, 0.5]
    assert got["dense_artifact_box"][0].tolist() == [0, 0, 0.5, 0.5]


def test_nothing_there_is_none_and_nan():
    got = labels((), [], ())
    assert got["dense_kind"].tolist() == [0] * 4
    assert got["dense_artifact_box"].isnan().all()


@pytest.mark.parametrize(
    ("predicted", "box", "distance"),
    [
        ([0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], 0.0),
        ([0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0], 4 * 0.125 + 0.5),
        ([0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], 4 * 0.25 + 1.0),
        ([0.0, 0.0, 0.5, 1.0], [float("nan")] * 4, 0.0),
    ],
)
def test_box_distance(predicted, box, distance):
    assert float(box_distance(torch.tensor([predicted]), torch.tensor([box]))) == pytest.approx(distance)


def test_the_loss_reaches_every_head_and_ignores_cells_without_a_box():
    heads = DenseHeads(8, VOCABULARY)
    got = labels(({"kind": "car", "colour": "red", "box": [0, 0, 500, 500]},), [], ())
    tokens = torch.randn(4, 8, requires_grad=True)
    parts = dense_loss(heads(tokens), got)
    assert float(parts["artifact_box"].detach()) == 0
    torch.stack(list(parts.values())).sum().backward()
    assert torch.isfinite(heads.heads.weight.grad).all()


def test_vocabulary_is_read_from_rows():
    row = {
        "objects": [{"kind": "tree", "colour": "red"}, {"kind": "car", "colour": "red"}],
        "defects": [{"type": "artifact", "kind": "warp"}, {"type": "misalignment", "kind": "wrong_colour"}],
    }
    assert DenseVocabulary.of([row]) == DenseVocabulary(("none", "car", "tree"), ("none", "red"), ("none", "warp"))
