"""The commands of docs/detect-many.md run as they stand, one after another, in an empty folder.

Those marked ``sh`` need a server or a cluster: only their options are checked.
"""

import json
import re
import subprocess
import sys

import pages
import pytest
from pyarrow import parquet

PAGE, ALL = pages.read("detect-many.md")
BLOCKS = [block for block in ALL if block[0] != "sh"]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What every block printed, and the folder in which they ran."""
    folder = tmp_path_factory.mktemp("detect")
    environment = pages.shell(folder)
    printed = []
    for language, code in BLOCKS:
        command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
        run = subprocess.run([*command, code], cwd=folder, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, f"{code}\n{run.stdout}\n{run.stderr}"
        printed.append(run.stdout + run.stderr)
    return printed, folder


def test_the_page_has_nothing_but_commands_that_run():
    assert [language for language, _ in BLOCKS] == ["python", "bash", "bash", "bash", "bash", "python", "bash"]


def test_the_table_of_fields_is_that_of_a_line():
    from sdg.defects import DefectSet
    from sdg.jobs.run import Outcome, Picture

    line = Outcome(Picture("p", id="1", generator="x"), found=DefectSet(), error="no").to_line()
    told = re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in PAGE.splitlines() if row.startswith("| `")))
    assert set(told) == set(line)


def test_the_options_of_what_does_not_run_here_exist():
    from typer.main import get_command

    from sdg.cli import app

    known = {o for p in get_command(app).commands["detect"].params for o in p.opts}
    told = set(re.findall(r"--[a-z-]+", " ".join(code for language, code in ALL if language == "sh")))
    assert told <= known
    assert "--ray" in told


@pytest.mark.slow
def test_what_the_page_promises(said):
    printed, folder = said
    _, first, others, again, failing, _, scores = printed
    assert "defects.jsonl: 12 pictures\n" in first
    assert "defects.parquet written: 12 rows" in others
    assert "defects.jsonl: 12 pictures (12 were there already)" in again
    assert "exit code 1" in failing
    assert "more.jsonl: 13 pictures (12 were there already)" in failing
    assert "Parse rate" in scores
    rows = [json.loads(line) for line in (folder / "more.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows if "error" in row] == []
    assert len(list((folder / "marked").iterdir())) == 12
    assert parquet.read_table(folder / "defects.parquet").num_rows == 12
