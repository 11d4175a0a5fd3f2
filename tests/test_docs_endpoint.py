"""docs/endpoint.md on transformers' own server: its commands and snippets run; answers are the checkpoint's own."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time

import pages
import pytest

from sdg import SDGDetector, microworld
from sdg.engines.base import EndpointError

PAGE, BLOCKS = pages.read("endpoint.md")
URL = "http://localhost:8000/v1"
PROGRAMS = {"python": [sys.executable], "transformers": [sys.executable, "-m", "transformers.cli.transformers"]}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("endpoint")


@pytest.fixture(scope="module")
def url(folder):
    """The address of the server that the page's commands start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    code = next(code for language, code in BLOCKS if language == "bash" and "transformers serve" in code)
    save, serve = (shlex.split(line) for line in code.splitlines())
    environment = {**os.environ, "PYTHONPATH": str(pages.ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([*PROGRAMS[save[0]], *save[1:]], cwd=folder, env=environment, check=True)
    command = [*PROGRAMS[serve[0]], *(port if word == "8000" else word for word in serve[1:])]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        address = URL.replace("8000", port)
        probe = SDGDetector.from_endpoint(address, "served-tiny")
        deadline = time.monotonic() + 300
        while True:
            try:
                probe.engine.check()
                break
            except EndpointError:
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(10)


def test_answers_are_those_of_the_checkpoint_in_this_process(url, folder):
    records = list(microworld.generate(4, seed=5, split="test"))
    images, captions = [r.image for r in records], [r.caption for r in records]
    local = SDGDetector.from_pretrained(folder / "served-tiny")
    served = SDGDetector.from_endpoint(url, "served-tiny", checkpoint=folder / "served-tiny", concurrency=4)
    expected = [local(image, caption) for image, caption in zip(images, captions, strict=True)]
    found = served(images, captions)
    assert sum(map(len, expected)) > 2
    assert [s.raw for s in found] == [s.raw for s in expected]
    assert [s.reasoning for s in found] == [s.reasoning for s in expected]
    assert [s.info["prompt_tokens"] for s in found] == [s.info["prompt_tokens"] for s in expected]
    assert found[0].info["made_for"] == "microworld"
    stream = served.stream(images[0], captions[0])
    assert "".join(stream) == expected[0].raw
    assert (stream.result, stream.result.info["finished"]) == (expected[0], True)


def test_a_model_that_the_server_does_not_have(url):
    with pytest.raises(EndpointError, match=r"answers no picture with 'nothing' .*: it offers served-tiny"):
        SDGDetector.from_endpoint(url, "nothing")(next(microworld.generate(1, seed=1)).image, "a")


def test_the_snippets_run_as_they_stand(url, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for language, code in BLOCKS:
        if language == "python":
            exec(compile(code.replace(URL, url), "docs/endpoint.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"(artifact|misalignment) \(\d+, \d+, \d+, \d+\) \w+ .+", printed[0])
    assert sum(line.endswith(" None") for line in printed) == 6
    assert re.fullmatch(r"\d+ \d+", printed[-1])
