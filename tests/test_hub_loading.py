"""Everything that loads by the id of a repository, over a local Hub with the real client: layouts and round trips."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import tiny_pipelines
import torch
from huggingface_hub import constants
from local_hub import OWNER, STRANGER, Entry, LocalHub
from safetensors.numpy import save
from standins import build, picture, save_as_released

import sdg
from sdg import SDGDetector, embedded
from sdg.boxflow.lora import load_lora
from sdg.engines import checkpoints
from sdg.engines.base import CheckpointError
from sdg.engines.pipelines import load_pipeline
from sdg.hub import HubError
from sdg.microworld import generate
from sdg.microworld.scorer import MicroworldScorer
from sdg.prompts import DEFAULT
from sdg.publish import prepare
from sdg.readers import read
from sdg.records import write_records

ROOT = Path(sdg.__file__).parents[1]
CARD = b"---\nlicense: mit\nbase_model: org/base\n---\n"
SHORT: dict[str, Any] = {"dtype": "float32", "max_new_tokens": 8}
LORA = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["to_q", "to_v"], init_lora_weights=False)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with LocalHub() as served, served.here(monkeypatch, token=None):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        yield served


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return save_as_released(tmp_path_factory.mktemp("released") / "detector")


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fingerprint(detector: SDGDetector) -> str:
    """Of an answer's text and of all that the model computed for it, to the last bit."""
    (answer,) = detector.engine.generate([picture(3)], [detector.prompt.format("a red car")])
    return hashlib.sha256(repr((answer.text, answer.evidence)).encode()).hexdigest()


ELSEWHERE = """
import sys
sys.path.insert(0, {tests!r})
from sdg import SDGDetector
from test_hub_loading import SHORT, fingerprint
print(fingerprint(SDGDetector.from_pretrained({name!r}, **SHORT)))
"""


def elsewhere(hub: LocalHub, home: Path, code: str, token: str | None = None) -> str:
    """What a program in another process prints last, which has the library and a cache of its own."""
    env = {**os.environ, **hub.environment(home, token), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


# --- detectors --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pushed_detector_computes_the_same_to_the_bit_in_another_process(hub, released, tmp_path, monkeypatch):
    """From the released layout, saved by us, pushed, private, and loaded elsewhere by its id and a token."""
    hub.create("org/released", files=files_of(released))
    detector = SDGDetector.from_pretrained("org/released", **SHORT)
    assert detector.engine.name == "org/released"
    assert (detector.prompt, detector.made_for, detector.trust.calibration) == (DEFAULT, None, None)
    expected = fingerprint(detector)
    assert expected == fingerprint(SDGDetector.from_pretrained(released, **SHORT))
    monkeypatch.setenv("HF_TOKEN", OWNER)
    detector.push_to_hub("org/pushed", private=True)
    pushed = hub.repos["model", "org/pushed"].files()
    assert pushed["README.md"] == (released / "README.md").read_bytes(), "the card goes along"
    assert not [name for name, data in pushed.items() if str(tmp_path).encode() in data], "a path of this machine"
    code = ELSEWHERE.format(tests=str(ROOT / "tests"), name="org/pushed")
    assert elsewhere(hub, tmp_path / "home", code, OWNER) == expected


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, released, tmp_path):
    repo = hub.create("org/x", files=files_of(released))
    first = repo.branches["main"]
    repo.tags["v1"] = first
    other = files_of(save_as_released(tmp_path / "other", seed=1))
    repo.commit("main", {name: Entry(data, name.endswith(".safetensors")) for name, data in other.items()}, "better")
    hub.blobs |= {entry.oid: entry.data for entry in repo.commits[repo.branches["main"]].values() if entry.lfs}
    now = fingerprint(SDGDetector.from_pretrained("org/x", **SHORT))
    before = {fingerprint(SDGDetector.from_pretrained("org/x", revision=name, **SHORT)) for name in ("v1", first)}
    assert len(before) == 1
    assert now not in before
    hub.requests.clear()
    SDGDetector.from_pretrained("org/x", revision=first, **SHORT)
    assert not [r for r in hub.requests if "resolve" in r.path or "lfs" in r.path], "it was in the cache"


def test_a_token_opens_what_is_private_and_goes_nowhere_else(hub, released):
    hub.create("org/x", files=files_of(released), private=True)
    SDGDetector.from_pretrained("org/x", token=OWNER, **SHORT)
    assert {r.token for r in hub.requests if not r.path.startswith("/lfs/")} == {OWNER}
    assert {r.token for r in hub.requests if r.path.startswith("/lfs/")} == {None}
    with pytest.raises(CheckpointError, match="or it is private"):
        SDGDetector.from_pretrained("org/x", token=STRANGER, cache_dir="elsewhere", **SHORT)


def test_cache_dir_and_force_download_are_obeyed(hub, released, tmp_path):
    hub.create("org/x", files=files_of(released))
    expected = fingerprint(SDGDetector.from_pretrained("org/x", cache_dir=tmp_path / "mine", **SHORT))
    assert not (tmp_path / "cache").exists()
    (shard,) = (tmp_path / "mine").glob("models--org--x/snapshots/*/model-00001*")
    shard.resolve().write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"is damaged .*; download it again with force_download=True"):
        SDGDetector.from_pretrained("org/x", cache_dir=tmp_path / "mine", **SHORT)
    again = SDGDetector.from_pretrained("org/x", cache_dir=tmp_path / "mine", force_download=True, **SHORT)
    assert fingerprint(again) == expected


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_the_released_layout_in_few_bits(hub, released, tmp_path, monkeypatch, bits):
    pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(checkpoints, "cpu_dtype", lambda: torch.bfloat16)  # as where it is quick
    hub.create("org/x", files=files_of(released))
    detector = SDGDetector.from_pretrained("org/x", quantization_config=bits, max_new_tokens=4)
    assert getattr(detector.engine.model, f"is_loaded_in_{bits}")
    expected = detector(picture(), "a red car").raw
    detector.save_pretrained(tmp_path / "few")
    hub.create("org/few", files=files_of(tmp_path / "few"))
    again = SDGDetector.from_pretrained("org/few", max_new_tokens=4)
    assert getattr(again.engine.model, f"is_loaded_in_{bits}")
    assert again(picture(), "a red car").raw == expected


def test_few_bits_without_bitsandbytes_are_refused(released, monkeypatch):
    monkeypatch.setattr(checkpoints, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"in 4 or 8 bits needs bitsandbytes: pip install 'sdg-t2i\[quant\]'"):
        SDGDetector.from_pretrained(released, quantization_config="4bit")


def adapter_files(seed: int) -> dict[str, bytes]:
    torch.manual_seed(seed)
    model, _ = build(digits=True)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    peft.get_peft_model(model, config).save_pretrained("adapter")
    return files_of(Path("adapter"))


def test_an_adapter_by_its_id_with_a_revision_of_its_own(hub, released):
    base = hub.create("org/x", files=files_of(released))
    base.tags["base-tag"] = base.branches["main"]
    repo = hub.create("org/adapter", files=adapter_files(0))
    plain = fingerprint(SDGDetector.from_pretrained("org/x", **SHORT))
    first = fingerprint(SDGDetector.from_pretrained("org/x", revision="base-tag", adapter="org/adapter", **SHORT))
    repo.tags["v1"] = repo.branches["main"]
    second = adapter_files(1)
    repo.commit("main", {name: Entry(data, False) for name, data in second.items()}, "better")
    options: dict[str, Any] = {"adapter": "org/adapter", **SHORT}
    assert fingerprint(SDGDetector.from_pretrained("org/x", adapter_revision="v1", **options)) == first != plain
    now = fingerprint(SDGDetector.from_pretrained("org/x", **options))
    assert now not in (first, plain)
    assert fingerprint(SDGDetector.from_pretrained("org/x", **{**options, "adapter": Path("adapter")})) == now


def test_a_calibration_of_somebody_else_goes_with_a_checkpoint_that_has_none(hub, released):
    hub.create("org/x", files=files_of(released))
    own = embedded.ROOT / "sdg-tiny"
    hub.create("org/calibration", files={"calibration.json": (own / "calibration.json").read_bytes()})
    detector = SDGDetector.from_pretrained("org/x", calibration="org/calibration", min_confidence=0.5, **SHORT)
    assert detector(picture(), "a red car").info["calibrated"]
    hub.create("org/empty", files={"notes.md": b"hello"})
    with pytest.raises(CheckpointError, match=r"calibration 'org/empty' holds neither calibration.json nor world"):
        SDGDetector.from_pretrained("org/x", calibration="org/empty", **SHORT)


def test_an_instruction_by_its_id_brings_the_order_that_it_asks_for(hub, released):
    hub.create("org/x", files=files_of(released))
    prompt = {"prompt": "Faults of {caption}?", "prompt_without_caption": "Faults?", "box_order": "yxyx"}
    hub.create("org/prompt", files={"sdg_config.json": json.dumps(prompt).encode()})
    detector = SDGDetector.from_pretrained("org/x", prompt="org/prompt", **SHORT)
    assert (detector.prompt.format("a car"), detector.prompt.format(None)) == ("Faults of a car?", "Faults?")
    assert detector.box_order == "yxyx"
    with pytest.raises(CheckpointError, match="prompt='org/x' holds no instruction"):
        SDGDetector.from_pretrained("org/x", prompt="org/x", **SHORT)
    served = SDGDetector.from_endpoint("http://127.0.0.1:1/v1", "served", prompt="org/prompt")
    assert (served.prompt, served.box_order) == (detector.prompt, "yxyx")


def test_for_a_server_only_the_settings_are_fetched(hub, released):
    settings = json.dumps({"prompt": "Faults of {caption}?", "max_new_tokens": 99}).encode()
    hub.create("org/x", files=files_of(released) | {"sdg_config.json": settings})
    detector = SDGDetector.from_endpoint("http://127.0.0.1:1/v1", "served", checkpoint="org/x")
    assert detector.prompt.format("a car") == "Faults of a car?"
    assert not hub.asked("GET", "/lfs/"), "weights were fetched"


# --- generators and their LoRAs ---------------------------------------------------------------------------------------


def draw(pipeline: Any) -> Any:
    options: dict[str, Any] = {"height": 32, "width": 32, "num_inference_steps": 2, "guidance_scale": 1.0}
    return pipeline("a red car", generator=torch.Generator().manual_seed(0), output_type="np", **options).images


def flux_lora() -> tuple[dict[str, bytes], Any]:
    """The released layout of a LoRA for FLUX, and what PEFT itself makes of it."""
    torch.manual_seed(0)
    adapted = peft.get_peft_model(tiny_pipelines.flux().transformer, LORA)
    adapted.save_pretrained("lora")
    pipeline = tiny_pipelines.flux()
    pipeline.transformer = peft.PeftModel.from_pretrained(pipeline.transformer, "lora")
    return files_of(Path("lora")), pipeline


def test_a_lora_in_pefts_layout_draws_as_peft_has_it(hub):
    """As P1n3/boxflow-grpo-flux-lora is laid out."""
    files, by_peft = flux_lora()
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(files)
    hub.create("org/lora", files=files)
    pipeline = tiny_pipelines.flux()
    plain = draw(pipeline)
    load_lora(pipeline, "org/lora", adapter_name="aligned")
    expected = draw(by_peft)
    assert np.abs(expected - plain).max() > 1e-3
    np.testing.assert_allclose(draw(pipeline), expected, atol=1e-6)  # at alpha / rank = 4
    assert pipeline.get_list_adapters() == {"transformer": ["aligned"]}
    pipeline.disable_lora()
    np.testing.assert_allclose(draw(pipeline), plain, atol=1e-6)


def test_a_lora_in_diffusers_layout_draws_the_same(hub):
    files, by_peft = flux_lora()
    pipeline = tiny_pipelines.flux()
    hub.create("org/peft", files=files)
    load_lora(pipeline, "org/peft")
    state = peft.get_peft_model_state_dict(pipeline.transformer)
    settings = {key: value for key, value in LORA.to_dict().items() if value is not None}
    pipeline.save_lora_weights("saved", transformer_lora_layers=state, transformer_lora_adapter_metadata=settings)
    hub.create("org/diffusers", files=files_of(Path("saved")))
    again = tiny_pipelines.flux()
    load_lora(again, "org/diffusers")
    np.testing.assert_allclose(draw(again), draw(by_peft), atol=1e-6)


def changed(files: dict[str, bytes], **config: Any) -> dict[str, bytes]:
    return files | {"adapter_config.json": json.dumps(json.loads(files["adapter_config.json"]) | config).encode()}


def test_a_lora_that_does_not_fit_is_refused(hub):
    files, _ = flux_lora()
    weights, config = "adapter_model.safetensors", "adapter_config.json"
    hub.create("org/lora", files=changed(files, base_model_name_or_path="black-forest-labs/FLUX.1-dev"))
    hub.create("org/silent", files=changed(files, auto_mapping=None))
    hub.create("org/cut", files=files | {weights: files[weights][:-100]})
    hub.create("org/pickle", files={config: files[config], "adapter_model.bin": b"pickle"})
    hub.create("org/strange", files=files | {weights: save({"base_model.model.x.lora_A.weight": np.zeros((4, 4))})})
    hub.create("org/detector", files={"config.json": b"{}", "model.safetensors": save({"w": np.zeros(1)})})
    hub.create("org/data", "dataset", {"train.jsonl": b"{}"})
    refused = {
        "org/silent": (tiny_pipelines.sd3, r"LoRA 'org/silent' .* a SD3Transformer2DModel"),
        "org/lora": (
            tiny_pipelines.sd3,
            "'org/lora' was made for a FluxTransformer2DModel, and this pipeline has a SD3Transformer2DModel: load it"
            " into a pipeline of black-forest-labs/FLUX.1-dev",
        ),
        "org/cut": (
            tiny_pipelines.flux,
            r"LoRA 'org/cut' .*adapter_model.safetensors is damaged .*force",
        ),
        "org/pickle": (tiny_pipelines.flux, "LoRA 'org/pickle' has its weights only as adapter_model.bin, and such"),
        "org/strange": (tiny_pipelines.flux, "LoRA 'org/strange' .*"),
        "org/detector": (
            tiny_pipelines.flux,
            "'org/detector' is a full model: a LoRA is adapter_model.safe",
        ),
        "org/data": (tiny_pipelines.flux, r"'org/data' is a data set \(http.*\), and a model is needed here"),
        "org/none": (tiny_pipelines.flux, "there is no model 'org/none'"),
    }
    for name, (pipeline, said) in refused.items():
        with pytest.raises(CheckpointError, match=said) as caught:
            load_lora(pipeline(), name)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="'org/lora' has no revision 'v9': it has main"):
        load_lora(tiny_pipelines.flux(), "org/lora", revision="v9")


@pytest.mark.slow
def test_a_pushed_generator_draws_the_same(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", OWNER)
    with prepare("generator", "org/generator", "sdg-tiny-t2i") as ready:
        ready.send()
    there, here = load_pipeline("org/generator"), load_pipeline("sdg-tiny-t2i")
    assert (there.config["_name_or_path"], here.config["_name_or_path"]) == ("org/generator", "sdg-tiny-t2i")
    options: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 1.0, "output_type": "np"}
    images = [p("a red car", generator=torch.Generator().manual_seed(0), **options).images for p in (there, here)]
    assert np.array_equal(*images)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_pipeline("org/generator", local_files_only=True).config["_name_or_path"] == "org/generator"


def test_what_draws_nothing_is_no_generator(hub, released):
    hub.create("org/x", files=files_of(released))
    hub.create("org/lora", files={"adapter_config.json": b"{}", "adapter_model.safetensors": b""})
    index = b'{"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}'
    part = {"transformer/config.json": b"{}", "transformer/diffusion_pytorch_model.bin": b"pickle"}
    hub.create("org/pickle", files={"model_index.json": index, **part})
    hub.create("org/broken", files={"model_index.json": b"{"})
    hub.create("org/gated", files={"model_index.json": index}, gated=True)
    for name, said in {
        "org/x": r"'org/x' has no model_index.json: it is a checkpoint of transformers; a pipeline of diffusers",
        "org/lora": r"'org/lora' has no model_index.json: it is a LoRA, which is nothing without its base model",
        "org/pickle": r"'org/pickle' has its weights only as transformer/diffusion_pytorch_model.bin, and such pickles",
        "org/broken": r"model_index.json of 'org/broken' is damaged",
        "org/gated": r"'org/gated' is gated \(nobody is logged in\): accept its terms",
        "org/none": r"there is no model 'org/none'",
    }.items():
        with pytest.raises(CheckpointError, match=said):
            load_pipeline(name)
    assert not hub.asked("GET", r"\.bin$")


def test_a_scorer_by_its_id(hub):
    files = files_of(embedded.ROOT / "sdg-tiny-scorer")
    hub.create("org/scorer", files=files)
    pictures, captions = [picture(0), picture(1)], ["a red car", "a tree"]
    expected = MicroworldScorer.from_pretrained("sdg-tiny-scorer").score(pictures, captions)
    assert MicroworldScorer.from_pretrained("org/scorer").score(pictures, captions) == expected
    weights = files["model.safetensors"]
    hub.create("org/cut", files=files | {"model.safetensors": weights[: len(weights) // 2]})
    hub.create("org/other", files={"config.json": b"{}", "model.safetensors": save({"w": np.zeros(1)})})
    hub.create("org/pickle", files={"config.json": files["config.json"], "pytorch_model.bin": b"pickle"})
    for name, said in {
        "org/cut": r"'org/cut' .*model.safetensors is damaged",
        "org/other": "'org/other' could not be loaded as a scorer",
        "org/pickle": "'org/pickle' has no model.safetensors: it is no scorer",
        "org/none": "there is no model 'org/none'",
    }.items():
        with pytest.raises(HubError, match=said):
            MicroworldScorer.from_pretrained(name)


# --- data sets --------------------------------------------------------------------------------------------------------

STREAM = """
import json, datasets
rows = datasets.load_dataset("org/records", split="test", streaming=True)
print(json.dumps([[row["id"], row["caption"], [d["box"] for d in row["defects"]], row["image"].size] for row in rows]))
"""


@pytest.mark.slow
def test_pushed_records_stream_and_are_read_the_same(hub, tmp_path, monkeypatch):
    records = {split: list(generate(3, seed=5, split=split)) for split in ("train", "test")}
    for split, some in records.items():
        (tmp_path / "records" / split).mkdir(parents=True)
        write_records(some, tmp_path / "records" / split / "part-00000.parquet")
    (tmp_path / "records" / "README.md").write_text("---\nlicense: mit\n---\n")
    monkeypatch.setenv("HF_TOKEN", OWNER)
    with prepare("dataset", "org/records", tmp_path / "records") as ready:
        ready.send()
    repo = hub.repos["dataset", "org/records"]
    repo.tags["v1"] = repo.branches["main"]
    for options in ({}, {"revision": "v1"}, {"local_files_only": True}, {"cache_dir": tmp_path / "other"}):
        found = list(read("org/records", split="test", **options))
        assert [(r.id, r.caption, r.defects) for r in found] == [(r.id, r.caption, r.defects) for r in records["test"]]
        assert all(np.array_equal(a.image, b.image) for a, b in zip(found, records["test"], strict=True))
    streamed = json.loads(elsewhere(hub, tmp_path / "home", STREAM, None))
    assert streamed == [[r.id, r.caption, [list(d.box) for d in r.defects], [128, 128]] for r in records["test"]]
