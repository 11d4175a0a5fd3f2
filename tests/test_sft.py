"""The training script, at a tiny size: it learns, resumes where it was killed, and trains a large model's stand-in."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from standins import picture, save_checkpoint
from trl import ModelConfig, TrlParser

from sdg.cards import read_recipe
from sdg.detector import SDGDetector
from sdg.microworld import VOCABULARY, generate
from sdg.prompts import Prompt
from sdg.records import to_dataset
from sdg.response import render_response
from sdg.training.callbacks import FreeRunningEvaluation, mean_f1, read_curve
from sdg.training.checkpoint import last_complete_checkpoint
from sdg.training.collator import SFTCollator
from sdg.training.data import load_training_rows
from sdg.training.dense import DenseVocabulary
from sdg.training.sft import DetectorSFTConfig, DetectorSFTTrainer
from sdg.training.tiny import build_model, build_processor

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "train" / "sft.py"
CONFIGS = ROOT / "train" / "configs"
SMALL = {"hidden": 96, "vision_layers": 3, "text_layers": 2, "text_mlp": 192, "vision_mlp": 192}
PROMPT = Prompt("caption: {caption}", "no caption")


def script():
    spec = importlib.util.spec_from_file_location("train_sft", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_sft"] = module
    spec.loader.exec_module(module)
    return module


def parse(config, *overrides):
    module = script()
    parser = TrlParser((module.DataArguments, DetectorSFTConfig, ModelConfig))
    return module, parser.parse_args_and_config(["--config", str(CONFIGS / config), *overrides])


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "records.parquet"
    to_dataset(generate(16, seed=9)).to_parquet(path)
    return path


@pytest.mark.parametrize("config", ["sft_tiny.yaml", "sft_qwen3vl_4b.yaml"])
def test_configuration_is_understood(config, tmp_path):
    _, (data, args, model) = parse(config, "--output_dir", str(tmp_path), "--use_cpu", "true")
    assert data.data
    assert args.coordinate_jitter == 10
    assert args.save_total_limit == 2
    assert not args.remove_unused_columns
    if model.model_name_or_path:
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * 8
        assert (args.learning_rate, args.num_train_epochs, batch, args.max_length) == (3e-5, 3, 16, 5100)
        assert args.freeze_vision


ABLATIONS = {
    "without_step_1": {"think_without": [1]},
    "without_step_3": {"think_without": [3]},
    "without_description": {"answer_without": ["description"]},
    "without_importance": {"answer_without": ["importance"]},
    "without_jitter": {"coordinate_jitter": 0},
    "vision_unfrozen": {"freeze_vision": False},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_differs_from_the_full_recipe_in_one_thing(name):
    full = yaml.safe_load((CONFIGS / "sft_qwen3vl_4b.yaml").read_text())
    changed = yaml.safe_load((CONFIGS / "ablations" / f"{name}.yaml").read_text())
    folder = full["output_dir"] + "-" + name.replace("_", "-")
    assert changed == full | ABLATIONS[name] | {"output_dir": folder}
    _, (_, args, _) = parse(f"ablations/{name}.yaml", "--use_cpu", "true")
    assert {key: getattr(args, key) for key in ABLATIONS[name]} == ABLATIONS[name]


def test_every_ablation_is_tested():
    assert {path.stem for path in (CONFIGS / "ablations").glob("*.yaml")} == set(ABLATIONS)


def trainer(folder, rows, **options):
    processor = build_processor(VOCABULARY)
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "learning_rate": 2e-3,
        "lr_scheduler_type": "cosine",
        "muon": True,
        "adam_beta2": 0.95,
        "coordinate_sigma": 5.0,
        "coordinate_jitter": 0,
        "dense_weight": 0.5,
        "fast_forward": True,
        "freeze_vision": False,
        "length_pool": 2,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "logging_steps": 10,
        "report_to": "none",
        "disable_tqdm": True,
    }
    args = DetectorSFTConfig(**(settings | options))
    vocabulary = DenseVocabulary.of(rows)
    return DetectorSFTTrainer(
        model=build_model(processor, **SMALL),
        args=args,
        train_dataset=rows,
        processing_class=processor,
        data_collator=SFTCollator(processor, prompt=PROMPT, jitter=args.coordinate_jitter, vocabulary=vocabulary),
        vocabulary=vocabulary,
    )


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path, parquet):
    rows = load_training_rows(parquet)
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    whole = trainer(tmp_path / "whole", rows, **options)
    whole.train()
    broken = trainer(tmp_path / "broken", rows, **options)
    broken.train()
    for name in ("checkpoint-6", "final"):
        subprocess.run(["rm", "-rf", str(tmp_path / "broken" / name)], check=True)
    resumed = trainer(tmp_path / "broken", rows, **options)
    resumed.train(resume_from_checkpoint=True)
    for one, other in ((whole.model, resumed.model), (whole.dense_heads, resumed.dense_heads)):
        for name, value in one.state_dict().items():
            assert torch.equal(other.state_dict()[name], value), name


@pytest.mark.slow
def test_it_learns_a_few_pictures_by_heart(tmp_path, parquet):
    rows = load_training_rows(parquet).select(range(4))
    records = list(generate(4, seed=9))
    run = trainer(tmp_path, rows, max_steps=200, per_device_train_batch_size=4, coordinate_jitter=8)
    evaluation = FreeRunningEvaluation(
        records, run.processing_class, prompt=PROMPT, folder=tmp_path, every=100, max_new_tokens=200
    )
    run.add_callback(evaluation)
    run.train()
    curve = read_curve(tmp_path / "curve.jsonl")
    assert [line["step"] for line in curve] == [100, 200]
    assert [line["pictures"] for line in curve] == [400, 800]
    assert curve[-1]["mean_f1"] > 0.95
    assert curve[-1]["loss_text"] < 0.1
    detector = SDGDetector.from_pretrained(tmp_path / "best")
    found = detector([r.image for r in records], [r.caption for r in records])
    right = sum(len(f) == len(r.defects) for f, r in zip(found, records, strict=True))
    assert right == 4


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path, parquet):
    command = [sys.executable, str(SCRIPT), "--config", str(CONFIGS / "sft_tiny.yaml"), "--data", str(parquet)]
    command += [
        "--validation",
        str(parquet),
        "--validation_size",
        "2",
        "--max_new_tokens",
        "4",
        "--evaluate_every",
        "2",
    ]
    command += ["--output_dir", str(tmp_path), "--per_device_train_batch_size", "2", "--logging_steps", "1"]
    command += ["--save_strategy", "steps", "--save_steps", "2", "--num_train_epochs", "9"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    first = subprocess.Popen([*command, "--max_steps", "40"], cwd=ROOT, env=environment)
    deadline = time.monotonic() + 240
    while last_complete_checkpoint(tmp_path) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    reached = int(Path(last_complete_checkpoint(tmp_path)).name.split("-")[1])
    assert not (tmp_path / "final").exists()
    subprocess.run(
        [*command, "--max_steps", str(reached + 3)],
        cwd=ROOT,
        env=environment,
        check=True,
    )
    curve = read_curve(tmp_path / "curve.jsonl")
    steps, seconds = ([line[name] for line in curve] for name in ("step", "seconds"))
    assert steps == sorted(set(steps))
    assert seconds == sorted(set(seconds))
    assert steps[-1] == reached + 3
    state = json.loads(Path(last_complete_checkpoint(tmp_path), "trainer_state.json").read_text())
    assert state["global_step"] > reached
    assert SDGDetector.from_pretrained(tmp_path / "final")(picture(), "a red car").info["new_tokens"] <= 4


@pytest.fixture
def sdg30k(tmp_path):
    root = tmp_path / "SDG-30K"
    (root / "annotations").mkdir(parents=True)
    for split, records in (("train", list(generate(4, seed=1))), ("test", list(generate(2, seed=2)))):
        lines = []
        for record in records:
            record.image.save(root / f"{record.id}.png")
            items = [
                {"box_2d": d.box, "label": d.type.value, "description": d.reason, "importance": d.importance}
                for d in record.defects
            ]
            line = {"filepath": f"{record.id}.png", "caption": record.caption, "ann_translated_bboxes": items}
            lines.append(json.dumps(line | {"raw_response": render_response(record.defects)}))
        (root / "annotations" / f"{split}.jsonl").write_text("\n".join(lines))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
def test_the_large_models_recipe_runs_on_a_stand_in(tmp_path, sdg30k, lora):
    base = save_checkpoint(tmp_path / "base", digits=True)
    overrides = {
        "data": sdg30k,
        "hold_out": 1,
        "model_name_or_path": base,
        "output_dir": tmp_path / "run",
        "max_new_tokens": 3,
        "max_steps": 2,
        "use_cpu": "true",
        "dataloader_num_workers": 0,
        "dtype": "float32",
        "bf16": "false",
        "learning_rate": 0.01,
        "warmup_steps": 0,
    }
    if lora:
        overrides |= {"use_peft": "true", "lora_r": 4}
    flags = [str(part) for name, value in overrides.items() for part in (f"--{name}", value)]
    if lora:
        flags += ["--lora_target_modules", "q_proj", "v_proj"]
    module, arguments = parse("sft_qwen3vl_4b.yaml", *flags)
    module.main(*arguments)
    assert read_curve(tmp_path / "run" / "curve.jsonl")[-1]["step"] == 2
    recipe = read_recipe(tmp_path / "run" / "final")
    assert (recipe["method"], recipe["base_model"]) == ("supervised fine-tuning", base.name)
    assert recipe["settings"]["learning_rate"] == 0.01
    assert ("lora_r" in recipe["settings"]) == lora
    if lora:
        detector = SDGDetector.from_pretrained(base, adapter=tmp_path / "run" / "final")
        assert detector(picture(), "a car").info["new_tokens"] >= 1
        return
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "run" / "final"))
    moved = {name for name in before if not torch.equal(before[name].bfloat16(), after[name])}
    assert moved
    assert not any("visual" in name for name in moved)
    detector = SDGDetector.from_pretrained(tmp_path / "run" / "final")
    assert detector(picture(), "a car").info["new_tokens"] >= 1


@pytest.mark.parametrize(
    ("scores", "mean"), [((0.4, 0.6), 0.5), ((0.4, float("nan")), 0.2), ((None, None), 0.0), ((1.0, 1.0), 1.0)]
)
def test_mean_f1(scores, mean):
    artifact, misalignment = scores
    metrics = {"artifact/box_f1@0.5": artifact, "misalignment/box_f1@0.5": misalignment}
    assert mean_f1(metrics) == pytest.approx(mean)
