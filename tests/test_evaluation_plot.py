import sys

import numpy as np
import pytest
from defect_cases import data_set, one
from hypothesis import given, settings

from sdg.defects import TYPES
from sdg.evaluation import SDGEval
from sdg.evaluation.plot import THRESHOLDS, box_f1_curve, plot_box_f1


def count(predictions, references, **options):
    return SDGEval(embedder=None, **options).count(predictions=predictions, references=references)


@given(data_set)
@settings(max_examples=25)
def test_the_curve_is_box_f1_at_every_threshold(images):
    predictions, references = map(list, zip(*images, strict=True))
    curves = box_f1_curve(count(predictions, references))
    metric = SDGEval(embedder=None, iou_thresholds=THRESHOLDS)
    result = metric.compute(predictions=predictions, references=references)
    for t in TYPES:
        expected = [result[f"{t}/box_f1@{tau:g}"] for tau in THRESHOLDS]
        np.testing.assert_allclose(curves[t].box_f1, expected)
        assert np.array_equal(np.isnan(curves[t].low), np.isnan(curves[t].box_f1))


def test_the_picture_has_a_panel_a_type_and_a_line_a_set(tmp_path):
    half = count([[one((0, 0, 500, 250))], [one()]], [[one()]] * 2)
    figure = plot_box_f1({"half $1": half, "none": count([[], []], [[one()]] * 2)})
    artifact, misalignment = figure.axes
    assert [artifact.get_title(), misalignment.get_title()] == ["artifact", "misalignment"]
    steps, flat = (line.get_ydata() for line in artifact.lines)
    assert steps[[0, 9, 10]].tolist() == [1, 1, 0.5]
    assert set(flat) == {0}
    assert len(artifact.collections) == 2
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "sdg-t2i\[plot\]"'):
        plot_box_f1({"a": count([], [])})
