"""GRPO of a detector, at a tiny size: what is sampled, scored and learnt is what the detector sees and writes."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from datasets import load_dataset
from safetensors.torch import load_file
from standins import build, picture, save_checkpoint
from transformers.models.qwen3_vl import modeling_qwen3_vl
from trl import ModelConfig, TrlParser
from trl.data_utils import prepare_multimodal_messages

from sdg.cards import read_recipe
from sdg.detector import SDGDetector
from sdg.engines.transformers import TransformersEngine
from sdg.microworld import generate
from sdg.prompts import DEFAULT, Prompt
from sdg.records import to_dataset
from sdg.training.callbacks import TimedCheckpoints, read_curve
from sdg.training.checkpoint import last_complete_checkpoint
from sdg.training.data import load_training_rows
from sdg.training.grpo import DetectorGRPOConfig, DetectorGRPOTrainer, as_prompts

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "train" / "grpo.py"
CONFIGS = ROOT / "train" / "configs"
PROMPT = Prompt("caption: {caption}", "no caption")
RECORDS = list(generate(6, seed=9, uncaptioned=0.3))


def parse(config, *overrides):
    spec = importlib.util.spec_from_file_location("train_grpo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_grpo"] = module
    spec.loader.exec_module(module)
    parser = TrlParser((module.DataArguments, DetectorGRPOConfig, ModelConfig))
    return module, parser.parse_args_and_config(["--config", str(CONFIGS / config), *overrides])


def flags(**options):
    return [str(part) for name, value in options.items() for part in (f"--{name}", value)]


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "records.parquet"
    to_dataset(RECORDS).to_parquet(path)
    return path


@pytest.mark.parametrize("config", ["grpo_tiny.yaml", "grpo_qwen3vl_4b.yaml"])
def test_configuration_has_the_papers_settings(config):
    _, (data, args, model) = parse(config, "--use_cpu", "true")
    assert (args.num_generations, args.temperature, args.top_p) == (8, 1.0, 0.85)
    assert (args.beta, args.epsilon, args.num_iterations, args.loss_type) == (0.01, 0.2, 1, "grpo")
    assert not args.use_bias_correction_kl
    assert data.data
    assert model.model_name_or_path
    if "4b" in config:
        assert (args.learning_rate, args.num_train_epochs, args.max_completion_length) == (5e-6, 2, 4096)
        assert (args.use_vllm, args.freeze_vision, data.hold_out) == (True, True, 256)


def test_defaults_are_the_papers(tmp_path):
    args = DetectorGRPOConfig(output_dir=str(tmp_path), use_cpu=True)
    assert (args.num_generations, args.temperature, args.top_p, args.beta) == (8, 1.0, 0.85, 0.01)
    assert (args.learning_rate, args.num_train_epochs, args.max_completion_length) == (5e-6, 2, 4096)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "deepspeed"])
def test_accelerate_reads_its_configurations(name):
    config = load_config_from_file(str(CONFIGS / f"accelerate_{name}.yaml"))
    assert (config.num_processes, config.mixed_precision) == (8, "bf16")
    for layer in getattr(config, "fsdp_config", {}).get("fsdp_transformer_layer_cls_to_wrap", "").split(","):
        assert not layer or hasattr(modeling_qwen3_vl, layer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vllm_structured_outputs_regex": "a"}, "sampled freely, so that the format is learnt; leave it out"),
        ({"remove_unused_columns": True}, "drops the column defects that the reward reads"),
        ({"eval_strategy": "steps", "eval_steps": 1}, "set it to 'no', and validation and evaluate_every"),
        (
            {"save_strategy": "steps", "save_steps": 3, "steps_per_generation": 4, "gradient_accumulation_steps": 2},
            r"save_steps=3 falls between two rollouts.* choose a multiple of 2",
        ),
        ({"num_generations": 1}, "at least 2 generations"),
        ({"num_generations": 3}, "must be divisible by num_generations"),
    ],
)
def test_refused_settings(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        DetectorGRPOConfig(output_dir=str(tmp_path), use_cpu=True, **settings)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, 1), ({"steps_per_generation": 4, "gradient_accumulation_steps": 2}, 2), ({"num_iterations": 3}, 3)],
)
def test_steps_of_a_rollout(tmp_path, settings, steps):
    args = DetectorGRPOConfig(output_dir=str(tmp_path), use_cpu=True, save_strategy="no", **settings)
    assert args.rollout_steps == steps


def test_a_start_is_needed(tmp_path):
    module, (data, args, model) = parse("grpo_tiny.yaml", "--output_dir", str(tmp_path))
    model.model_name_or_path = None
    with pytest.raises(
        ValueError, match=r"model_name_or_path is missing: GRPO starts from a checkpoint of train/sft\.py"
    ):
        module.main(data, args, model)


def test_checkpoints_by_the_clock_wait_for_the_end_of_a_rollout():
    class Control:
        should_save = False

    callback, state = TimedCheckpoints(1e-9, every=4), type("State", (), {"global_step": 6})
    callback.on_step_end(None, state, control := Control())
    assert not control.should_save
    state.global_step = 8
    callback.on_step_end(None, state, control)
    assert control.should_save


def test_prompts_are_what_the_detector_sends(parquet):
    model, processor = build()
    rows = as_prompts(load_training_rows(parquet), PROMPT)
    engine = TransformersEngine(model, processor, max_new_tokens=1)
    for row, record in zip(rows, RECORDS, strict=True):
        assert (row["id"], [d["reason"] for d in row["defects"]]) == (record.id, [d.reason for d in record.defects])
        chat = prepare_multimodal_messages(row["prompt"], images=[row["image"]])
        sampled = processor.apply_chat_template(
            conversation=[chat], add_generation_prompt=True, tokenize=True, return_dict=True
        )
        sent = engine.inputs([record.image], [PROMPT.format(record.caption)])
        assert sampled["input_ids"] == sent["input_ids"].tolist()
        assert torch.equal(torch.as_tensor(sampled["pixel_values"]), sent["pixel_values"])


def test_rows_are_read_again_for_every_answer(parquet):
    rows = as_prompts(load_training_rows(parquet), DEFAULT)
    again = rows.__getitems__([2, 2, 0])
    assert [row["id"] for row in again] == [RECORDS[2].id, RECORDS[2].id, RECORDS[0].id]
    assert again[0]["image"].tobytes() == again[1]["image"].tobytes() == RECORDS[2].image.tobytes()


def number_of_words(completions, log_metric, **columns):
    """A reward that a model with random weights can earn, in float."""
    log_metric("words", 1.0)
    return [float(len(chat[0]["content"].split())) for chat in completions]


def trainer(folder, base, rows, reward=number_of_words, **options):
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 8,
        "pad_to_multiple_of": 16,
        "learning_rate": 1e-3,
        "max_steps": 4,
        "use_cpu": True,
        "bf16": False,
        "freeze_vision": False,
        "fast_forward": True,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }
    model, processor = build()
    model = type(model).from_pretrained(base)
    return DetectorGRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=DetectorGRPOConfig(**(settings | options)),
        train_dataset=as_prompts(rows, PROMPT),
        processing_class=processor,
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("base"))


def test_log_probabilities_are_those_of_a_plain_forward_pass(tmp_path, base, parquet):
    run = trainer(tmp_path, base, load_training_rows(parquet), gradient_accumulation_steps=1, steps_per_generation=2)
    model, processor = build()
    plain = type(model).from_pretrained(base).eval()
    run.model.train()
    examples = run.train_dataset.__getitems__([0, 0, 1, 1, 2, 2, 3, 3])
    batch = run._generate_and_score_completions(examples)
    names = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
    ids, mask = (torch.cat([batch[f"prompt_{x}"], batch[f"completion_{x}"]], dim=1) for x in ("ids", "mask"))
    assert ids.shape[1] % 16 == 0
    assert len({int(m.sum()) for m in batch["prompt_mask"]}) > 1  # padding on the left is met

    def scored(**changes):
        inputs = {name: batch[name] for name in names} | changes
        with torch.no_grad():
            return run._get_per_token_logps_and_entropies(
                run.model, ids, mask, batch["completion_ids"].shape[1], **inputs
            )

    ours = scored()[0]
    for row, example in enumerate(examples):
        prompt = processor(
            text=processor.apply_chat_template(
                prepare_multimodal_messages(example["prompt"], images=[example["image"]]), add_generation_prompt=True
            ),
            images=[example["image"]],
            return_tensors="pt",
        )
        kept = batch["completion_mask"][row].bool()
        answer = batch["completion_ids"][row][kept][None]
        width = prompt["input_ids"].shape[1]
        assert torch.equal(prompt["input_ids"][0], batch["prompt_ids"][row][batch["prompt_mask"][row].bool()])
        prompt["input_ids"] = torch.cat([prompt["input_ids"], answer], dim=1)
        prompt["attention_mask"] = torch.ones_like(prompt["input_ids"])
        kinds = prompt["mm_token_type_ids"]
        prompt["mm_token_type_ids"] = torch.cat([kinds, kinds.new_zeros(answer.shape)], dim=1)
        with torch.no_grad():
            logits = plain(**prompt).logits[0, width - 1 : -1]
        direct = logits.log_softmax(-1).gather(1, answer[0][:, None])[:, 0]
        assert ours[row][kept] == pytest.approx(direct, abs=2e-4)

    kept = batch["completion_mask"].bool()
    # Nothing is learnt yet: the ratio to what was sampled, and to the reference model, is 1.
    assert torch.equal(batch["old_per_token_logps"][kept], ours[kept])
    assert batch["ref_per_token_logps"][kept] == pytest.approx(ours[kept], abs=1e-5)
    other = batch["pixel_values"].reshape(8, -1, batch["pixel_values"].shape[1]).roll(2, 0)
    assert not torch.allclose(scored(pixel_values=other.flatten(0, 1))[0][kept], ours[kept], atol=1e-3)


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path, base, parquet):
    rows = load_training_rows(parquet)
    options = {"save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 2}
    whole = trainer(tmp_path / "whole", base, rows, **options)
    whole.train()
    before = load_file(base / "model.safetensors")
    assert any(not torch.equal(before[n], v) for n, v in whole.model.state_dict().items() if n in before)
    (tmp_path / "broken").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "broken" / "checkpoint-2")
    torn = tmp_path / "broken" / "checkpoint-4"  # killed while it saved
    torn.mkdir()
    resumed = trainer(tmp_path / "broken", base, rows, **options)
    resumed.train(resume_from_checkpoint=last_complete_checkpoint(tmp_path / "broken"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_sharded_weights_are_not_evaluated_on_the_way(tmp_path, base, parquet, monkeypatch):
    overrides = flags(model_name_or_path=base, data=parquet, validation=parquet, output_dir=tmp_path)
    module, arguments = parse("grpo_tiny.yaml", *overrides)
    monkeypatch.setattr(DetectorGRPOTrainer, "is_sharded", True)
    with pytest.raises(ValueError, match=r"validation needs all weights on one process: use .*accelerate_ddp\.yaml"):
        module.main(*arguments)


@pytest.mark.slow
def test_the_recipe_trains_the_embedded_detector(tmp_path, parquet):
    overrides = flags(
        model_name_or_path="sdg-tiny",
        data=parquet,
        data_size=4,
        validation=parquet,
        validation_size=1,
        output_dir=tmp_path,
        per_device_train_batch_size=8,
        num_generations=4,
        max_steps=1,
        log_completions="true",
        num_completions_to_print=0,
    )
    module, arguments = parse("grpo_tiny.yaml", *overrides)
    module.main(*arguments)
    curve = read_curve(tmp_path / "curve.jsonl")
    assert [(line["step"], line["pictures"]) for line in curve] == [(0, 0), (1, 2)]
    # The detector knows its format and stops by itself; the parts of its reward are logged one by one.
    assert curve[1]["detector_reward/format_ok"] == 1
    assert curve[1]["completions/clipped_ratio"] == 0
    assert 0.3 < curve[1]["reward"] <= 1
    parts = [curve[1][f"detector_reward/{name}"] for name in ("loc", "desc", "imp")]
    assert curve[1]["reward"] == pytest.approx(
        sum(w * p for w, p in zip((0.6, 0.25, 0.15), parts, strict=True)), abs=1e-4
    )
    answers = load_dataset("parquet", data_files=str(tmp_path / "completions" / "*.parquet"), split="train")
    assert {"completion", "loc", "desc", "imp", "format_ok", "advantage"} <= {*answers.column_names}
    assert len(answers) == 8
    for name in ("best", "final"):
        assert read_recipe(tmp_path / name)["method"] == "GRPO"
        assert SDGDetector.from_pretrained(tmp_path / name)(RECORDS[0].image, RECORDS[0].caption).parse_error is None


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
def test_the_large_models_recipe_runs_on_a_stand_in(tmp_path, parquet, lora, monkeypatch):
    base = save_checkpoint(tmp_path / "base", digits=True)
    options = {
        "data": parquet,
        "hold_out": 1,
        "model_name_or_path": base,
        "output_dir": tmp_path / "run",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_generations": 2,
        "max_completion_length": 3,
        "max_steps": 2,
        "learning_rate": 0.01,
        "warmup_steps": 0,
        "use_cpu": "true",
        "use_vllm": "false",
        "dataloader_num_workers": 0,
        "dtype": "float32",
        "bf16": "false",
        "embedder": "auto",
    }
    overrides = flags(**options)
    if lora:
        overrides += [*flags(use_peft="true", lora_r=4), "--lora_target_modules", "q_proj", "v_proj"]
    module, arguments = parse("grpo_qwen3vl_4b.yaml", *overrides)
    monkeypatch.setattr(
        module,
        "DetectorReward",
        lambda **kwargs: (
            lambda completions, **columns: [float(sum(map(ord, chat[0]["content"]))) for chat in completions]
        ),
    )
    module.main(*arguments)
    assert [line["step"] for line in read_curve(tmp_path / "run" / "curve.jsonl")] == [0, 2]
    if lora:
        detector = SDGDetector.from_pretrained(base, adapter=tmp_path / "run" / "final")
        assert detector(picture(), "a car").info["new_tokens"] >= 1
        adapter = load_file(tmp_path / "run" / "final" / "adapter_model.safetensors")
        assert any(value.any() for name, value in adapter.items() if "lora_B" in name)
        return
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "run" / "final"))
    moved = {name for name in before if not torch.equal(before[name].bfloat16(), after[name])}
    assert moved
    assert not any("visual" in name for name in moved)
