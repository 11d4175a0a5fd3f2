import json
import math

import pytest
from defect_cases import one, toy
from rich.console import Console

from sdg.embedding import PAPER
from sdg.evaluation import TABLE_2, TABLE_3, Report, SDGEval, by_tier, image_level, to_json
from sdg.evaluation.compare import Difference
from sdg.evaluation.report import Grid, all_metrics, comparison_table, recall_table, table_2, table_3, with_published

NAN = math.nan
FAR = one((900, 900, 950, 950))
REFERENCES = [[one()], [one(type="misalignment"), FAR], [], [one()]]
SETS = {
    "predictions": [[one(reason="bb", importance=40)], [FAR], [], "no idea"],
    "against": [[FAR], [one(type="misalignment")], [FAR], [one()]],
}
NAMES = {"predictions": "new.jsonl", "against": "old.jsonl"}
RESULT = SDGEval(embedder=toy, ci=0.95).compute(predictions=SETS["predictions"], references=REFERENCES)


def tables(**options):
    return SDGEval(**{"embedder": toy, **options}).count_each(SETS, REFERENCES)


def parsed(markdown):
    """Cells of the rows of the Markdown table, header first."""
    rows = [line for line in markdown.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def printed(grid, width=160):
    console = Console(width=width, record=True, file=None, no_color=True)
    with console.capture() as shown:
        console.print(grid.rich())
    return shown.get()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": NAN, "b": [1.5, NAN], "c": math.inf}, {"a": None, "b": [1.5, None], "c": None}),
        ({"d": Difference(1.0, 0.5, 0.5, NAN, 1.0, 0.01), "n": 3, "s": "é", "none": None}, None),
        ([], []),
    ],
)
def test_json_has_null_for_what_is_undefined(value, text):
    written = to_json(value)
    assert "NaN" not in written
    assert "Infinity" not in written
    read = json.loads(written)
    if text is None:
        fields = {"value": 1, "against": 0.5, "difference": 0.5, "low": None, "high": 1, "p_value": 0.01}
        assert read == {"d": fields, "n": 3, "s": "é", "none": None}
    else:
        assert read == text


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [
        ("GPT-5.4, zero-shot", "artifact/box_f1@0.5", 0.035),
        ("GPT-5.4, zero-shot", "misalignment/imp_acc@0.1", 0.820),
        ("Gemini 3 Pro, zero-shot", "artifact/cln_acc", 0.076),
        ("Gemini 3 Pro, zero-shot", "misalignment/desc_cos@0.1", 0.891),
        ("SDG (SFT)", "artifact/det_type_f1", 0.776),
        ("SDG (SFT)", "misalignment/box_f1@0.1", 0.499),
        ("SDG (GRPO)", "artifact/desc_cos@0.1", 0.904),
        ("SDG (GRPO)", "misalignment/box_f1@0.5", 0.387),
        ("human", "artifact/box_f1@0.5", 0.278),
        ("human", "misalignment/cln_acc", 0.818),
    ],
)
def test_published_rows(model, key, value):
    assert TABLE_2[model][key] == value


def test_published_rows_have_the_keys_of_results():
    assert all(set(row) <= set(RESULT) for row in TABLE_2.values())
    assert {model: len(row) for model, row in TABLE_2.items() if len(row) < 12} == {"human": 8}
    assert list(TABLE_3["SDG"].values()) == [0.970, 0.698, 0.812, 0.951, 0.500, 0.655]
    assert set(TABLE_3["SDG"]) == set(image_level(tables()["predictions"]))
    for row in TABLE_3.values():  # a published F1 is that of the published precision and recall
        for t in ("artifact", "misalignment"):
            p, r, f1 = (row[f"{t}/image_{name}"] for name in ("precision", "recall", "f1"))
            assert f1 == pytest.approx(2 * p * r / (p + r), abs=0.001)


def test_ones_own_row_stands_below_the_published_ones():
    artifact, misalignment = with_published({"mine": RESULT})
    header, *rows = parsed(artifact.markdown())
    assert header == ["model", "DetTypeF1", "ClnAcc", "BoxF1@0.1", "BoxF1@0.5", "DescCos@0.1", "ImpAcc@0.1"]
    assert [row[0] for row in rows] == [*(f"{model} *" for model in TABLE_2), "mine"]
    assert rows[0][1:] == ["0.736", "0.118", "0.237", "0.035", "0.868", "0.812"]
    assert rows[4][1:] == ["0.792", "0.774", "0.462", "0.278", "-", "-"]
    assert rows[5][1:] == ["0.800", "1.000", "0.800", "0.800", "0.800", "0.950"]
    assert parsed(misalignment.markdown())[-1][1:] == ["0.000", "1.000", "0.000", "0.000", "undefined", "undefined"]


@pytest.mark.parametrize(("embedder", "warned"), [("toy", True), (PAPER, False), (None, False)])
def test_desc_cos_of_another_embedder_is_not_to_be_compared(embedder, warned):
    notes = with_published({"mine": RESULT | {"embedder": embedder}})[-1].notes
    assert any("DescCos" in note and "not to be compared" in note for note in notes) is warned
    assert "1,151" in notes[0]


def test_every_metric_has_its_interval():
    grid = all_metrics("mine", RESULT)
    cells = dict(zip([row[0] for row in grid.rows], grid.rows, strict=True))
    low, high = RESULT["artifact/box_f1@0.5/ci"]
    assert cells["BoxF1@0.5"] == ("BoxF1@0.5", f"0.800 [{low:.3f}, {high:.3f}]", "0.000 [0.000, 0.000]")
    assert cells["DescCos@0.1"][2] == "undefined"
    assert len(cells) == 10
    assert "Parse rate 0.750 [" in grid.notes[0]
    assert grid.notes[1] == "Reasons compared by toy."
    without = SDGEval(embedder=None).compute(predictions=[[]], references=[[]])
    assert all_metrics("mine", without).notes[1].startswith("DescCos is undefined: no embedder was asked for")


def test_layout_of_table_3():
    (artifact, _) = table_3({"SDG": TABLE_3["SDG"], "mine": image_level(tables()["predictions"])})
    assert parsed(artifact.markdown()) == [
        ["model", "precision", "recall", "F1"],
        ["SDG", "0.970", "0.698", "0.812"],
        ["mine", "1.000", "0.667", "0.800"],
    ]


def test_recall_table_leaves_out_parts_without_references():
    counts = SDGEval(embedder=None).count(
        predictions=[[one()], []], references=[[one(importance=95)], [one(type="misalignment")]]
    )
    assert recall_table("by tier", by_tier(counts)).rows == (
        ("artifact, critical", "1", "1.000", "1.000"),
        ("misalignment, moderate", "1", "0.000", "0.000"),
    )


def test_comparison_table():
    differences = {
        "artifact/box_f1@0.5": Difference(0.5, 0.75, -0.25, -0.4, 0.1, 0.0312),
        "misalignment/desc_cos@0.1": Difference(NAN, 0.5, NAN, NAN, NAN, NAN),
        "parse_rate": Difference(1.0, 0.5, 0.5, 0.4, 0.6, 1 / 10_001),
    }
    grid = comparison_table("new", "old", differences)
    assert grid.rows == (
        ("artifact BoxF1@0.5", "0.500", "0.750", "-0.250 [-0.400, 0.100]", "0.0312"),
        ("misalignment DescCos@0.1", "undefined", "0.500", "undefined", "undefined"),
        ("parse rate", "1.000", "0.500", "+0.500 [0.400, 0.600]", "0.0001"),
    )
    assert "not corrected for looking at 3 metrics" in grid.notes[0]


def test_names_do_not_break_a_table():
    grid = Grid("a|b", ("x", "y@0.1"), (("[red]<b>|\n", "1.000 [0.900, 1.000]"),), ("n<1",))
    assert grid.markdown().splitlines() == [
        "### a\\|b",
        "",
        "| x | y@0.1 |",
        "| --- | ---: |",
        "| [red]&lt;b>\\|  | 1.000 [0.900, 1.000] |",
        "",
        "n&lt;1",
    ]
    shown = printed(grid)
    assert "[red]<b>|" in shown
    assert "[0.900, 1.000]" in shown


def test_a_terminal_of_80_columns_holds_the_paper_s_layout():
    shown = printed(table_2({"a rather long name of a model": RESULT})[0], width=80)
    assert all(word in shown for word in ("DetTypeF1", "ClnAcc", "BoxF1", "DescCos", "ImpAcc", "@0.1", "@0.5"))
    assert "0.800" in shown


@pytest.mark.parametrize("ci", [0.9, None])
def test_a_report_says_what_its_parts_say(ci):
    counts = tables()
    columns = {"generator": ["a", "b", "a", "b"], "tier": None, "subtype": None}
    report = Report.of(counts, NAMES, columns, ci)
    read = json.loads(report.to_json())
    assert set(read) == {"names", "matching", "ci", "results", "image_level", "comparison", "by"}
    assert (read["names"], read["matching"], read["ci"]) == (NAMES, "hungarian", ci)
    for key, predictions in SETS.items():
        alone = SDGEval(embedder=toy, ci=ci).compute(predictions=predictions, references=REFERENCES)
        assert read["results"][key] == json.loads(to_json(alone))
    assert read["comparison"]["parse_rate"]["difference"] == -0.25
    assert read["by"]["generator"]["predictions"]["a"]["n_images"] == 2
    assert read["by"]["tier"]["against"]["moderate"]["artifact/n_true"] == 3
    assert read["by"]["subtype"]["predictions"]["not given"]["misalignment/n_true"] == 1

    text = report.markdown()
    assert text.startswith("## SDG-Eval of new.jsonl against old.jsonl\n")
    assert ("Intervals: 90 %" in text) is (ci is not None)
    for title in ("new.jsonl: every metric", "old.jsonl by generator: artifact", "new.jsonl by tier", "Image level"):
        assert f"### {title}" in text
    assert "| a (2 images) |" in text


def test_a_report_of_one_set_compares_nothing():
    report = Report.of({"predictions": tables()["predictions"]}, NAMES, ci=None)
    assert report.comparison is None
    assert report.by == {}
    assert "against" not in "".join(grid.title for grid in report.grids())
