"""docs/publish.md: its commands and its code run as they stand."""

import re
import subprocess

import pages
import pytest
from typer.testing import CliRunner

from sdg.cli import app
from sdg.publish import space

TEXT, BLOCKS = pages.read("publish.md")


@pytest.mark.parametrize(
    "line", [line for language, code in BLOCKS if language == "bash" for line in code.splitlines()]
)
def test_the_commands_run(line):
    done = CliRunner().invoke(app, line.split()[1:])
    assert done.exit_code == 0, done.stderr
    assert "Nothing was sent" in done.stderr


def test_the_code_runs(tmp_path, monkeypatch):
    def build(folder):
        made = tmp_path / "sdg_t2i-0.1.0-py3-none-any.whl"
        made.write_bytes(b"a wheel")
        return made

    monkeypatch.setattr(space, "build_wheel", build)  # which has a test of its own, and takes a while
    monkeypatch.chdir(tmp_path)
    exec(next(code for language, code in BLOCKS if language == "python"), {})
    assert (tmp_path / "page" / "app.py").is_file()


def test_every_kind_is_listed_and_no_option_is_made_up():
    told = CliRunner().invoke(app, ["push", "--help"], env={"COLUMNS": "200"}).stdout
    for what in ("detector", "lora", "generator", "dataset", "metric", "space"):
        assert f"`sdg push {what} " in TEXT
    for option in set(re.findall(r"`(--[a-z-]+)`", TEXT)):
        assert option in told


def test_the_target_is_there():
    planned = subprocess.run(
        ["make", "-n", "publish", "HF_ORG=owner", "DRY_RUN=1"], cwd=pages.ROOT, capture_output=True, text=True
    )
    assert planned.returncode == 0, planned.stderr
