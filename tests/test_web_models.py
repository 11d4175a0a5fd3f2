"""Which models visitors may choose, how long they are kept, and how a GPU is borrowed for them."""

import asyncio
import sys
import threading
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image
from scripted_detector import ScriptedDetector

from sdg.defects import DefectSet
from sdg.web.examples import Example, Kept
from sdg.web.gpu import on_gpu, placed, placed_editor, refining_seconds, seconds
from sdg.web.models import Models, label
from sdg.web.places import PLACES, WAITING, Latest, bounded_queue, check_room

CUDA = {"device_map": "cuda"}


def called(name: str) -> ScriptedDetector:
    detector = ScriptedDetector()
    detector.engine = SimpleNamespace(name=name)
    return detector


class Loader:
    """Loads whatever is asked for, but not "gone"."""

    def __init__(self):
        self.calls = []

    def __call__(self, model, endpoint, prompt, **options):
        self.calls.append((model, endpoint, options))
        if model == "gone":
            raise OSError("no such folder: /srv/secret")
        return called(model)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("sdg-tiny", "sdg-tiny"),
        (" owner/name ", "owner/name"),
        ("/srv/models/mine", "mine"),
        ("qwen@http://10.0.0.7:8000/v1", "qwen"),
        ("owner/qwen@https://host/v1", "owner/qwen"),
        ("@http://host", "@http://host"),
    ],
)
def test_visitors_see_no_folder_and_no_address(name, shown):
    assert label(name) == shown


def test_a_local_folder_is_called_by_its_own_name(tmp_path, monkeypatch):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert label("runs/mine") == "mine"


def test_a_model_is_loaded_when_it_is_chosen_and_kept():
    load = Loader()
    models = Models(called("own"), ["own", "a/b", "q@http://host/v1"], load=load)
    assert models.labels == ["own", "a/b", "q"]
    assert load.calls == []
    assert not models.ready("a/b")
    assert models.get("a/b") is models.get(" a/b ")
    assert models.ready("a/b")
    assert models.served("q").name == "q"
    assert load.calls == [("a/b", None, {}), ("q", "http://host/v1", {})]


@pytest.mark.parametrize("chosen", [None, "", "  ", "own"])
def test_no_choice_is_the_pages_own(chosen):
    models = Models(called("own"))
    assert models.get(chosen) is models.own
    assert models.ready(chosen)


def test_few_models_are_kept_and_the_one_asked_for_last_stays():
    load = Loader()
    models = Models(called("own"), ["a", "b", "c"], load=load, keep=2)
    for name in ("a", "b", "a", "c"):
        models.get(name)
    assert [models.ready(name) for name in ("own", "a", "b", "c")] == [True, True, False, True]


def test_what_is_not_on_the_list_is_not_loaded():
    load = Loader()
    models = Models(called("own"), ["a"], load=load)
    for name in ("b", "/etc", "m@http://169.254.169.254/v1"):
        with pytest.raises(ValueError, match=r"is not offered here. The models are: own, a\."):
            models.get(name)
    assert load.calls == []


def test_the_owners_key_goes_to_no_address_that_is_typed():
    load = Loader()
    models = Models(called("own"), ["q@http://listed/v1"], anything=True, load=load)
    models.get("q")
    models.get("m@http://typed/v1")
    models.get("any/thing")
    assert load.calls == [
        ("q", "http://listed/v1", {}),
        ("m", "http://typed/v1", {"api_key": "none"}),
        ("any/thing", None, {}),
    ]


@pytest.mark.parametrize(("anything", "told"), [(False, "its log says why"), (True, "no such folder")])
def test_a_model_that_cannot_be_loaded_is_a_sentence(anything, told):
    models = Models(called("own"), ["gone"], anything=anything, load=Loader())
    with pytest.raises(ValueError, match=f"^gone could not be loaded.*{told}") as failed:
        models.get("gone")
    assert ("/srv" in str(failed.value)) is anything


def test_two_of_one_label_cannot_be_told_apart():
    with pytest.raises(ValueError, match="two of the models offered are called mine"):
        Models(called("own"), ["/a/mine", "/b/mine"])


def test_two_visitors_who_choose_the_same_load_it_once():
    started, go, calls = threading.Event(), threading.Event(), []

    def load(*arguments):
        calls.append(arguments)
        started.set()
        assert go.wait(10)
        return called("a")

    models = Models(called("own"), ["a"], load=load)
    both = [threading.Thread(target=models.get, args=("a",)) for _ in range(2)]
    both[0].start()
    assert started.wait(10)
    both[1].start()
    go.set()
    for thread in both:
        thread.join(10)
    assert len(calls) == 1


def test_an_example_is_answered_once(tmp_path):
    path, other = tmp_path / "a.png", tmp_path / "b.png"
    Image.new("RGB", (8, 8)).save(path)
    Image.new("RGB", (9, 9)).save(other)
    kept, found = Kept([Example(path, "a house")]), DefectSet(caption="a house")
    for model, file, caption, answer in (
        ("m", other, "a house", found),
        ("m", path, "another caption", found),
    ):
        kept.keep(model, file, caption, answer)
        assert kept.find(model, file, caption) is None
    kept.keep("m", path, "a house", found)
    assert kept.find("m", path, "a house") is found
    assert kept.find("n", path, "a house") is None


@pytest.mark.parametrize(
    ("variable", "endpoint", "options"),
    [
        ("", None, {}),
        ("true", None, {"device_map": "cuda"}),
        ("1", None, {"device_map": "cuda"}),
        ("1", "http://h", {}),
    ],
)
def test_models_go_to_the_gpu_where_it_is_borrowed(monkeypatch, variable, endpoint, options):
    monkeypatch.setenv("SPACES_ZERO_GPU", variable)
    assert placed(endpoint) == options


@pytest.mark.parametrize(
    ("variable", "name", "endpoint", "options"),
    [
        ("", "a/b", None, {}),
        ("1", "a/b", None, {"device": "cuda"}),
        ("1", "a/b", "http://h", {}),
        ("1", "sdg-tiny-t2i", None, {}),  # it runs on the CPU
    ],
)
def test_editors_go_there_too(monkeypatch, variable, name, endpoint, options):
    monkeypatch.setenv("SPACES_ZERO_GPU", variable)
    assert placed_editor(name, endpoint) == options


@pytest.mark.parametrize(
    ("size", "rounds", "candidates", "least", "most"),
    [
        ((128, 128), 1, 1, 25, 30),
        ((128, 128), 2, 4, 65, 75),
        ((1024, 1024), 2, 4, 140, 160),
        ((1024, 1024), 4, 8, 240, 240),
    ],
)
def test_a_repair_asks_for_more_with_rounds_and_candidates(size, rounds, candidates, least, most):
    options = {"rounds": rounds, "candidates": candidates}
    assert least <= refining_seconds(None, Image.new("1", size), "", options, 0) <= most


def test_a_gpu_is_asked_for_as_long_as_the_picture_needs(monkeypatch):
    asked = []

    def decorate(duration):
        asked.append(duration)
        return lambda function: ("on gpu", function)

    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=decorate))
    assert on_gpu(len) == ("on gpu", len)
    assert asked == [seconds]


@pytest.mark.parametrize("spaces", [None, SimpleNamespace()], ids=["absent", "a folder of that name"])
def test_without_the_package_nothing_changes(monkeypatch, spaces):
    monkeypatch.setitem(sys.modules, "spaces", spaces)
    assert on_gpu(len) is len


@pytest.mark.parametrize(
    ("size", "caption", "least", "most"),
    [
        ((128, 128), "", 20, 22),
        ((1024, 1024), "", 60, 60),
        ((8000, 8000), "", 60, 60),
        ((1024, 1024), "x" * 9999, 120, 120),
    ],
)
def test_seconds_grow_with_the_input_and_are_bounded(size, caption, least, most):
    assert least <= seconds(None, Image.new("1", size), caption) <= most


class Line:
    """A queue as Gradio has it, of which everything waits."""

    def __init__(self):
        self.queue = []
        self.event_queue_per_concurrency_id = {"detector": SimpleNamespace(queue=self.queue)}
        self._queue = self

        self.max_size = WAITING

    def __call__(self, max_size, api_open):
        assert not api_open
        self.max_size = max_size
        return self

    async def push(self, body, request, username):
        event = SimpleNamespace(_id=object(), request=request)
        event.session_hash = body.session_hash or event._id
        self.queue.append(event)
        return True, "id", "success"


@pytest.mark.parametrize(
    ("visitors", "entered"),
    [
        ([("a", "1")] * 3, [True, True, False]),
        ([("a", "1"), ("b", "1"), ("a", "1"), ("b", "1"), ("c", "1")], [True] * 4 + [False]),
        ([(None, "1"), (None, "1"), (None, "1"), (None, "2")], [True, True, False, True]),
        ([("a", "1"), (None, "1"), (None, "1"), (None, "1")], [True, True, True, False]),
    ],
    ids=["one session", "the whole is bounded", "without a session by address", "apart"],
)
def test_a_visitor_holds_few_places(visitors, entered):
    line = Line()
    page = SimpleNamespace(queue=line, _queue=line)
    bounded_queue(page, waiting=4, places=2)

    async def all_of_them():
        return [
            await line.push(
                body=SimpleNamespace(session_hash=session),
                request=SimpleNamespace(client=SimpleNamespace(host=host)),
                username=None,
            )
            for session, host in visitors
        ]

    answers = asyncio.run(all_of_them())
    assert [answer[0] for answer in answers] == entered
    for ok, told, state in answers:
        assert ok or (state == "queue_full" and "waiting already" in told)


def test_a_question_without_room_is_refused_before_its_turn_is_promised():
    line = Line()
    line.queue += [SimpleNamespace(session_hash="a")] * PLACES
    page = SimpleNamespace(_queue=line)
    check_room(page, "b")
    with pytest.raises(gr.Error, match="4 of your requests are waiting already"):
        check_room(page, "a")
    line.queue += [SimpleNamespace(session_hash=str(number)) for number in range(WAITING - PLACES)]
    with pytest.raises(gr.Error, match="64 requests are waiting already"):
        check_room(page, "b")


def test_the_last_question_of_a_visitor_is_the_one_that_counts():
    latest = Latest(visitors=2)
    first, other, second = latest.ask("a"), latest.ask("b"), latest.ask("a")
    assert [latest.is_last("a", first), latest.is_last("b", other), latest.is_last("a", second)] == [False, True, True]
    latest.ask("c")
    assert latest.is_last("b", "anything"), "a visitor who is forgotten is answered"
    assert not latest.is_last("a", first)
