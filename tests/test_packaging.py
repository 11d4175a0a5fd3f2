"""What installs the project says the same in every place."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sdg import __version__

ROOT = Path(__file__).resolve().parents[1]


def required(extra: str = "") -> set[str]:
    found = map(Requirement, metadata.requires("sdg-t2i") or [])
    wanted = [r for r in found if r.marker is None or (extra and r.marker.evaluate({"extra": extra}))]
    return {f"{r.name}{r.specifier}" for r in wanted}


def listed(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_a_space_installs_what_the_page_requires():
    assert {f"{r.name}{r.specifier}" for r in listed("requirements.txt")} == required("app")


@pytest.mark.parametrize(
    "extra", ["app", "train", "quant", "constrain", "endpoint", "refine", "ray", "plot", "docs", "dev"]
)
def test_the_tried_versions_meet_the_requirements(extra):
    tried = {r.name.lower().replace("_", "-"): next(iter(r.specifier)).version for r in listed("constraints.txt")}
    for requirement in map(Requirement, required(extra)):
        version = tried.get(requirement.name.lower().replace("_", "-"))
        assert version is None or version in requirement.specifier, requirement


def test_the_space_card_names_the_tried_gradio():
    card = (ROOT / "README.md").read_text(encoding="utf-8")
    tried = next(next(iter(r.specifier)).version for r in listed("constraints.txt") if r.name == "gradio")
    assert re.search(r"^sdk_version: (.+)$", card, re.M)[1] == tried


def test_the_installed_version_is_the_library_s():
    assert metadata.version("sdg-t2i") == __version__


@pytest.mark.parametrize("name", ["torch", "transformers", "gradio", "datasets", "PIL.Image"])
def test_import_sdg_is_light(name):
    code = f"import sys, sdg; sys.exit({name!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
