import contextlib
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdg import Defect, DefectSet, ResponseFormatError, parse_response, render_response
from sdg.response import locate

CASES = json.loads((Path(__file__).parent / "data" / "parsing.json").read_text())["cases"]
REWARD_CASES = json.loads((Path(__file__).parent / "data" / "detector_reward.json").read_text())["cases"]

A = '{"box_2d": [1, 2, 30, 40], "label": "artifact", "description": "r", "importance": 5}'
B = '{"box_2d": [5, 6, 70, 80], "label": "misalignment", "description": "s", "importance": 7}'
DA, DB = Defect((1, 2, 30, 40), "artifact", "r", 5), Defect((5, 6, 70, 80), "misalignment", "s", 7)


def answer(*objects, think="<think>t</think>"):
    return f"{think}\n<answer>[{', '.join(objects)}]</answer>"


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["kind"])
def test_conformance_tolerant(case):
    silent = case["kind"] in ("no structure", "empty string") or (case["kind"] == "cut off" and not case["salvageable"])
    if silent:
        with pytest.raises(ResponseFormatError):
            parse_response(case["response"])
        return
    found = parse_response(case["response"])
    assert len(found) == case["salvageable"]
    if case["reference"] is not None:
        assert [(list(d.box), d.type.value) for d in found] == [(g["box"], g["type"]) for g in case["reference"]]


@pytest.mark.parametrize("case", REWARD_CASES, ids=lambda c: c["kind"])
def test_conformance_strict(case):
    if case["format_ok"]:
        parse_response(case["completion"], strict=True)
    else:
        with pytest.raises(ResponseFormatError):
            parse_response(case["completion"], strict=True)


SALVAGED = {
    "fence": (f"```json\n[{A}]\n```", [DA]),
    "fence around the answer": (f"```\n{answer(A)}\n```", [DA]),
    "bare array": (f"[{A}, {B}]", [DA, DB]),
    "single object": (A, [DA]),
    "wrapper": (f'{{"defects": [{A}, {B}]}}', [DA, DB]),
    "broken wrapper": (f'<answer>{{"defects": [{A} {B}]</answer>', [DA, DB]),
    "python literal": (answer(A.replace('"', "'")), [DA]),
    "trailing commas": (answer(A[:-1] + ",}", B + ","), [DA, DB]),
    "junk before and after": (f"Sure! Here [1, 2] is it: [{A}] and that is all", [DA]),
    "two answers": (answer(A) + answer(B, think=""), [DA]),
    "two fences": (f"```\n[{A}]\n```\n```\n[{B}]\n```", [DA]),
    "empty answer first": ("<answer>[]</answer>" + answer(A, think=""), []),
    "cut off": (f"<answer>[{A}, {B[:40]}", [DA]),
    "line comments": (answer(A.replace(", ", ", // why\n"), B.replace(", ", ", # why\n")), [DA, DB]),
    "block comments": (answer("/* one */ " + A, B + " /* two */"), [DA, DB]),
    "missing comma between objects": (f"<answer>[{A} {B}]</answer>", [DA, DB]),
    "missing commas between fields": (answer(re.sub(r', "', ' "', A)), [DA]),
    "missing closing brace": (answer(A[:-1], B), [DA, DB]),
    "missing last brace": (answer(A, B[:-1]), [DA, DB]),
    "missing opening brace": (answer(A, B[1:]), [DA, DB]),
    "stray bracket": (f"<answer>[{A}], {B}]</answer>", [DA, DB]),
    "unquoted keys": (answer(A.replace('"box_2d"', "box_2d").replace('"label"', "label")), [DA]),
    "short names": (answer(A.replace("description", "desc").replace("box_2d", "bbox_2d")), [DA]),
    "label in any case": (answer(A.replace("artifact", " Artifact ")), [DA]),
    "numeric strings": (answer(A.replace("[1, 2, 30, 40]", '["1", "2.0", "30", "40"]').replace(": 5", ': "5"')), [DA]),
    "integral floats": (answer(A.replace("30", "30.0").replace(": 5", ": 5.0")), [DA]),
    "fractions are rounded": (answer(A.replace("30", "30.4")), [DA]),
    "repeats collapse": (answer(A, A, B, A), [DA, DB]),
    "run-on digits": (answer(A, B.replace("70", "7" * 9000)), [DA]),
    "run-on digits, broken": (answer(A.replace("30", "3" * 9000), B[:-1] + ",}"), [DB]),
    "swapped corners": (answer(A.replace("30", "0"), B), [DB]),
    "out of range": (answer(A.replace("30", "1030"), B), [DB]),
    "importance out of range": (answer(A.replace(": 5", ": 500"), B), [DB]),
    "NaN": (answer(A.replace("30", "NaN"), B), [DB]),
    "unknown label": (answer(A.replace("artifact", "blur"), B), [DB]),
    "three coordinates": (answer(A.replace("1, 2, 30, 40", "1, 2, 30"), B), [DB]),
    "not an object": (answer(A, "7", '"x"', B), [DA, DB]),
    "no importance": (answer(A.replace(', "importance": 5', "")), [Defect(DA.box, "artifact", "r", None)]),
    "no description": (answer(A.replace('"description": "r", ', "")), [Defect(DA.box, "artifact", "", 5)]),
    "null description": (answer(A.replace('"r"', "null")), [Defect(DA.box, "artifact", "", 5)]),
    "think text is not read": (f"<think>{A} <answer>[{A}]</answer></think>{answer(B, think='')}", [DB]),
    "think text without its tag": (f"I see {A}</think>{answer(B, think='')}", [DB]),
    "think never closed": (f"<think>hm <answer>[{A}]</answer>", [DA]),
    "blank answer": ("<think>t</think><answer> \n</answer>", []),
    "empty fence": ("<answer>```json\n[]\n```</answer>", []),
    "empty wrapper": ('<answer>{"defects": []}</answer>', []),
}


@pytest.mark.parametrize(("text", "expected"), SALVAGED.values(), ids=SALVAGED.keys())
def test_tolerant_saves_what_is_complete(text, expected):
    assert list(parse_response(text)) == expected


@pytest.mark.parametrize(
    "reason",
    [
        'says "STOP" twice',
        "it's {a} [1]",
        "ends with }",
        'a "b" {c}',
        "<answer> </answer>",
        "box_2d",
        "a, b: c",
        "”“ ’",
    ],
)
@pytest.mark.parametrize("escaped", [True, False], ids=["escaped", "raw"])
def test_quotes_braces_and_tags_inside_a_reason(reason, escaped):
    said = json.dumps(reason)[1:-1] if escaped else reason
    found = parse_response(answer(A.replace('"r"', f'"{said}"'), B))
    assert [d.reason for d in found] == [reason, "s"]


def test_reason_with_braces_before_the_box():
    text = '[{"label": "artifact", "description": "it is {a} "b" ok", "box_2d": [1, 2, 3, 4], "importance": 3}]'
    assert list(parse_response(text)) == [Defect((1, 2, 3, 4), "artifact", 'it is {a} "b" ok', 3)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I see no problem in this picture.",
        "<think>all is well</think>",
        "<think>t</think><answer>",
        "<think>t</think><answer>nothing wrong</answer>",
        f"<think>maybe [{A}]",
        "<answer>[{",
        f"<answer>[{A[:50]}",
        answer(A.replace("30", "0")),
        answer("7"),
        "<answer>null</answer>",
    ],
)
def test_no_defect_must_have_been_said(text):
    with pytest.raises(ResponseFormatError):
        parse_response(text)


STRICT_REFUSES = {
    "no think": answer(A, think=""),
    "no answer": f"<think></think>[{A}]",
    "not closed": f"<think></think><answer>[{A}]",
    "not a list": f"<think></think><answer>{A}</answer>",
    "not JSON": answer(A[:-1]),
    "number in the list": answer(A, "7"),
    "no importance": answer(A.replace(', "importance": 5', "")),
    "no label": answer(A.replace('"label": "artifact", ', "")),
    "no description": answer(A.replace('"description": "r", ', "")),
    "off the grid": answer(A.replace("30", "1030")),
    "rounded to nothing": answer(A.replace("[1, 2, 30", "[29.8, 2, 30.2")),
    "text for a number": answer(A.replace("30", '"30"')),
    "three coordinates": answer(A.replace("1, 2, 30, 40", "1, 2, 30")),
    "importance 0": answer(A.replace(": 5", ": 0")),
    "importance 5.5": answer(A.replace(": 5", ": 5.5")),
    "bool": answer(A.replace(": 5", ": true")),
    "deep nesting": "<think></think><answer>" + "[" * 100_000 + "</answer>",
}


@pytest.mark.parametrize("text", STRICT_REFUSES.values(), ids=STRICT_REFUSES.keys())
def test_strict_gate_closes(text):
    with pytest.raises(ResponseFormatError):
        parse_response(text, strict=True)


def test_strict_keeps_repeats_and_rounds():
    found = parse_response(answer(A, A, B.replace("70", "69.6")), strict=True)
    assert list(found) == [DA, DA, DB]


def test_order_is_read_only_when_told():
    text = answer(A)
    assert parse_response(text, order="yxyx")[0].box == (2, 1, 40, 30)
    assert parse_response(text, strict=True, order="yxyx")[0].box == (2, 1, 40, 30)
    with pytest.raises(ValueError, match="order='zyx'"):
        parse_response(text, order="zyx")


def test_reasoning_and_raw_are_kept():
    text = answer(A, think="<think> Step 1.\nlook </think>")
    found = parse_response(text)
    assert (found.reasoning, found.raw, found.parse_error) == ("Step 1.\nlook", text, None)


def test_rendering_is_exact():
    text = render_response(DefectSet((DA,), reasoning="look"))
    assert text == f"<think>look</think>\n<answer>[{A}]</answer>"
    assert render_response(DefectSet(())) == "<think></think>\n<answer>[]</answer>"


defects = st.builds(
    lambda x0, y0, w, h, type, reason, importance: Defect(
        (x0, y0, min(1000, x0 + w), min(1000, y0 + h)), type, reason, importance
    ),
    st.integers(0, 999),
    st.integers(0, 999),
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.sampled_from(["artifact", "misalignment"]),
    st.one_of(st.text(), st.sampled_from(["</answer>", "<think>", '"', "\\", "{[", '"}, {"box_2d": [1, 2, 3, 4]', A])),
    st.integers(1, 100),
)


@given(st.lists(defects, max_size=5, unique=True), st.one_of(st.none(), st.text()))
def test_round_trip(items, reasoning):
    text = render_response(DefectSet(tuple(items), reasoning=reasoning))
    assert list(parse_response(text)) == items
    assert list(parse_response(text, strict=True)) == items


pieces = st.sampled_from(
    [
        *'{}[]",:\\<>/ \n0159.-eE',
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "box_2d",
        "NaN",
        "1e999",
        A,
        B,
        "//",
        "/*",
    ]
)


@settings(max_examples=300)
@given(st.lists(pieces, max_size=30).map("".join))
def test_any_text_gives_a_set_or_the_one_error(text):
    for strict in (False, True):
        try:
            found = parse_response(text, strict=strict)
        except ResponseFormatError:
            continue
        assert isinstance(found, DefectSet)
        if not strict:
            assert len(set(found)) == len(found)


HOSTILE = {
    "brackets": "[" * 100_000,
    "answer and brackets": "<answer>" + "[" * 100_000,
    "braces": "{" * 100_000,
    "braces and quotes": '{"' * 50_000,
    "quotes": '"' * 100_000,
    "answers": "<answer>" * 12_500,
    "thinks": "<think>" * 7_000 + "</think>" * 7_000,
    "digits": '<answer>[{"box_2d": [' + "1" * 100_000,
    "nested objects": '<answer>{"a":' * 8_000,
    "nested boxes": '[{"box_2d": [' * 7_700,
    "box keys": '{"box_2d": ' * 9_000,
    "unclosed strings": '{"box_2d": [1, 2, 3, 4], "label": "x' * 2_800,
    "comment openers in a string": '<answer>[{"box_2d": [1,2,3,4], "description": "' + '" /*' * 25_000,
    "spaces after quotes": '<answer>[{"box_2d": [1,2,3,4], "description": "' + ('"' + " " * 300) * 330,
    "fences": "<think></think><answer>" + "```" * 33_000 + "</answer>",
    "spaces in a fence": "<think></think><answer>```" + " " * 100_000 + "x</answer>",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_costs_no_more_than_its_length(text):
    def cost(text):
        began = time.process_time()
        for strict in (False, True):
            with contextlib.suppress(ResponseFormatError):
                parse_response(text, strict=strict)
        return time.process_time() - began

    # Quadratic reading would take 16 times as long for 4 times the text, and minutes for the whole.
    assert min(cost(text) for _ in range(2)) < 5


# --- where defects are written ----------------------------------------------------------------------------------------

SPELT = '{"box_2d": [1, 2, 30, 40], "label": "artifact", "description": "a hand", "importance": 5}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"<answer>[{SPELT}]</answer>", [('"artifact"', "[1, 2, 30, 40]", '"a hand"', "5")]),
        (
            f"<think>{SPELT}</think><answer>[{SPELT.replace('5}', '6}')}]",
            [('"artifact"', "[1, 2, 30, 40]", '"a hand"', "6")],
        ),
        (
            "[{label: 'artifact', bbox_2d: [1,2,30,40], desc: 'it's bad'}, {'box_2d': [5, 6, 7",
            [("'artifact'", "[1,2,30,40]", "'it's bad'", None)],
        ),
        (
            r'[{"description": "see \"box_2d\": [9, 9, 99, 99]", "label": "artifact", "box_2d": [1, 2, 30, 40]}]',
            [('"artifact"', "[1, 2, 30, 40]", r'"see \"box_2d\": [9, 9, 99, 99]"', None)],
        ),
        (f"[{SPELT}, {SPELT}]", [('"artifact"', "[1, 2, 30, 40]", '"a hand"', "5")]),
        ("<answer>[]</answer>", []),
    ],
)
def test_the_places_of_values_are_found(text, expected):
    found = locate(text)
    assert list(found) == list(parse_response(text))
    places = [[text[slice(*span)] if span else None for span in place[1:]] for place in found.values()]
    assert list(map(tuple, places)) == expected


@given(st.lists(defects, max_size=5, unique=True), st.one_of(st.none(), st.text()))
def test_every_rendered_defect_is_located_in_order(items, reasoning):
    text = render_response(DefectSet(tuple(items), reasoning=reasoning))
    found = locate(text)
    assert list(found) == list(parse_response(text))
    for defect, place in found.items():
        assert json.loads(text[slice(*place.box)]) == list(defect.box)
        assert json.loads(text[slice(*place.label)]) == defect.type.value
        assert json.loads(text[slice(*place.description)]) == defect.reason
