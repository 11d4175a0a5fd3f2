"""``sdg refine`` over many pictures: what is written, going on after a stop, failures that cost no neighbour."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refine_hands import GREY, LEFT, RED, RIGHT, Eye, Hand, picture
from typer.testing import CliRunner

from sdg import DefectSet, cli
from sdg.cli import shared
from sdg.jobs.results import files_of


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pics/deep").mkdir(parents=True)
    picture(LEFT, RIGHT).save("pics/broken.png")
    picture().save("pics/clean.png", optimize=True)
    picture(LEFT).save("pics/deep/broken.png")
    return tmp_path


@pytest.fixture(autouse=True)
def hand(monkeypatch):
    made = Hand()
    made.loaded = 0

    def load(name, endpoint=None, **options):
        made.loaded += 1
        return made

    monkeypatch.setattr("sdg.refine.loading.load_editor", load)
    monkeypatch.setattr(shared, "load_detector", lambda *_, **__: Eye())
    return made


def run(*arguments):
    return CliRunner(env={"COLUMNS": "160"}).invoke(cli.app, ["refine", *map(str, arguments)])


def lines(path="out/results.jsonl"):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_a_folder_is_mended_and_each_picture_has_its_line():
    result = run("pics", "--out", "out", "--caption", "grey")
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in Path("out").glob("*.png")) == ["broken-2.png", "broken.png", "clean.png"]
    assert (np.asarray(Image.open("out/broken.png")) == GREY).all()
    assert Path("out/clean.png").read_bytes() == Path("pics/clean.png").read_bytes()
    assert [(line["image"], line["out"], line["changed"]) for line in lines()] == [
        ("broken.png", "broken.png", True),
        ("clean.png", "clean.png", False),
        ("deep/broken.png", "broken-2.png", True),
    ]
    assert lines()[0]["load"] == {"before": 1.0, "after": 0.0}
    assert len(lines()[0]["steps"]) == 2
    assert "broken.png: 2 of 2 attempts kept" in result.stdout
    assert "2 changed now" in result.stderr


def test_the_same_command_goes_on_where_it_was(hand):
    run("pics/broken.png", "pics/clean.png", "--out", "out")
    first, tasks = Path("out/results.jsonl").read_text(), len(hand.tasks)
    Path("out/results.jsonl").write_text(first.splitlines()[0] + "\n" + first.splitlines()[1][:40])
    result = run("pics/broken.png", "pics/clean.png", "--out", "out")
    assert result.exit_code == 0
    assert "2 pictures (1 were there already)" in result.stderr
    assert len(hand.tasks) == tasks
    assert hand.loaded == 2
    run("pics/broken.png", "pics/clean.png", "--out", "out")
    assert hand.loaded == 2  # a job that is done loads nothing


def test_no_picture_of_the_users_is_written_over():
    before = Path("pics/broken.png").read_bytes()
    assert run("pics/broken.png", "--out", "pics", "--caption", "grey").exit_code == 0
    assert Path("pics/broken.png").read_bytes() == before
    assert lines("pics/results.jsonl")[0]["out"] == "broken-2.png"
    again = run("pics/broken.png", "--out", "pics", "--caption", "grey", "--overwrite")
    assert again.exit_code == 0
    assert Path("pics/broken.png").read_bytes() == before
    assert lines("pics/results.jsonl")[0]["out"] == "broken-2.png"  # its own file is replaced
    assert not Path("pics/broken-3.png").exists()


def test_a_picture_that_comes_later_takes_no_ones_file():
    picture(RIGHT).save("pics/deep/a.png")
    assert run("pics", "--out", "out", "--caption", "grey").exit_code == 0
    deep = Path("out/a.png").read_bytes()
    picture().save("pics/a.png")
    assert run("pics", "--out", "out", "--caption", "grey").exit_code == 0
    assert {line["image"]: line["out"] for line in lines()} == {
        "broken.png": "broken.png",
        "clean.png": "clean.png",
        "deep/a.png": "a.png",
        "deep/broken.png": "broken-2.png",
        "a.png": "a-2.png",
    }
    assert Path("out/a.png").read_bytes() == deep


def test_damaged_lines_name_no_file(tmp_path):
    path = tmp_path / "results.jsonl"
    assert files_of(path) == set()
    path.write_text('{"out": "a.png"}\n{"out": [1]}\n{"out": null}\n[2]\n{"out": "b.p')
    assert files_of(path) == {"a.png"}


def test_other_settings_are_not_mixed_in():
    run("pics", "--out", "out")
    result = run("pics", "--out", "out", "--seed", "1")
    assert result.exit_code == 2
    assert "begun with other settings (seed 0, now 1)" in result.stderr
    assert run("pics", "--out", "out", "--seed", "1", "--overwrite").exit_code == 0


def test_candidates_that_differ_too_much_are_not_kept(hand):
    def shade(task, seed):
        pixels = np.asarray(task.image).copy()
        pixels[(pixels == RED).all(axis=2) & (np.asarray(task.mask) > 0)] = 100 + 20 * (seed % 2)
        return Image.fromarray(pixels)

    hand.act = shade
    for most, changed in (("0.1", False), ("0.11", True)):
        assert run("pics/broken.png", "--out", most, "--caption", "grey", "--max-spread", most).exit_code == 0
        assert lines(f"{most}/results.jsonl")[0]["changed"] is changed


def test_how_much_has_to_go_is_a_setting_of_the_job():
    assert run("pics", "--out", "out", "--min-gain", "1").exit_code == 0
    assert "min_gain 1.0, now 0.0" in run("pics", "--out", "out", "--min-gain", "0").stderr
    assert run("pics", "--out", "other", "--min-gain", "1.5").exit_code == 2
    assert "min_better None, now 1.0" in run("pics", "--out", "out", "--min-gain", "1", "--min-better", "1").stderr


def test_a_picture_that_fails_does_not_cost_the_others():
    Path("pics/a.png").write_text("no picture")
    result = run("pics", "--out", "out")
    assert result.exit_code == 1
    assert "not an image" in lines()[0]["error"]
    assert len(lines()) == 4
    Path("pics/a.png").unlink()
    picture().save("pics/a.png")
    assert run("pics", "--out", "out", "--retry").exit_code == 0


def test_an_answer_that_could_not_be_read_is_a_failure_now_and_when_gone_on_with(monkeypatch):
    def mute(images, captions=None, *, batch_size=8):
        return [DefectSet(parse_error="no list")] * len(images)

    monkeypatch.setattr(shared, "load_detector", lambda *_, **__: mute)
    first = run("pics/clean.png", "--out", "out")
    assert first.exit_code == 1
    assert "could not be read: no list" in first.stdout
    again = run("pics/clean.png", "--out", "out")
    assert again.exit_code == 1
    assert "1 of those that were there already failed" in again.stderr


def test_a_request_that_failed_is_made_again_by_retry(monkeypatch):
    def timed_out(images, captions=None, *, batch_size=8):
        return [DefectSet(parse_error="timed out", info={"error": "timed out"})] * len(images)

    with monkeypatch.context() as patch:
        patch.setattr(shared, "load_detector", lambda *_, **__: timed_out)
        assert run("pics/broken.png", "--out", "out").exit_code == 1
    assert lines()[0]["error"] == "timed out"
    assert lines()[0]["out"] is None
    assert "--retry tries those with an error again" in run("pics/broken.png", "--out", "out").stderr
    assert run("pics/broken.png", "--out", "out", "--retry").exit_code == 0
    assert lines()[0]["changed"]


def test_options_of_the_editor_reach_it_and_are_settings_of_the_job(hand, monkeypatch):
    given = []

    def load(name, endpoint=None, paste=False):
        given.append(paste)
        return hand

    monkeypatch.setattr("sdg.refine.loading.load_editor", load)
    assert run("pics", "--out", "out", "--editor-options", '{"paste": true}').exit_code == 0
    assert given == [True]
    assert "begun with other settings" in run("pics", "--out", "out", "--editor-options", "{}").stderr
    wrong = run("pics", "--out", "other", "--editor-options", '{"glue": true}')
    assert wrong.exit_code == 2
    assert "--editor-options" in wrong.stderr
    assert "glue" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pics", "--editor-options", "paste"], "is not JSON"),
        (["pics", "--editor-options", "[1]"], "is not a JSON object"),
        (["pics", "--editor-options", '{"api_key": "secret"}'], "api_key does not belong here: set SDG_API_KEY"),
        (["pics", "--editor-options", '{"endpoint": "http://a"}'], "endpoint does not belong here"),
        (["pics", "--min-similarity", "1.5"], "--min-similarity"),
        (["pics", "--out", "pics/out"], "lies in pics, which is read"),
        (["pics", "--feedback", "loud"], "feedback='loud' is none of"),
        (["nothing-here"], "nothing-here"),
        ([], "Missing argument"),
        (["pics", "--rounds", "0"], "--rounds"),
    ],
)
def test_wrong_usage_is_a_sentence(arguments, words):
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert words in result.stderr + result.stdout
