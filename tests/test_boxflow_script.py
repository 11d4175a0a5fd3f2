"""The alignment script and its configurations: the paper's settings, and a dry run of each on small pipelines."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import tiny_clip
import tiny_pipelines
from diffusers import DiffusionPipeline
from naughty_server import NaughtyServer, said, text_of
from peft import PeftConfig
from trl import ModelConfig, TrlParser

from sdg.boxflow.base_rewards import JUDGE_PROMPT, CLIPScore, JudgeReward, MicroworldReward, PickScore
from sdg.boxflow.config import BoxFlowGRPOConfig
from sdg.cards import read_recipe
from sdg.defects import Defect, DefectSet
from sdg.response import render_response

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "train" / "configs"
FILES = ["boxflow_tiny.yaml", "boxflow_flux_paper.yaml", "boxflow_sd35m.yaml"]
HAND = DefectSet((Defect((100, 100, 600, 700), "artifact", "a hand", 60),), reasoning="a hand")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_boxflow_grpo", ROOT / "train" / "boxflow_grpo.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_boxflow_grpo"] = module
    spec.loader.exec_module(module)
    return module


def parse(script, config, **overrides):
    words = [str(word) for name, value in overrides.items() for word in (f"--{name}", *_list(value))]
    parser = TrlParser((script.AlignmentArguments, BoxFlowGRPOConfig, ModelConfig))
    return parser.parse_args_and_config(["--config", str(CONFIGS / config), "--use_cpu", "true", *words])


def _list(value):
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("config", FILES)
def test_configurations_have_the_papers_settings(script, config):
    _, args, model = parse(script, config)
    assert (args.advantage, args.c_artifact, args.c_misalignment) == ("box", 0.5, 0.05)
    assert (args.num_generations, args.noise_level, args.dynamics, args.beta) == (8, 0.7, "flow_sde", 0)
    assert (args.num_sampling_steps, args.sde_window, args.sde_steps, args.epsilon) == (10, [1, 4], 1, 1e-4)
    rate = 5e-4 if "tiny" in config else 3e-4  # the paper's, but for the generator of the microworld
    assert (args.ema_decay, args.learning_rate, model.lora_alpha / model.lora_r) == (0.9, rate, 2)
    assert model.use_peft
    if "flux" in config:
        assert (args.height, args.width, args.guidance_scale, args.max_steps) == (512, 512, 3.5, 500)
        assert (model.lora_r, args.gradient_checkpointing, args.bf16) == (64, True, True)
    # Pictures of a rollout are used by whole optimizer steps, and the second step has a ratio to clip.
    assert args.steps_per_generation == 2 * args.gradient_accumulation_steps


@pytest.mark.parametrize("config", FILES[1:])
def test_large_configurations_say_that_they_were_not_run(config):
    assert "Not run at full size" in (CONFIGS / config).read_text()


@pytest.fixture(scope="module")
def servers():
    """A judge and a detector behind one address, told apart by what is asked."""

    def reply(request, number):
        judged = text_of(request).startswith(JUDGE_PROMPT[:40])
        return said(
            f"Alignment Score (1-5): {1 + number % 5}\nCoherence Score (1-5): 3\nStyle Score (1-5): 4"
            if judged
            else render_response(HAND)
        )

    with NaughtyServer(reply).running() as server:
        yield server


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip.save(tmp_path_factory.mktemp("clip"))


def small(folder, **more):
    """Options that make a dry run of any configuration: two optimizer steps of two groups of two."""
    folder.mkdir(exist_ok=True)
    (folder / "prompts.txt").write_text("a red car\na blue tree\na green house\nthe tree by the car\n")
    return {
        "prompts": folder / "prompts.txt",
        "eval_prompts": folder / "prompts.txt",
        "eval_prompts_size": 2,
        "output_dir": folder / "run",
        "max_steps": 2,
        "num_generations": 2,
        "num_generations_eval": 2,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 4,
        "num_sampling_steps": 4,
        "eval_sampling_steps": 2,
        "rollout_batch_size": 3,
        "eval_steps": 2,
        "logging_steps": 1,
        "save_steps": 2,
        "dataloader_num_workers": 0,
        "max_sequence_length": 12,
        "report_to": "none",
        **more,
    }


def logs(folder):
    return json.loads((folder / "run" / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]


@pytest.mark.slow
def test_a_dry_run_of_the_papers_configuration(script, servers, tmp_path):
    tiny_pipelines.flux().save_pretrained(tmp_path / "flux")
    options = small(tmp_path, model_name_or_path=tmp_path / "flux", height=32, width=64)
    script.main(*parse(script, FILES[1], **options, judge_url=servers.url, detector_url=servers.url))
    first, second, *_ = [log for log in logs(tmp_path) if "loss" in log]
    assert first["ratio/mean"] == pytest.approx(1, abs=1e-5)
    assert second["ratio/std"] > 0
    assert (first["defects/artifact_boxes"], first["defects/unreadable"]) == (1, 0)
    assert first["rewards/judge/std"] > 0
    assert (tmp_path / "run" / "panels" / "step_000002.png").exists()
    page = (ROOT / "docs" / "boxflow.md").read_text(encoding="utf-8").split("## What is logged")[1].split("\n## ")[0]
    table = "".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    named = {n.replace("NAME", "judge").replace("PHASE", "rollout") for n in re.findall(r"`([\w/]+)`", table)}
    assert len(named) > 12
    assert named - set(first) == {"kl"}  # beta is 0
    config = PeftConfig.from_pretrained(tmp_path / "run" / "final" / "lora")
    recipe = read_recipe(tmp_path / "run" / "final" / "lora")
    assert (recipe["method"], recipe["base_model"]) == ("BoxFlow-GRPO", "flux")
    assert recipe["settings"]["rewards"]
    assert (config.r, config.lora_alpha) == (64, 128)
    DiffusionPipeline.from_pretrained(tmp_path / "flux").load_lora_weights(tmp_path / "run" / "final" / "lora")


@pytest.mark.slow
def test_a_dry_run_of_the_one_gpu_configuration_goes_on_where_it_stopped(script, clip, tmp_path):
    tiny_pipelines.sd3().save_pretrained(tmp_path / "sd3")
    own = {"rewards": f"pick={clip}", "detector": "sdg-tiny", "max_unreadable_share": 1}
    options = small(tmp_path, model_name_or_path=tmp_path / "sd3", height=64, width=64, **own)
    script.main(*parse(script, FILES[2], **options))
    assert next(log["ratio/mean"] for log in logs(tmp_path) if "loss" in log) == pytest.approx(1, abs=1e-5)
    script.main(*parse(script, FILES[2], **(options | {"max_steps": 4})))
    state = json.loads((tmp_path / "run" / "checkpoint-4" / "trainer_state.json").read_text())
    assert [log["step"] for log in state["log_history"] if "loss" in log] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("advantage", ["scalar", "heatmap"])
def test_a_dry_run_of_the_microworlds_rivals(script, advantage, tmp_path):
    tiny_pipelines.microworld().save_pretrained(tmp_path / "t2i")
    own = {"prompts": "microworld", "prompts_size": 4, "advantage": advantage, "max_unreadable_share": 1}
    options = small(tmp_path, model_name_or_path=tmp_path / "t2i", height=32, width=32, **own)
    script.main(*parse(script, FILES[0], **options))
    first = next(log for log in logs(tmp_path) if "loss" in log)
    assert ("penalty/artifact" in first) == (advantage == "heatmap")  # the scalar rival asks no detector


@pytest.mark.parametrize(
    ("name", "kind", "model"),
    [
        ("clip", CLIPScore, "openai/clip-vit-large-patch14"),
        ("clip=some/other", CLIPScore, "some/other"),
        ("pick", PickScore, "yuvalkirstain/PickScore_v1"),
        ("microworld", MicroworldReward, "sdg-tiny-scorer"),
    ],
)
def test_rewards_have_names(script, name, kind, model):
    reward = script.build_reward(name, None)
    assert (type(reward), reward.model) == (kind, model)


def test_a_judge_is_asked_at_once_whether_it_is_there(script, servers):
    arguments = script.AlignmentArguments("p.txt", judge_url=servers.url, judge_concurrency=3)
    judge = script.build_reward("judge=m", arguments)
    assert (type(judge), judge.engine.concurrency) == (JudgeReward, 3)
    gone = script.AlignmentArguments("p.txt", judge_url="http://127.0.0.1:9/v1")
    with pytest.raises(OSError, match=r"nothing answers at http://127\.0\.0\.1:9/v1"):
        script.build_reward("judge=m", gone)


@pytest.mark.parametrize(
    ("name", "message"),
    [("beauty", "'beauty' is none of clip, pick, microworld, judge"), ("judge", "judge needs its model")],
)
def test_a_reward_that_cannot_be_built_is_refused(script, name, message):
    with pytest.raises(ValueError, match=message):
        script.build_reward(name, script.AlignmentArguments("p.txt"))


def test_a_run_without_a_generator_is_refused(script):
    arguments, args, model = parse(script, FILES[0])
    model.model_name_or_path = None
    with pytest.raises(ValueError, match="model_name_or_path is missing"):
        script.main(arguments, args, model)
