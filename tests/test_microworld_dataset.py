"""The microworld as a data set: written, gone on with, refused, pushed, read back by plain datasets."""

import hashlib
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import datasets
import pytest
from huggingface_hub import DatasetCard
from local_hub import LocalHub
from typer.testing import CliRunner

import sdg
from sdg.cli import app
from sdg.microworld import generate
from sdg.microworld.dataset import Plan, write_dataset
from sdg.records import features, from_row

ROOT = Path(sdg.__file__).parents[1]
SMALL = {"train": 5, "validation": 2, "test": 0}
OPTIONS = ("--train", "5", "--validation", "2", "--test", "0", "--part", "3", "--workers", "1")


@pytest.fixture
def hub(monkeypatch):
    with LocalHub() as served, served.here(monkeypatch):
        yield served


def microworld(*words):
    done = CliRunner().invoke(app, ["microworld", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def pictures(folder):
    """What the pictures of each split are, byte by byte."""
    found = {}
    for split in sorted(p.name for p in Path(folder).iterdir() if p.is_dir()):
        files = [str(p) for p in sorted(Path(folder, split).glob("*.parquet"))]
        rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder) + ".cache")
        rows = rows.cast_column("image", datasets.Image(decode=False))
        found[split] = [(row["id"], hashlib.sha256(row["image"]["bytes"]).hexdigest()) for row in rows]
    return found


def mild(records, rng, most):
    """The records of few defects."""
    return (record for record in records if len(record.defects) <= most and rng.random() < 1)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "world"
    return write_dataset(folder, Plan(SMALL, seed=3, part=3, uncaptioned=0), workers=1)


def test_the_folder_is_what_plain_datasets_reads_whole_and_streaming(drawn, tmp_path):
    assert sorted(p.relative_to(drawn).as_posix() for p in drawn.rglob("*") if p.is_file()) == [
        "README.md",
        "microworld.json",
        "train/0000000.parquet",
        "train/0000003.parquet",
        "validation/0000000.parquet",
    ]
    whole = datasets.load_dataset(str(drawn), cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in whole.items()} == {"train": 5, "validation": 2}
    assert whole["train"].features == features()
    wanted = list(generate(5, 3, "train"))
    for row, record in zip(whole["train"], wanted, strict=True):
        read = from_row(row)
        assert (read.id, read.caption, read.defects) == (record.id, record.caption, record.defects)
        assert read.image.tobytes() == record.image.tobytes()
    streamed = datasets.load_dataset(str(drawn), split="validation", streaming=True)
    assert [row["caption"] for row in streamed] == [r.caption for r in generate(2, 3, "validation")]


def test_the_same_plan_draws_the_same_bytes_by_any_number_of_processes(drawn, tmp_path):
    other = write_dataset(tmp_path / "other", Plan(SMALL, seed=3, part=3, uncaptioned=0), workers=2)
    assert pictures(other) == pictures(drawn)
    cut = write_dataset(tmp_path / "cut", Plan(SMALL, seed=3, part=2, uncaptioned=0), workers=1)
    assert pictures(cut) == pictures(drawn), "parts are no matter"
    another = write_dataset(tmp_path / "another", Plan(SMALL, seed=4, part=3, uncaptioned=0), workers=1)
    assert pictures(another) != pictures(drawn)


def test_what_is_there_is_kept_and_the_rest_is_drawn(drawn, tmp_path):
    plan, out = Plan(SMALL, seed=3, part=3, uncaptioned=0), tmp_path / "stopped"
    write_dataset(out, plan, workers=1)
    kept, gone = out / "train" / "0000000.parquet", out / "train" / "0000003.parquet"
    before = kept.stat().st_mtime_ns
    gone.unlink()
    (out / "README.md").unlink()
    (out / "train" / ".0000003.parquet.unfinished").write_bytes(b"half a file")
    seen = []
    write_dataset(out, plan, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 3), (3, 3)]
    assert kept.stat().st_mtime_ns == before
    assert pictures(out) == pictures(drawn)
    assert (out / "README.md").is_file()


def test_records_can_be_changed_on_the_way(tmp_path):
    plan = Plan({"test": 6}, seed=1, altered="Pictures with two defects or more were left out")
    out = write_dataset(tmp_path / "few", plan, workers=2, alter=partial(mild, most=1))
    kept = [r.id for r in generate(6, 1, "test") if len(r.defects) <= 1]
    assert 0 < len(kept) < 6
    assert [name for name, _ in pictures(out)["test"]] == kept
    assert "Pictures with two defects or more were left out." in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sizes": {"train": -1}}, "train=-1 is negative"),
        ({"sizes": {"train": 0, "test": 0}}, "train=0, test=0: there is nothing to draw"),
        ({"sizes": {"holdout": 3}}, "'holdout' is none of train, validation, test"),
        ({"seed": -2}, "seed=-2 is negative"),
        ({"part": 0}, "part=0 must be at least 1"),
        ({"uncaptioned": 1.5}, "uncaptioned=1.5 is not a share"),
        ({"size": 32}, "size=32 is below 64 pixels"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Plan(**{"sizes": {"train": 1}, **changes})


def test_no_process_is_no_way_to_draw(tmp_path):
    with pytest.raises(ValueError, match="workers=0"):
        write_dataset(tmp_path / "new", Plan({"train": 1}), workers=0)
    assert not (tmp_path / "new").exists()


def test_a_folder_of_other_things_or_of_another_world_is_left_alone(drawn, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    refused = microworld("--out", tmp_path / "mine", *OPTIONS)
    assert refused.exit_code == 2
    assert "holds thesis.txt" in refused.stderr
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]

    before = {p: p.stat().st_mtime_ns for p in drawn.rglob("*")}
    refused = microworld("--out", drawn, *OPTIONS, "--seed", "8", "--uncaptioned", "0")
    assert refused.exit_code == 2
    assert "holds another microworld (seed 3 there, 8 wanted)" in refused.stderr
    assert {p: p.stat().st_mtime_ns for p in drawn.rglob("*")} == before

    (tmp_path / "file").write_text("x")
    refused = microworld("--out", tmp_path / "file", *OPTIONS)
    assert (refused.exit_code, "is a file" in refused.stderr) == (2, True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "microworld.json").write_text("{")
    refused = microworld("--out", tmp_path / "broken", *OPTIONS)
    assert (refused.exit_code, "cannot be read" in refused.stderr) == (2, True)


@pytest.mark.skipif(os.name != "posix", reason="needs a device that is full")
def test_a_place_that_cannot_be_written_is_said():
    done = microworld("--out", "/proc/nowhere/world", *OPTIONS)
    assert done.exit_code == 1
    assert "/proc/nowhere/world could not be written" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what to draw: --sheet PICTURE, --out FOLDER or --push OWNER/NAME"),
        (["--out", "x", "--train", "0", "--validation", "0", "--test", "0"], "there is nothing to draw"),
        (["--out", "x", "--train", "-3"], "greater than or equal to 0"),
        (["--out", "x", "--uncaptioned", "2"], "less than or equal to 1"),
        (["--out", "x", "--n", "60"], "--n is of --sheet"),
        (["--out", "x", "--split", "test"], "--split is of --sheet"),
        (["--push", "nobody"], "names no owner"),
        (["--push", "a//b"], "repo='a//b'"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_drawn(hub, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    done = microworld(*words)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert not list(tmp_path.iterdir())
    assert not hub.requests


def test_the_command_writes_the_folder_and_its_card_says_how(tmp_path):
    done = microworld("--out", tmp_path / "world", *OPTIONS, "--seed", "3", "--uncaptioned", "0")
    assert done.exit_code == 0, done.stderr
    assert "written: 7 pictures" in done.stderr
    said = (
        "sdg microworld --out FOLDER --train 5 --validation 2 --test 0 --seed 3 --part 3 --size 128 --uncaptioned 0.0"
    )
    assert f"`{said}`" in (tmp_path / "world" / "README.md").read_text()


ELSEWHERE = """
import json, datasets
rows = datasets.load_dataset("org/microworld")
streamed = datasets.load_dataset("org/microworld", split="train", streaming=True)
told = {split: [[row["id"], row["image"].tobytes().hex()[:64]] for row in part] for split, part in rows.items()}
print(json.dumps([told, [[row["id"], row["image"].tobytes().hex()[:64]] for row in streamed]]))
"""


@pytest.mark.slow
def test_a_pushed_microworld_is_read_and_streamed_by_others(hub, tmp_path):
    done = microworld("--push", "org/microworld", *OPTIONS, "--seed", "3")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{hub.address}/datasets/org/microworld\n"
    repo = hub.repos["dataset", "org/microworld"]
    assert len(repo.titles) == 2, "one commit after the first"
    card = DatasetCard(repo.files()["README.md"].decode())
    card.validate()
    assert 'load_dataset("org/microworld", split="train"' in card.text
    env = {**os.environ, **hub.environment(tmp_path / "home")}
    told = subprocess.run([sys.executable, "-c", ELSEWHERE], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    rows, streamed = json.loads(told.stdout.splitlines()[-1])
    wanted = [[r.id, r.image.tobytes().hex()[:64]] for r in generate(5, 3, "train", uncaptioned=0.04)]
    assert rows["train"] == streamed == wanted
    assert [name for name, _ in rows["validation"]] == [r.id for r in generate(2, 3, "validation")]


def test_without_a_token_nothing_is_drawn(hub, monkeypatch):
    hub.fail("GET", "/api/whoami-v2", 401)
    monkeypatch.setattr("sdg.microworld.dataset.generate", None)
    done = microworld("--push", "org/microworld", *OPTIONS)
    assert done.exit_code == 1
    assert "hf auth login" in done.stderr
    assert ("dataset", "org/microworld") not in hub.repos


def test_a_failed_upload_leaves_the_folder_to_try_again_with(hub, drawn):
    hub.fail("POST", "/commit/", 429, times=9)
    words = ("--out", drawn, "--push", "org/microworld", *OPTIONS, "--seed", "3", "--uncaptioned", "0")
    failed = microworld(*words)
    assert failed.exit_code == 1
    assert "too many requests" in failed.stderr
    hub.faults.clear()
    before = (drawn / "train" / "0000000.parquet").stat().st_mtime_ns
    assert microworld(*words).exit_code == 0
    assert (drawn / "train" / "0000000.parquet").stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_training_script_draws_by_the_same_function(tmp_path):
    command = [sys.executable, str(ROOT / "train" / "microworld_data.py"), "--out", "data", "--n_train", "4"]
    command += ["--n_validation", "0", "--degraded", "0.5", "--workers", "1", "--seed", "2"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "data" / "README.md").read_text()
    assert "50 % of the pictures were degraded." in card
    assert "python train/microworld_data.py" in card
    clean = write_dataset(tmp_path / "clean", Plan({"train": 4}, seed=2), workers=1)
    same = [a == b for a, b in zip(pictures(tmp_path / "data")["train"], pictures(clean)["train"], strict=True)]
    assert True in same
    assert False in same
