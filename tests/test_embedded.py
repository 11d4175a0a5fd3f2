"""The embedded checkpoints are the files that were packed, and a damaged one says so."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sdg import embedded
from sdg.embedded import MANIFEST, NAMES, ROOT
from sdg.engines.base import CheckpointError
from sdg.engines.places import locate
from sdg.hub import HubError


def test_the_list_is_that_of_the_files():
    """After a change of a checkpoint: ``python -m sdg.embedded`` (or ``make manifest``), and commit both."""
    listed, there = embedded.read_manifest(), embedded.manifest()
    stale = sorted(path for path in listed.keys() | there.keys() if listed.get(path) != there.get(path))
    assert not stale, f"{MANIFEST} is stale: run python -m sdg.embedded"
    assert {path.split("/")[0] for path in listed} == set(NAMES)
    assert {"sdg-tiny/model.safetensors", "sdg-tiny-t2i/transformer/diffusion_pytorch_model.safetensors"} <= set(listed)
    assert not [path for path in listed if path.endswith(".md")], "a card may change by itself"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils")
def test_a_common_tool_reads_the_list():
    done = subprocess.run(["sha256sum", "--check", "--quiet", MANIFEST], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The smallest of them, copied to where it may be broken."""
    name = "sdg-tiny-scorer"
    shutil.copytree(ROOT / name, tmp_path / name)
    lines = [line for line in (ROOT / MANIFEST).read_text().splitlines() if f"  {name}/" in line]
    (tmp_path / MANIFEST).write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(embedded, "ROOT", tmp_path)
    return tmp_path / name


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda folder: flipped(folder / "model.safetensors"),
            r"model\.safetensors of the .*'sdg-tiny-scorer' is damaged",
        ),
        (
            lambda folder: (folder / "config.json").write_text("{}"),
            r"config\.json .* is damaged.*Install the package again",
        ),
        (lambda folder: (folder / "config.json").unlink(), r"config\.json .* is missing"),
        (lambda folder: shutil.rmtree(folder), "is not part of this installation"),
        (lambda folder: (folder.parent / MANIFEST).unlink(), "SHA256SUMS cannot be read"),
        (lambda folder: (folder.parent / MANIFEST).write_text(""), "lists no file of 'sdg-tiny-scorer'"),
        (lambda folder: (folder.parent / MANIFEST).write_text("nonsense\n"), "SHA256SUMS cannot be read"),
    ],
)
def test_a_damaged_file_is_named(copy, damage, words):
    damage(copy)
    with pytest.raises(HubError, match=words) as caught:
        embedded.find("sdg-tiny-scorer")
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=words):
        locate("sdg-tiny-scorer")


def test_a_card_may_be_rewritten_and_files_are_read_once_a_process(copy):
    (copy / "README.md").write_text("another card")
    assert embedded.find("sdg-tiny-scorer") == copy
    flipped(copy / "model.safetensors")
    assert embedded.find("sdg-tiny-scorer") == copy, "checked a moment ago"
    assert embedded.find("someone/scorer") is None


def test_whoever_changes_one_on_purpose_renews_the_list(copy, monkeypatch):
    monkeypatch.setattr(embedded, "NAMES", ("sdg-tiny-scorer",))
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    with pytest.raises(HubError, match=r"python -m sdg\.embedded"):
        embedded.find("sdg-tiny-scorer")
    embedded.renew(copy.parent / "elsewhere")
    with pytest.raises(HubError, match="is damaged"):
        embedded.find("sdg-tiny-scorer")
    embedded.renew(copy)
    assert embedded.find("sdg-tiny-scorer") == copy
