"""Editors behind a server: what is asked, what comes back, and servers that misbehave."""

from __future__ import annotations

import base64
import contextlib
import io
import logging

import numpy as np
import pytest
from naughty_server import NaughtyServer, Reply, drawn, error, png
from PIL import Image
from standins import picture

from sdg.defects import Defect, DefectSet
from sdg.engines.base import EndpointError
from sdg.refine.editors import SECOND_PICTURE, EditError, Task, paste
from sdg.refine.endpoint import GPT_IMAGE_SIZES, LONGER_SIDE, EndpointEditor

KEY = "sk-test-0123456789"
IMAGE, EDITED, OVERLAY = (picture(seed, (96, 64)) for seed in range(3))
MASK = Image.new("L", (96, 64))
MASK.paste(255, (20, 10, 60, 40))
MASK.putpixel((70, 50), 3)  # a rim that is hardly there
TASK = Task(
    image=IMAGE,
    caption="a car",
    defects=DefectSet([Defect((200, 150, 600, 600), "artifact", "a smear", 60)]),
    mask=MASK,
    instruction="Remove the smear.",
    prompt="a car, without a smear",
    overlay=OVERLAY,
)


def changed(**fields):
    return Task(**{**vars(TASK), **fields})


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Waits between tries are milliseconds, and no key comes from outside."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.002)
    for name in ("SDG_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@contextlib.contextmanager
def served(*replies, **options):
    """A server that gives these replies one after another, then the last one again and again; and an editor on it."""
    replies = replies or (drawn(EDITED),)
    with NaughtyServer(lambda request, number: replies[min(number, len(replies) - 1)]).running() as server:
        yield server, EndpointEditor(server.url, "m", **{"max_retries": 1, "timeout": 20, "concurrency": 1} | options)


def one(editor, task=TASK):
    (found,) = editor(task, [1])
    return found


def opened(data):
    return Image.open(io.BytesIO(data)).copy()


# --- what is asked, what is answered ---------------------------------------------------------------------------------


def test_a_candidate_for_each_seed():
    with served(api_key=KEY, concurrency=3, extra_body={"quality": "high"}) as (server, editor):
        assert editor(TASK, [1, 2, 3]) == [EDITED] * 3
        assert (editor.name, editor.local) == ("m", False)
    assert server.headers["authorization"] == f"Bearer {KEY}"
    first, *others = server.requests
    assert [list(map(opened, first.pop("image")))] == [[IMAGE, OVERLAY]]  # not a pixel is lost
    assert first == {
        "model": "m",
        "prompt": f"{SECOND_PICTURE} Remove the smear.",
        "response_format": "b64_json",
        "quality": "high",
    }
    assert len(others) == 2
    assert editor(TASK, []) == []


@pytest.mark.parametrize(
    ("options", "words", "pictures", "masked", "local"),
    [
        ({}, f"{SECOND_PICTURE} Remove the smear.", [IMAGE, OVERLAY], False, False),
        ({"overlay": False}, "Remove the smear.", [IMAGE], False, False),
        ({"paste": True}, f"{SECOND_PICTURE} Remove the smear.", [IMAGE, OVERLAY], False, True),
        ({"mode": "masked"}, f"{SECOND_PICTURE} Remove the smear.", [IMAGE, OVERLAY], True, True),
        ({"mode": "inpaint"}, "a car, without a smear", [IMAGE], True, True),
        ({"mode": "inpaint", "paste": False}, "a car, without a smear", [IMAGE], True, False),
    ],
)
def test_modes(options, words, pictures, masked, local):
    with served(**options) as (server, editor):
        found = one(editor)
    (request,) = server.requests
    assert (request["prompt"], list(map(opened, request["image"]))) == (words, pictures)
    assert ("mask" in request, editor.local) == (masked, local)
    assert found == (paste(IMAGE, EDITED, MASK) if local else EDITED)


@pytest.mark.parametrize(("mask", "share"), [(MASK, None), (None, 1.0), (Image.new("L", (96, 64)), 0.0)])
def test_what_may_change_is_transparent_in_the_mask(mask, share):
    with served(mode="masked") as (server, editor):
        one(editor, changed(mask=mask))
    sent = opened(server.requests[0]["mask"][0])
    assert (sent.mode, sent.size, sent.convert("RGB")) == ("RGBA", (96, 64), IMAGE)
    transparent = np.asarray(sent)[..., 3] == 0
    assert np.array_equal(transparent, np.asarray(mask) > 0) if share is None else transparent.mean() == share


def test_a_seed_is_sent_where_the_server_takes_one():
    with served(send_seed=True, extra_body={"steps": 4}) as (server, editor):
        editor(TASK, [7, 8])
    assert [(request["seed"], request["steps"]) for request in server.requests] == [("7", "4"), ("8", "4")]


def test_a_thin_mask_survives_when_a_large_picture_is_scaled_down():
    large = picture(0, (3000, 400))
    mask = Image.new("L", large.size)
    mask.paste(255, (1000, 0, 1001, 400))
    with served(drawn(large), mode="inpaint") as (server, editor):
        found = one(editor, changed(image=large, mask=mask))
    sent = opened(server.requests[0]["mask"][0])
    assert sent.size == opened(server.requests[0]["image"][0]).size == (LONGER_SIDE, 205)
    assert (np.asarray(sent)[..., 3] == 0).any(axis=1).all()
    assert np.array_equal(np.asarray(found), np.asarray(large))


@pytest.mark.parametrize(
    ("size", "canvas", "box"),
    [
        ((64, 64), (1024, 1024), (0, 0, 1024, 1024)),
        ((96, 64), (1536, 1024), (0, 0, 1536, 1024)),
        ((80, 64), (1536, 1024), (128, 0, 1408, 1024)),
        ((30, 60), (1024, 1536), (128, 0, 896, 1536)),
    ],
)
def test_models_that_draw_certain_sizes(size, canvas, box):
    """The model gives back the canvas that it got: the picture comes back from the middle of it."""
    image = picture(3, size)

    def echo(request, number):
        return drawn(request["image"][0])

    with NaughtyServer(echo).running() as server:
        editor = EndpointEditor(server.url, "m", sizes=GPT_IMAGE_SIZES, mode="masked", paste=False)
        found = one(editor, changed(image=image, mask=Image.new("L", size, 255), overlay=None))
    (request,) = server.requests
    sent, mask = opened(request["image"][0]), opened(request["mask"][0])
    assert (request["size"], sent.size, mask.size) == ("{}x{}".format(*canvas), canvas, canvas)
    assert mask.getchannel("A").point(lambda a: 255 - a).getbbox() == box
    assert sent.getpixel((0, 0)) == sent.getpixel((box[0], 0))  # the edge goes on to the rim
    assert found.size == size
    assert np.abs(np.asarray(found).astype(int) - np.asarray(image)).mean() < 4  # scaled up and down again


# --- servers that misbehave -------------------------------------------------------------------------------------------


def answered(**first):
    return Reply({"created": 1, "data": [first]})


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply({"created": 1, "data": []}), "the server sent no picture"),
        (Reply({"created": 1}), "the server sent no picture"),
        (Reply({"created": 1, "data": {"b64_json": "x"}}), "the server sent no picture"),
        (Reply({"created": 1, "data": [None]}), "the server sent no picture"),
        (Reply([1, 2]), "the server sent no picture"),
        (answered(b64_json=""), "the server sent no picture"),
        (answered(b64_json=5), "the server sent no picture"),
        (answered(url="http://127.0.0.1:1/a.png"), "the address of a picture, and addresses are not fetched"),
        (answered(url="file:///etc/passwd"), "addresses are not fetched"),
        (answered(b64_json="no*base64"), "base64 that cannot be read"),
        (answered(b64_json="abcde"), "base64 that cannot be read"),
        (drawn(b"<html>"), "no usable picture: .* not an image"),
        (drawn(png(EDITED)[:150]), "no usable picture: .* damaged or cut off"),
        (drawn(Image.new("1", (11_000, 10_000))), "no usable picture: .* more than 100 million pixels"),
        (drawn(Image.new("RGB", (1, 1))), "no usable picture: .* too small"),
        (drawn(picture(1, (64, 96))), "the editor returned 64 x 96 pixels for a picture of 96 x 64"),
        (drawn(Image.new("RGB", (96, 64))), "the editor returned a black picture"),
        (Reply(b"{", 200), "sent what is no answer"),
        (Reply(b"oops", 200, {"Content-Type": "text/plain"}), "the server sent no picture"),
        (error(500, "out of order"), r"answered 500 in 2 tries: out of order"),
        (error(429, "slow down"), r"answered 429 in 2 tries: slow down"),
        (error(413, "too large"), r"answered 413: too large"),
        (error(400, "not safe", code="moderation_blocked"), r"content policy of http.* refuses this edit \(not safe\)"),
        (error(400, "not safe", code="content_policy_violation"), "content policy"),
        (error(400, "only one image is supported"), "answered 400: only one image is supported"),
        (Reply({"created": 1, "data": []}, cut=5), r"the connection to .* broke in 2 tries"),
    ],
)
def test_what_fails_one_candidate_leaves_the_next(reply, message):
    with served(reply) as (server, editor):
        editor(TASK, [])
        server.reply = lambda request, number: drawn(EDITED)
        assert one(editor) == EDITED
        server.reply = lambda request, number: reply
        failed = one(editor)
        server.reply = lambda request, number: drawn(EDITED)
        assert one(editor) == EDITED
    assert isinstance(failed, EditError), failed
    with pytest.raises(EditError, match=message):
        raise failed


def test_a_server_that_is_silent():
    reply = drawn(EDITED)
    reply.delay = 1.5
    with (
        served(reply, timeout=0.3, max_retries=0) as (_, editor),
        pytest.raises(EditError, match=r"within 0\.3 seconds"),
    ):
        raise one(editor)


def test_a_request_is_tried_again():
    with served(error(429, "slow down"), error(500), drawn(EDITED), max_retries=2) as (server, editor):
        assert one(editor) == EDITED
    assert len(server.requests) == 3
    assert server.requests[0] == server.requests[2]


def test_a_server_that_refuses_to_be_asked_for_base64():
    refusal = error(400, "Unknown parameter: 'response_format'.", code="unknown_parameter")
    with served(refusal, drawn(EDITED)) as (server, editor):
        assert editor(TASK, [1, 2]) == [EDITED] * 2
    assert ["response_format" in request for request in server.requests] == [True, False, False]


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
@pytest.mark.parametrize("field", ["b64_json", "url"])
def test_a_picture_inside_the_answer_is_no_address(prefix, field):
    text = base64.b64encode(png(EDITED)).decode()
    with served(answered(**{field: prefix + text[:50] + "\n" + text[50:]})) as (_, editor):
        found = one(editor)
    assert found == EDITED if prefix or field == "b64_json" else isinstance(found, EditError)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (error(401, "who are you?"), r"wants a key for 'm' \(401: who are you\?\): set SDG_API_KEY"),
        (error(404, "no such page"), r"edits no picture with 'm' \(404: no such page\): check base_url"),
        (error(429, "pay", code="insufficient_quota"), "wants to be paid for 'm' first"),
        (error(400, "The model m does not exist"), "edits no picture with 'm'"),
    ],
)
def test_what_would_fail_every_candidate_raises(reply, message):
    with served(reply, concurrency=2) as (server, editor), pytest.raises(EditError, match=message):
        editor(TASK, range(50))
    assert len(server.requests) < 50  # those that had begun, each tried twice at most


def test_no_server_at_all():
    editor = EndpointEditor("http://127.0.0.1:9/v1", "m", max_retries=0)
    with pytest.raises(EditError, match=r"nothing answers at http://127\.0\.0\.1:9/v1 for 'm'"):
        editor(TASK, [1])
    with pytest.raises(EndpointError, match="nothing answers"):
        editor.check()


@pytest.mark.parametrize(
    ("options", "fields", "message"),
    [
        ({}, {"instruction": " "}, "'m' needs an instruction to follow, and the task has none"),
        ({"mode": "inpaint"}, {"prompt": ""}, "'m' needs a caption to inpaint by"),
    ],
)
def test_nothing_to_ask_for(options, fields, message):
    with served(**options) as (server, editor), pytest.raises(EditError, match=message):
        editor(changed(**fields), [1])
    assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "draw"}, "mode='draw' is not 'edit', 'masked' or 'inpaint'"),
        ({"sizes": []}, r"sizes=\[\] must be \(width, height\) pairs"),
        ({"sizes": [(0, 4)]}, r"sizes=\[\(0, 4\)\] must be"),
        ({"concurrency": 0}, "concurrency=0 must be at least 1"),
        ({"timeout": 0}, "timeout=0 must be more than 0 seconds"),
        ({"base_url": "http://me:secret@host/v1"}, "base_url must not hold a user"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        EndpointEditor(**{"base_url": "http://127.0.0.1:1/v1", "model": "m"} | arguments)
    assert "secret" not in str(caught.value)


def test_the_key_is_in_no_log_no_error_and_no_repr(caplog):
    caplog.set_level(logging.DEBUG)
    replies = [error(400, f"your key {KEY}", code="moderation_blocked"), error(500, f"{KEY}?"), error(401, f"no {KEY}")]
    with served(*replies, api_key=KEY, max_retries=0) as (_, editor):
        said = [repr(editor), *map(str, editor(TASK, [1, 2]))]
        with pytest.raises(EditError) as caught:
            editor(TASK, [1])
    said += [str(caught.value), str(caught.value.__cause__)]
    assert "***" in said[1]
    assert KEY not in "".join([*said, caplog.text, *(str(vars(record)) for record in caplog.records)])
