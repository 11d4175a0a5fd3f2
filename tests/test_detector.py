"""The detector: one or a list, answers that cannot be read, pictures that cannot be used, saving."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import peft
import pytest
from local_hub import LocalHub
from PIL import Image
from standins import build, picture, save_checkpoint
from transformers import AutoModelForImageTextToText, AutoProcessor

from sdg.cards import About, write_recipe
from sdg.defects import Defect, DefectSet
from sdg.detector import SDGDetector
from sdg.embedded import ROOT
from sdg.engines.base import CheckpointError, Generation
from sdg.engines.images import ImageError
from sdg.prompts import DEFAULT, Prompt
from sdg.response import render_response
from sdg.upload import RefusedError

HAND = Defect((100, 200, 300, 400), "artifact", "the left hand has six fingers", 55)
CAR = Defect((0, 0, 500, 500), "misalignment", "the car is blue where the caption says red", 80)
BOTH = render_response(DefectSet((HAND, CAR), reasoning="a hand and a car"))
CLEAN = render_response(DefectSet(reasoning="nothing"))
PROMPT = Prompt("caption: {caption}", "no caption")


class Scripted:
    """An engine that answers by the prompt, and keeps what it was asked."""

    name = "scripted"

    def __init__(self, answers=None, default=BOTH, finished=True):
        self.answers, self.default, self.finished = answers or {}, default, finished
        self.batches = []

    def generate(self, images, prompts):
        self.batches.append([(image.size, prompt) for image, prompt in zip(images, prompts, strict=True)])
        return [Generation(self.answers.get(p, self.default), 90, 40, 0.5, self.finished) for p in prompts]

    def stream(self, image, prompt):
        text = self.answers.get(prompt, self.default)
        yield from (text[i : i + 7] for i in range(0, len(text), 7))
        return Generation(text, 90, 40, 0.5, self.finished)


def scripted(**options):
    return SDGDetector(Scripted(**options), PROMPT)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_one_picture_gives_one_set():
    found = scripted()(picture(), "a red car")
    assert found == DefectSet((HAND, CAR))
    assert (found.caption, found.reasoning, found.raw) == ("a red car", "a hand and a car", BOTH)
    assert found.parse_error is None
    assert found.info == {
        "model": "scripted",
        "seconds": 0.5,
        "prompt_tokens": 90,
        "new_tokens": 40,
        "finished": True,
        "image_size": (128, 128),
        "calibrated": False,
    }
    json.dumps(found.to_json())


def test_pictures_come_in_many_forms(tmp_path):
    path = tmp_path / "a.png"
    picture().save(path)
    forms = [picture(), path, str(path), png(picture()), np.asarray(picture())]
    detector = scripted()
    assert [len(found) for found in detector(forms, ["a"] * 5)] == [2] * 5
    assert len(detector(path, "a")) == len(detector(np.asarray(picture()), "a")) == 2


def test_a_list_comes_back_in_order_and_in_batches_of_like_length():
    captions = ["x" * n for n in (9, 1, 8, 2, 7)]
    answers = {f"caption: {c}": render_response(DefectSet((HAND,) * 1, reasoning=c)) for c in captions}
    detector = scripted(answers=answers)
    found = detector([picture(i) for i in range(5)], captions, batch_size=2)
    assert [s.reasoning for s in found] == captions
    lengths = [[len(prompt) - len("caption: ") for _, prompt in batch] for batch in detector.engine.batches]
    assert lengths == [[1, 2], [7, 8], [9]]


def test_large_pictures_are_scaled_down_for_the_model_only():
    detector = scripted()
    found = detector(picture(0, (2048, 512)), "a car")
    assert detector.engine.batches == [[((1024, 256), "caption: a car")]]
    assert found.info["image_size"] == (2048, 512)


@pytest.mark.parametrize("caption", ["", "  ", None])
def test_without_a_caption_misalignments_are_neither_asked_for_nor_kept(caption):
    detector = scripted()
    found = detector(picture(), caption)
    assert detector.engine.batches[0][0][1] == "no caption"
    assert found == DefectSet((HAND,))
    assert found.info["dropped_misalignments"] == 1


@pytest.mark.parametrize(
    ("text", "finished", "message"),
    [
        ("I see nothing wrong.", True, "no complete defect and no empty list"),
        ("", True, "no complete defect and no empty list"),
        ("<think>so", False, "cut off after 40 tokens"),
        ('<answer>[{"box_2d": [1, 2', False, "cut off after 40 tokens"),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_failure_not_a_clean_picture(text, finished, message):
    found = scripted(default=text, finished=finished)(picture(), "a car")
    assert len(found) == 0
    assert message in found.parse_error
    assert (found.raw, found.caption) == (text, "a car")
    assert found.info["model"] == "scripted"


def test_a_clean_picture_is_no_failure():
    found = scripted(default=CLEAN)(picture(), "a car")
    assert (len(found), found.parse_error) == (0, None)


def test_box_order_is_told_not_guessed():
    text = '<think></think><answer>[{"box_2d": [200, 100, 400, 300], "label": "artifact", "description": "x"}]</answer>'
    found = SDGDetector(Scripted(default=text), PROMPT, box_order="yxyx")(picture(), "a car")
    assert found[0].box == (100, 200, 300, 400)


def test_what_was_computed_before_a_bad_picture_is_handed_out():
    found = []
    stream = scripted().iter([picture(), picture(), picture(), b"junk", picture()], list("abcde"), batch_size=2)
    with pytest.raises(ImageError, match="not an image"):
        found.extend(stream)  # list.extend keeps what came before the error
    assert len(found) == 3


def test_a_bad_picture_can_be_recorded_instead():
    found = list(scripted().iter([b"junk", picture()], ["a", "b"], on_error="record"))
    assert "not an image" in found[0].parse_error
    assert (found[0].caption, len(found[0]), len(found[1])) == ("a", 0, 2)


def test_an_iterator_is_read_a_batch_at_a_time():
    read = []

    def pictures():
        for index in range(6):
            read.append(index)
            yield picture(index)

    results = scripted().iter(pictures(), batch_size=2)
    next(results)
    assert read == [0, 1]
    assert len(list(results)) == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d([picture()] * 2, ["a"]), "2 images but 1 captions"),
        (lambda d: d([picture()] * 2, "a"), "one caption for many pictures"),
        (lambda d: list(d.iter(iter([picture()]), iter(["a", "b"]))), "longer|shorter"),
        (lambda d: d([picture()], ["a"], batch_size=0), "batch_size=0"),
        (lambda d: d.iter([], [], on_error="ignore"), "on_error='ignore'"),
        (lambda d: d(b"junk", "a"), "not an image"),
        (lambda d: d(Image.new("RGB", (1, 1)), "a"), "too small"),
        (lambda d: d("https://example.org/a.png", "a"), "not fetched"),
    ],
)
def test_bad_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(scripted())


def test_nothing_gives_nothing():
    assert scripted()([], []) == []


def test_a_stream_ends_in_the_set_that_a_call_gives():
    detector = scripted()
    stream = detector.stream(picture(), "a red car")
    next(stream)
    assert "cut off" in stream.result.parse_error
    text = "".join(stream)
    assert BOTH.endswith(text)
    assert stream.result == detector(picture(), "a red car")
    assert (stream.result.caption, stream.result.parse_error) == ("a red car", None)
    assert stream.result.info == detector(picture(), "a red car").info


# --- a real model -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("detector") / "standin")


def test_a_model_in_memory_detects():
    detector = SDGDetector.from_model(*build(), prompt="caption: {caption}", max_new_tokens=8, name="now")
    found = detector([picture(), picture(1)], ["a car", None])
    assert [s.info["new_tokens"] for s in found] == [8, 8]
    assert found[0].info["model"] == "now"
    assert all(s.parse_error for s in found)


def test_constrained_answers_can_always_be_read():
    detector = SDGDetector.from_model(*build(), prompt=PROMPT, max_new_tokens=320, constrained=True)
    for found in detector([picture(), picture(1)], ["a car", "a tree"]):
        assert found.parse_error is None
    assert detector.stream(picture(), "a car").result.parse_error


def test_saving_and_loading_keep_answers_and_settings(folder, tmp_path):
    detector = SDGDetector.from_pretrained(folder, dtype="float32", prompt=PROMPT, max_new_tokens=8, box_order="yxyx")
    detector.made_for = "a small world"
    detector.save_pretrained(tmp_path / "saved")
    again = SDGDetector.from_pretrained(tmp_path / "saved", dtype="float32")
    assert (again.prompt, again.engine.max_new_tokens, again.box_order) == (PROMPT, 8, "yxyx")
    assert again.made_for == again(picture(), "a car").info["made_for"] == "a small world"
    assert again(picture(), "a car").raw == detector(picture(), "a car").raw
    AutoModelForImageTextToText.from_pretrained(tmp_path / "saved")
    AutoProcessor.from_pretrained(tmp_path / "saved")


def test_arguments_win_over_the_checkpoints_settings(folder, tmp_path):
    detector = SDGDetector.from_pretrained(folder, prompt=PROMPT, max_new_tokens=8)
    detector.save_pretrained(tmp_path)
    other = SDGDetector.from_pretrained(tmp_path, prompt="default", max_new_tokens=5)
    assert (other.prompt, other.engine.max_new_tokens) == (DEFAULT, 5)
    assert SDGDetector.from_pretrained(folder).prompt == DEFAULT


def test_a_short_limit_of_the_checkpoint_is_raised_for_constrained_answers(folder, tmp_path):
    SDGDetector.from_pretrained(folder, prompt=PROMPT, max_new_tokens=8).save_pretrained(tmp_path)
    assert SDGDetector.from_pretrained(tmp_path, constrained=True)(picture(), "a car").parse_error is None
    with pytest.raises(ValueError, match="max_new_tokens=8 leaves no room"):
        SDGDetector.from_pretrained(tmp_path, constrained=True, max_new_tokens=8)


def test_an_adapters_own_prompt_comes_first(folder, tmp_path):
    peft = pytest.importorskip("peft")
    model, _ = build()
    adapter = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    adapter.save_pretrained(tmp_path)
    (tmp_path / "sdg_config.json").write_text(json.dumps({"prompt": "Which, given {caption}?"}))
    assert SDGDetector.from_pretrained(folder, adapter=tmp_path).prompt.template == "Which, given {caption}?"


def test_pushing_uploads_what_saving_writes_with_its_card(folder, tmp_path, monkeypatch):
    card = tmp_path / "card.md"
    card.write_text("---\nlicense: mit\nbase_model: org/base\n---\n")
    with LocalHub() as hub, hub.here(monkeypatch):
        with pytest.raises(RefusedError, match=r"README\.md, the card, is missing"):
            SDGDetector.from_pretrained(folder).push_to_hub("me/detector")
        address = SDGDetector.from_pretrained(folder).push_to_hub("me/detector", private=True, card=card)
    repo = hub.repos["model", "me/detector"]
    assert address == f"{hub.address}/me/detector/commit/{repo.branches['main']}"
    assert repo.private
    assert {"config.json", "model.safetensors", "tokenizer.json", "sdg_config.json"} <= set(repo.files())
    assert repo.files()["README.md"] == card.read_bytes()


def test_a_card_is_made_where_there_is_none(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "model")
    write_recipe(tmp_path / "model", "GRPO", base_model="org/base")
    with LocalHub() as hub, hub.here(monkeypatch):
        SDGDetector.from_pretrained(tmp_path / "model").push_to_hub("me/eye", about=About("mit"))
    files = hub.repos["model", "me/eye"].files()
    assert b"base_model: org/base" in files["README.md"]
    assert b"By GRPO" in files["README.md"]
    assert "sdg_recipe.json" in files
    assert not (tmp_path / "model" / "README.md").exists()


def test_the_checkpoints_own_card_goes_along_unless_an_adapter_made_another_of_it(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\nbase_model: org/base\n---\n")
    detector = SDGDetector.from_pretrained(tmp_path / "model")
    peft.get_peft_model(build()[0], peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    adapted = SDGDetector.from_pretrained(tmp_path / "model", adapter=tmp_path / "adapter")
    with LocalHub() as hub, hub.here(monkeypatch):
        detector.push_to_hub("me/detector")
        with pytest.raises(RefusedError, match="the card, is missing"):
            adapted.push_to_hub("me/adapted")
    assert b"org/base" in hub.repos["model", "me/detector"].files()["README.md"]


def test_an_engine_without_weights_has_nothing_to_save(tmp_path):
    with pytest.raises(ValueError, match="scripted is not in this process"):
        scripted().save_pretrained(tmp_path)


def test_an_unknown_checkpoint_is_refused():
    with pytest.raises(CheckpointError, match="is not in the cache"):
        SDGDetector.from_pretrained("nobody/no-such-checkpoint", local_files_only=True)


def test_what_a_checkpoint_says_about_itself_survives_saving(tmp_path):
    SDGDetector.from_pretrained("sdg-tiny").save_pretrained(tmp_path)
    embedded = json.loads((ROOT / "sdg-tiny" / "sdg_config.json").read_text())
    assert "bf16_differs" in embedded
    assert json.loads((tmp_path / "sdg_config.json").read_text()) == embedded
