import json

import pytest
from defect_cases import answer, one

from sdg.defects import DefectSet
from sdg.evaluation import SDGEval
from sdg.evaluation.files import align, column, load_predictions, load_references

WIDE = one((100, 200, 900, 300))
TALL = {**WIDE, "box": [200, 100, 300, 900]}


@pytest.fixture
def write(tmp_path):
    def write(name, *lines):
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(x) if not isinstance(x, str) else x for x in lines), encoding="utf-8")
        return path

    return write


def predicted(write, *lines, **options):
    return [line.defects for line in load_predictions(write("p.jsonl", *lines), **options)]


@pytest.mark.parametrize(
    ("line", "defects", "readable"),
    [
        ({"defects": [WIDE]}, [WIDE], True),
        ({"defects": []}, [], True),
        ({"defects": [{"box": WIDE["box"], "type": "artifact"}]}, [WIDE | {"reason": "", "importance": None}], True),
        ({"defects": [WIDE | {"subtype": "my own", "confidence": "high"}]}, [WIDE], True),
        ({"response": answer(WIDE)}, [WIDE], True),
        ({"raw_response": answer(WIDE)}, [WIDE], True),
        ({"raw": answer(WIDE)}, [WIDE], True),
        ({"response": "<answer>[]</answer>"}, [], True),
        ({"response": "no idea"}, [], False),
        ({"response": ""}, [], False),
        ({"response": None}, [], False),
        ({"error": "out of memory"}, [], False),
        ({"error": "out of memory", "response": answer(WIDE)}, [], False),
        ({"error": None, "response": answer(WIDE)}, [WIDE], True),
        ({"error": "the overlay could not be written", "defects": [WIDE]}, [WIDE], True),
        ({"defects": None, "response": answer(WIDE)}, [WIDE], True),
        (DefectSet.of([WIDE]).to_json(), [WIDE], True),
        (DefectSet(parse_error="cut off", raw="<answer>[{").to_json(), [], False),
    ],
)
def test_forms_of_a_prediction(write, line, defects, readable):
    (found,) = predicted(write, line)
    assert found == DefectSet.of(defects)
    assert (found.parse_error is None) is readable


@pytest.mark.parametrize(
    ("line", "order", "box"),
    [
        ({"defects": [WIDE]}, "xyxy", WIDE),
        ({"defects": [WIDE]}, "yxyx", TALL),
        ({"response": answer(WIDE)}, "yxyx", TALL),
        (DefectSet.of([WIDE]).to_json(), "yxyx", WIDE),
    ],
    ids=["said", "defects", "response", "detect declares its own"],
)
def test_the_order_of_coordinates(write, line, order, box):
    assert predicted(write, line, order=order) == [DefectSet.of([box])]


def test_the_gate_is_asked_of_the_text(write):
    loose = answer(WIDE, think="")
    sets = predicted(write, {"response": loose}, DefectSet.of([WIDE]).to_json() | {"raw": loose}, {"defects": [WIDE]})
    result = SDGEval(embedder=None).compute(predictions=sets, references=[[WIDE]] * 3)
    assert (result["parse_rate"], result["strict_rate"]) == (1, pytest.approx(1 / 3))


def test_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"defects": []}\r\n\r\n{"error": "x"}\r\n')
    assert [line.where for line in load_predictions(path)] == [f"{path}, line 1", f"{path}, line 3"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"defects": [', r"p\.jsonl, line 2: .* at column 14; a line holds one JSON object"),
        ("[1, 2]", r"line 2: a list; a line holds one JSON object"),
        ("[" * 100_000, r"line 2: .*; a line holds one JSON object"),
        (
            {"id": "b"},
            r"line 2: no prediction: neither defects nor response, raw_response, raw nor an error; got \['id'",
        ),
        ({"defects": {}}, r"line 2: defects=\{\} is not a list; no defect is an empty list"),
        ({"defects": answer(WIDE)}, r"line 2: defects='<think>.* is not a list"),
        ({"response": [WIDE]}, r"line 2: response=\[.* is not text; a list of defects is called defects"),
        ({"defects": [WIDE, [1, 2]]}, r"line 2: defect 1: \[1, 2\] is not an object"),
        ({"defects": [WIDE, {"type": "artifact"}]}, r"line 2: defect 1: box is missing"),
        ({"defects": [one((5, 0, 2, 9))]}, r"line 2: defect 0: box x1=2 is not right of x0=5"),
        ('{"defects": [{"box": [0, NaN, 5, 5], "type": "artifact"}]}', r"line 2: defect 0: box y0=nan is not a finite"),
        ({"defects": [one((0, 0, 5, 5000))]}, r"line 2: defect 0: box y1=5000 is outside 0\.\.1000"),
        ({"defects": [one(type="flaw")]}, r"line 2: defect 0: type='flaw'"),
        ({"defects": [one(importance="high")]}, r"line 2: defect 0: importance='high' is not a number"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(write, line, message):
    with pytest.raises(ValueError, match=message):
        predicted(write, {"defects": []}, line, {"defects": []})


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "p.jsonl holds no line"), (b"\n \n", "p.jsonl holds no line"), (b'{"a": "\xff"}', "is not text in UTF-8")],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_predictions(path)


def test_references_keep_their_own_subtypes(write):
    (line,) = load_references(write("r.jsonl", {"id": 3, "defects": [WIDE | {"subtype": "smear", "extra": 1}]}))
    assert list(line.defects) == [WIDE | {"subtype": "smear"}]
    assert line.fields["id"] == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"response": answer(WIDE)},
            r"r\.jsonl, line 1: no defects; a clean picture has an empty list, and a model's text",
        ),
        ({"error": "x"}, r"line 1: no defects"),
        ({"defects": None}, r"line 1: no defects"),
        (DefectSet(parse_error="cut off").to_json(), r"line 1: a reference that could not be read \(cut off\)"),
        ({"defects": [one((0, 0, 0, 9))]}, r"line 1: defect 0: box x1=0 is not right of x0=0"),
    ],
)
def test_a_reference_that_cannot_be_read_is_an_error(write, line, message):
    with pytest.raises(ValueError, match=message):
        load_references(write("r.jsonl", line))


def aligned(write, predictions, references):
    p = load_predictions(write("p.jsonl", *[{"defects": [], **line} for line in predictions]))
    r = load_references(write("r.jsonl", *[{"defects": [], **line} for line in references]))
    return [line.fields["n"] for line in align(p, r)]


@pytest.mark.parametrize(
    ("predictions", "references", "order"),
    [
        ([{"id": "b"}, {"id": "a"}], [{"id": "a"}, {"id": "b"}], [1, 0]),
        ([{"id": 2}, {"id": "1"}], [{"id": "1"}, {"id": "2"}], [1, 0]),
        ([{"image": "b"}, {"image": "a"}], [{"id": 1, "image": "a"}, {"id": 2, "image": "b"}], [1, 0]),
        ([{"id": 2, "image": "x"}, {"id": 1, "image": "x"}], [{"id": 1}, {"id": 2}], [1, 0]),
        ([{"id": "b"}, {"id": "a"}], [{}, {}], [0, 1]),
        ([{"image": "b"}, {"image": "a"}], [{"id": 1}, {"id": 2}], [0, 1]),
        ([{}, {}], [{}, {}], [0, 1]),
    ],
)
def test_lines_that_belong_together(write, predictions, references, order):
    numbered = [{**line, "n": n} for n, line in enumerate(predictions)]
    assert aligned(write, numbered, references) == order


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([{}], [{}, {}], "1 predictions and 2 references, and no id in both"),
        ([{"id": 1}], [{"image": "a"}, {"image": "b"}], "1 predictions and 2 references, and no id in both"),
        (
            [{"id": "a"}],
            [{"id": "a"}, {"id": "b"}],
            r"^no prediction has the id 'b' of the references \(a picture without an answer is",
        ),
        ([{"id": "a"}, {"id": "c"}], [{"id": "a"}], "^no reference has the id 'c' of the predictions$"),
        ([{"id": "c"}], [{"id": str(k)} for k in range(7)], "'0', '1', '2', '3', '4' and 2 more of the references; no"),
        (
            [{"id": "a"}, {"id": "a"}],
            [{"id": "a"}],
            r"p\.jsonl, line 2: the id 'a' is that of .*p\.jsonl, line 1 already",
        ),
        ([{"id": "a"}], [{"id": 7}, {"id": "7"}], r"r\.jsonl, line 2: the id '7' is that of .*r\.jsonl, line 1"),
        ([{"id": "a"}, {}], [{"id": "a"}, {"id": "b"}], r"p\.jsonl, line 2: no id, though other lines have one"),
        ([{"id": [1]}], [{"id": "a"}], r"p\.jsonl, line 1: id=\[1\] is neither text nor a whole number"),
        ([{"id": True}], [{"id": "a"}], r"line 1: id=True is neither text nor a whole number"),
    ],
)
def test_ids_that_do_not_match_are_named(write, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        aligned(write, predictions, references)


def test_columns(write):
    p = load_predictions(write("p.jsonl", *[{"defects": [], "seed": k, "g": "mine"} for k in range(2)]))
    r = load_references(write("r.jsonl", {"defects": [], "g": "a"}, {"defects": []}))
    assert column("g", r, p) == ["a", None]
    assert column("seed", r, p) == [0, 1]
    with pytest.raises(
        ValueError, match="no line has a field 'generator' to break down by; there are defects, g, seed"
    ):
        column("generator", r, p)
