"""What results say of their origin."""

import json
import subprocess

import pytest

import sdg
from sdg.provenance import ROOT, commit, made_by, typed, write_result


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["benchmarks/generator.py", "--n", "300", "--out", "x.json"], "python generator.py --n 300"),
        ([str(ROOT / "benchmarks/generator.py"), "--n=3", "--out=x"], "python benchmarks/generator.py --n=3"),
        (["/usr/local/bin/sdg", "eval", "/home/me/a.jsonl", "b c.jsonl"], "sdg eval a.jsonl 'b c.jsonl'"),
        ([str(ROOT / "sdg/__main__.py"), "eval", "--json=/home/me/x"], "sdg eval --json=x"),
    ],
)
def test_a_command_is_as_somebody_would_type_it(argv, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert typed(argv) == said


def test_code_that_no_commit_has_is_dirty(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    assert commit(tmp_path) is None
    git("init", "-q")
    (tmp_path / "sdg").mkdir()
    (tmp_path / "sdg" / "a.py").write_text("a = 1\n")
    git("add", "-A")
    git("commit", "-qm", "First")
    clean = commit(tmp_path)
    assert len(clean) == 7
    (tmp_path / "notes.md").write_text("text changes nothing")
    assert commit(tmp_path) == clean
    (tmp_path / "sdg" / "a.py").write_text("a = 2\n")
    assert commit(tmp_path) == f"{clean}-dirty"


def test_results_hold_their_origin_and_the_figures(tmp_path):
    write_result(tmp_path / "new" / "x.json", {"figure": 0.5})
    found = json.loads((tmp_path / "new" / "x.json").read_text())
    assert found["figure"] == 0.5
    assert found["version"] == sdg.__version__
    assert {"command", "version"} <= set(made_by("sdg eval"))
    assert made_by("sdg eval")["command"] == "sdg eval"
