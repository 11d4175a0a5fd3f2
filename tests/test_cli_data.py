"""``sdg data``: validate, stats, convert and split, on small stand-ins."""

import json
from pathlib import Path

import pytest
from datasets import load_dataset
from PIL import Image
from typer.testing import CliRunner

from sdg import cli
from sdg.microworld import generate
from sdg.readers import read
from sdg.records import write_records
from sdg.splits import normalise


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner(env={"COLUMNS": "160"}).invoke(cli.app, ["data", *map(str, arguments)])


def table(rows, name):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def defect(box=(1, 2, 300, 400), type="artifact", importance=95):
    return {"box": list(box), "type": type, "reason": "it melts", "importance": importance}


@pytest.fixture
def good():
    """Four pictures in JSON lines, one of each composition, of two generators."""
    Image.new("RGB", (64, 48), "grey").save("p.png")
    sets = [[], [defect()], [defect(type="misalignment", importance=50)], [defect(), defect(type="misalignment")]]
    rows = [
        {"id": str(k), "image": "p.png", "caption": f"caption {k}", "generator": "xy"[k % 2], "defects": defects}
        for k, defects in enumerate(sets)
    ]
    table(rows, "good.jsonl")
    return rows


@pytest.fixture
def bad(good):
    """The same with a missing picture, a wrong box, a box that can be mended, and a broken line."""
    rows = [dict(row) for row in good]
    rows[1]["image"] = "missing.png"
    rows[2]["defects"] = [defect(box=(9, 9, 9, 9))]
    rows[3]["defects"] = [defect(box=(1, 2, 300, 1003))]
    table(rows, "bad.jsonl")
    with Path("bad.jsonl").open("a") as file:
        file.write("{broken\n")


class TestValidate:
    def test_nothing_is_wrong(self, good):
        result = run("validate", "good.jsonl")
        assert result.exit_code == 0
        assert "good.jsonl: 4 records with 4 defects, 0 left out, 0 mended" in result.stdout
        assert "layout records, boxes xyxy" in result.stdout
        assert "nothing is wrong" in result.stdout

    def test_what_is_wrong_is_counted_with_examples(self, bad):
        result = run("validate", "bad.jsonl", "--json", "report.json")
        assert result.exit_code == 1
        for words in ("missing image", "degenerate box", "box out of range", "broken line", "bad.jsonl, line 3 (2)"):
            assert words in result.stdout
        found = json.loads(Path("report.json").read_text())
        assert (found["source"], found["layout"], found["order"]) == ("bad.jsonl", "records", "xyxy")
        assert (found["n_records"], found["n_skipped"], len(found["problems"])) == (1, 4, 4)

    def test_json_alone_goes_to_a_pipe(self, bad):
        result = run("validate", "bad.jsonl", "--policy", "mend", "--json", "-")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["n_mended"] == 1

    def test_the_first_problem_ends_it_where_it_is_asked_to(self, bad):
        result = run("validate", "bad.jsonl", "--policy", "raise")
        assert result.exit_code == 1
        assert "bad.jsonl, line 2 (1): missing image" in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["nothing.jsonl"], "no file or folder of that name"),
            (["good.jsonl", "--layout", "nice"], "layout='nice' is none of"),
            (["good.jsonl", "--order", "yxyx"], "order='yxyx' contradicts"),
            (["good.jsonl", "--order", "zyx"], "zyx"),
            (["good.jsonl", "--policy", "ignore"], "ignore"),
            (["good.jsonl", "--json", "no/r.json"], "the folder no does not exist"),
            (["text.md"], "in no layout that is known"),
        ],
    )
    def test_wrong_usage(self, good, arguments, said):
        Path("text.md").write_text("x")
        result = run("validate", *arguments)
        assert result.exit_code == 2
        assert said in " ".join(result.output.replace("│", " ").split())


class TestStats:
    def test_tables_json_and_plot(self, good):
        result = run("stats", "good.jsonl", "--json", "stats.json", "--plot", "stats.png")
        assert result.exit_code == 0
        assert "4 pictures, 4 defects (2 of type artifact, 2 of type misalignment)" in result.stdout
        rows = [" ".join(line.replace("│", " ").split()) for line in result.stdout.splitlines()]
        for row in ("misalignment only 1 25.0 %", "2 25.0 % 0.0 % 0.0 %", "mean 1.00 0.50 0.50"):
            assert row in rows
        assert "x 2 1 0.0 % 0.0 % 100.0 % 0.0 % 0.0 %" in rows
        found = json.loads(Path("stats.json").read_text())
        assert found["importance_by_generator"]["y"]["tiers"]["critical"] == 3
        assert Image.open("stats.png").width > 1000

    def test_what_is_left_out_is_said(self, bad):
        result = run("stats", "bad.jsonl")
        assert result.exit_code == 0
        assert "Warning: 3 records left out (" in result.stderr

    def test_pictures_that_nobody_looked_at_are_not_clean(self):
        Path("pics").mkdir()
        Image.new("RGB", (64, 48)).save("pics/a.png")
        result = run("stats", "pics")
        assert result.exit_code == 2
        assert "pics: a picture without annotation cannot be counted: nobody looked" in result.stderr

    def test_many_defects_share_a_row(self):
        Image.new("RGB", (64, 48)).save("p.png")
        table([{"id": "1", "image": "p.png", "defects": [defect((k, k, k + 9, k + 9)) for k in range(14)]}], "m.jsonl")
        rows = run("stats", "m.jsonl").stdout.replace("│", " ").splitlines()
        assert [*map(str.split, rows)].count(["10", "or", "more", "100.0", "%", "100.0", "%", "0.0", "%"]) == 1


class TestConvert:
    @pytest.mark.parametrize(
        ("form", "out"), [("parquet", "c.parquet"), ("parquet", "parts"), ("imagefolder", "pics"), ("jsonl", "c.jsonl")]
    )
    def test_every_form_is_read_again(self, good, form, out):
        result = run("convert", "good.jsonl", out, "--to", form)
        assert result.exit_code == 0, result.output
        assert f"{out} written: 4 records" in result.stderr
        before, after = list(read("good.jsonl")), list(read(out))
        assert [(r.id, r.caption, r.defects, r.generator) for r in after] == [
            (r.id, r.caption, r.defects, r.generator) for r in before
        ]
        assert [r.image.tobytes() for r in after] == [r.image.tobytes() for r in before]
        assert not list(Path().glob(".*"))

    def test_a_failure_leaves_nothing_and_replaces_nothing(self, bad):
        run("convert", "good.jsonl", "c.parquet")
        before = Path("c.parquet").read_bytes()
        result = run("convert", "bad.jsonl", "c.parquet", "--overwrite")
        assert result.exit_code == 2
        assert "policy='skip' leaves such records out" in result.stderr
        assert Path("c.parquet").read_bytes() == before
        assert not list(Path().glob(".*"))
        assert run("convert", "bad.jsonl", "c.parquet", "--overwrite", "--policy", "mend").exit_code == 0
        assert [r.id for r in read("c.parquet")] == ["0", "3"]

    @pytest.mark.parametrize(
        ("out", "said"),
        [("good.jsonl", "exists already: write elsewhere"), ("no/c.jsonl", "the folder no does not exist")],
    )
    def test_places_that_are_refused(self, good, out, said):
        result = run("convert", "good.jsonl", out, "--to", "jsonl")
        assert result.exit_code == 2
        assert said in " ".join(result.output.replace("│", " ").split())


class TestSplit:
    @pytest.fixture
    def records(self):
        """Forty pictures of ten prompts, each written in four ways."""
        ways = (str.lower, str.upper, "  {} ".format, "\t{}\n".format)
        records = [
            record.replace(caption=ways[k % 4](f"prompt {k // 4}"), split=None)
            for k, record in enumerate(generate(40, 1))
        ]
        write_records(records, "all.parquet")
        return records

    @pytest.mark.parametrize("form", ["parquet", "imagefolder", "jsonl"])
    def test_no_prompt_stands_in_two_splits(self, records, form):
        asked = ["split", "all.parquet", "out", "--validation", "0.2", "--test", "0.3", "--to", form]
        result = run(*asked)
        assert result.exit_code == 0, result.output
        assert "out/train: 20 records" in result.stderr
        parts = {name: list(read("out", split=name)) for name in ("train", "validation", "test")}
        assert {name: len(part) for name, part in parts.items()} == {"train": 20, "validation": 8, "test": 12}
        prompts = [{normalise(r.caption) for r in part} for part in parts.values()]
        assert sum(map(len, prompts)) == len(set.union(*prompts)) == 10
        true = {r.id: r for r in records}
        for r in (r for part in parts.values() for r in part):
            assert (r.caption, r.defects) == (true[r.id].caption, true[r.id].defects)
            assert r.image.tobytes() == true[r.id].image.tobytes()
        first = {name: [r.id for r in part] for name, part in parts.items()}
        assert run(*asked, "--overwrite").exit_code == 0
        assert {name: [r.id for r in read("out", split=name)] for name in parts} == first
        assert run(*asked, "--overwrite", "--seed", "1").exit_code == 0
        assert {name: [r.id for r in read("out", split=name)] for name in parts} != first

    def test_datasets_finds_the_splits(self, records):
        run("split", "all.parquet", "out", "--validation", "0", "--test", "0.3")
        found = load_dataset("out", cache_dir="cache")
        assert {name: part.num_rows for name, part in found.items()} == {"train": 28, "test": 12}

    def test_records_that_are_left_out_stay_out(self, bad):
        assert run("split", "bad.jsonl", "out", "--validation", "0", "--test", "0.5", "--policy", "mend").exit_code == 0
        assert sorted(r.id for r in read("out")) == ["0", "3"]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--train", "0.5"], "train 0.5 + validation 0.05 + test 0.05 is 0.6"),
            (["--validation", "0.7", "--test", "0.7"], "--validation 0.7 and --test 0.7 are more than all"),
            (["--test", "0.01"], "is no record at all"),
            (["--test", "2"], "--test"),
        ],
    )
    def test_shares_that_are_refused(self, records, arguments, said):
        result = run("split", "all.parquet", "out", *arguments)
        assert result.exit_code == 2
        assert said in " ".join(result.output.replace("│", " ").split())
        assert [p.name for p in Path().iterdir()] == ["all.parquet"]


@pytest.mark.parametrize("command", ["validate", "stats", "convert", "split"])
def test_help_has_examples(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"sdg data {command} " in result.output
