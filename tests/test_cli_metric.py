"""sdg install-metric: the literal evaluate.load("sdg_eval") works, offline, from anywhere, and leaves when told to."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sdg
from sdg.cli import app
from sdg.cli.metric import cache, install, uninstall

ROOT = Path(sdg.__file__).parents[1]
CLI = CliRunner()
LOAD = """
import sys, evaluate
assert "sdg" not in sys.modules
truth = [{"box": [0, 0, 500, 500], "type": "artifact", "reason": "two heads", "importance": 80}]
result = evaluate.load("sdg_eval").compute(predictions=[truth, []], references=[truth, truth], embedder=None)
print(result["artifact/box_recall@0.5"])
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_MODULES_CACHE", raising=False)
    return tmp_path / "home"


@pytest.mark.parametrize("offline", ["HF_HUB_OFFLINE", "HF_EVALUATE_OFFLINE"])
def test_the_literal_call_works_offline_in_a_process_that_never_imports_sdg(tmp_path, offline):
    install()
    (tmp_path / "elsewhere").mkdir()
    environment = {**os.environ, offline: "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout.split()[-1]) == 0.5


def test_installing_twice_is_installing_once(home):
    first = install()
    before = first.stat().st_mtime_ns
    time.sleep(0.02)
    assert install() == first
    assert first.stat().st_mtime_ns > before, "evaluate takes the newest script"
    assert len(list(home.rglob("sdg_eval.py"))) == 1
    assert not list(home.rglob("*.part"))
    source = ROOT / "sdg" / "evaluation" / "evaluate_module.py"
    assert first.read_bytes() == source.read_bytes()
    assert (ROOT / "spaces" / "sdg_eval" / "sdg_eval.py").read_bytes() == source.read_bytes()


def test_many_may_install_at_once(home):
    with ThreadPoolExecutor(8) as pool:
        written = set(pool.map(lambda _: install(), range(16)))
    assert len(written) == 1
    assert [p.name for p in home.rglob("*.py") if p.name != "__init__.py"] == ["sdg_eval.py"]


def test_uninstall_removes_what_install_wrote_and_nothing_else():
    install()
    others = cache() / ("f" * 64)
    others.mkdir()
    (others / "sdg_eval.py").write_text("someone else's")
    neighbour = cache().with_name("evaluate-metric--accuracy")
    neighbour.mkdir()
    assert len(uninstall()) == 1
    assert [p.name for p in cache().iterdir() if p.is_dir()] == [others.name]
    assert (others / "sdg_eval.py").exists()
    assert neighbour.is_dir()
    assert uninstall() == []


def test_uninstall_leaves_no_empty_folder():
    install()
    uninstall()
    assert not cache().exists()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_MODULES_CACHE": "/m"}, "/m"),
        ({"HF_HOME": "/h"}, "/h/modules"),
        ({"HF_HOME": None, "XDG_CACHE_HOME": "/x"}, "/x/huggingface/modules"),
        ({"HF_HOME": None, "XDG_CACHE_HOME": None, "HOME": "/u"}, "/u/.cache/huggingface/modules"),
    ],
)
def test_the_cache_is_the_one_that_evaluate_uses(variables, expected, monkeypatch):
    environment = {k: v for k, v in os.environ.items() if k not in ("HF_HOME", "XDG_CACHE_HOME", "HF_MODULES_CACHE")}
    environment |= {k: v for k, v in variables.items() if v is not None}
    for name in ("HF_HOME", "XDG_CACHE_HOME", "HF_MODULES_CACHE", "HOME"):
        if name in environment:
            monkeypatch.setenv(name, environment[name])
        else:
            monkeypatch.delenv(name, raising=False)
    assert cache() == Path(expected) / "evaluate_modules" / "metrics" / "evaluate-metric--sdg_eval"


def test_a_cache_that_cannot_be_written_is_a_sentence(home):
    home.write_text("a file, where a folder should be")
    done = CLI.invoke(app, ["install-metric"])
    assert done.exit_code == 1
    assert "cannot be written" in done.stderr
    assert "set HF_HOME" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_says_what_it_did():
    done = CLI.invoke(app, ["install-metric"])
    assert done.exit_code == 0
    assert "written" in done.stderr
    assert "removed" in CLI.invoke(app, ["install-metric", "--uninstall"]).stderr
    assert "holds nothing" in CLI.invoke(app, ["install-metric", "--uninstall"]).stderr.replace("\n", " ")


def test_importing_the_library_writes_nothing_and_installing_imports_no_evaluate(home):
    code = (
        "import sdg, sys; sdg.SDGEval; from sdg.cli.metric import install; install(); print('evaluate' in sys.modules)"
    )
    quiet = "import sdg; sdg.SDGEval(embedder=None)"
    subprocess.run([sys.executable, "-c", quiet], check=True, cwd=ROOT, env={**os.environ})
    assert not (home / "modules" / "evaluate_modules").exists()
    run = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "False"
