"""docs/load.md: its python runs as it stands, over a local Hub that has stand-ins under the names of the page."""

from __future__ import annotations

from pathlib import Path

import pages
import peft
import pytest
import tiny_pipelines
from huggingface_hub import constants
from layouts import truth, write_sdg30k
from local_hub import LocalHub
from standins import build, save_as_released

from sdg import embedded

TEXT, BLOCKS = pages.read("load.md")


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_the_code_runs_as_it_stands(tmp_path, monkeypatch):
    made = tmp_path / "made"
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(build(digits=True)[0], config).save_pretrained(made / "adapter")
    flux = tiny_pipelines.flux()
    flux.save_pretrained(made / "flux")
    peft.get_peft_model(flux.transformer, peft.LoraConfig(target_modules=["to_q"])).save_pretrained(made / "lora")
    calibration = (embedded.ROOT / "sdg-tiny" / "calibration.json").read_bytes()
    with LocalHub() as hub, hub.here(monkeypatch, token=None):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        hub.create("P1n3/sdg-detector-grpo", files=files_of(save_as_released(made / "detector")))
        hub.create("me/adapter", files=files_of(made / "adapter"))
        hub.create("me/calibration", files={"calibration.json": calibration})
        hub.create("me/prompt", files={"sdg_config.json": b'{"prompt": "Faults of {caption}?"}'})
        hub.create("black-forest-labs/FLUX.1-dev", files=files_of(made / "flux"))
        hub.create("P1n3/boxflow-grpo-flux-lora", files=files_of(made / "lora"))
        hub.create("P1n3/SDG-30K", "dataset", files_of(write_sdg30k(made / "data", truth(20))))
        told = pages.run([block for block in BLOCKS if block[0] == "python"], tmp_path)
    assert told[:3] == ["P1n3/sdg-detector-grpo\n", "Faults of a red car?\n", "{'transformer': ['default']}\n"]
    assert int(told[3]) > 0
