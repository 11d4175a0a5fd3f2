"""docs/figures.py draws what the pages show."""

import subprocess
import sys

import pages
import pytest
from PIL import Image

SHOWN = sorted(path.name for path in (pages.ROOT / "docs" / "img").glob("*.jpg"))


@pytest.mark.slow
def test_the_command_draws_the_pictures_that_pages_show(tmp_path):
    script = [sys.executable, pages.ROOT / "docs" / "figures.py", "--out", "img"]
    done = subprocess.run(script, cwd=tmp_path, env=pages.shell(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "img").iterdir()) == SHOWN
    for name in SHOWN:
        drawn, shown = Image.open(tmp_path / "img" / name), Image.open(pages.ROOT / "docs" / "img" / name)
        assert drawn.size == shown.size
        assert (tmp_path / "img" / name).stat().st_size < 100_000
