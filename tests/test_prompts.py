"""The instruction: caption in its slot, whatever the caption holds; the variant without one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdg.defects import SUBTYPES, TIERS, DefectType
from sdg.prompts import DEFAULT, MAX_CAPTION, PROMPTS, Prompt, as_prompt
from sdg.response import parse_response

OWN = Prompt("Look for {caption} in {x}.", "Look.")


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a cat", "Look for a cat in {x}."),
        ("  a cat \n", "Look for a cat in {x}."),
        ("{caption} {0} {x!r}", "Look for {caption} {0} {x!r} in {x}."),
        ("", "Look."),
        (" \n", "Look."),
        (None, "Look."),
    ],
)
def test_format(caption, expected):
    assert OWN.format(caption) == expected


@settings(deadline=None)
@given(st.text(min_size=1, max_size=200).filter(lambda text: text.strip()))
def test_any_caption_is_given_as_it_is(caption):
    assert OWN.format(caption) == f"Look for {caption.strip()} in {{x}}."


def test_a_long_caption_is_cut_with_a_warning():
    with pytest.warns(UserWarning, match="caption of 10000 characters: only the first 4000"):
        text = OWN.format("x" * 10_000)
    assert text.count("x") == MAX_CAPTION + 1  # one is the template's own


def test_the_default_asks_for_the_format_and_for_both_types():
    text = DEFAULT.format("a red car")
    for needed in ("a red car", "<think>", "<answer>", "box_2d", "artifact", "misalignment", "importance", "1000"):
        assert needed in text


def test_without_a_caption_misalignment_is_not_asked_for():
    text = DEFAULT.format(None)
    assert "misalignment" not in text
    assert "artifact" in text
    assert "{" not in text.replace('[{"box_2d"', "")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, DEFAULT),
        ("default", DEFAULT),
        ("zero-shot", PROMPTS["zero-shot"]),
        (OWN, OWN),
        ("See {caption}?", Prompt("See {caption}?", DEFAULT.template_without_caption)),
        ({"prompt": "See {caption}?", "prompt_without_caption": "See?"}, Prompt("See {caption}?", "See?")),
        ({"prompt": "See {caption}?"}, Prompt("See {caption}?", DEFAULT.template_without_caption)),
        ({"made_for": "a small world"}, DEFAULT),
    ],
)
def test_as_prompt(given, expected):
    assert as_prompt(given) == expected


@pytest.mark.parametrize("given", ["defualt", "no slot here", ""])
def test_a_text_that_is_no_prompt_is_refused(given):
    with pytest.raises(ValueError, match=r"neither a name \(default, zero-shot, zero-shot-yxyx\) nor a template"):
        as_prompt(given)


def test_templates_are_checked():
    with pytest.raises(ValueError, match=r"template='What\?' has no"):
        Prompt("What?", "What?")
    with pytest.raises(ValueError, match="template_without_caption"):
        Prompt("{caption}?", "{caption}?")


# --- models that were not trained for the task ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zero-shot", "zero-shot-yxyx"])
def test_the_zero_shot_instruction_explains_everything(name):
    text = PROMPTS[name].format("a red car")
    for tier, (low, high) in TIERS.items():
        assert f"{low}-{high}, {tier}" in text
    for word in (
        "0 to 1000",
        "18 to 45 words",
        "<think>",
        "<answer>[]</answer>",
        "Step 3",
        "anatomy",
        "spatial relation",
    ):
        assert word.lower() in text.lower()
    assert text.endswith("Caption: a red car")
    assert "{caption}" not in text


SAID_OF_SUBTYPES = [
    *("anatomy", "doubled, missing", "warped", "smeared", "jagged", "garbled", "shadows"),
    *("is missing", "more of", "colour, count, material, size", "relation", "action", "style is wrong"),
]


@pytest.mark.parametrize(
    ("subtype", "word"),
    list(zip(SUBTYPES[DefectType.ARTIFACT] + SUBTYPES[DefectType.MISALIGNMENT], SAID_OF_SUBTYPES, strict=True)),
)
def test_the_zero_shot_instruction_names_every_subtype(subtype, word):
    text = PROMPTS["zero-shot"].format("a red car").lower()
    assert word in text[: text.index("where: the box")], subtype


@pytest.mark.parametrize(("name", "order"), [("zero-shot", "xyxy"), ("zero-shot-yxyx", "yxyx")])
@pytest.mark.parametrize("caption", ["a red car", None])
def test_the_zero_shot_example_is_a_valid_answer_in_the_order_that_is_asked_for(name, order, caption):
    prompt = PROMPTS[name]
    text = prompt.format(caption)
    example = text[text.index("Example of the form") : text.index("A picture without a defect")]
    (defect,) = parse_response(example, strict=True, order=order)
    assert defect.box == (612, 540, 701, 655)
    assert defect.type is DefectType.ARTIFACT
    assert 18 <= len(defect.reason.split()) <= 45
    assert prompt.box_order == order
    assert f"[{'x0, y0, x1, y1' if order == 'xyxy' else 'y0, x0, y1, x1'}]" in text


@pytest.mark.parametrize("name", ["zero-shot", "zero-shot-yxyx"])
def test_the_zero_shot_instruction_without_a_caption_asks_for_artifacts_only(name):
    text = PROMPTS[name].format(None)
    assert "misalignment" not in text
    assert "caption:" not in text.lower()
