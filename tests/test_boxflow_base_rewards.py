"""Scalar rewards: CLIP models on tiny stand-ins, a judge behind a server that misbehaves, no NaN from any."""

from __future__ import annotations

import contextlib
import json

import pytest
import tiny_clip
import torch
from hypothesis import given
from hypothesis import strategies as st
from naughty_server import NaughtyServer, error, picture_of, said, text_of
from standins import picture
from transformers import CLIPModel, CLIPProcessor

from sdg import microworld
from sdg.boxflow.base_rewards import CLIPScore, JudgeReward, MicroworldReward, PickScore, RewardError
from sdg.engines.base import EndpointError

PROMPTS = ["a red car", "a red car", "a blue tree", "a tree " * 40]
IMAGES = [picture(i, size) for i, size in enumerate([(128, 128), (96, 160), (64, 64), (200, 80)])]


def lines(*numbers):
    axes = ("Alignment", "Coherence", "Style")
    return "\n".join(f"{axis} Score (1-5): {number}" for axis, number in zip(axes, numbers, strict=True))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip.save(tmp_path_factory.mktemp("clip"))


def by_hand(folder, image, prompt):
    """Cosine and logit of one picture and one prompt, as transformers gives them."""
    processor = CLIPProcessor.from_pretrained(folder)
    inputs = processor(text=[prompt], images=[image], return_tensors="pt", truncation=True, max_length=tiny_clip.LENGTH)
    with torch.no_grad():
        seen = CLIPModel.from_pretrained(folder)(**inputs)
    return float((seen.image_embeds * seen.text_embeds).sum()), float(seen.logits_per_image)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_marks_are_the_models_own(clip, batch_size):
    score = CLIPScore(clip, device="cpu", batch_size=batch_size)
    pick = PickScore(clip, device="cpu", batch_size=batch_size)
    expected = [by_hand(clip, image, prompt) for image, prompt in zip(IMAGES, PROMPTS, strict=True)]
    assert score(IMAGES, PROMPTS, seed=[1]) == pytest.approx([2.5 * max(c, 0) for c, _ in expected], abs=1e-5)
    assert pick(IMAGES, PROMPTS) == pytest.approx([logit for _, logit in expected], abs=1e-4)
    assert len({round(logit, 4) for _, logit in expected}) == len(expected)


def test_a_trainers_autocast_does_not_coarsen_the_marks(clip):
    score = PickScore(clip, device="cpu")
    alone = score(IMAGES, PROMPTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert score(IMAGES, PROMPTS) == alone


def test_nothing_is_loaded_before_the_first_picture_and_gradients_never_flow(clip):
    score = CLIPScore("no/such-model")
    assert (score.__name__, PickScore().__name__, callable(score)) == ("clip", "pick", True)
    assert PickScore().processor == "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    assert PickScore("other").processor == "other"
    assert not isinstance(score, torch.nn.Module)  # TRL takes a module for a text classifier
    half = CLIPScore(clip, dtype=torch.bfloat16, device="cpu")
    assert half([], []) == []
    assert all(isinstance(mark, float) for mark in half(IMAGES, PROMPTS))
    model = half._loaded[0]
    assert model.dtype is torch.bfloat16
    assert not any(p.requires_grad for p in model.parameters())


def test_weights_come_as_safetensors_only(clip, tmp_path):
    CLIPProcessor.from_pretrained(clip).save_pretrained(tmp_path)
    model = CLIPModel.from_pretrained(clip)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        CLIPScore(tmp_path)(IMAGES, PROMPTS)


@pytest.mark.parametrize("make", [CLIPScore, PickScore, MicroworldReward])
def test_every_image_needs_its_prompt(make):
    with pytest.raises(ValueError, match="1 images and 2 prompts"):
        make()(IMAGES[:1], PROMPTS[:2])


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        CLIPScore(batch_size=0)


def test_the_microworlds_scorer_has_a_name_and_its_marks():
    reward = MicroworldReward()
    records = list(microworld.generate(3, seed=1, split="test"))
    marks = reward([r.image for r in records], [r.caption for r in records], trainer_state=None)
    assert reward.__name__ == "microworld"
    assert len(marks) == 3
    assert all(0 <= mark <= 1 for mark in marks)


# --- a judge behind a server ------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.002)
    for name in ("SDG_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@contextlib.contextmanager
def judged(reply, **options):
    with NaughtyServer(reply).running() as server:
        yield server, JudgeReward(server.url, "m", **{"max_retries": 1, "timeout": 5} | options)


def reader(**options):
    return JudgeReward("http://127.0.0.1:1/v1", "m", **options)


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        (lines(5, 5, 5), 1.0),
        (lines(1, 1, 1), 0.0),
        (lines(5, 3, 4), 0.75),
        (lines(4.5, 3.25, "2.0"), (9.75 / 3 - 1) / 4),
        ("**Alignment Score (1-5)**: 4\n**Coherence Score (1-5)**: 4\n**Style Score (1-5)**: **4**", 0.75),
        ("alignment score: 4/5, coherence score: 4/5, style score: 4/5", 0.75),
        ("Alignment Score (1 to 5) = 4\nCoherence Score = 4\nStyle Score - 4", 0.75),
        (f"<think>{lines(1, 1, 1)} or rather</think>{lines(5, 5, 5)}", 1.0),
        (f"{lines(1, 1, 1)}\nNo, all of it is fine.\n{lines(5, 5, 5)}", 1.0),
        (lines(5, 5, 5).splitlines()[0], None),
        (lines("X", "X", "X"), None),
        (lines(6, 5, 5), None),
        (lines(0, 5, 5), None),
        (lines("nan", 5, 5), None),
        (lines("-3", 5, 5), None),
        ("", None),
        ("I cannot rate this.", None),
    ],
)
def test_three_lines_give_a_mark_or_none(text, mark):
    read = reader().read(text)
    assert read == (None if mark is None else pytest.approx(mark))


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ('{"score": 7}', 0.7),
        ('```json\n{"why": "a {bad} hand", "score": 7.5}\n```', 0.75),
        ('First {"score": 1}, then {"score": 7}', 0.7),
        ('{"result": {"score": 7}}', 0.7),
        ('<think>{"score": 1}</think>{"score": 7}', 0.7),
        ('{"score": "7"}', None),
        ('{"score": true}', None),
        ('{"score": null}', None),
        ('{"score": NaN}', None),
        ('{"score": Infinity}', None),
        ('{"score": 11}', None),
        ('{"score": 7', None),
        ("[7]", None),
        ("{" * 5000, None),
        ('{"score":' * 3000 + "7", None),
    ],
)
def test_a_json_field_gives_a_mark_or_none(text, mark):
    assert reader(fields="score", scale=(0, 10)).read(text) == (None if mark is None else pytest.approx(mark))


def test_one_pattern_of_ones_own():
    judge = reader(patterns=r"final score:\s*(\d+)", scale=(0, 100))
    assert judge.read("Final Score: 80") == 0.8
    assert reader(patterns=r"score (.*)").read("score one") is None
    assert reader(fields=["a", "b"], scale=(0, 1)).read('{"a": 0, "b": 1}') == 0.5


@given(st.text())
def test_any_text_gives_a_finite_mark_or_none(text):
    for judge in (READER, JSON_READER):
        mark = judge.read(text)
        assert mark is None or 0 <= mark <= 1


READER, JSON_READER = reader(), reader(fields="score")


def test_picture_and_caption_are_sent_and_marks_come_in_order():
    def reply(request, number):
        return said(lines(5, 5, 5) if "{odd} caption" in text_of(request) else lines(1, 1, 1))

    with judged(reply) as (server, judge):
        assert judge(IMAGES[:3], ["one", "an {odd} caption", "three"], seed=[0]) == [0, 1, 0]
    assert sorted(picture_of(request).size for request in server.requests) == sorted(i.size for i in IMAGES[:3])
    assert (judge.asked, judge.missing, judge.__name__) == (3, 0, "judge")


@pytest.mark.parametrize("trouble", [said("no idea"), said(lines(9, 9, 9)), error(500, "boom"), error(400, "no")])
def test_a_missing_mark_is_counted_and_gets_the_mean_of_its_prompt(trouble, caplog):
    def reply(request, number):
        words = text_of(request)
        if picture_of(request).size == (64, 64):
            return trouble
        return said(lines(5, 5, 5) if words.endswith("fine") else lines(2, 2, 2))

    told = {}
    images = [picture(0), picture(0, (64, 64)), picture(1), picture(2), picture(3)]
    with judged(reply) as (_, judge):
        marks = judge(images, ["fine", "fine", "fine", "bad", "bad"], log_metric=told.__setitem__)
    assert marks == [1, 1, 1, 0.25, 0.25]
    assert (judge.asked, judge.missing, told) == (5, 1, {"judge/missing": 0.2})
    assert "1 of 5 answers of m hold no mark" in caplog.text


def test_a_prompt_without_any_mark_gets_the_mean_of_the_call():
    def reply(request, number):
        words = text_of(request)
        return said("no idea" if words.endswith("alone") else lines(*[4 if words.endswith("b") else 2] * 3))

    with judged(reply) as (_, judge):
        assert judge([picture()] * 4, ["a", "b", "alone", "b"]) == [0.25, 0.75, pytest.approx(1.75 / 3), 0.75]


def test_too_many_missing_marks_stop_the_run_and_say_why():
    with judged(lambda request, number: said("I like it")) as (_, judge):
        with pytest.raises(RewardError, match=r"2 of 2 answers of m hold no mark, the first: no mark in 'I like it'"):
            judge([picture()] * 2, ["a", "b"])
        assert judge.missing == 2


def test_a_server_that_refuses_the_key_stops_the_run_and_names_the_variable():
    refused = pytest.raises(EndpointError, match="set SDG_API_KEY in the environment")
    with judged(lambda request, number: error(401, "bad key")) as (_, judge), refused:
        judge([picture()], ["a"])


def test_the_key_comes_from_the_environment_alone(monkeypatch):
    monkeypatch.setenv("SDG_API_KEY", "sk-from-outside")
    with judged(lambda request, number: said(lines(3, 3, 3))) as (server, judge):
        assert judge([picture()], ["a"]) == [0.5]
        assert server.headers["authorization"] == "Bearer sk-from-outside"
    with pytest.raises(ValueError, match="api_key is not an argument"):
        reader(api_key="sk-1")


def test_as_many_requests_as_allowed_are_under_way():
    def reply(request, number):
        answer = said(lines(3, 3, 3))
        answer.delay = 0.02
        return answer

    with judged(reply, concurrency=2) as (server, judge):
        judge([picture()] * 6, ["a"] * 6)
    assert server.busiest == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "rate it"}, "no {caption}"),
        ({"scale": (5, 1)}, "is empty"),
        ({"patterns": r"score \d"}, "has 0 groups"),
        ({"patterns": ()}, "neither patterns nor fields"),
        ({"max_missing_share": 1}, "outside 0..1"),
        ({"concurrency": 0}, "concurrency=0"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        reader(**options)


def test_requests_are_plain_json_without_a_schema():
    with judged(lambda request, number: said(json.dumps({"score": 3})), fields="score") as (server, judge):
        assert judge([picture()], ["a"]) == [0.5]
    assert "response_format" not in server.requests[0]
