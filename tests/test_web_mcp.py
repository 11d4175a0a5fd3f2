"""The page as a server of the Model Context Protocol, asked by the protocol's own client over HTTP."""

import ast
import asyncio
import base64
import io
import urllib.request

import numpy as np
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from PIL import Image
from refine_hands import GREY, LEFT, RIGHT, Eye, Hand, picture

from sdg.web import build_page, launch_options


@pytest.fixture(scope="module")
def address():
    page = build_page(Eye(), editor=Hand())
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield f"{url}gradio_api/mcp/"
    page.close(verbose=False)


def ask(address, *questions, told=None):
    """What a session answers to each question: a tool and its arguments, or None for the list of tools.

    Args:
        told: called with the progress of each; Gradio takes the results apart only for those who ask for it.
    """

    async def heard(progress, total, message):
        told.append(message)

    async def session():
        async with streamablehttp_client(address) as (read, write, _), ClientSession(read, write) as client:
            await client.initialize()
            more = {} if told is None else {"progress_callback": heard}
            return [await (client.call_tool(*q, **more) if q else client.list_tools()) for q in questions]

    return asyncio.run(session())


def data(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def all_grey(png: bytes) -> bool:
    return bool((np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) == GREY).all())


BROKEN = {"image": data(picture(LEFT, RIGHT)), "caption": "grey"}


def test_an_agent_finds_the_documented_endpoints(address):
    (found,) = ask(address, None)
    tools = {tool.name: tool for tool in found.tools}
    assert set(tools) == {"detect", "refine", "evaluate"}
    assert "Find the defects of a generated picture" in tools["detect"].description
    assert set(tools["detect"].inputSchema["properties"]) == {"image", "caption", "model"}
    assert {"rounds", "candidates", "seed"} < set(tools["refine"].inputSchema["properties"])


def test_an_agent_detects(address):
    (detected,) = ask(address, ("detect", BROKEN))
    assert not detected.isError
    found = ast.literal_eval(detected.content[0].text)  # Gradio writes Python's literals
    assert [defect["box"] for defect in found["defects"]] == [list(LEFT), list(RIGHT)]


def test_an_agent_repairs_and_is_shown_the_picture(address):
    told = []
    (refined,) = ask(address, ("refine", BROKEN), told=told)
    assert told
    assert not refined.isError
    image = next(part for part in refined.content if part.type == "image")
    assert all_grey(base64.b64decode(image.data))
    said = ast.literal_eval(refined.content[-1].text)
    assert (said["changed"], said["load"]) == (True, {"before": 1.0, "after": 0.0})


def test_an_agent_that_asks_for_no_progress_is_given_the_picture_s_address(address):
    (refined,) = ask(address, ("refine", BROKEN))
    file, said = ast.literal_eval(refined.content[0].text)
    assert said["changed"]
    with urllib.request.urlopen(file["url"]) as answer:
        assert all_grey(answer.read())


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("detect", {"image": "data:image/png;base64,AAAA"}, "is not an image that Pillow can read"),
        ("detect", {"image": data(Image.new("RGB", (1, 1)))}, "is 1x1, too small to look at"),
        ("refine", {"image": data(picture(LEFT)), "rounds": 99}, "rounds=99 is above 4"),
        ("detect", {"image": "/etc/passwd"}, "Invalid file data format"),
    ],
)
def test_an_agent_is_told_what_is_wrong(address, tool, arguments, message):
    (answer,) = ask(address, (tool, arguments))
    assert answer.isError
    assert message in answer.content[0].text
