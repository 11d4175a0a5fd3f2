"""The instruction: caption in its slot, whatever the caption holds; the variant without one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdg.prompts import DEFAULT, MAX_CAPTION, Prompt, as_prompt

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
    with pytest.raises(ValueError, match=r"neither a name \(default\) nor a template"):
        as_prompt(given)


def test_templates_are_checked():
    with pytest.raises(ValueError, match=r"template='What\?' has no"):
        Prompt("What?", "What?")
    with pytest.raises(ValueError, match="template_without_caption"):
        Prompt("{caption}?", "{caption}?")
