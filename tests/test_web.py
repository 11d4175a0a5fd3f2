import json
import os
import re
import runpy
import socket
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from scripted_detector import ANSWERS, ScriptedDetector

import sdg
from sdg.defects import Defect, DefectSet
from sdg.web import build_page, html, launch_options, microworld_examples, result
from sdg.web.detect import show, so_far, watch
from sdg.web.served import FULL_MODEL, describe
from sdg.web.theme import CSS, SCRIPT, theme

ROOT = Path(sdg.__file__).parents[1]
ONE = DefectSet((Defect((1, 2, 3, 4), "artifact", "a bent <i>wheel</i>", 55),))
TWO = DefectSet((Defect((1, 2, 3, 4), "artifact", "", 10), Defect((5, 6, 7, 8), "misalignment", "blue, not red", None)))
UNREAD = DefectSet(parse_error="no list", raw="<b>sorry</b>")


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        (ONE, "found", ["1 defect<", "1 artifact.", "moderate"]),
        (TWO, "found", ["2 defects<", "1 artifact and 1 misalignment."]),
        (DefectSet(), "clean", ["No defect found"]),
        (DefectSet(info={"seconds": 1.25}), "clean", ["Answered in 1.2 s"]),
        (UNREAD, "unread", ["could not be read", "not a clean picture", "no list"]),
        (DefectSet(ONE.defects, parse_error="cut off"), "unread", ["cut off"]),
    ],
)
def test_every_outcome_has_its_own_verdict(found, state, words):
    text = html.verdict_on(found)
    assert f'data-state="{state}"' in text
    for word in words:
        assert word in text
    assert ("No defect" in text) is (state == "clean")


def test_the_table_runs_from_the_most_important_on():
    table = result.table(DefectSet((ONE[0], Defect((5, 6, 7, 8), "misalignment", "blue", 90))))
    assert re.findall(r"<span>(\d)</span>", table) == ["1", "2"]
    assert re.findall(r"sdg-tier (\w+)", table) == ["critical", "moderate"]
    assert table.index("5, 6, 7, 8") < table.index("1, 2, 3, 4")


def test_absent_values_are_said_to_be_absent():
    table = result.table(TWO)
    assert "not given" in table
    assert "no reason given" in table


@pytest.mark.parametrize(
    "fragment",
    [
        result.table(ONE),
        html.verdict_on(UNREAD),
        html.reasoning("<b>sorry</b>", "raw"),
        html.served("<b>", "<i>"),
        html.notice("<b>`<i>`</b>"),
        html.verdict("failed", "<b>", "`<i>`"),
        result.picture(Image.new("RGB", (8, 8)), DefectSet(ONE.defects, caption='"><b><i>wheel')),
    ],
)
def test_words_of_models_are_escaped(fragment):
    assert "<i>wheel" not in fragment
    assert "<b>sorry" not in fragment
    assert not re.search(r"<b><|<i><", fragment)


@pytest.mark.parametrize("found", [ONE, TWO, UNREAD, DefectSet((), caption="é [1,\n2]", reasoning='"')])
def test_the_json_to_copy_is_the_set(found):
    text = result.as_json(found)
    assert json.loads(text) == found.to_json()
    assert not found or '"box": [1, 2, 3, 4]' in text


@pytest.mark.parametrize(
    ("name", "made_for", "shown", "noticed"),
    [
        ("sdg-tiny", "microworld", "sdg-tiny", True),
        ("/home/me/runs/sdg-toy", "pictures of houses", "sdg-toy", True),
        ("P1n3/sdg-detector-grpo", None, "P1n3/sdg-detector-grpo", False),
        ("/home/me/runs/my-model", None, "my-model", False),
    ],
)
def test_a_model_of_a_small_world_comes_with_a_notice(name, made_for, shown, noticed):
    served = describe(name, made_for)
    assert served.name == shown
    assert (served.notice is not None) is noticed
    if served.notice:
        assert made_for in served.notice
        assert f"SDG_MODEL={FULL_MODEL}" in served.notice
        assert f"choose `{FULL_MODEL}` above" in describe(name, made_for, offered=True).notice


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", ""),
        ("<think>The house", "The house"),
        ("<think>\nA\n</think>\n<answer>[{", "A"),
        ('<answer>[{"box_2d"', ""),
        ("no tags", "no tags"),
    ],
)
def test_half_written_answers_show_the_think_text(text, read):
    assert so_far(text) == read


def test_watching_tells_the_text_and_then_the_set(monkeypatch):
    monkeypatch.setattr("sdg.web.detect.REFRESH", 0)
    detector = ScriptedDetector()
    *texts, found = watch(detector, Image.new("RGB", (8, 8)), "a red house")
    assert texts[-1] == ANSWERS["a red house"]
    assert texts == sorted(texts, key=len)
    assert found == detector(None, "a red house")


def test_a_visitor_who_leaves_stops_the_model(monkeypatch):
    monkeypatch.setattr("sdg.web.detect.REFRESH", 0)
    detector = ScriptedDetector()
    stream = detector.stream(None, "a red house")
    monkeypatch.setattr(detector, "stream", lambda image, caption: stream)
    watching = watch(detector, Image.new("RGB", (8, 8)), "a red house")
    next(watching)
    watching.close()
    assert stream.closed


def test_no_bare_picture_stands_for_an_answer_that_could_not_be_read():
    picture = Image.new("RGB", (64, 64))
    assert "<img" in show(picture, DefectSet())["picture"]["value"]
    for part in ("picture", "table", "overlay"):
        assert show(picture, UNREAD)[part]["visible"] is False
    assert "<img" not in show(picture, UNREAD)["picture"]["value"]


def test_examples_are_made_outside_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = microworld_examples(4)
    assert [Image.open(e.path).size for e in examples] == [(128, 128)] * 4
    assert all(e.caption for e in examples)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("engine", "at_a_time"), [({}, 1), ({"concurrency": 8}, 8)])
def test_visitors_share_a_model_as_far_as_it_shares_itself(engine, at_a_time):
    detector = ScriptedDetector()
    detector.engine = SimpleNamespace(name="m", **engine)
    page = build_page(detector)
    limits = {f.concurrency_limit for f in page.fns.values() if f.concurrency_id == "detector"}
    assert limits == {at_a_time}


@pytest.mark.parametrize(
    ("environment", "asked", "offline"),
    [
        ({}, ("sdg-tiny", None, None), True),
        ({"SDG_MODEL": "owner/name", "SDG_PROMPT": "zero-shot"}, ("owner/name", None, "zero-shot"), False),
        ({"SDG_MODEL": "m", "SDG_ENDPOINT": "http://host/v1"}, ("m", "http://host/v1", None), False),
        ({"SDG_MODEL": ".", "SDG_ENDPOINT": "http://host/v1"}, (".", "http://host/v1", None), False),
        ({"SDG_ENDPOINT": "http://host/v1"}, "Set SDG_MODEL to the name", False),
        ({"SDG_MODEL": "gone"}, "SDG_MODEL=gone cannot be served: nothing there", False),
        ({"SDG_MODELS": "sdg-tiny, ."}, ("sdg-tiny", None, None), True),
        ({"SDG_MODELS": "owner/name"}, ("sdg-tiny", None, None), False),
        ({"SDG_MODELS": "a/b@http://x/v1,a/b"}, "two of the models offered are called a/b", False),
        ({"SDG_PICKER": "any"}, ("sdg-tiny", None, None), False),
        ({"SDG_PICKER": "all"}, "SDG_PICKER=all is neither", False),
        ({"SDG_PICKER": "any", "SPACE_ID": "me/demo"}, "for a page that only this machine opens", False),
        ({"SDG_PICKER": "any", "GRADIO_SERVER_NAME": "0.0.0.0"}, "for a page that only this machine opens", False),
    ],
)
def test_the_app_serves_what_the_environment_names(monkeypatch, environment, asked, offline):
    ours = ("SDG_MODEL", "SDG_ENDPOINT", "SDG_PROMPT", "SDG_MODELS", "SDG_PICKER")
    theirs = ("HF_HUB_OFFLINE", "GRADIO_ANALYTICS_ENABLED", "SPACE_ID", "GRADIO_SERVER_NAME", "SPACES_ZERO_GPU")
    for name in ours + theirs:
        monkeypatch.setenv(name, "")  # remembered, so that what the app sets is taken back
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    calls = []

    def load(*arguments):
        calls.append(arguments)
        if arguments[0] == "gone":
            raise OSError("nothing there")
        return ScriptedDetector()

    monkeypatch.setattr("sdg.detector.load_detector", load)
    if isinstance(asked, str):
        with pytest.raises(SystemExit, match=asked):
            runpy.run_path(str(ROOT / "app.py"))
    else:
        assert "demo" in runpy.run_path(str(ROOT / "app.py"))
        assert calls == [asked]  # what else is offered is loaded when it is chosen
    assert (os.environ.get("HF_HUB_OFFLINE") == "1") is offline


def test_on_zerogpu_every_model_is_on_the_gpu_before_the_page_opens(monkeypatch):
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setenv("SDG_MODELS", "a/b,c/d,e/f,g@http://host/v1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    calls = []

    def load(model, endpoint, prompt, **options):
        calls.append((model, endpoint, options))
        return ScriptedDetector()

    monkeypatch.setattr("sdg.detector.load_detector", load)
    monkeypatch.setattr("sdg.web.models.load_detector", load)
    served = runpy.run_path(str(ROOT / "app.py"))["models"]
    cuda = {"device_map": "cuda"}
    assert calls == [
        *((name, None, cuda) for name in ("sdg-tiny", "a/b", "c/d", "e/f")),
        ("g", "http://host/v1", {}),
    ]
    assert all(map(served.ready, served.labels))


def test_looks_ask_nothing_of_the_network():
    assert theme()._stylesheets == []
    for path in (*CSS, SCRIPT):
        assert not re.search(r"url\(|@import|https?:", path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Address of a running page, and the hosts that the server tried to reach since it was built."""
    reached = []
    connect = socket.socket.connect

    def recording(self, address):
        reached.append(address)
        return connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", recording)
    patch.chdir(tmp_path_factory.mktemp("cwd"))
    page = build_page(ScriptedDetector(), microworld_examples(2))
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield url, reached
    page.close(verbose=False)
    assert not list(Path.cwd().iterdir()), "the page wrote into its working folder"
    patch.undo()


@pytest.fixture(scope="module")
def client(served):
    return Client(served[0], verbose=False)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 48), "grey").save(path)
    return path


def test_the_page_talks_to_nobody_else(served, client):
    assert {address[0] for address in served[1] if isinstance(address, tuple)} <= {"127.0.0.1", "::1", "localhost"}


def test_only_what_is_meant_for_programs_is_offered_to_them(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/detect", "/evaluate"}


def test_a_model_is_named_by_those_that_the_page_offers(client, picture):
    sent = handle_file(picture)
    assert client.predict(sent, "clean", "scripted", api_name="/detect") == client.predict(
        sent, "clean", api_name="/detect"
    )
    with pytest.raises(AppError, match=r"'x/y' is not offered here. The models are: scripted\."):
        client.predict(sent, "clean", "x/y", api_name="/detect")


@pytest.mark.parametrize("caption", ["a red house", "clean", "unreadable"])
def test_detect_returns_the_set(client, picture, caption):
    answer = client.predict(handle_file(picture), caption, api_name="/detect")
    expected = ScriptedDetector()(None, caption)
    assert DefectSet.from_json(answer) == expected
    assert answer["parse_error"] == expected.parse_error


def test_the_caption_may_be_left_out(client, picture):
    assert client.predict(handle_file(picture), api_name="/detect")["caption"] == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no picture", "not an image"), (b"", "not an image"), (b"\x89PNG\r\n\x1a\n123", "not an image|damaged")],
    ids=["text", "empty", "truncated"],
)
def test_detect_refuses_what_is_no_picture_in_a_sentence(client, tmp_path, content, message):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(AppError, match=message) as refused:
        client.predict(handle_file(path), "clean", api_name="/detect")
    assert "'picture.png'" in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("sent", [None, "picture.png", 3, {}, {"path": None}, {"path": 3}, {"url": "data:image/png,"}])
def test_detect_refuses_what_is_no_upload_in_a_sentence(client, sent):
    with pytest.raises(AppError, match=r"upload|sent as a file"):
        client.predict(sent, "clean", api_name="/detect")


def test_detect_reads_no_file_of_the_server(client, picture):
    with pytest.raises(AppError, match="not read"):
        client.predict({"path": str(picture)}, "clean", api_name="/detect")


def test_nobody_is_answered_past_the_queue(served, client, picture):
    with picture.open("rb") as file:
        (path,) = httpx.post(f"{served[0]}gradio_api/upload", files={"files": file}).json()
    sent = {"path": path, "meta": {"_type": "gradio.FileData"}}
    answer = httpx.post(f"{served[0]}gradio_api/run/detect", json={"data": [sent, "clean", ""]})
    assert answer.status_code == 404
    assert "queue" in answer.text


@pytest.mark.parametrize(("caption", "model", "named"), [({"a": 1}, "", "caption"), ("clean", 7, "model")])
def test_what_is_no_text_is_named(client, picture, caption, model, named):
    with pytest.raises(AppError, match=f"{named}=.* is not text"):
        client.predict(handle_file(picture), caption, model, api_name="/detect")


def test_a_model_that_breaks_is_reported_without_its_inside(client, picture):
    with pytest.raises(AppError, match="The model failed") as failed:
        client.predict(handle_file(picture), "broken", api_name="/detect")
    assert "secret" not in str(failed.value)
