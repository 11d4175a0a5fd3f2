"""``sdg calibrate`` as its user meets it: what it prints, writes and refuses."""

from __future__ import annotations

import importlib
import json
import re

import pytest
from PIL import Image
from sure_engine import SureEngine, scene
from typer.testing import CliRunner

from sdg.calibration import Calibration, World
from sdg.cli import app, shared
from sdg.detector import SDGDetector
from sdg.records import to_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    to_dataset(scene(i) for i in range(200)).to_parquet(folder / "validation.parquet")
    to_dataset(scene(i) for i in range(200, 320)).to_parquet(folder / "train.parquet")
    return folder


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    monkeypatch.setattr(shared, "load_detector", lambda *_: SDGDetector(SureEngine(), "caption: {caption}"))
    return folder


def run(*arguments):
    result = CliRunner().invoke(app, ["calibrate", *map(str, arguments)])
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def test_it_writes_beside_the_weights_and_prints_what_a_threshold_buys(checkpoint, data):
    code, text = run(checkpoint, data / "validation.parquet")
    assert code == 0, text
    assert sorted(path.name for path in checkpoint.iterdir()) == ["calibration.json", "world.safetensors"]
    calibration = Calibration.load(checkpoint / "calibration.json")
    assert calibration.fitted_on["pictures"] == 200
    assert calibration.fitted_on["model"] == "sure"
    world = World.load(checkpoint / "world.safetensors")
    assert (world.false_alarms, len(world.mean)) == (0.01, 8)
    assert "predicted defects on 200 pictures" in text
    assert re.search(r"0\.95 .* ECE 0\.\d+, Brier score 0\.\d+, AUROC of right against wrong [01]\.\d", text)
    assert "calibration.json written" in text


def test_files_the_world_and_the_sizes_can_be_named(checkpoint, data, tmp_path):
    out, plot, numbers = tmp_path / "out", tmp_path / "plot.png", tmp_path / "numbers.json"
    code, text = run(
        *(checkpoint, data / "validation.parquet", "--world", data / "train.parquet", "--n", 150, "--n-world", 100),
        *("--out", out, "--plot", plot, "--json", numbers, "--false-alarms", 0.02),
    )
    assert code == 0, text
    assert not list(checkpoint.iterdir())
    assert World.load(out / "world.safetensors").fitted_on.startswith("100 pictures of ")
    assert World.load(out / "world.safetensors").false_alarms == 0.02
    assert plot.stat().st_size > 10_000
    summary = json.loads(numbers.read_text())
    assert summary["pictures"] == 150
    assert [row["threshold"] for row in summary["thresholds"]] == [0.0, 0.5, 0.7, 0.8, 0.9, 0.95]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{checkpoint}", "{data}/nothing.parquet"], "no file or folder of that name"),
        (["{checkpoint}", "{data}/validation.parquet", "--n", "20"], "needs at least 10 right and 10 wrong"),
        (["no/such/place/at-all", "microworld"], "no such folder"),
        (["some/checkpoint", "microworld"], "is on the Hub, where nothing can be written"),
        (["{checkpoint}", "{data}/validation.parquet", "--plot", "{data}/no/plot.png"], "does not exist"),
        (["{checkpoint}", "{data}/validation.parquet", "--plot", "{data}/plot.txt"], "does not end like a picture"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(checkpoint, data, arguments, message):
    code, text = run(*(a.format(checkpoint=checkpoint, data=data) for a in arguments))
    assert code == 2
    assert message in re.sub(r"[│\s]+", " ", text)
    assert "Traceback" not in text
    assert not list(checkpoint.iterdir())


def test_a_model_that_does_not_say_how_sure_it_was_is_refused(checkpoint, data, monkeypatch):
    silent = SDGDetector(SureEngine(evidence=False), "caption: {caption}")
    monkeypatch.setattr(shared, "load_detector", lambda *_: silent)
    code, text = run(checkpoint, data / "validation.parquet")
    assert (code, "does not say how sure it was" in text) == (2, True)


def test_the_microworld_needs_no_file():
    calibrate = importlib.import_module("sdg.cli.calibrate")  # the package's name for it is the command's
    clean, hurt = calibrate._records("microworld", 2)
    again, _ = calibrate._records("microworld", 2)
    assert clean.image.tobytes() == again.image.tobytes()
    assert (clean.split, hurt.split) == ("validation", "validation")
    assert len(list(calibrate._pictures("microworld", 3))) == 3


def test_annotated_pictures_come_in_any_layout(tmp_path, capsys):
    calibrate = importlib.import_module("sdg.cli.calibrate")
    rows = [
        {"image": f"{n}.png", "caption": f"picture {n}", "id": str(n), "split": split, "order": "xyxy", "defects": []}
        for n, split in enumerate(("train", "validation", "validation", "validation"))
    ]
    for n in (0, 1, 3):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{n}.png")
    data = tmp_path / "records.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [record.id for record in calibrate._records(str(data), 9, "validation")] == ["1", "3"]
    assert "1 left out" in capsys.readouterr().err
    assert [record.id for record in calibrate._records(str(data), 1, "validation")] == ["1"]
    assert [picture.size for picture in calibrate._pictures(str(data), 2)] == [(16, 16)] * 2
    assert len(list(calibrate._pictures(str(data), 9))) == 3
    with pytest.raises(ValueError, match="no record of split='test'"):
        calibrate._records(str(data), 9, "test")
