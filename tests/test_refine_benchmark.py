"""benchmarks/refine.py: the editor that knows the answer, and what its judges say of it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sdg
from sdg import DefectRefiner, microworld
from sdg.refine.regions import mask_of
from sdg.refine.tiny import TinyEditor

spec = importlib.util.spec_from_file_location(
    "benchmarks_refine", Path(sdg.__file__).parents[1] / "benchmarks" / "refine.py"
)
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


class Sees:
    """A detector that says what is there as long as the picture is the broken one."""

    def __init__(self, record):
        self.record = record

    def __call__(self, images, captions=None, *, batch_size=8):
        broken = np.asarray(self.record.image)
        return [
            self.record.defects if np.array_equal(np.asarray(image), broken) else sdg.DefectSet(()) for image in images
        ]


@pytest.fixture(scope="module")
def record():
    records = microworld.generate(40, 3, "validation")
    return next(r for r in records if len(r.defects.artifacts) == len(r.defects) == 1)


@pytest.fixture(scope="module")
def lines(record, tmp_path_factory):
    editor = benchmark.Known(TinyEditor.from_pretrained())
    refiner = DefectRefiner(Sees(record), editor, **benchmark.OPTIONS["known"])
    path = tmp_path_factory.mktemp("refine") / "known.jsonl"
    found = benchmark.refined(refiner, [record], path, None)
    assert benchmark.refined(refiner, [record], path, None) == found  # whose lines are there, none is repaired again
    return found


def test_the_editor_that_knows_the_clean_render_brings_the_picture_nearer_to_it(lines):
    (line,) = lines
    assert line["changed"]
    assert line["after"]["inside"] < line["before"]["inside"] / 2
    assert line["after"]["all"] < line["before"]["all"]
    summary = benchmark.summary(lines)
    assert summary["worse by distance"] == 0
    assert summary["distance inside true boxes, after"] == line["after"]["inside"]


def test_distances_look_where_they_say(record):
    clean, broken = np.asarray(record.clean_image), np.array(record.image)
    inside = np.asarray(mask_of(record.defects.artifacts, record.image.size, 0.0)) > 0
    assert benchmark.distances(record.clean_image, record) == {"inside": 0, "outside": 0, "all": 0}
    apart = np.abs(broken.astype(float) - clean).mean(axis=2)
    assert benchmark.distances(record.image, record)["inside"] == pytest.approx(apart[inside].mean(), rel=1e-5)
    broken[~inside] = 255 - broken[~inside]
    moved = benchmark.distances(Image.fromarray(broken), record)
    assert moved["inside"] == pytest.approx(apart[inside].mean(), rel=1e-5)
    assert moved["outside"] > 10


def test_a_picture_that_got_worse_is_counted():
    judged = {"inside": 1.0, "outside": 0.0, "all": 1.0, "artifact": 0.5, "misalignment": 0.0}
    same = {"id": "a", "clean": False, "changed": True, "seconds": 1.0, "before": judged, "after": judged}
    worse = {**same, "after": {**judged, "all": 1.0 + 2 * benchmark.NOTICEABLE, "artifact": 0.8}}
    found = benchmark.summary([same, worse])
    assert [found[f"worse by {judge}"] for judge in ("the oracle", "distance", "both")] == [0.5, 0.5, 0.5]
    assert found["worse by the oracle, by more than its errors"] == 0.5
    little = benchmark.summary([same, {**same, "after": {**judged, "artifact": 0.6}}])
    assert little["worse by the oracle"] == 0.5
    assert little["worse by the oracle, by more than its errors"] == 0
    assert found["oracle, artifact load removed"] == pytest.approx(-0.3)


def test_lines_of_other_settings_are_not_gone_on_with(tmp_path):
    benchmark.remember(tmp_path / "new", {"options": {}})
    benchmark.remember(tmp_path / "new", {"options": {}})
    with pytest.raises(SystemExit, match="choose another --out"):
        benchmark.remember(tmp_path / "new", {"options": {"max_spread": 1}})
    (tmp_path / "boxes.jsonl").touch()
    with pytest.raises(SystemExit, match="choose another --out"):  # nobody knows whose they are
        benchmark.remember(tmp_path, {"options": {}})
