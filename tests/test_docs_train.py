"""The page about training: every file that it names is there, and every command's options are understood."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
from trl import ModelConfig, TrlParser

from sdg.training.grpo import DetectorGRPOConfig
from sdg.training.sft import DetectorSFTConfig

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "train-detector.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()]
ARGUMENTS = {"sft": DetectorSFTConfig, "grpo": DetectorGRPOConfig}


def test_files_that_the_page_names_are_there():
    named = {path for path in re.findall(r"(?:train|docs|tests)/[\w/.-]+\.(?:py|yaml|md)", PAGE)}
    assert len(named) > 8
    assert not [path for path in named if not (ROOT / path).exists()]
    bare = re.findall(r"`(\w+\.yaml)`", PAGE)
    folders = (ROOT / "train" / "configs", ROOT / "train" / "configs" / "ablations")
    assert bare
    assert not [name for name in bare if not any((folder / name).exists() for folder in folders)]


@pytest.mark.parametrize("command", [c for c in COMMANDS if re.search(r"train/(sft|grpo)\.py", c)])
def test_commands_are_understood(command, monkeypatch):
    words = shlex.split(command)
    script = next(i for i, word in enumerate(words) if word.startswith("train/"))
    if words[0] == "accelerate":
        script = next(i for i, word in enumerate(words) if word.endswith(".py"))
    name = Path(words[script]).stem
    spec = importlib.util.spec_from_file_location(f"train_{name}", ROOT / words[script])
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"train_{name}"] = module
    spec.loader.exec_module(module)
    monkeypatch.chdir(ROOT)
    parser = TrlParser((module.DataArguments, ARGUMENTS[name], ModelConfig))
    data, args, _ = parser.parse_args_and_config([*words[script + 1 :], "--use_cpu", "true"])
    assert data.data
    if "--think_without" in words:
        assert args.think_without == [1]


def test_the_example_says_what_it_prints():
    block = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    printed = []
    exec(block, {"print": printed.append})
    assert printed[0].total == pytest.approx(0.18)
