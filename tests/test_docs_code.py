"""No code of README, CONTRIBUTING or docs/ goes unchecked, that of a page written tomorrow included.

``python`` and ``bash`` run: in an empty folder, from top to bottom, as they stand; pages that need a server, a pipeline
or hours have a test module of their own. ``sh`` does not run here: its commands must exist and know their options.
"""

import re
import shlex
import subprocess
from importlib import metadata
from pathlib import Path

import pages
import pytest
from packaging.requirements import Requirement
from typer.main import get_command

from sdg.cli import app

OWN = {
    "add-a-model-family.md": "test_boxflow_policy.py",
    "boxflow.md": "test_docs_boxflow.py",
    "data.md": "test_docs_data.py",
    "detect-many.md": "test_docs_detect.py",
    "endpoint.md": "test_docs_endpoint.py",
    "load.md": "test_docs_load.py",
    "page.md": "test_docs_page.py",
    "publish.md": "test_docs_publish.py",
    "refine-editors.md": "test_docs_refine_editors.py",
    "refine.md": "test_docs_refine.py",
    "score-your-detector.md": "test_docs_score.py",
    "train-detector.md": "test_docs_train.py",
}
"""Pages whose code other modules run."""

NAME = "sdg-t2i"
LANGUAGES = {"python", "bash", "sh", "text", "json"}
WORDS = {"cat", "cp", "echo", "sdg"}
"""What a `bash` block may call beside what `sh` blocks may: there are no other surprises for a reader."""

ELSEWHERE = {
    "vllm": {"vllm"},
    "sglang": {"sglang"},
    "trl": {"vllm"},
    "transformers": {"serving"},
}
"""What a page asks readers to install beside this project, and the extras that it may name."""

SERVERS = {
    # https://docs.vllm.ai/en/latest/cli/serve.html
    "vllm serve": {
        *("--generation-config", "--max-model-len", "--limit-mm-per-prompt.video", "--mm-processor-cache-gb", "--port"),
        *("--data-parallel-size", "--gpu-memory-utilization", "--api-key"),
    },
    # https://docs.sglang.ai/advanced_features/server_arguments.html
    "sglang.launch_server": {"--model-path", "--sampling-defaults", "--context-length", "--port", "--dp-size"},
    "transformers serve": {"--port"},  # which test_docs_endpoint.py runs
}
"""Options of servers that are not installed here, as their documentation has them."""

PARSED = {"train/sft.py", "train/grpo.py", "train/boxflow_grpo.py"}
"""Scripts whose options the parser of TRL reads: test_docs_train.py and test_docs_boxflow.py give it the pages' own."""


def commands(code: str) -> list[list[str]]:
    """The commands of a block as words; what a here-document writes is none."""
    code = re.sub(r"<<'(\w+)'\n.*?^\1$", "", code, flags=re.M | re.S).replace("\\\n", " ")
    words = [shlex.split(part, comments=True) for line in code.splitlines() for part in re.split(r"\|\||&&", line)]
    return [some for some in words if some]


def blocks(*languages):
    return [
        pytest.param(command, id=f"{name}: {' '.join(command)[:60]}")
        for name in pages.PAGES
        for language, code in pages.read(name)[1]
        if language in languages
        for command in commands(code)
    ]


@pytest.mark.parametrize("name", pages.PAGES)
def test_every_block_says_what_it_is(name):
    opened = re.findall(r"^ *(`{3,}|~{3,})(.*)$", pages.read(name)[0], re.M)
    assert len(opened) % 2 == 0
    for fence, language in opened[::2]:
        assert fence == "```", f"{fence}{language}: three backticks, so that tests see it"
        assert language in LANGUAGES or language.startswith("{"), f"```{language} is none of {sorted(LANGUAGES)}"


@pytest.mark.parametrize("name", OWN)
def test_a_page_with_a_module_of_its_own_is_read_there(name):
    assert f'"{name}"' in (Path(__file__).parent / OWN[name]).read_text(encoding="utf-8")
    assert {language for language, _ in pages.read(name)[1]} & {"python", "bash"}


RUN_HERE = [
    name
    for name in pages.PAGES
    if name not in OWN and {language for language, _ in pages.read(name)[1]} & {"python", "bash"}
]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN_HERE)
def test_code_runs_as_it_stands(name, tmp_path):
    told = pages.run(pages.read(name)[1], tmp_path)
    assert all(told), "a block prints nothing: what does it show?"


@pytest.mark.parametrize("command", blocks("sh", "bash"))
def test_commands_exist_and_know_their_options(command):
    while re.fullmatch(r"[A-Z_]+=.*", command[0]):
        check_variable(command.pop(0).split("=")[0])
    check = CHECKS.get(command[0])
    assert check or command[0] in WORDS, f"nobody knows whether {command[0]} exists"
    if check:
        check(command)


def options(words):
    return {word.split("=")[0] for word in words if word.startswith("-") and len(word) > 1}


def check_variable(name):
    sources = [pages.ROOT / "app.py", *(pages.ROOT / "sdg").rglob("*.py")]
    assert any(f'"{name}"' in source.read_text(encoding="utf-8") for source in sources), f"nothing reads {name}"


def check_sdg(command):
    known, words = get_command(app), command[1:]
    while hasattr(known, "commands"):
        assert words[0] in known.commands, f"sdg has no command {words[0]}"
        known, words = known.commands[words[0]], words[1:]
    assert options(words) <= {option for parameter in known.params for option in parameter.opts}


def check_python(command):
    if command[1] == "-c":
        compile(command[2], "docs", "exec")
    elif command[1] == "-m":
        assert options(command[3:]) <= SERVERS[command[2]]
    else:
        check_script(command[1], command[2:])


def check_script(path, words):
    source = (pages.ROOT / path).read_text(encoding="utf-8")
    if path not in PARSED:
        for option in options(words):
            assert f'"{option}"' in source, f"{path} has no option {option}"
    for word in words:
        if re.fullmatch(r"(train|benchmarks|docs)/\S+\.\w+", word):
            assert (pages.ROOT / word).exists() or words[words.index(word) - 1] in ("--out", "--plot")


def check_accelerate(command):
    assert command[1:3] == ["launch", "--config_file"]
    assert (pages.ROOT / command[3]).is_file()
    check_script(command[4], command[5:])


def check_pip(command):
    assert command[1] == "install"
    extras = set(metadata.metadata(NAME).get_all("Provides-Extra"))
    for word in command[2:]:
        if word == "-e":
            continue
        wanted = Requirement(word.replace(".", NAME, 1) if word.startswith(".") else word)
        known = {NAME: extras, **ELSEWHERE}
        assert wanted.name in known, f"{wanted.name} is not what the pages ask to install"
        assert wanted.extras <= known[wanted.name], f"{wanted.name} has no extra {wanted.extras}"


def check_make(command):
    planned = subprocess.run(["make", "-n", *command[1:]], cwd=pages.ROOT, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr


def check_server(command):
    assert options(command[2:]) <= SERVERS[" ".join(command[:2])]


CHECKS = {
    "sdg": check_sdg,
    "python": check_python,
    "accelerate": check_accelerate,
    "pip": check_pip,
    "make": check_make,
    "vllm": check_server,
    "transformers": check_server,
}
