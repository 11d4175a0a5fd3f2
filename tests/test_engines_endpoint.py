"""Models behind a server: many at a time, servers that misbehave, refusals that a person must act on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import re
import threading
import time

import numpy as np
import pytest
from naughty_server import NaughtyServer, Reply, error, picture_of, said, streamed, text_of
from PIL import Image
from standins import picture

from sdg.defects import Defect, DefectSet
from sdg.detector import SDGDetector, load_detector
from sdg.engines import chat
from sdg.engines.base import EndpointError
from sdg.engines.endpoint import EndpointEngine
from sdg.engines.images import ImageError
from sdg.response import parse_response, render_response

KEY = "sk-test-0123456789"
HAND = Defect((100, 200, 300, 400), "artifact", "the left hand has six fingers", 55)
CAR = Defect((0, 0, 500, 500), "misalignment", "the car is blue where the caption says red", 80)
BOTH = render_response(DefectSet((HAND, CAR), reasoning="a hand and a car"))
AS_JSON = json.dumps({"think": "a hand", "answer": json.loads(BOTH.split("<answer>")[1].removesuffix("</answer>"))})
PROMPT = "caption: {caption}"


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Waits between tries are milliseconds, and no key comes from outside."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.002)
    for name in ("SDG_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@contextlib.contextmanager
def served(reply=lambda request, number: said(BOTH), **options):
    """A server, and a detector on it."""
    with NaughtyServer(reply).running() as server:
        yield server, detector_on(server, **options)


def detector_on(server, **options):
    return SDGDetector.from_endpoint(server.url, "m", **{"prompt": PROMPT, "max_retries": 2, "timeout": 5} | options)


def first(*replies):
    """These replies one after another, then the last one again and again."""
    return lambda request, number: replies[min(number, len(replies) - 1)]


# --- what is asked, what is answered ---------------------------------------------------------------------------------


def test_one_picture_gives_one_set():
    with served(api_key=KEY, max_new_tokens=99) as (server, detector):
        found = detector(picture(), "a red car")
    assert found == DefectSet((HAND, CAR))
    assert (found.caption, found.reasoning, found.raw, found.parse_error) == (
        "a red car",
        "a hand and a car",
        BOTH,
        None,
    )
    seconds = found.info["seconds"]
    assert 0 < seconds < 5
    assert (
        found.info.items()
        >= {
            "model": "m",
            "seconds": seconds,
            "prompt_tokens": 1100,
            "new_tokens": 42,
            "finished": True,
            "image_size": (128, 128),
        }.items()
    )
    json.dumps(found.to_json())
    (request,) = server.requests
    assert server.headers["authorization"] == f"Bearer {KEY}"
    assert text_of(request) == "caption: a red car"
    assert {name: request[name] for name in request if name != "messages"} == {
        "model": "m",
        "max_tokens": 99,
        "temperature": 0.0,
        "stream": False,
    }
    assert np.array_equal(np.asarray(picture_of(request)), np.asarray(picture()))  # not a pixel is lost


def test_a_list_comes_back_in_its_order_whatever_comes_first():
    captions = [f"picture {i}" for i in range(12)]

    def reply(request, number):
        text = text_of(request).removeprefix("caption: ")
        answer = said(render_response(DefectSet((HAND,), reasoning=text)))
        answer.delay = random.Random(text).random() / 20
        return answer

    with served(reply) as (_, detector):
        found = detector([picture(i) for i in range(12)], captions, batch_size=3)
    assert [(s.caption, s.reasoning) for s in found] == [(c, c) for c in captions]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_as_many_requests_are_under_way_as_allowed_and_no_more(concurrency):
    def reply(request, number):
        answer = said(BOTH)
        answer.delay = 0.03
        return answer

    with served(reply, concurrency=concurrency) as (server, detector):
        threads = [threading.Thread(target=detector, args=([picture()] * 5, ["a"] * 5)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (server.busiest, len(server.requests)) == (concurrency, 10)


def test_one_slow_picture_keeps_no_other_waiting():
    """With batches of 4 the slow one would hold up the next batch; here the others go round it."""

    def reply(request, number):
        answer = said(BOTH)
        answer.delay = 0.4 if text_of(request).endswith("slow") else 0.0
        return answer

    with served(reply, concurrency=4) as (server, detector):
        found = detector.iter([picture()] * 8, ["slow", *"abcdefg"], batch_size=4)
        next(found)
        assert len(server.requests) == 8
        list(found)


def test_an_iterator_is_read_as_far_as_is_needed():
    read = []

    def pictures():
        for index in range(100):
            read.append(index)
            yield picture()

    with served(concurrency=2) as (server, detector):
        results = detector.iter(pictures())
        next(results)
        assert len(read) == 4
        results.close()
        time.sleep(0.1)
        assert len(server.requests) <= 4


def test_a_picture_that_cannot_be_used_costs_its_neighbours_nothing():
    with served() as (server, detector):
        found = list(detector.iter([picture(), b"junk", picture()], list("abc"), on_error="record"))
        assert [len(s) for s in found] == [2, 0, 2]
        assert "not an image" in found[1].parse_error
        some = []
        with pytest.raises(ImageError, match="not an image"):
            some.extend(detector.iter([picture(), b"junk", picture()], list("abc")))
        assert len(some) == 1
        assert len(server.requests) == 3


def test_it_works_where_a_loop_is_running_already():
    async def in_a_notebook(detector):
        return detector(picture(), "a"), "".join(detector.stream(picture(), "a"))

    def reply(request, number):
        return streamed(BOTH) if request["stream"] else said(BOTH)

    with served(reply) as (_, detector):
        found, text = asyncio.run(in_a_notebook(detector))
    assert (len(found), text) == (2, BOTH)


def test_large_pictures_are_scaled_down_and_heavy_ones_go_as_jpeg(monkeypatch):
    monkeypatch.setattr(chat, "MAX_PNG", 200_000)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (500, 2000, 3), dtype=np.uint8))
    with served() as (server, detector):
        assert detector(noise, "a").info["image_size"] == (2000, 500)
        detector.engine.generate([noise], ["a"])
    sent = [picture_of(request) for request in server.requests]
    assert [(image.size, image.format) for image in sent] == [((1024, 256), "JPEG")] * 2


def test_marks_of_a_chat_inside_a_caption_are_broken_up():
    with served() as (server, detector):
        detector(picture(), "a <|im_end|> b <|image_pad|>")
    assert text_of(server.requests[0]) == "caption: a < |im_end|> b < |image_pad|>"


@pytest.mark.parametrize(
    ("reply", "raw"),
    [
        (said([{"type": "text", "text": BOTH[:50]}, {"type": "text", "text": BOTH[50:]}]), BOTH),
        (said([{"type": "thinking", "thinking": []}, {"type": "text", "text": BOTH}]), BOTH),
        (said(BOTH, finish=None), BOTH),
        (said(BOTH.split("</think>\n")[1], reasoning_content="a hand and a car"), BOTH),
        (said(BOTH.split("</think>\n")[1], reasoning="a hand and a car"), BOTH),
        (said(BOTH, reasoning_content="hidden thoughts"), BOTH),
        (Reply({"choices": [{"message": {"content": BOTH}}]}), BOTH),
    ],
    ids=["parts", "thinking-part", "no-reason", "reasoning_content", "reasoning", "thinks-twice", "bare"],
)
def test_answers_come_in_many_forms(reply, raw):
    with served(first(reply)) as (_, detector):
        found = detector(picture(), "a")
    assert (found.raw, found.reasoning, len(found)) == (raw, "a hand and a car", 2)


def test_order_of_corners_is_told_not_guessed():
    text = '<think></think><answer>[{"box_2d": [200, 100, 400, 300], "label": "artifact", "description": "x"}]</answer>'
    with served(first(said(text)), box_order="yxyx") as (server, detector):
        assert detector(picture(), "a")[0].box == (100, 200, 300, 400)
        other = detector_on(server, prompt="zero-shot-yxyx")
        assert other(picture(), "a")[0].box == (100, 200, 300, 400)
    assert "[y0, x0, y1, x1]" in text_of(server.requests[1])


# --- JSON by a schema -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [AS_JSON, f"```json\n{AS_JSON}\n```", BOTH])
def test_zero_shot_asks_for_json_and_reads_it_and_the_two_blocks(text):
    with served(first(said(text)), prompt="zero-shot") as (server, detector):
        found = detector(picture(), "a red car")
    assert found == DefectSet((HAND, CAR))
    assert found.reasoning in ("a hand", "a hand and a car")
    assert parse_response(found.raw, strict=True) == found
    (request,) = server.requests
    assert request["response_format"]["json_schema"]["strict"] is True
    assert text_of(request).startswith("Form of the answer: one JSON object")
    assert text_of(request).endswith("Caption: a red car")


@pytest.mark.parametrize(
    ("text", "finish", "defects", "failure"),
    [
        ('{"think": "all is well", "answer": []}', "stop", 0, None),
        ('{"think": "a </think> <answer>[]</answer> b", "answer": []}', "stop", 0, None),
        (AS_JSON[: AS_JSON.index("}") + 20], "length", 1, None),
        ('{"think": "so', "length", 0, "cut off after 42 tokens"),
        ('{"think": "x", "answer": "none"}', "stop", 0, "no complete defect"),
    ],
)
def test_json_answers_clean_cut_off_or_wrong(text, finish, defects, failure):
    with served(first(said(text, finish)), prompt="zero-shot") as (_, detector):
        found = detector(picture(), "a")
    assert len(found) == defects
    assert (failure in found.parse_error) if failure else found.parse_error is None


def test_a_reason_that_holds_tags_survives_the_json_form():
    reason = 'the sign says "</answer>" <think>'
    items = [{"box_2d": [1, 2, 3, 4], "label": "artifact", "description": reason, "importance": 5}]
    with served(first(said(json.dumps({"think": "", "answer": items}))), prompt="zero-shot") as (_, detector):
        assert detector(picture(), "a")[0].reason == reason


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "response_format is not supported"),
        error(
            400, "Invalid schema for response_format 'defects': minItems is not permitted", code="invalid_json_schema"
        ),
        error(422, "Extra inputs are not permitted"),
        error(400, "'response_format' of type 'json_schema' is not supported with this model."),
    ],
)
def test_a_server_that_refuses_the_schema_is_asked_without_it_from_then_on(refusal):
    def reply(request, number):
        return refusal if "response_format" in request else said(BOTH)

    with served(reply, prompt="zero-shot", concurrency=1) as (server, detector):
        assert [len(s) for s in detector([picture()] * 3, ["a"] * 3)] == [2, 2, 2]
    assert ["response_format" in request for request in server.requests] == [True, False, False, False]
    assert "Form of the answer" not in text_of(server.requests[1])


def test_a_bad_picture_does_not_take_the_schema_from_the_others():
    def reply(request, number):
        return error(400, "image is not allowed") if text_of(request).endswith("bad") else said(AS_JSON)

    with served(reply, prompt="zero-shot", concurrency=1) as (server, detector):
        found = detector([picture()] * 2, ["a bad", "a good one"])
    assert "answered 400: image is not allowed" in found[0].parse_error
    assert (len(found[1]), "response_format" in server.requests[-1]) == (2, True)


@pytest.mark.parametrize(
    ("name", "message", "instead"),
    [
        ("max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model. Use another.", 77),
        ("temperature", "Unsupported value: 'temperature' does not support 0.0 with this model.", None),
    ],
)
def test_options_that_a_model_refuses_are_left_out(name, message, instead):
    def reply(request, number):
        return error(400, message, param=name) if name in request else said(BOTH)

    with served(reply, concurrency=1, max_new_tokens=77) as (server, detector):
        assert [len(s) for s in detector([picture()] * 2, ["a"] * 2)] == [2, 2]
    assert [name in request for request in server.requests] == [True, False, False]
    assert server.requests[-1].get("max_completion_tokens") == instead


# --- servers that misbehave -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [error(429), error(500), error(503), error(408), Reply(BOTH.encode(), cut=10)],
    ids=["429", "500", "503", "408", "cut"],
)
def test_trouble_that_passes_is_waited_for(trouble):
    with served(first(trouble, trouble, said(BOTH))) as (server, detector):
        found = detector(picture(), "a")
    assert (len(found), found.parse_error, len(server.requests)) == (2, None, 3)


def test_retry_after_is_obeyed():
    busy = Reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.4"})
    with served(first(busy, said(BOTH))) as (server, detector):
        assert len(detector(picture(), "a")) == 2
    assert server.times[1] - server.times[0] >= 0.4


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (error(429, "slow down"), r"answered 429 in 3 tries: slow down"),
        (error(500, "boom"), r"answered 500 in 3 tries: boom"),
        (error(400, "image too large"), r"answered 400: image too large"),
        (error(413, "too many bytes"), r"answered 413: too many bytes"),
        (Reply(BOTH.encode(), cut=10), r"the connection to http://127.* broke in 3 tries"),
        (Reply({"choices": []}), r"the server sent no message instead of an answer"),
        (Reply({}), r"sent no message"),
        (Reply({"choices": [{}]}), r"sent no message"),
        (Reply({"choices": [{"message": None}]}), r"sent no message"),
        (Reply({"choices": [{"message": "hello"}]}), r"no complete defect"),
        (Reply(b'{"choices": [{"mess'), r"sent what is no answer"),
        (Reply(b"<html>welcome</html>", headers={"Content-Type": "text/html"}), r"sent '<html>welcome</html>' instead"),
        (Reply([1, 2]), r"sent no message|what is no answer"),
        (said(None, refusal="I cannot help with that"), r"the model refused: I cannot help with that"),
        (said("", finish="content_filter"), r"withheld the answer"),
        (said(None), r"no complete defect and no empty list"),
        (said("I see nothing wrong."), r"no complete defect and no empty list"),
        (said("<think>so", finish="length"), r"cut off after 42 tokens"),
    ],
)
def test_one_failing_picture_is_a_value_and_the_others_go_on(trouble, message):
    def reply(request, number):
        return trouble if text_of(request).endswith("bad") else said(BOTH)

    with served(reply, concurrency=1) as (_, detector):
        # The good one goes first: what a server refuses before it answered anything may be meant for all.
        found = detector([picture()] * 3, ["x", "a bad", "a good one"])
    assert [len(s) for s in found] == [2, 0, 2]
    assert [s.caption for s in found] == ["x", "a bad", "a good one"]
    assert re.search(message, found[1].parse_error)
    json.dumps(found[1].to_json())


def test_a_request_that_failed_is_told_from_an_answer_that_cannot_be_read():
    with served(first(said("rubbish"), error(400, "no"))) as (_, detector):
        assert "error" not in detector(picture(), "a").info
        assert detector(picture(), "a").info["error"].endswith("answered 400: no")


def test_silence_is_waited_for_so_long_and_tried_again():
    slow = said(BOTH)
    slow.delay = 0.5
    with served(first(slow), timeout=0.1, max_retries=1) as (server, detector):
        found = detector(picture(), "a")
    assert found.parse_error.endswith("gave no answer within 0.1 seconds in 2 tries")
    assert len(server.requests) == 2


def test_a_server_that_goes_away_costs_the_pictures_after_it_only():
    last = said(BOTH)
    last.headers = {"Connection": "close"}
    with served(first(last)) as (_, detector):
        good = detector(picture(), "a")
    late = detector(picture(), "a")
    assert len(good) == 2
    assert "the connection to" in late.parse_error


# --- what a person must act on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (error(401, f"bad key {KEY}"), r"refuses its key for 'm' \(401: bad key \*\*\*\): set SDG_API_KEY .* api_key="),
        (error(403, "not yours"), r"refuses its key for 'm' \(403: not yours\)"),
        (error(402, "no credit"), r"wants to be paid"),
        (error(429, "quota", code="insufficient_quota"), r"wants to be paid"),
        (error(404, "The model `m` does not exist"), r"answers no picture with 'm' .* it offers a, b$"),
        (error(400, "Model m not found", code="model_not_found"), r"it offers a, b$"),
        (error(400, "invalid model: m"), r"it offers a, b$"),
        (Reply({"detail": "Server is pinned to 'a'; requested 'm'."}, 400), r"pinned to 'a'.* it offers a, b$"),
        (error(400, "m is not a multimodal model"), r"not a multimodal model"),
        (Reply(b"nothing here", 404), r"404: nothing here"),
        (error(405, "Method Not Allowed"), r"it offers a, b$"),
    ],
)
def test_what_would_fail_every_picture_raises_at_once(reply, message):
    with served(first(reply), api_key=KEY, max_retries=0) as (server, detector):
        server.models = Reply({"object": "list", "data": [{"id": "a"}, {"id": "b"}]})
        with pytest.raises(EndpointError, match=message) as caught:
            detector([picture()] * 20, ["a"] * 20)
        assert server.url in str(caught.value)
        assert KEY not in str(caught.value)
        assert len(server.requests) <= 16  # what was begun, and no more
        with pytest.raises(EndpointError, match=message):
            list(detector.stream(picture(), "a"))
        with pytest.raises(EndpointError, match=message):
            detector.engine.generate([picture()], ["a"])


def test_a_wrong_path_says_that_addresses_end_in_v1():
    with served() as (server, _):
        detector = SDGDetector.from_endpoint(server.url.removesuffix("/v1"), "m", prompt=PROMPT)
        with pytest.raises(EndpointError, match=r"most end in /v1"):
            detector(picture(), "a")


def test_without_a_key_the_sentence_asks_for_one():
    with (
        served(first(error(401, "who are you?"))) as (_, detector),
        pytest.raises(EndpointError, match=r"wants a key for 'm' \(401: who are you\?\): set SDG_API_KEY"),
    ):
        detector(picture(), "a")


def test_a_server_that_is_not_there():
    with served() as (server, _):
        url = server.url
    detector = SDGDetector.from_endpoint(url, "m", prompt=PROMPT, max_retries=1)
    with pytest.raises(EndpointError, match=rf"nothing answers at {url} for 'm' .*: start the server"):
        detector([picture()] * 3, ["a"] * 3)


def test_a_403_after_answers_is_that_pictures_own():
    with served(first(said(BOTH), error(403, "moderated"))) as (_, detector):
        detector(picture(), "a")
        assert "answered 403: moderated" in detector(picture(), "a").parse_error


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (Reply({"object": "list", "data": []}), None),
        (error(404), None),
        (error(500), None),
        (Reply(b"hello", headers={"Content-Type": "text/plain"}), None),
        (Reply(b'{"da'), None),
        (error(401, "no key"), "wants a key"),
    ],
)
def test_a_loaded_detector_knows_that_its_server_is_there(models, message):
    with served() as (server, _):
        server.models = models
        if message is None:
            assert load_detector("m", server.url, PROMPT)(picture(), "a") == DefectSet((HAND, CAR))
        else:
            with pytest.raises(EndpointError, match=message):
                load_detector("m", server.url)
    with pytest.raises(EndpointError, match="nothing answers"):
        load_detector("m", server.url)


def test_a_detector_without_a_server_is_a_checkpoint():
    assert load_detector("sdg-tiny", prompt="").engine.name == "sdg-tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"concurrency": 0}, "concurrency=0 must be at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_retries": -1}, "max_retries=-1 must be at least 0"),
        ({"timeout": 0}, "timeout=0 must be more than 0 seconds"),
        ({"base_url": "localhost:8000"}, "base_url='localhost:8000' is not the address of a server"),
        ({"base_url": "http://me:secret@host/v1"}, "base_url must not hold a user"),
        ({"base_url": "http://host/v1?key=secret"}, "base_url must not hold a user, a password or a query"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        SDGDetector.from_endpoint(**{"base_url": "http://127.0.0.1:1/v1", "model": "m"} | arguments)
    assert "secret" not in str(caught.value)


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "environment", "argument", "sent"),
    [
        ("127.0.0.1", {"SDG_API_KEY": KEY}, None, KEY),
        ("127.0.0.1", {"SDG_API_KEY": "other"}, KEY, KEY),
        ("127.0.0.1", {"OPENAI_API_KEY": KEY, "HF_TOKEN": KEY}, None, "none"),
        ("api.openai.com", {"OPENAI_API_KEY": KEY}, None, KEY),
        ("api.openai.com.example.org", {"OPENAI_API_KEY": KEY}, None, "none"),
        ("router.huggingface.co", {"HF_TOKEN": KEY}, None, KEY),
    ],
)
def test_a_key_goes_where_it_belongs_and_nowhere_else(monkeypatch, host, environment, argument, sent):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert EndpointEngine(f"https://{host}/v1", "m", api_key=argument)._client.api_key == sent


def test_the_key_is_in_no_log_no_result_and_no_repr(caplog):
    caplog.set_level(logging.DEBUG)
    replies = [error(500, f"your key {KEY}"), said(BOTH), error(400, f"your key {KEY}"), error(401, f"your key {KEY}")]
    with served(first(*replies), api_key=KEY, max_retries=1, concurrency=1) as (_, detector):
        found = detector([picture()] * 2, ["a", "bb"])
        with pytest.raises(EndpointError) as caught:
            detector(picture(), "a")
    seen = [repr(detector), repr(detector.engine), str(caught.value), *(json.dumps(s.to_json()) for s in found)]
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert found[1].parse_error.endswith("your key ***")
    assert caplog.records
    assert KEY not in "".join([*seen, caplog.text, *(str(vars(record)) for record in caplog.records)])


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_ends_in_the_set_that_a_call_gives():
    pieces = [BOTH[i : i + 9] for i in range(0, len(BOTH), 9)]
    with served(lambda request, number: streamed(*pieces) if request["stream"] else said(BOTH)) as (server, detector):
        stream = detector.stream(picture(), "a red car")
        assert list(stream) == pieces
        found = detector(picture(), "a red car")
    assert stream.result == found
    assert {**stream.result.info, "seconds": 0} == {**found.info, "seconds": 0}
    assert server.requests[0]["stream_options"] == {"include_usage": True}


def test_think_text_that_is_sent_beside_the_answer_goes_back_in():
    think, answer = "a hand and a car", BOTH.split("</think>")[1]
    deltas = [
        {"role": "assistant", "content": None},
        {"reasoning_content": think[:5]},
        {"reasoning_content": think[5:]},
    ]
    with served(first(streamed(*deltas, answer[:4], answer[4:]))) as (_, detector):
        stream = detector.stream(picture(), "a")
        assert "".join(stream) == BOTH
    assert stream.result.reasoning == think


def test_a_stream_asks_for_the_two_blocks_and_does_without_what_is_refused():
    def reply(request, number):
        return error(422, "stream_options: not known") if "stream_options" in request else streamed(BOTH)

    with served(reply, prompt="zero-shot") as (server, detector):
        assert "".join(detector.stream(picture(), "a")) == BOTH
    assert not any("response_format" in request for request in server.requests)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(streamed(BOTH).body, stream=True, cut=300), "the answer broke off"),
        (streamed(BOTH[:-30], finish=None, done=False), "ended the stream before the answer was whole"),
        (streamed("", finish=None), "ended the stream before the answer was whole"),
        (Reply(streamed(BOTH, finish=None).body[:-20] + b"data: {nonsense\n\n", stream=True), "the answer broke off"),
        (Reply(b'data: {"error": {"message": "out of memory"}}\n\n', stream=True), "out of memory"),
        (streamed("", finish="content_filter"), "withheld the answer"),
        (said(BOTH), "ended the stream before the answer was whole"),
        (error(500, "boom"), "answered 500 in 3 tries: boom"),
    ],
    ids=["cut", "no-end", "empty", "nonsense", "error-inside", "filter", "not-a-stream", "500"],
)
def test_a_stream_that_breaks_off_is_a_failure_and_not_a_shorter_answer(reply, message):
    with served(first(reply)) as (_, detector):
        stream = detector.stream(picture(), "a")
        text = "".join(stream)
    assert message in stream.result.parse_error
    assert (len(stream.result), stream.result.raw) == (0, text or None)
    assert stream.result.info["finished"] is False


def test_an_answer_that_runs_into_the_limit_is_salvaged_as_from_any_engine():
    with served(first(streamed(BOTH[: BOTH.index("}") + 5], finish="length"))) as (_, detector):
        stream = detector.stream(picture(), "a")
        list(stream)
    assert (len(stream.result), stream.result.parse_error, stream.result.info["finished"]) == (1, None, False)


def test_closing_a_stream_stops_the_request():
    long = streamed(*["x" * 1000] * 4000)
    with served(first(long), concurrency=1) as (server, detector):
        stream = detector.stream(picture(), "a")
        next(stream)
        stream.close()
        server.reply = lambda request, number: said(BOTH)
        assert len(detector(picture(), "a")) == 2  # its slot is free again
        deadline = time.monotonic() + 60
        while not server.hung_up and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.hung_up == 1


# --- settings of a checkpoint -----------------------------------------------------------------------------------------


def test_a_served_checkpoint_brings_its_own_settings():
    detector = SDGDetector.from_endpoint("http://127.0.0.1:1/v1", "anything", checkpoint="sdg-tiny")
    assert (detector.prompt.template, detector.engine.max_new_tokens) == ("caption: {caption}", 256)
    assert (detector.made_for, detector.box_order) == ("microworld", "xyxy")


def test_a_folder_that_a_server_names_is_read_for_its_settings(tmp_path):
    (tmp_path / "sdg_config.json").write_text('{"prompt": "see {caption}", "box_order": "yxyx"}')
    detector = SDGDetector.from_endpoint("http://127.0.0.1:1/v1", str(tmp_path))
    assert (detector.prompt.template, detector.box_order) == ("see {caption}", "yxyx")


def test_the_weights_of_a_served_model_cannot_be_saved(tmp_path):
    detector = SDGDetector.from_endpoint("http://127.0.0.1:1/v1", "m")
    with pytest.raises(ValueError, match="m is not in this process: there are no weights to save"):
        detector.save_pretrained(tmp_path)


def test_more_fields_of_the_request_are_passed_on():
    with served(extra_body={"chat_template_kwargs": {"enable_thinking": False}}) as (server, detector):
        detector(picture(), "a")
    assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}


def test_the_schema_is_one_that_strict_mode_takes():
    schema = chat.RESPONSE_FORMAT["json_schema"]["schema"]
    item = schema["properties"]["answer"]["items"]
    for level in (schema, item):
        assert set(level["required"]) == set(level["properties"])
        assert level["additionalProperties"] is False
    assert list(schema["properties"]) == ["think", "answer"]  # thinking comes before answering
