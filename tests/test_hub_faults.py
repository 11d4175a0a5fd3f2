"""What goes wrong on the way from a Hub id to a model, each fault produced over a socket with the real client.

Every fault has to end in one sentence that names what was asked for and says what to do.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from local_hub import OWNER, STRANGER, LocalHub
from safetensors.numpy import save
from standins import build, picture, save_as_released
from typer.testing import CliRunner

import sdg
from sdg import SDGDetector
from sdg.cli import app
from sdg.engines.base import CheckpointError
from sdg.hub import HubError, HubOptions, download
from sdg.readers import read

ROOT = Path(sdg.__file__).parents[1]
CONFIG = json.dumps({"model_type": "qwen3_vl"}).encode()
WEIGHTS = save({"w": np.zeros(250_000, np.float32)})
LORA = {
    "adapter_config.json": json.dumps({"peft_type": "LORA", "base_model_name_or_path": "Qwen/base"}).encode(),
    "adapter_model.safetensors": WEIGHTS,
}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The files of a detector, as they are released, by name."""
    folder = save_as_released(tmp_path_factory.mktemp("released") / "detector")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with LocalHub() as served, served.here(monkeypatch, token=None):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        picture().save("picture.png")
        yield served


def broken(**files: Any) -> Callable[[LocalHub, dict[str, bytes]], None]:
    """Serve the released files, some of them changed; None leaves one out."""

    def serve(hub: LocalHub, released: dict[str, bytes]) -> None:
        changed = released | {name.replace("__", "."): data for name, data in files.items()}
        hub.create("org/x", files={name: data for name, data in changed.items() if data is not None})

    return serve


def only(kind: str = "model", **files: bytes) -> Callable[[LocalHub, dict[str, bytes]], None]:
    """Serve a repository with these files."""
    return lambda hub, _: hub.create("org/x", kind, {name.replace("__", "."): data for name, data in files.items()})


def with_fault(method: str, pattern: str, status: int) -> Callable[[LocalHub, dict[str, bytes]], None]:
    def serve(hub: LocalHub, released: dict[str, bytes]) -> None:
        hub.create("org/x", files=released)
        hub.fail(method, pattern, status, times=99)

    return serve


def cut(hub: LocalHub, released: dict[str, bytes]) -> None:
    hub.create("org/x", files=released)
    hub.cut("GET", "/lfs/", after=1000, times=99)


def first_shard_cut_short(hub: LocalHub, released: dict[str, bytes]) -> None:
    name = min(name for name in released if name.endswith(".safetensors"))
    hub.create("org/x", files=released | {name: released[name][:-1000]})


def a_shard_left_out(hub: LocalHub, released: dict[str, bytes]) -> None:
    name = max(name for name in released if name.endswith(".safetensors"))
    hub.create("org/x", files={key: data for key, data in released.items() if key != name})


def gated(hub: LocalHub, released: dict[str, bytes]) -> None:
    hub.create("org/x", files=released, gated=True)


def private(hub: LocalHub, released: dict[str, bytes]) -> None:
    hub.create("org/x", files=released, private=True)


def nothing(hub: LocalHub, released: dict[str, bytes]) -> None:
    pass


def unreachable(hub: LocalHub, released: dict[str, bytes]) -> None:
    hub.__exit__()


def pipeline(hub: LocalHub, released: dict[str, bytes]) -> None:
    hub.create("org/x", files={"model_index.json": b'{"_class_name": "FluxPipeline"}', "vae/config.json": b"{}"})


FAULTS: dict[str, tuple[Callable[[LocalHub, dict[str, bytes]], Any], dict[str, Any], str]] = {
    "gated, nobody logged in": (
        gated,
        {},
        r"'org/x' is gated \(nobody is logged in\): accept its terms at http://.*/org/x, then log in with",
    ),
    "gated, without access": (
        gated,
        {"token": STRANGER},
        r"is gated \(the token that was used has no access to it yet\)",
    ),
    "missing": (nothing, {}, r"there is no model 'org/x' at http://.*, or it is private: check the name, or log in"),
    "missing for a member": (nothing, {"token": OWNER}, r"there is no model 'org/x' at http://.*, or it is private"),
    "private": (private, {"token": STRANGER}, r"there is no model 'org/x' at http://.*, or it is private"),
    "invalid token": (broken(), {"token": "hf_wrong"}, r"answered 401: the token is not valid; log in with"),
    "nobody logged in": (broken(), {"token": True}, r"token=True asks for .* nobody is logged in here"),
    "missing revision": (broken(), {"revision": "v9"}, r"'org/x' has no revision 'v9': it has main$"),
    "a data set": (
        only("dataset", train__jsonl=b"{}"),
        {},
        r"'org/x' is a data set \(http.*/datasets/org/x\), and a model is needed here",
    ),
    "a Space": (
        only("space", app__py=b"1"),
        {},
        r"'org/x' is a Space \(http.*\), and a model is needed",
    ),
    "a LoRA": (
        lambda hub, _: hub.create("org/x", files=LORA),
        {},
        r"'org/x' has no config.json, it is an adapter: load 'Qwen/base' with adapter='org/x'$",
    ),
    "a LoRA of diffusers": (only(pytorch_lora_weights__safetensors=WEIGHTS), {}, r"'org/x' .* it is a LoRA, which is"),
    "a generator": (
        pipeline,
        {},
        r"'org/x' .* it is a pipeline of diffusers, which draws pictures; the detector needs",
    ),
    "a part of a generator": (
        only(config__json=b'{"_class_name": "FluxTransformer2DModel"}'),
        {},
        r"'org/x' is a FluxTransformer2DModel of diffusers, which draws pictures; the detector needs",
    ),
    "data among models": (
        only(train__parquet=b"PAR1"),
        {},
        r"'org/x' has no config.json: it is a data set; the detector",
    ),
    "nothing known": (only(notes__md=b"hello"), {}, r"'org/x' has no config.json: it is no checkpoint of transformers"),
    "another architecture": (
        broken(config__json=b'{"model_type": "qwen3"}'),
        {},
        r"'org/x' is a 'qwen3' model, which does not take a picture and a text: the detector needs",
    ),
    "an unknown architecture": (broken(config__json=b'{"model_type": "xyz"}'), {}, r"'org/x' is a 'xyz' model, which"),
    "pickles only": (
        only(config__json=CONFIG, pytorch_model__bin=b"pickle", training_args__bin=b"x"),
        {},
        r"'org/x' has its weights only as pytorch_model.bin, and such pickles run code when .*: ask its author",
    ),
    "no weights": (only(config__json=CONFIG), {}, r"'org/x' has no weights: model.safetensors is missing"),
    "a missing shard": (
        a_shard_left_out,
        {},
        r"'org/x' lacks model-000.*-of-.*safetensors, which its index names: down",
    ),
    "no network": (
        unreachable,
        {},
        r"'org/x' is not in the cache, and there is no connection to http.*check the network",
    ),
    "too many requests": (
        with_fault("GET", "^/api/models/org/x", 429),
        {},
        r"'org/x' .* answered 429: too many requests; w",
    ),
    "too many requests, later": (
        with_fault("GET", r"\.json$", 429),
        {},
        r"'org/x' .* 429: too many requests; wait",
    ),
    "the Hub is down": (with_fault("GET", "^/api/models", 503), {}, r"'org/x' .* answered 503: run it again later"),
    "cut": (cut, {}, r"the connection to http.* broke while 'org/x' was downloaded .*: run it again; files that have"),
    "cut short": (
        first_shard_cut_short,
        {},
        r"weights of 'org/x' .*: model-00001.* is damaged .*; download it again with",
    ),
    "no JSON": (
        broken(config__json=b'{"model_type": '),
        {},
        r"'org/x' .*: config.json is damaged \(no JSON: .*force_down",
    ),
    "tokenizer damaged": (
        broken(tokenizer__json=b'{"model"'),
        {},
        r"processor of 'org/x' .*: tokenizer.json is damaged",
    ),
    "calibration damaged": (
        broken(calibration__json=b"{}"),
        {},
        r"calibration.json is no calibration \('format' is missing",
    ),
    "settings damaged": (broken(sdg_config__json=b"{"), {}, r"sdg_config.json is not JSON"),
    "force and local": (
        broken(),
        {"force_download": True, "local_files_only": True},
        r"'org/x' is not in the cache .*local_files_only=True|force_download=True contradicts local_files_only=True",
    ),
    "nowhere to keep": (
        broken(),
        {"cache_dir": "/proc/nowhere"},
        r"could not be kept, /proc/nowhere may not be written",
    ),
}


@pytest.mark.parametrize(("serve", "options", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_one_sentence_that_says_what_to_do(hub, released, serve, options, said):
    serve(hub, released)
    with pytest.raises(CheckpointError, match=said) as caught:
        SDGDetector.from_pretrained("org/x", **options)
    text = str(caught.value)
    assert "\n" not in text
    assert OWNER not in text
    assert STRANGER not in text
    assert not hub.asked("GET", r"\.bin$"), "a pickle was fetched"


def sdg_detect(*words: str) -> Any:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["detect", "picture.png", *words])


@pytest.mark.parametrize(
    "name", ["gated, nobody logged in", "missing", "a LoRA", "a generator", "pickles only", "no network", "cut"]
)
def test_the_command_ends_with_the_sentence(hub, released, name):
    serve, _, said = FAULTS[name]
    serve(hub, released)
    done = sdg_detect("--model", "org/x")
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit), "no traceback"
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert re.search(said, line)


def test_the_command_names_revision_and_adapter(hub, released):
    hub.create("org/x", files=released)
    assert "'org/x' has no revision 'v2': it has main" in sdg_detect("--model", "org/x", "--revision", "v2").stderr
    done = sdg_detect("--model", "org/x", "--adapter", "org/none")
    assert (done.exit_code, "there is no model 'org/none'" in done.stderr) == (2, True)
    done = sdg_detect("--endpoint", "http://host/v1", "--adapter", "org/none")
    assert (done.exit_code, "--adapter says how weights are loaded" in done.stderr) == (2, True)


ADAPTERS = {
    "missing": (nothing, r"there is no model 'org/x'"),
    "a full model": (
        only(config__json=CONFIG, model__safetensors=WEIGHTS),
        r"has no adapter_config.json: it is a full",
    ),
    "a data set": (only("dataset", a__jsonl=b"{}"), r"'org/x' is a data set \(http.*\), and a model is needed here"),
    "a LoRA of diffusers": (only(pytorch_lora_weights__safetensors=WEIGHTS), r"no adapter_config.json: it is a LoRA"),
    "pickles only": (
        only(adapter_config__json=LORA["adapter_config.json"], adapter_model__bin=b"pickle"),
        r"adapter 'org/x' has its weights only as adapter_model.bin, and such pickles run code",
    ),
    "no weights": (only(adapter_config__json=LORA["adapter_config.json"]), r"has no weights: adapter_model.safe"),
    "no JSON": (
        only(adapter_config__json=b"{", adapter_model__safetensors=WEIGHTS),
        r"adapter_config.json of .* damaged",
    ),
    "another class": (
        only(
            adapter_config__json=json.dumps(
                {"peft_type": "LORA", "auto_mapping": {"base_model_class": "FluxTransformer2DModel"}}
            ).encode(),
            adapter_model__safetensors=WEIGHTS,
        ),
        r"adapter 'org/x' was made for a FluxTransformer2DModel, and 'base' is a Qwen3VLForConditionalGeneration",
    ),
    "other modules": (
        only(
            adapter_config__json=json.dumps(
                {"peft_type": "LORA", "r": 2, "target_modules": ["no_such"], "base_model_name_or_path": "other/base"}
            ).encode(),
            adapter_model__safetensors=WEIGHTS,
        ),
        r"adapter 'org/x' could not be put on 'base', it was made for 'other/base': .*no_such",
    ),
    "other weights": (
        only(
            adapter_config__json=json.dumps({"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}).encode(),
            adapter_model__safetensors=WEIGHTS,
        ),
        r"adapter 'org/x' lacks \d+ of its weights \(base_model",
    ),
}


@pytest.mark.parametrize(("serve", "said"), ADAPTERS.values(), ids=ADAPTERS.keys())
def test_an_adapter_that_is_none_is_refused(hub, tmp_path, serve, said):
    serve(hub, {})
    model, processor = build()
    model.save_pretrained("base")
    processor.save_pretrained("base")
    with pytest.raises(CheckpointError, match=said) as caught:
        SDGDetector.from_pretrained("base", adapter="org/x", dtype="float32")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("serve", "options", "said"),
    [
        (nothing, {}, r"org/x is no file or folder here, and could not be fetched: there is no data set 'org/x' at"),
        (broken(), {}, r"'org/x' is a model \(http.*\), and a data set is needed here"),
        (only("dataset", train__jsonl=b"{}"), {"revision": "v9"}, r"'org/x' has no revision 'v9': it has main"),
        (
            only("dataset", train__jsonl=b"{}"),
            {"local_files_only": True},
            r"'org/x' is not in the cache .*Load it once",
        ),
        (unreachable, {}, r"there is no connection to http"),
    ],
    ids=["missing", "a model", "revision", "not here", "no network"],
)
def test_a_data_set_that_cannot_be_read_says_why(hub, released, serve, options, said):
    serve(hub, released)
    with pytest.raises(FileNotFoundError, match=said) as caught:
        read("org/x", **options)
    assert "\n" not in str(caught.value)


def test_a_repository_in_no_layout_is_named_by_its_id(hub):
    hub.create("org/x", "dataset", {"notes.txt": b"hello"})
    with pytest.raises(ValueError, match=r"^org/x is in no layout that is known"):
        read("org/x")


def test_offline_the_cache_is_enough_or_the_sentence_says_what_is_missing(hub, released, monkeypatch):
    hub.create("org/x", files=released)
    options: dict[str, Any] = {"dtype": "float32", "max_new_tokens": 4}
    first = SDGDetector.from_pretrained("org/x", **options)(picture(), "a red car")
    hub.requests.clear()
    assert SDGDetector.from_pretrained("org/x", local_files_only=True, **options)(picture(), "a red car") == first
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert SDGDetector.from_pretrained("org/x", **options)(picture(), "a red car").raw == first.raw
    assert not hub.requests
    with pytest.raises(
        CheckpointError, match=r"'org/y' is not in the cache .*HF_HUB_OFFLINE is set. Unset it, or copy"
    ):
        SDGDetector.from_pretrained("org/y")
    with pytest.raises(CheckpointError, match=r"'org/x' is not in the cache at revision 'v2' "):
        SDGDetector.from_pretrained("org/x", revision="v2")
    for shard in Path(constants.HF_HUB_CACHE).glob("models--org--x/snapshots/*/model-00001*"):
        shard.unlink()
    with pytest.raises(CheckpointError, match=r"'org/x' is only in part in the cache "):
        SDGDetector.from_pretrained("org/x")


def test_a_busy_hub_does_not_matter_once_the_cache_is_full(hub, released):
    hub.create("org/x", files=released)
    SDGDetector.from_pretrained("org/x", dtype="float32")
    hub.fail("GET", "", 429, times=99)
    hub.fail("HEAD", "", 429, times=99)
    assert SDGDetector.from_pretrained("org/x", dtype="float32").engine.name == "org/x"


def test_a_cut_download_goes_on_from_the_files_that_have_arrived(hub, released):
    hub.create("org/x", files=released)
    hub.cut("GET", "/lfs/", after=1000, times=99)
    with pytest.raises(CheckpointError, match="broke while"):
        SDGDetector.from_pretrained("org/x")
    hub.faults.clear()
    hub.requests.clear()
    SDGDetector.from_pretrained("org/x", dtype="float32")
    assert not hub.asked("GET", r"config\.json$"), "what had arrived is not fetched twice"


FULL = """
import sys
from sdg.hub import HubError, HubOptions, download
try:
    download("org/x", HubOptions(cache_dir=sys.argv[1]))
except HubError as error:
    print(error)
"""


def test_a_full_disk_is_said(hub, tmp_path):
    """On a disk of its own, of 256 KB, in a namespace of its own."""
    hub.create("org/x", files={"config.json": CONFIG, "model.safetensors": WEIGHTS})
    small = tmp_path / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=256k tmpfs {small}"
    try:
        able = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("no mount namespaces here")
    env = {**os.environ, **hub.environment(tmp_path / "home", None), "PYTHONPATH": str(ROOT)}
    command = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", FULL, str(small)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert f"'org/x' does not fit on the disk of {small}: free some space, or keep downloads on" in done.stdout, (
        done.stderr
    )


@pytest.mark.slow
def test_the_command_shows_no_traceback_in_a_process_of_its_own(hub, tmp_path):
    hub.create("org/x", gated=True, files={"config.json": CONFIG, "model.safetensors": WEIGHTS})
    env = {**os.environ, **hub.environment(tmp_path / "home", STRANGER), "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    command = [sys.executable, "-m", "sdg", "detect", "picture.png", "--model", "org/x"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error: 'org/x' is gated (the token that was used has no access to it yet)" in done.stderr
    assert "Traceback" not in done.stderr
    assert STRANGER not in done.stderr


def test_only_what_is_wanted_is_downloaded(hub):
    hub.create("org/x", files={"a.json": b"{}", "b.bin": b"x", "deep/c.json": b"{}"})
    folder = download("org/x", HubOptions(), patterns=("*.json",), ignore=("*/*",))
    assert sorted(path.name for path in folder.iterdir()) == ["a.json"]
    with pytest.raises(HubError, match="'no id' is no name of a repository"):
        download("no id", HubOptions())
