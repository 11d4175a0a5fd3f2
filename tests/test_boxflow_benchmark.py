"""The comparison of the arms at a tiny size: same start, same number of pictures, goes on, and its tables add up."""

import csv
import importlib.util
import math
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import tiny_pipelines
import torch
from boxflow_runs import find_dark

ROOT = Path(__file__).parents[1]
ARMS = ["scalar", "heatmap", "box"]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmarks_boxflow", ROOT / "benchmarks" / "boxflow.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmarks_boxflow"] = module
    spec.loader.exec_module(module)
    return module


def words(folder, arm, **more):
    options = {
        "out": folder / "out",
        "runs": folder / "runs",
        "captions": 2,
        "pictures": 2,
        "every": 2,
        "model_name_or_path": folder / "t2i",
        "prompts_size": 8,
        "max_steps": 2,
        "num_generations": 4,  # of two, only the order counts
        "per_device_train_batch_size": 4,
        "num_sampling_steps": 4,
        "eval_sampling_steps": 2,
        "max_unreadable_share": 1,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_steps": 1,
        **more,
    }
    return [arm, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]


@pytest.fixture(scope="module", autouse=True)
def sharp_eyes():
    """A detector that is sure to see something in what noise there is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdg.detector.load_detector", lambda *_, **__: find_dark)
        yield


@pytest.fixture(scope="module")
def done(benchmark, tmp_path_factory):
    """All arms of an untrained generator."""
    folder = tmp_path_factory.mktemp("boxflow")
    tiny_pipelines.microworld().save_pretrained(folder / "t2i")
    benchmark.main(words(folder, "all"))
    return folder


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_arm_starts_at_base_and_draws_as_many_pictures(done):
    (base,) = rows(done / "out" / "base.csv")
    assert (float(base["kl"]), float(base["moved"]), float(base["velocity"])) == (0, 0, 0)
    assert float(base["diversity"]) > 0
    for arm in ARMS:
        table = rows(done / "out" / f"{arm}.csv")
        assert table[0] == base
        assert [(row["step"], row["pictures"]) for row in table] == [("0", "0"), ("2", "8")]
        assert float(table[-1]["kl"]) > 1e-3
        assert len(rows(done / "out" / f"{arm}_pictures.csv")) == 2 * 4
        assert [row["step"] for row in rows(done / "out" / f"{arm}_training.csv")] == ["1", "2"]
        assert (done / "runs" / arm / "sheet.png").exists()
        assert (done / "runs" / arm / "final" / "lora").is_dir()


@pytest.mark.slow
def test_arms_differ(done):
    assert len({rows(done / "out" / f"{arm}.csv")[-1]["kl"] for arm in ARMS}) == 3


@pytest.mark.slow
def test_weights_that_did_not_change_have_not_drifted_in_training_precision(done, benchmark, tmp_path):
    """Base is measured before training prepares the model, the arms after: both under the same autocast."""
    shutil.copy(done / "runs" / "base.safetensors", tmp_path)
    benchmark.main(words(done, "scalar", learning_rate=0, out=tmp_path / "out", runs=tmp_path))
    last = rows(tmp_path / "out" / "scalar.csv")[-1]
    assert (last["step"], float(last["kl"]), float(last["moved"])) == ("2", 0, 0)


@pytest.mark.slow
def test_lines_are_the_means_of_their_pictures(done, benchmark):
    line = rows(done / "out" / "box.csv")[-1]
    pictures = [row for row in rows(done / "out" / "box_pictures.csv") if row["step"] == line["step"]]
    for name in benchmark.PER_PICTURE:
        assert float(line[name]) == pytest.approx(np.mean([float(row[name]) for row in pictures]), rel=1e-3)


@pytest.mark.slow
def test_a_lost_end_is_run_again_and_is_the_same(done, benchmark, tmp_path):
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    wanted = rows(tmp_path / "out" / "box.csv")
    lines = (tmp_path / "out" / "box.csv").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "box.csv").write_text("".join(lines[:-1]))
    for checkpoint in (tmp_path / "runs" / "box").glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    (tmp_path / "out" / "settings.json").unlink()  # the generator lies in another folder now
    benchmark.main(words(tmp_path, "box"))
    again = rows(tmp_path / "out" / "box.csv")
    assert [row["step"] for row in again] == ["0", "2"]
    assert float(again[-1]["kl"]) == pytest.approx(float(wanted[-1]["kl"]), rel=1e-3)


@pytest.mark.slow
def test_other_settings_are_not_mixed_in(done, benchmark):
    with pytest.raises(SystemExit, match="holds results of other settings"):
        benchmark.main(words(done, "box", learning_rate=0.1))


def test_a_comment_is_no_other_setting(benchmark, tmp_path):
    config = tmp_path / "some.yaml"
    asked = Namespace(config=config, out=tmp_path, captions=2, pictures=2, every=2, split="test")
    config.write_text("learning_rate: 0.1\n")
    benchmark.remember(asked, [])
    config.write_text("# as in the paper\nlearning_rate: 1.0e-1\n")
    benchmark.remember(asked, [])
    config.write_text("learning_rate: 0.2\n")
    with pytest.raises(SystemExit, match="holds results of other settings"):
        benchmark.remember(asked, [])


def test_committed_results_are_not_gone_on_with(benchmark, tmp_path):
    """Their run is not in a checkout, and its generator is not the present one."""
    with pytest.raises(SystemExit, match=r"holds results of a run that is not in .*: choose another --out"):
        benchmark.main(["all", "--runs", str(tmp_path)])


@pytest.mark.slow
def test_the_summary_is_the_docs_text_and_a_plot(done, benchmark, capsys, tmp_path):
    benchmark.main([*words(done, "summary"), "--plot", str(tmp_path / "curves.png")])
    printed = capsys.readouterr().out
    assert "4 pictures of 2 captions of the split test, one run an arm" in printed
    assert "| | base | scalar (Flow-GRPO) | heatmap (DenseFlow-GRPO) | box (BoxFlow-GRPO) |" in printed
    assert "| box - scalar | " in printed
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_a_summary_of_nothing_says_what_to_run(benchmark, tmp_path):
    with pytest.raises(SystemExit, match=r"holds no base\.csv: run base first"):
        benchmark.main(["summary", "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("oracle", "detector", "expected"),
    [([0, 1, 2], [0, 2, 9], 1.0), ([0, 1, 2], [2, 1, 0], -1.0), ([0, 0, 0], [0, 1, 2], math.nan)],
)
def test_agreement(benchmark, oracle, detector, expected):
    assert benchmark.agreement(np.array(oracle), np.array(detector)) == pytest.approx(expected, nan_ok=True)


def test_diversity_is_the_distance_between_pictures_of_a_prompt(benchmark):
    pixels = torch.zeros(4, 2, 2, 3, dtype=torch.uint8)
    pixels[1] = 255  # first prompt: black and white; second: twice black
    assert benchmark.diversity(pixels, 2) == pytest.approx(0.5)
    assert math.isnan(benchmark.diversity(pixels, 1))


def test_differences_are_between_pictures_of_the_same_noise(benchmark, tmp_path):
    (tmp_path / "settings.json").write_text('{"pictures": 2}')
    for name, values in (("a", [1, 1, 3, 3]), ("b", [0, 2, 1, 1])):
        benchmark.add(tmp_path / f"{name}.csv", [{"step": 0, "picture": i, "load": 99} for i in range(4)])
        benchmark.add(tmp_path / f"{name}.csv", [{"step": 10, "picture": i, "load": v} for i, v in enumerate(values)])
    assert benchmark.change(tmp_path / "a.csv", tmp_path / "b.csv", "load") == (1.0, 0.0, 2.0)
