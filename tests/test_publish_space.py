"""Spaces assembled from the package: what they carry, what they refuse, and that they start from nothing but that."""

import hashlib
import os
import re
import socket
import subprocess
import time
import urllib.request
import zipfile
from importlib import metadata
from pathlib import Path

import fresh_environment
import pytest
from gradio_client import Client, handle_file
from huggingface_hub import SpaceCard, snapshot_download
from local_hub import LocalHub

import sdg
from sdg.microworld import generate
from sdg.publish import assemble_space, build_wheel, prepare

ROOT = Path(sdg.__file__).parents[1]
NAME = "sdg_t2i-0.1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def stub(tmp_path):
    """A file with a wheel's name, where what is in it does not matter."""
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / NAME).write_bytes(b"a wheel")
    return tmp_path / "dist" / NAME


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("demo", ["README.md", "app.py", "requirements.txt", NAME]),
        ("sdg_eval", ["README.md", "app.py", "requirements.txt", "sdg_eval.py", NAME]),
    ],
)
def test_a_space_is_its_card_its_app_and_the_wheel(kind, files, stub, tmp_path):
    made = assemble_space(kind, tmp_path / "space", stub)
    assert [str(path) for path in made] == files
    assert sorted(p.name for p in (tmp_path / "space").iterdir()) == files
    assert not any(p.is_symlink() for p in (tmp_path / "space").iterdir())
    card = SpaceCard.load(tmp_path / "space" / "README.md").data
    assert (card.sdk, card.sdk_version, card.license) == ("gradio", metadata.version("gradio"), "apache-2.0")
    assert (tmp_path / "space" / card.app_file).is_file()
    assert (tmp_path / "space" / "requirements.txt").read_text().splitlines().count(f"./{NAME}[app]") == 1


def test_nothing_is_written_twice(stub, tmp_path):
    assemble_space("demo", tmp_path / "demo", stub)
    assemble_space("sdg_eval", tmp_path / "metric", stub)
    assert (tmp_path / "demo" / "app.py").read_bytes() == (ROOT / "app.py").read_bytes()
    module = ROOT / "sdg" / "evaluation" / "evaluate_module.py"
    assert (tmp_path / "metric" / "sdg_eval.py").read_bytes() == module.read_bytes()


def test_on_the_hub_the_wheel_is_named_by_its_address_and_its_hash(stub, tmp_path):
    assemble_space("demo", tmp_path / "space", stub, address="https://huggingface.co/spaces/org/page")
    line = (tmp_path / "space" / "requirements.txt").read_text().strip()
    digest = hashlib.sha256(b"a wheel").hexdigest()
    address = f"https://huggingface.co/spaces/org/page/resolve/main/{NAME}"
    assert line == f"sdg-t2i[app] @ {address}#sha256={digest}"
    assert 'Client("org/page")' in (tmp_path / "space" / "README.md").read_text()


def test_assembling_again_replaces_what_was_there(stub, tmp_path):
    assemble_space("demo", tmp_path / "space", stub)
    newer = stub.with_name("sdg_t2i-0.2.0-py3-none-any.whl")
    newer.write_bytes(b"newer")
    assemble_space("demo", tmp_path / "space", newer)
    assert [p.name for p in (tmp_path / "space").glob("*.whl")] == [newer.name]
    # Its own wheel is as good as another: the card and the app are renewed.
    assemble_space("demo", tmp_path / "space", tmp_path / "space" / newer.name)
    assert (tmp_path / "space" / newer.name).read_bytes() == b"newer"


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ({"notes.txt": ""}, "holds notes.txt, which no Space"),
        ({"app.py": "mine"}, "holds files, which no Space"),
        ({"README.md": "", NAME: "", ".git": ""}, "holds .git"),
    ],
)
def test_a_folder_with_other_things_in_it_is_refused_and_kept(before, words, stub, tmp_path):
    (tmp_path / "space").mkdir()
    for name, text in before.items():
        (tmp_path / "space" / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        assemble_space("demo", tmp_path / "space", stub)
    assert {p.name: p.read_text() for p in (tmp_path / "space").iterdir()} == before


def test_what_cannot_be_assembled_is_said(stub, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="kind='page' is none of demo, sdg_eval"):
        assemble_space("page", tmp_path / "space", stub)
    with pytest.raises(ValueError, match="is no wheel of sdg-t2i"):
        assemble_space("demo", tmp_path / "space", ROOT / "app.py")
    with pytest.raises(ValueError, match="is a file"):
        assemble_space("demo", stub, stub)
    monkeypatch.setattr(sdg, "__file__", str(tmp_path / "site-packages" / "sdg" / "__init__.py"))
    with pytest.raises(ValueError, match=r"installed without its sources .* give the wheel"):
        assemble_space("demo", tmp_path / "space")
    assert not (tmp_path / "space").exists()


@pytest.mark.slow
def test_the_wheel_holds_the_library_and_all_that_a_space_is_made_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    kinds, parts = ("demo", "sdg_eval"), ("README.md", "app.py")
    templates = {f"sdg/publish/templates/{kind}/{part}" for kind in kinds for part in parts}
    templates |= {
        f"sdg/cards/templates/{name}.md" for name in ("detector", "lora", "generator", "dataset", "microworld")
    }
    assert {"sdg/detector/__init__.py", "sdg/checkpoints/sdg-tiny/model.safetensors", *templates} <= names
    assert not [name for name in names if name.startswith(("tests/", "build/")) or "__pycache__" in name]


@pytest.mark.slow
def test_an_assembled_space_installs_the_wheel_beside_it(wheel, tmp_path):
    assemble_space("sdg_eval", tmp_path / "space", wheel)
    python = fresh_environment.make(tmp_path / "env", [])
    options = ["--no-deps", "--dry-run"]
    lines = (tmp_path / "space" / "requirements.txt").read_text().splitlines()
    (tmp_path / "space" / "own.txt").write_text("\n".join(line for line in lines if "sdg" in line))
    done = fresh_environment.install(python, "own.txt", ROOT / "constraints.txt", tmp_path / "space", *options)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_demo_pushed_and_checked_out_starts_from_its_own_requirements_and_answers(wheel, tmp_path, monkeypatch):
    """The Space's requirements.txt, installed by pip with the constraints into a fresh environment, is all it takes.

    Downloading gigabytes of torch for each run would take minutes, so the packages that the requirements name, and
    those that these name in turn, are linked from the environment of the tests; no other package is there, so one that
    is missing from the requirements is missed here. The wheel comes from the local Hub, by its address and hash. What
    this cannot see: whether an index has these versions for another platform.
    """
    space = tmp_path / "space"
    needed = [d for d in fresh_environment.required(["sdg-t2i[app]"]) if d.name != "sdg-t2i"]
    python = fresh_environment.make(tmp_path / "env", needed)
    assert subprocess.run([python, "-c", "import pytest"], capture_output=True, check=False).returncode
    with LocalHub() as hub, hub.here(monkeypatch):
        with prepare("space", "org/page", wheel=wheel) as ready:
            ready.send()
        snapshot_download("org/page", repo_type="space", local_dir=space)
        (space / NAME).unlink()  # which the builder does not see
        done = fresh_environment.install(python, "requirements.txt", ROOT / "constraints.txt", space)
        assert done.returncode == 0, done.stderr
        assert hub.asked("GET", f"/spaces/org/page/resolve/main/{NAME}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SDG_", "PYTHON", "HF_"))}
    env = {**clean, "GRADIO_SERVER_PORT": str(port), "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    with open(tmp_path / "log", "w") as log:
        served = subprocess.Popen([python, "app.py"], cwd=space, env=env, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/config", served, tmp_path / "log")
        record = next(generate(1, seed=3, split="test"))
        record.image.save(tmp_path / "picture.png")
        page = Client(address, verbose=False)
        answer = page.predict(handle_file(tmp_path / "picture.png"), record.caption, api_name="/detect")
    finally:
        served.terminate()
        served.wait(20)
    assert answer["caption"] == record.caption
    assert isinstance(answer["defects"], list)
    assert answer.get("parse_error") is None


def wait_for(address, process, log, seconds=150):
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return answer.read()
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"no answer from {address}: {re.sub(chr(27), '', log.read_text())[-2000:]}")
