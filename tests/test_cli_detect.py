"""``sdg detect`` over many pictures: where they come from, files of results, going on after a stop."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from naughty_server import NaughtyServer, error, said, text_of
from PIL import Image
from pyarrow import parquet
from scripted_detector import ANSWERS, ScriptedDetector
from typer.testing import CliRunner

import sdg
from sdg import cli
from sdg.cli import progress, shared
from sdg.defects import Defect, DefectSet
from sdg.evaluation import files

NAMES = ["a.png", "b.png", "c.png"]
LOAD = shared.load_detector
URL = "http://localhost:8000/v1"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pics").mkdir()
    for name in NAMES:
        Image.new("RGB", (64, 48), "grey").save(Path("pics", name))
    return tmp_path


@pytest.fixture(autouse=True)
def detector(monkeypatch):
    made = ScriptedDetector()
    made.made_for, made.loaded = None, 0

    def load(*arguments, **options):
        made.loaded += 1
        made.asked = (*arguments, options)
        return made

    monkeypatch.setattr(shared, "load_detector", load)
    return made


def run(*arguments):
    return CliRunner(env={"COLUMNS": "160"}).invoke(cli.app, ["detect", *map(str, arguments)])


def lines(path="r.jsonl"):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def table(*rows, name="t.jsonl"):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class TestSources:
    def test_a_folder(self):
        result = run("pics", "--caption", "clean", "--json")
        assert result.exit_code == 0
        assert [json.loads(line)["image"] for line in result.stdout.splitlines()] == NAMES

    def test_captions_beside_the_pictures(self):
        Path("pics/a.txt").write_text("a red house")
        Path("pics/c.txt").write_text("clean")
        assert run("pics", "--out", "r.jsonl").exit_code == 0
        assert [(x["image"], x["caption"], "id" in x) for x in lines()] == [
            ("a.png", "a red house", False),
            ("b.png", None, False),
            ("c.png", "clean", False),
        ]

    def test_a_table_of_captions(self):
        table({"image": "pics/b.png", "caption": "clean", "id": "7"}, {"image": "pics/a.png", "generator": "x"})
        assert run("--captions", "t.jsonl", "--out", "r.jsonl").exit_code == 0
        first, second = lines()
        assert (first["id"], first["image"], first["caption"], first["defects"]) == ("7", "pics/b.png", "clean", [])
        assert (second["generator"], second["caption"], len(second["defects"])) == ("x", None, 2)

    def test_a_table_whose_paths_are_relative_to_a_folder(self):
        table({"image": "b.png", "caption": "clean"})
        assert run("pics", "--captions", "t.jsonl").exit_code == 0

    def test_a_table_that_names_a_missing_picture_is_no_end(self):
        table({"image": "no.png", "caption": "clean"}, {"image": "pics/a.png", "caption": "clean"})
        assert run("--captions", "t.jsonl", "--out", "r.jsonl").exit_code == 1
        assert ["error" in line for line in lines()] == [True, False]

    def test_lines_of_captions(self):
        Path("t.txt").write_text("clean\na red house\n\n")
        assert run("pics", "--captions", "t.txt", "--out", "r.jsonl").exit_code == 0
        assert [len(line["defects"]) for line in lines()] == [0, 2, 2]
        assert [line["caption"] for line in lines()] == ["clean", "a red house", None]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "Missing argument: give pictures"),
            (["pics", "--caption", "x", "--captions", "t.jsonl"], "give one of them"),
            (["pics/a.png", "--captions", "t.jsonl"], "lists the pictures itself"),
            (["pics", "--captions", "t.md"], "ends in none of .jsonl, .csv, .tsv, .txt"),
            (["pics", "--captions", "t.txt"], "2 lines for 3 pictures"),
            (["--captions", "t.jsonl"], "line 1: no picture"),
            (["--captions", "missing.jsonl"], "does not exist"),
            (["empty"], "holds no picture"),
            (["pics", "--out", "r.csv"], "neither in .jsonl nor in .parquet"),
            (["pics", "--out", "no/r.jsonl"], "the folder no does not exist"),
            (["pics", "--out", "d.jsonl"], "is a folder"),
            (["pics", "--out", "pics/r.jsonl"], "--out pics/r.jsonl lies in pics, which is read"),
            (["pics", "--overlay", "pics/marked"], "--overlay pics/marked lies in pics"),
            (["t.jsonl"], "a table of captions is given as --captions"),
            (["pics", "--layout", "x"], "layout='x' is none of "),
            (["pics", "more", "--split", "test"], "are for one data set; there are 2"),
            (["no/such", "--out", "r.jsonl"], "no/such is no file or folder here, and could not be fetched"),
            (["pics", "--overwrite"], "--out, which is not given"),
            (["pics", "--retry"], "--out, which is not given"),
            (["pics", "--concurrency", "4"], "--endpoint, which is not given"),
            (["pics", "--endpoint", "http://me:key@host/v1", "--out", "r.jsonl"], "a key goes into SDG_API_KEY"),
            (
                ["pics", "--endpoint", "http://host/v1", "--min-confidence", "0.5"],
                "answers of an --endpoint carry none",
            ),
            (["pics", "--workers", "4"], "--ray, which is not given"),
            (["pics", "--ray", "--overlay", "marked"], "they stay with the workers"),
        ],
    )
    def test_wrong_usage(self, detector, arguments, said):
        table({"picture": "a.png"})
        table("x", "y", name="t.txt")
        table(name="t.md")
        Path("empty").mkdir()
        Path("d.jsonl").mkdir()
        result = run(*arguments)
        assert (result.exit_code, detector.loaded) == (2, 0)
        assert said in " ".join(result.output.replace("│", " ").split())
        assert not Path("r.jsonl").exists()


class TestDataSets:
    @pytest.fixture
    def snapshot(self):
        """A stand-in of SDG-30K: boxes that nobody said the order of, a broken line, a missing picture."""
        Path("set/annotations").mkdir(parents=True)
        Path("set/images").mkdir()
        Image.new("RGB", (64, 48)).save("set/images/a.png")
        rows = [
            {"filepath": "images/a.png", "caption": "clean", "model": "x", "gt_artifact_bboxes": [{"box_2d": [9] * 4}]},
            {"filepath": "images/no.png", "caption": "clean", "gt_artifact_bboxes": []},
            {"caption": "clean", "id": 5, "gt_artifact_bboxes": []},
        ]
        table(*rows, name="set/annotations/test.jsonl")
        table(*rows[:1], name="set/annotations/train.jsonl")
        with Path("set/annotations/test.jsonl").open("a") as file:
            file.write("{broken\n")

    def test_what_is_wrong_with_its_defects_is_no_matter(self, snapshot):
        assert run("set", "--out", "r.jsonl", "--split", "train").exit_code == 0
        (line,) = lines()
        assert (line["image"], line["generator"], line["caption"], line["defects"]) == (
            "images/a.png",
            "x",
            "clean",
            [],
        )

    def test_what_is_wrong_with_its_pictures_is_a_line(self, snapshot):
        result = run("set", "--out", "r.jsonl", "--split", "test")
        assert result.exit_code == 1
        good, missing, unnamed, broken = lines()
        assert "error" not in good
        assert "is not a file" in missing["error"]
        assert (unnamed["id"], unnamed["error"]) == ("5", "no picture named")
        assert "no JSON" in broken["error"]
        assert run("set", "--out", "all.jsonl").exit_code == 1
        assert len(lines("all.jsonl")) == 5

    def test_records_in_parquet(self, detector):
        from sdg.microworld import generate
        from sdg.records import to_dataset

        records = list(generate(3, 1))
        to_dataset(records).to_parquet("world.parquet")
        assert run("world.parquet", "--out", "r.jsonl").exit_code == 0
        assert [(x["id"], x["caption"], x["generator"]) for x in lines()] == [
            (r.id, r.caption, "microworld") for r in records
        ]
        run("world.parquet", "--out", "r.jsonl")
        assert (len(lines()), detector.loaded) == (3, 1)
        result = run("world.parquet", "--out", "s.jsonl", "--split", "test")
        assert result.exit_code == 2
        assert "no record of split 'test'; there are train" in result.stderr

    def test_a_data_set_of_the_hub(self, snapshot, monkeypatch):
        import huggingface_hub

        monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo_id, **options: "set")
        assert run("owner/name", "--split", "train", "--out", "r.jsonl").exit_code == 0
        assert lines()[0]["image"] == "images/a.png"


class TestResults:
    def test_what_is_written_is_read_as_predictions(self):
        Path("pics/bad.png").write_text("no picture")
        captions = {"a.png": "a red house", "b.png": "clean", "bad.png": "clean", "c.png": "unreadable"}
        table(*({"image": f"pics/{n}", "id": n[0], "caption": c} for n, c in list(captions.items())[:2]))
        with Path("t.jsonl").open("a") as file:
            file.writelines(
                json.dumps({"image": f"pics/{n}", "id": n, "caption": captions[n]}) + "\n" for n in ("bad.png", "c.png")
            )
        result = run("--captions", "t.jsonl", "--out", "r.jsonl")
        assert result.exit_code == 1
        assert "2 of 4 pictures failed" in result.stderr
        assert "r.jsonl: 4 pictures" in result.stderr
        references = [{"id": i, "defects": []} for i in ("c.png", "b", "a", "bad.png")]
        table(*references, name="truth.jsonl")
        found = files.align(files.load_predictions("r.jsonl"), files.load_references("truth.jsonl"))
        assert [(len(p.defects), p.defects.parse_error is not None) for p in found] == [
            (0, True),
            (0, False),
            (2, False),
            (0, True),
        ]

    def test_tables_are_left_to_the_terminal_and_lines_to_the_file(self):
        result = run("pics", "--caption", "a red house", "--out", "r.jsonl")
        assert result.stdout == ""
        both = run("pics", "--caption", "a red house", "--out", "again.jsonl", "--json")
        assert both.stdout == Path("again.jsonl").read_text() == Path("r.jsonl").read_text()

    def test_a_job_that_is_done_needs_no_model(self, detector):
        assert run("pics", "--caption", "clean", "--out", "r.jsonl").exit_code == 0
        before = Path("r.jsonl").read_bytes()
        result = run("pics", "--caption", "clean", "--out", "r.jsonl")
        assert (result.exit_code, detector.loaded) == (0, 1)
        assert "3 pictures (3 were there already)" in result.stderr
        assert Path("r.jsonl").read_bytes() == before

    def test_only_what_is_new_is_looked_at(self, detector):
        run("pics", "--caption", "clean", "--out", "r.jsonl")
        Image.new("RGB", (64, 48)).save("pics/aa.png")
        run("pics", "--caption", "clean", "--out", "r.jsonl")
        assert [line["image"] for line in lines()] == [*NAMES, "aa.png"]
        assert detector.calls == [3, 1]

    def test_failures_of_a_run_before_are_failures_of_the_job(self):
        run("pics/missing.png", "--caption", "clean", "--out", "r.jsonl")
        result = run("pics/missing.png", "--caption", "clean", "--out", "r.jsonl")
        assert result.exit_code == 1
        assert "1 of those that were there already failed; --retry" in result.stderr
        Image.new("RGB", (64, 48)).save("pics/missing.png")
        assert run("pics/missing.png", "--caption", "clean", "--out", "r.jsonl", "--retry").exit_code == 0
        assert [line["image"] for line in lines()] == ["pics/missing.png"]

    def test_another_model_is_refused(self, detector):
        run("pics", "--caption", "clean", "--out", "r.jsonl")
        result = run("pics", "--caption", "clean", "--out", "r.jsonl", "--model", "P1n3/sdg-detector-grpo")
        assert (result.exit_code, detector.loaded) == (2, 1)
        assert "begun with other settings (model 'sdg-tiny', now 'P1n3/sdg-detector-grpo')" in result.output
        again = [*("pics", "--caption", "clean", "--out", "r.jsonl", "--model", "other"), "--overwrite"]
        assert run(*again).exit_code == 0
        assert (len(lines()), detector.loaded) == (3, 2)

    def test_a_local_model_is_the_same_by_any_path(self, monkeypatch):
        Path("m").mkdir()
        run("pics", "--caption", "clean", "--out", "r.jsonl", "--model", "m")
        assert run("pics", "--caption", "clean", "--out", "r.jsonl", "--model", Path("m").resolve()).exit_code == 0

    def test_lines_of_other_captions_are_named(self):
        run("pics", "--caption", "clean", "--out", "r.jsonl")
        result = run("pics", "--caption", "a red house", "--out", "r.jsonl")
        assert (result.exit_code, len(lines())) == (0, 6)
        assert "r.jsonl has 3 lines of other pictures or captions" in result.stderr

    def test_parquet_is_made_at_the_end(self):
        assert run("pics", "--caption", "clean", "--out", "r.parquet").exit_code == 0
        assert parquet.read_table("r.parquet").column("image").to_pylist() == NAMES
        assert len(lines("r.parquet.jsonl")) == 3
        assert run("pics", "--caption", "clean", "--out", "r.parquet").exit_code == 0

    def test_overlays_have_the_same_names_after_a_stop(self):
        Path("more").mkdir()
        Image.new("RGB", (64, 48)).save("more/a.png")
        Image.new("RGB", (64, 48)).save("more/a.jpg")
        run("pics/a.png", "--caption", "clean", "--out", "r.jsonl", "--overlay", "marked")
        Path("marked/a.png").unlink()
        assert run("pics", "more", "--caption", "clean", "--out", "r.jsonl", "--overlay", "marked").exit_code == 0
        assert sorted(p.name for p in Path("marked").iterdir()) == ["a-2.png", "a-3.png", "b.png", "c.png"]

    def test_many_failures_are_counted_and_a_few_named(self):
        table(*({"image": f"{n}.png"} for n in range(25)))
        said = run("--captions", "t.jsonl", "--out", "r.jsonl").stderr
        assert "25 of 25 pictures failed" in said
        assert "and 5 more" in said
        assert said.count("is not a file") == 20

    def test_a_log_says_now_and_then_where_the_job_is(self, monkeypatch):
        monkeypatch.setattr(progress, "LOG_SECONDS", 0)
        said = run("pics", "--caption", "broken", "--out", "r.jsonl").stderr
        assert "2 of 3 pictures, 2 failed, " in said


class TestDetectors:
    @pytest.mark.parametrize(
        ("arguments", "asked"),
        [
            ([], ("sdg-tiny", None, None, {})),
            (["--min-confidence", "0.5"], ("sdg-tiny", None, None, {"min_confidence": 0.5})),
            (["--endpoint", URL, "--model", "m"], ("m", URL, None, {"concurrency": 8})),
            (
                ["--endpoint", URL, "--model", "m", "--prompt", "zero-shot", "--concurrency", "2"],
                ("m", URL, "zero-shot", {"concurrency": 2}),
            ),
        ],
    )
    def test_options_reach_the_detector(self, detector, arguments, asked):
        assert run("pics", "--caption", "clean", *arguments).exit_code == 0
        assert detector.asked == asked

    @pytest.mark.parametrize("changed", [["--endpoint", URL], ["--prompt", "zero-shot"], ["--min-confidence", "0.5"]])
    def test_what_changes_answers_is_not_gone_on_with(self, changed):
        job = ["pics", "--caption", "clean", "--out", "r.jsonl"]
        assert run(*job).exit_code == 0
        result = run(*job, *changed)
        assert result.exit_code == 2
        assert f"begun with other settings ({changed[0][2:].replace('-', '_')} None, now " in result.output
        assert run(*job, "--batch-size", "3").exit_code == 0

    def test_confidence_is_shown_where_there_is_one(self, detector, monkeypatch):
        found = Defect((1, 2, 3, 4), "artifact", "bent", 50, confidence=0.873)
        answers = {
            "both": DefectSet((found, Defect((5, 6, 7, 8), "artifact", "torn", 40))),
            "none": DefectSet(info={"dropped_below_confidence": 2}),
            "one": DefectSet((found,), info={"dropped_below_confidence": 1}),
        }
        monkeypatch.setattr(detector, "_answer", answers.__getitem__)
        both = run("pics/a.png", "--caption", "both").stdout
        assert "confidence" in both
        assert "0.87" in both
        assert "no defect found (2 below --min-confidence left out)" in run("pics/a.png", "--caption", "none").stdout
        assert "1 below --min-confidence left out" in run("pics/a.png", "--caption", "one").stdout
        answers["unsure"] = DefectSet((Defect((1, 2, 3, 4), "artifact", "bent", 50),))
        assert "confidence" not in run("pics/a.png", "--caption", "unsure").stdout

    def test_pictures_outside_the_world_are_told_of(self, detector, monkeypatch):
        outside = {"out_of_world": {"outside": True, "score": 9.0, "threshold": 3.0}}
        inside = {"out_of_world": {"outside": False, "score": 1.0, "threshold": 3.0}}
        monkeypatch.setattr(detector, "_answer", lambda caption: DefectSet(info=inside if caption else outside))
        sentence = "pics/a.png: This picture is unlike those that the model was trained on (distance 9.00; 3.00 is"
        for options in ([], ["--json"], ["--out", "r.jsonl"]):
            assert sentence in run("pics/a.png", *options).stderr
        assert "unlike" not in run("pics/a.png", "--caption", "x").stderr
        table({"image": "pics/a.png"}, {"image": "pics/b.png", "caption": "x"}, {"image": "pics/c.png"})
        said = run("--captions", "t.jsonl").stderr
        assert said.count("This picture is unlike") == 2
        assert "2 of 3 pictures are unlike those" in said
        said = run("--captions", "t.jsonl", "--out", "many.jsonl").stderr
        assert "This picture" not in said
        assert "2 of 3 pictures are unlike those" in said

    def test_a_server_from_end_to_end(self, monkeypatch):
        """A request that fails is a line that --retry asks again; a key that is refused ends the run."""
        monkeypatch.setattr(shared, "load_detector", LOAD)
        monkeypatch.setenv("SDG_API_KEY", "secret-key")
        for name, caption in zip(NAMES, ("first", "second", "third"), strict=True):
            Path("pics", name).with_suffix(".txt").write_text(caption)
        refused: dict[str, int] = {"second": 400}

        def reply(request, _):
            caption = text_of(request)
            return error(refused[caption], "no secret-key") if caption in refused else said(ANSWERS["clean"])

        with NaughtyServer(reply).running() as server:
            job = ["pics", "--endpoint", server.url, "--model", "m", "--prompt", "{caption}", "--out", "r.jsonl"]
            result = run(*job)
            assert (result.exit_code, ["error" in line for line in lines()]) == (1, [False, True, False])
            assert "answered 400: no ***" in lines()[1]["error"]
            assert "defects" not in lines()[1]
            assert len(server.requests) == 3
            refused.clear()
            assert run(*job, "--retry").exit_code == 0
            assert (len(server.requests), ["error" in line for line in lines()]) == (4, [False] * 3)
            refused |= dict.fromkeys(("first", "second", "third"), 401)
            result = run(*job, "--overwrite")
            assert (result.exit_code, lines()) == (2, [])
            assert "refuses its key for 'm'" in result.stderr
            assert "set SDG_API_KEY in the environment" in result.stderr
        result = run(*job)
        assert result.exit_code == 2
        assert "start the server, or correct base_url" in result.stderr
        assert "secret-key" not in Path("r.jsonl.settings.json").read_text() + result.output

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [(["--prompt", "no slot"], "is neither a name"), (["--model", "no/such/folder"], "no such folder")],
    )
    def test_a_detector_that_cannot_be_made_is_said_in_a_sentence(self, monkeypatch, arguments, said):
        monkeypatch.setattr(shared, "load_detector", LOAD)
        result = run("pics", *arguments)
        assert result.exit_code == 2
        assert said in result.stderr


class TestStops:
    def test_ctrl_c_leaves_a_file_to_go_on_with(self, detector, monkeypatch):
        whole = ScriptedDetector.__call__

        def stopped(self, images, captions, *, batch_size):
            if len(self.calls) == 1:
                raise KeyboardInterrupt
            return whole(self, images, captions, batch_size=batch_size)

        monkeypatch.setattr(ScriptedDetector, "__call__", stopped)
        job = ["pics", "--caption", "clean", "--out", "r.jsonl", "--batch-size", "2"]
        result = run(*job)
        assert result.exit_code == 130
        assert "Stopped; r.jsonl is whole, and the same command goes on from there" in result.stderr
        assert len(lines()) == 2
        monkeypatch.setattr(ScriptedDetector, "__call__", whole)
        assert run(*job).exit_code == 0
        assert [line["image"] for line in lines()] == NAMES

    def test_a_killed_run_goes_on(self, folder):
        code = (
            "import os, sys\n"
            "from scripted_detector import ScriptedDetector\n"
            "from sdg import cli\n"
            "from sdg.cli import shared\n"
            "class Dying(ScriptedDetector):\n"
            "    def __call__(self, images, captions=None, *, batch_size=8):\n"
            "        if len(self.calls) == 2: os._exit(9)\n"
            "        return super().__call__(images, captions, batch_size=batch_size)\n"
            "shared.load_detector = lambda *_, **__: Dying()\n"
            "cli.main()"
        )
        job = ["pics", "--caption", "clean", "--out", "r.jsonl", "--batch-size", "1"]
        path = os.pathsep.join([str(Path(__file__).parent), str(Path(sdg.__file__).parents[1])])
        environment = {**os.environ, "PYTHONPATH": path}
        died = subprocess.run([sys.executable, "-c", code, "detect", *job], env=environment, capture_output=True)
        assert died.returncode == 9
        assert len(lines()) == 2
        with Path("r.jsonl").open("a") as file:
            file.write('{"image": "c.png", "capt')
        assert run(*job).exit_code == 0
        assert [line["image"] for line in lines()] == NAMES
