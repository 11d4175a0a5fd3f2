"""train/microworld.py and what follows it, from the command line: a stop between stages, and what they leave."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

import sdg
from sdg import microworld
from sdg.records import from_row, load_records, to_dataset, write_records
from sdg.refine.tiny import TinyEditor

ROOT = Path(sdg.__file__).parents[1]
SMALL = "--per_device_train_batch_size 2 --lr_scheduler_type constant --lr_scheduler_kwargs {} --logging_steps 1"


def train(config: str, folder: Path, *options: str, script: str = "microworld.py") -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "train" / script), "--config", str(ROOT / "train/configs" / config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command += [*SMALL.split(), *options]
    command += ["--data", str(folder / "data")] if script == "microworld.py" else []
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_both_stages_leave_a_pipeline_that_loads_plainly_and_go_on_after_a_stop(tmp_path):
    write_records(microworld.generate(24, seed=0, split="train", clean=True), tmp_path / "data")
    first, second = tmp_path / "autoencoder", tmp_path / "flow"
    saving = ("--save_strategy", "steps", "--save_steps", "1")
    run = train("t2i_autoencoder.yaml", tmp_path, "--output_dir", str(first), "--max_steps", "1", *saving)
    assert run.returncode == 0, run.stderr
    going_on = ("--output_dir", str(second), "--pipeline", str(first / "final"))
    for steps in ("1", "2"):  # the second call resumes the first one's checkpoint
        run = train("t2i_flow.yaml", tmp_path, *going_on, "--max_steps", steps, *saving)
        assert run.returncode == 0, run.stderr
    assert (second / "checkpoint-2").is_dir()
    assert Image.open(second / "sheet.png").width > 128
    assert (second / "latents.safetensors").exists()
    pipeline = DiffusionPipeline.from_pretrained(second / "final")
    assert pipeline.vae.config.scaling_factor != 1
    assert pipeline("a red car", num_inference_steps=1, max_sequence_length=1).images[0].size == (128, 128)

    # It learns to mend.
    third = tmp_path / "repair"
    options = ("--output_dir", str(third), "--pipeline", str(second / "final"), "--pairs", "9", "--clean", "9")
    options += ("--compile", "false", "--max_steps", "1")
    run = train("t2i_repair.yaml", tmp_path, *options, script="microworld_repair.py")
    assert run.returncode == 0, run.stderr
    assert (third / "pairs.safetensors").exists()
    taught = TinyEditor.from_pretrained(str(third / "final"))
    before, after = (next(p.transformer.parameters()) for p in (pipeline, taught.pipeline))
    assert not torch.equal(before, after)

    # Pictures with defects pass through the pipeline and keep their labels.
    drawn = list(microworld.generate(6, seed=0, split="train"))
    (tmp_path / "drawn" / "train").mkdir(parents=True)
    to_dataset(drawn).to_parquet(tmp_path / "drawn" / "train" / "0000000.parquet")
    script = [sys.executable, str(ROOT / "train" / "microworld_redraw.py"), "--data", "drawn", "--out", "redrawn"]
    options = ["--pipeline", str(second / "final")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([*script, *options], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    redrawn = [from_row(row) for row in load_records(tmp_path / "redrawn" / "train")]
    assert [r.defects for r in redrawn] == [r.defects for r in drawn]
    assert all(a.image.tobytes() != b.image.tobytes() for a, b in zip(redrawn, drawn, strict=True))


def test_an_unknown_stage_is_named(tmp_path):
    write_records(microworld.generate(1, seed=0, split="train", clean=True), tmp_path / "data")
    run = train("t2i_flow.yaml", tmp_path, "--pipeline", "", "--stage", "paint", "--output_dir", str(tmp_path / "out"))
    assert run.returncode
    assert "stage='paint' is neither 'autoencoder' nor 'flow'" in run.stderr
