import json
from pathlib import Path

import numpy as np
import pytest
from defect_cases import answer, one
from typer.testing import CliRunner

from sdg import cli, embedding
from sdg.cli import shared
from sdg.defects import DefectSet
from sdg.evaluation import SDGEval, to_json

NEAR = one((0, 0, 500, 400), reason="a hand", importance=40)
REFERENCES = [
    {"id": "a", "generator": "x", "defects": [one(reason="a hand")]},
    {"id": "b", "generator": "y", "defects": [one(type="misalignment", reason="a car")]},
    {"id": "c", "generator": "x", "defects": []},
]
PREDICTIONS = [
    {"id": "c", "response": answer()},
    {"id": "a", "response": answer(NEAR)},
    {"id": "b", "response": "no idea"},
]
SETS = [answer(NEAR), "no idea", answer()]
OTHER = [{"id": k, **DefectSet.of([one()]).to_json()} for k in "abc"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, lines in (("p.jsonl", PREDICTIONS), ("r.jsonl", REFERENCES), ("o.jsonl", OTHER)):
        write(name, lines)
    return tmp_path


def write(name, lines):
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def run(*arguments, embedder="none"):
    arguments = ["eval", "p.jsonl", "r.jsonl", "--embedder", embedder, *arguments]
    return CliRunner(env={"COLUMNS": "160"}).invoke(cli.app, [str(a) for a in arguments])


def test_the_tables():
    result = run("--against", "o.jsonl", "--by", "generator", "--by", "tier", "--by", "subtype")
    assert result.exit_code == 0, result.output
    for words in (
        "SDG (GRPO) *",
        "p.jsonl: every metric",
        "Parse rate 0.667",
        "Image level: misalignment",
        "p.jsonl against o.jsonl",
        "x (2 images)",
        "artifact, moderate",
        "o.jsonl by subtype",
        "DescCos is undefined: no embedder",
    ):
        assert words in result.stdout


@pytest.mark.parametrize("matching", ["hungarian", "greedy"])
@pytest.mark.parametrize("ci", [0.9, 0])
def test_the_figures_are_those_of_sdg_eval(matching, ci):
    result = run("--json", "s.json", "--matching", matching, "--ci", ci)
    assert result.exit_code == 0, result.output
    metric = SDGEval(embedder=None, matching=matching, ci=ci or None)
    expected = metric.compute(predictions=SETS, references=[r["defects"] for r in REFERENCES])
    assert json.loads(Path("s.json").read_text())["results"]["predictions"] == json.loads(to_json(expected))
    assert "s.json written" in result.stderr


def test_the_files_that_are_asked_for():
    options = ["--json", "s.json", "--markdown", "r.md", "--plot", "b.png", "--against", "o.jsonl", "--by", "generator"]
    assert run(*options).exit_code == 0
    scores = json.loads(Path("s.json").read_text())
    assert scores["names"] == {"predictions": "p.jsonl", "against": "o.jsonl"}
    assert scores["comparison"]["parse_rate"]["difference"] == pytest.approx(-1 / 3)
    assert scores["by"]["generator"]["against"]["x"]["artifact/cln_acc"] == 0
    assert "| p.jsonl |" in Path("r.md").read_text()
    assert Path("b.png").read_bytes().startswith(b"\x89PNG")


def test_an_embedder_compares_the_reasons(monkeypatch):
    monkeypatch.setattr(embedding, "_sentence_transformer", lambda name: lambda texts: np.ones((len(texts), 2)))
    assert run("--json", "s.json", embedder="my/model").exit_code == 0
    scores = json.loads(Path("s.json").read_text())["results"]["predictions"]
    assert (scores["embedder"], scores["artifact/desc_cos@0.1"]) == ("my/model", pytest.approx(1))


def test_files_of_one_name_are_told_apart():
    Path("old").mkdir()
    write("old/p.jsonl", OTHER)
    assert run("--against", "old/p.jsonl", "--json", "s.json").exit_code == 0
    names = json.loads(Path("s.json").read_text())["names"]
    assert names == {"predictions": "p.jsonl (predictions)", "against": "old/p.jsonl (against)"}


def test_exchanged_coordinates_are_warned_of_and_set_right():
    boxes = [(0, 10 * k, 900, 10 * k + 50) for k in range(6)]
    write("r.jsonl", [{"defects": [one(box)]} for box in boxes])
    write("p.jsonl", [{"response": answer(one((y0, x0, y1, x1)))} for x0, y0, x1, y1 in boxes])
    warned = run("--json", "wrong.json")
    assert "p.jsonl: 0 boxes fit a reference as they are, 6 with x and y exchanged" in warned.stderr
    assert "--order yxyx" in warned.stderr
    right = run("--order", "yxyx", "--json", "right.json")
    assert "Warning" not in right.stderr
    recall = [
        json.loads(Path(name).read_text())["results"]["predictions"]["artifact/box_recall@0.5"]
        for name in ("wrong.json", "right.json")
    ]
    assert recall == [0, 1]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ({"p.jsonl": PREDICTIONS[:2]}, "p.jsonl: no prediction has the id 'b' of the references"),
        ({"p.jsonl": [*PREDICTIONS, PREDICTIONS[0]]}, "p.jsonl, line 4: the id 'c' is that of p.jsonl, line 1 already"),
        ({"p.jsonl": [{"defects": [one((5, 0, 2, 9))]}]}, "p.jsonl, line 1: defect 0: box x1=2 is not right of x0=5"),
        ({"p.jsonl": []}, "p.jsonl holds no line"),
        ({"r.jsonl": PREDICTIONS}, "r.jsonl, line 1: no defects; a clean picture has an empty list"),
        (
            {"p.jsonl": [{"defects": [one()] * 6000}], "r.jsonl": [{"defects": [one()] * 6000}]},
            "predictions[0]: 6,000 predictions against 6,000 references of one type in one image",
        ),
    ],
)
def test_bad_files_exit_with_2_and_say_why(lines, said):
    for name, content in lines.items():
        write(name, content)
    result = run()
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--against", "missing.jsonl"], "missing.jsonl"),
        (["--ci", "95"], "ci=95.0 is not a level between 0 and 1"),
        (["--matching", "best"], "best"),
        (["--order", "xywh"], "xywh"),
        (["--by", "model"], "no line has a field 'model' to break down by; there are defects, generator, id"),
        (["--json", "no/such/s.json"], "does not exist"),
        (["--markdown", "."], "is a folder"),
        (["--plot", "b.txt"], "does not end in one of .png"),
        (["more.jsonl"], "more.jsonl"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shared, "find_spec", lambda name: None)
    result = run("--plot", "b.png")
    assert result.exit_code == 2
    assert 'pip install "sdg-t2i[plot]"' in result.stderr


def test_an_embedder_that_cannot_be_had_exits_with_2(monkeypatch):
    def missing(name):
        raise embedding.EmbedderNotFound(f"embedder={name!r} could not be loaded")

    monkeypatch.setattr(embedding, "_sentence_transformer", missing)
    result = run(embedder="no/such")
    assert result.exit_code == 2
    assert "Error: embedder='no/such' could not be loaded" in result.stderr


def test_help_shows_examples():
    shown = CliRunner(env={"COLUMNS": "160"}).invoke(cli.app, ["eval", "--help"]).stdout
    assert "sdg eval predictions.jsonl references.jsonl --against before.jsonl" in shown
    assert "x0, y0, x1, y1 on a grid" in shown
