import json

import pytest
from defect_cases import one

from sdg.evaluation import SDGEval
from sdg.evaluation.scoring import read_lines, score_lines


def written(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("fields", "columns"),
    [
        ([{}, {}, {}, {}], []),
        ([{"generator": g} for g in "xyxy"], ["generator"]),
        ([{"seed": g} for g in (1, 1, 2, None)], []),  # three values among four lines
        ([{"seed": g} for g in (1, 1, None, None)], ["seed"]),
        ([{"generator": "x"}] * 4, []),
        ([{"caption": g, "tags": [g]} for g in "xyxy"], []),
    ],
)
def test_fields_of_few_values_are_offered_as_break_downs(fields, columns, tmp_path):
    lines = [{"id": str(k), "defects": [], **field} for k, field in enumerate(fields)]
    path = written(tmp_path / "r.jsonl", lines)
    assert read_lines({"predictions": path}, path).columns() == columns


def test_tier_and_subtype_are_offered_where_the_references_have_them(tmp_path):
    rated = {"box": [0, 0, 9, 9], "type": "artifact", "reason": "", "importance": 5, "subtype": "melted"}
    bare = {"box": [0, 0, 9, 9], "type": "artifact"}
    for defect, columns in ((rated, ["tier", "subtype"]), (bare, [])):
        path = written(tmp_path / "r.jsonl", [{"defects": [defect]}])
        assert read_lines({"predictions": path}, path).columns() == columns


def test_exchanged_coordinates_are_found_by_set(tmp_path):
    boxes = [(0, 10 * k, 900, 10 * k + 100) for k in range(8)]
    truth = written(tmp_path / "r.jsonl", [{"defects": [one(box)]} for box in boxes])
    swapped = written(tmp_path / "s.jsonl", [{"defects": [one((b[1], b[0], b[3], b[2]))]} for b in boxes])
    sets = {"predictions": truth, "against": swapped}
    names = {"predictions": "good", "against": "bad"}
    scored = score_lines(read_lines(sets, truth), SDGEval(None), names)
    assert scored.transposed == {"against": (0, 8)}
    assert score_lines(read_lines({"predictions": swapped}, truth, "yxyx"), SDGEval(None), names).transposed == {}
