"""The page about alignment: files and commands are there, counts are the architectures' own, code runs."""

import ast
import importlib.util
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import tiny_pipelines
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel
from peft import LoraConfig, get_peft_model
from trl import ModelConfig, TrlParser

from sdg.boxflow.config import BoxFlowGRPOConfig
from sdg.boxflow.policy import FluxPolicy, SD3Policy
from sdg.defects import Defect, DefectSet

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "boxflow.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if "boxflow_grpo.py" in line]
SETTINGS = PAGE.split("## Settings")[1].split("\n## ")[0]


def test_files_that_the_page_names_are_there():
    named = {path for path in re.findall(r"(?:train|benchmarks)/[\w/.-]+\.(?:py|yaml)", PAGE)}
    named |= {f"train/configs/{name}" for name in re.findall(r"`(\w+\.yaml)`", PAGE)}
    named |= {f"docs/{page}" for page in re.findall(r"\]\((\w+\.md)", PAGE)}
    assert len(named) > 7
    assert not [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command, monkeypatch):
    words = shlex.split(command)
    script = next(i for i, word in enumerate(words) if word.endswith("boxflow_grpo.py"))
    spec = importlib.util.spec_from_file_location("train_boxflow_grpo", ROOT / words[script])
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_boxflow_grpo"] = module
    spec.loader.exec_module(module)
    monkeypatch.chdir(ROOT)
    parser = TrlParser((module.AlignmentArguments, BoxFlowGRPOConfig, ModelConfig))
    arguments, args, _ = parser.parse_args_and_config([*words[script + 1 :], "--use_cpu", "true"])
    assert arguments.prompts
    assert args.advantage == "box"


def test_defaults_in_the_table_are_the_configurations():
    defaults = {f.name: f for f in fields(BoxFlowGRPOConfig)}
    given = BoxFlowGRPOConfig("x", use_cpu=True)
    seen = 0
    for names, said in re.findall(r"^\| (`.*?`) \| (.*?) \|", SETTINGS, re.MULTILINE):
        for name, value in zip(re.findall(r"`(\w+)`", names), re.split(r", (?![^\[]*\])", said) * 2, strict=False):
            assert name in defaults
            actual = getattr(given, name)
            if actual is not None:  # eval_sampling_steps: num_sampling_steps
                text = value.replace("false", "False")
                assert str(actual) == text or float(actual) == pytest.approx(float(text)), name
            seen += 1
    assert seen > 20


def test_the_python_example_aligns_a_pipeline(monkeypatch, tmp_path):
    code = next(code for code in CODE if "def align" in code)
    space = {}
    exec(compile(ast.parse(code), "docs", "exec"), space)

    class Detector:
        def __call__(self, images, captions, batch_size):
            return [DefectSet((Defect((0, 0, 500, 500), "artifact", "x", 50),)) for _ in images]

    small = {"height": 32, "width": 32, "num_sampling_steps": 4, "max_sequence_length": 12, "ema_decay": 0}
    small |= {"use_cpu": True, "bf16": False, "save_strategy": "no", "report_to": "none", "max_steps": 1}
    config = space["BoxFlowGRPOConfig"]
    space["BoxFlowGRPOConfig"] = lambda folder, **options: config(folder, **(options | small))
    space["SDGDetector"] = type("Loader", (), {"from_pretrained": staticmethod(lambda name: Detector())})
    space["PickScore"] = lambda: lambda images, prompts: [0.0 for _ in images]
    monkeypatch.chdir(tmp_path)
    space["align"](tiny_pipelines.sd3(), ["a red car", "a blue tree"])
    tiny_pipelines.sd3().load_lora_weights(tmp_path / "runs" / "mine" / "final" / "lora")


def count(model):
    return sum(p.numel() for p in model.parameters())


def lora(model, policy, rank):
    wrapped = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(policy.lora_targets)))
    return sum(p.numel() for name, p in wrapped.named_parameters() if "lora_" in name)


def test_parameters_are_the_architectures():
    """The released configurations, without memory."""
    with torch.device("meta"):
        flux = FluxTransformer2DModel(guidance_embeds=True)
        sd35m = SD3Transformer2DModel(
            sample_size=128,
            num_layers=24,
            num_attention_heads=24,
            caption_projection_dim=1536,
            pos_embed_max_size=384,
            qk_norm="rms_norm",
            dual_attention_layers=tuple(range(13)),
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=16,
            layers_per_block=2,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        for model, said, decimals in ((flux, "11.90 B", 2), (sd35m, "2.24 B", 2), (vae, "0.08 B", 2)):
            assert f"{count(model) / 1e9:.{decimals}f} B" == said
            assert said in PAGE
        for model, policy, rank, said in ((flux, FluxPolicy, 64, "179.3 M"), (sd35m, SD3Policy, 32, "18.8 M")):
            assert f"{lora(model, policy, rank) / 1e6:.1f} M" == said
            assert said in PAGE
