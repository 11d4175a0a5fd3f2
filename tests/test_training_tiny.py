"""The small model: its tokenizer says anything and points in one token; it loads without this library."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdg.defects import Defect, DefectSet
from sdg.microworld import VOCABULARY
from sdg.response import render_response
from sdg.training.tiny import (
    SKELETON,
    SPECIAL_TOKENS,
    build_config,
    build_model,
    build_processor,
    number_ids,
    smooth_curve,
)

PROCESSOR = build_processor(VOCABULARY)
TOKENIZER = PROCESSOR.tokenizer
SMALL = {"hidden": 48, "vision_layers": 3, "text_layers": 2, "text_mlp": 64, "vision_mlp": 64}


def ids(text):
    return TOKENIZER(text)["input_ids"]


@pytest.mark.parametrize("piece", [*SKELETON, *SPECIAL_TOKENS, "0", "7", "42", "999", "1000", "car", " car", " melted"])
def test_piece_is_one_token(piece):
    assert len(ids(piece)) == 1
    assert TOKENIZER.decode(ids(piece)) == piece


def test_every_word_is_one_token_with_and_without_a_space():
    split = [word for word in VOCABULARY if len(ids(word)) != 1 or (word[0].isalpha() and len(ids(" " + word)) != 1)]
    assert split == []


def test_an_object_costs_14_tokens_and_its_words():
    def length(*defects):
        return len(ids(render_response(DefectSet(defects))))

    one = Defect((1, 20, 300, 1000), "artifact", "the colour of the car", 55)
    other = Defect((100, 20, 300, 400), "misalignment", "car", 100)
    assert length(one) - length() == 14 + 5  # the empty list's end is one token, a full list's is one as well
    assert length(one, other) - length(one) == 14 + 1


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


@given(texts)
def test_any_text_comes_back(text):
    assert TOKENIZER.decode(ids(text)) == text


@given(texts, st.integers(1, 100), st.tuples(*[st.integers(0, 499)] * 2, *[st.integers(500, 1000)] * 2))
def test_any_response_comes_back(reason, importance, box):
    answer = render_response(DefectSet([Defect(box, "artifact", reason, importance)] * 2, reasoning=reason))
    assert TOKENIZER.decode(ids(answer)) == answer


@pytest.mark.parametrize(
    ("size", "tokens"), [((128, 128), 64), ((1024, 1024), 64), ((64, 64), 64), ((1024, 768), 54), ((300, 900), 52)]
)
def test_a_picture_of_any_size_takes_about_64_tokens(size, tokens):
    chat = [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", size)}]}]
    batch = PROCESSOR.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    assert int((batch["input_ids"] == PROCESSOR.image_token_id).sum()) == tokens


def test_the_default_model_fits_in_16_megabytes():
    model = build_model(PROCESSOR)
    assert sum(p.numel() for p in model.parameters()) <= 8_000_000
    numbers = model.get_input_embeddings().weight[number_ids(TOKENIZER)].detach()
    near, far = (numbers[300] - numbers[310]).norm(), (numbers[300] - numbers[800]).norm()
    assert near < 0.7 * far


def test_seed_decides_the_weights():
    one, same, other = (build_model(PROCESSOR, seed, **SMALL).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_unknown_size_is_refused():
    with pytest.raises(ValueError, match="depth"):
        build_config(PROCESSOR, depth=3)


def test_smooth_curve_moves_a_little_at_a_time():
    rows = smooth_curve(torch.arange(0, 1001, 10), 32, longest=4000, shortest=100)
    steps = [float((b - a).norm()) for a, b in pairwise(rows)]
    assert rows.abs().max() <= 1
    assert max(steps) < 1.05 * min(steps)


@pytest.mark.slow
def test_folder_loads_where_this_library_is_not_imported(tmp_path):
    build_model(PROCESSOR, **SMALL).save_pretrained(tmp_path)
    PROCESSOR.save_pretrained(tmp_path)
    text = render_response(DefectSet([Defect((1, 2, 3, 4), "artifact", "melted", 5)]))
    program = f"""
import sys
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
processor = AutoProcessor.from_pretrained({str(tmp_path)!r})
model = AutoModelForImageTextToText.from_pretrained({str(tmp_path)!r})
content = [{{"type": "image", "image": Image.new("RGB", (128, 128))}}, {{"type": "text", "text": "caption: a car"}}]
inputs = processor.apply_chat_template(
    [{{"role": "user", "content": content}}],
    tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt",
)
model.generate(**inputs, max_new_tokens=3)
assert processor.tokenizer.decode(processor.tokenizer({text!r})["input_ids"]) == {text!r}
assert len(processor.tokenizer({text!r})["input_ids"]) == {len(ids(text))}
assert "sdg" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
