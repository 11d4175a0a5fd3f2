"""Every figure in a card is that of its file of results, which says what made it."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

import sdg

ROOT = Path(sdg.__file__).parents[1]
CARDS = sorted((ROOT / "model_cards").glob("*.md"))
RESULTS = sorted((ROOT / "benchmarks" / "results").rglob("*.json"))
BEFORE = {"boxflow/settings.json"}
"""Files of which no history says which code was run for them."""

spec = importlib.util.spec_from_file_location("benchmarks_cards", ROOT / "benchmarks" / "cards.py")
cards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cards)

TABLE = "<!-- figures: a.json#metrics; b.json#metrics -->\n| metric | first | second |\n|---|---|---|\n"
CURVE = "<!-- figures: curve.jsonl by pictures -->\n| seen | artifact BoxF1@0.5 |\n|---|---|\n"


@pytest.fixture
def root(tmp_path):
    first = {"artifact/box_f1@0.5": 0.97484, "artifact/box_f1@0.5/ci": [0.96512, 0.98401], "parse_rate": 1.0}
    (tmp_path / "a.json").write_text(json.dumps({"metrics": first, "kinds": {"smear": [9, 10]}}))
    (tmp_path / "b.json").write_text(json.dumps({"metrics": first | {"artifact/box_f1@0.5": 0.5}}))
    lines = [{"pictures": 19200, "artifact/box_f1@0.5": 0.018}, {"pictures": 38400, "artifact/box_f1@0.5": 0.177}]
    (tmp_path / "curve.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_the_figures_of_a_card_are_those_of_its_files(path):
    text = path.read_text(encoding="utf-8")
    assert cards.refreshed(text) == text


@pytest.mark.parametrize(
    "path", [p for p in CARDS if p.stem in ("sdg-tiny", "sdg-tiny-t2i")], ids=lambda path: path.stem
)
def test_a_changed_figure_is_noticed_in_every_table(path):
    """Each figure of each table, one at a time, is made another one."""
    text = path.read_text(encoding="utf-8")
    found = [m for m in re.finditer(r"(?<=[ |\[])\d\.\d{2,3}(?=[ ,\]])", text) if "|" in _line(text, m.start())]
    assert len(found) > 15
    for match in found:
        other = f"{9.9 - float(match[0]):.{len(match[0]) - 2}f}"
        assert cards.refreshed(text[: match.start()] + other + text[match.end() :]) == text, match[0]


def test_a_changed_figure_of_the_head_is_noticed():
    text = (ROOT / "model_cards" / "sdg-tiny.md").read_text(encoding="utf-8")
    value = re.search(r"value: (0\.\d+)", text)[1]
    assert cards.refreshed(text.replace(f"value: {value}", "value: 0.999", 1)) == text


def _line(text, place):
    return text[text.rfind("\n", 0, place) : text.find("\n", place)]


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        (
            TABLE + "| artifact BoxF1@0.5 | 0.1 [0.11, 0.2] | 0.123 |\n",
            "| artifact BoxF1@0.5 | 1.0 [0.97, 1.0] | 0.500 |",
        ),
        (TABLE + "| artifact BoxF1@0.5 |  | 0.5 |\n", "| artifact BoxF1@0.5 |  | 0.5 |"),
        (TABLE + "| parse rate | 0.000 | 0.000 |\n", "| parse rate | 1.000 | 1.000 |"),
        ("<!-- figures: a.json#kinds -->\n| kind | found | of |\n|---|---|---|\n| smear | 0.11 | 3 |\n", "0.90 | 10 |"),
        (CURVE + "| 38,400 | 0.999 |\n", "| 38,400 | 0.177 |"),
    ],
)
def test_figures_come_from_the_file_in_as_many_decimals_as_are_shown(root, text, filled):
    out = cards.refreshed(text, root)
    assert filled in out
    assert cards.refreshed(out, root) == out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("| a | b |\n|---|---|\n| x | 0.5 |\n", "no comment says from which file"),
        ("It has 0.123 of all.\n", "0.123 in .* has no comment"),
        ("<!-- figures: a.json -->\nIt has 0.123 of all.\n", "0.123 in .* is not in a.json"),
        ("<!-- figures: a.json -->\nIt has 96 % of all.\n", "96 in .* is not in a.json"),
        (TABLE + "| artifact Beauty | 0.5 | 0.5 |\n", "'artifact Beauty' is none of"),
        (TABLE + "| parse rate | 1.0 |\n", "has 2 cells"),
        (TABLE + "| parse rate | 1.0 [0.9, 1.0] | 1.0 |\n", "0.9 is a figure that the file does not have"),
        (CURVE + "| 99 | 0.5 |\n", "0 lines with pictures=99"),
        (TABLE.replace("; b.json#metrics", "; b.json#none"), "b.json has no none"),
        (TABLE.replace("; b.json#metrics", "; a.json; b.json") + "| a | 1.0 | 1.0 |\n", "3 files for 2 columns"),
    ],
)
def test_a_figure_that_no_file_has_is_refused(root, text, words):
    with pytest.raises(cards.CardError, match=words):
        cards.refreshed(text, root)


def test_paragraphs_with_their_files_pass(root):
    text = "<!-- figures: a.json; curve.jsonl -->\nOf `0.999 pictures` it has 0.975, 0.018 and 97 %.\n"
    assert cards.refreshed(text, root) == text


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_results_say_what_made_them(path):
    found = json.loads(path.read_text(encoding="utf-8"))
    if f"{path.parent.name}/{path.name}" in BEFORE and "commit" not in found:
        pytest.skip("older than the rule")
    assert re.fullmatch(r"python (-m )?[\w/.]+( .+)?", found["command"])
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?", found["commit"])
