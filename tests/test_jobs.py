import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from pyarrow import parquet
from scripted_detector import ScriptedDetector

from sdg.defects import DefectSet
from sdg.engines.base import EndpointError
from sdg.jobs import pictures, results
from sdg.jobs.results import Results, ResumeError, write_parquet
from sdg.jobs.run import Outcome, Picture, detect_many

SETTINGS = {"model": "one"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (64, 48), "grey").save(name)
    return tmp_path


def outcomes(*names: str, caption: str = "clean") -> list[Outcome]:
    return list(detect_many(ScriptedDetector(), [Picture(name, name, caption) for name in names]))


def keep(*found: Outcome, **options) -> None:
    with Results("r.jsonl", SETTINGS, **options) as file:
        for outcome in found:
            file.write(outcome)


def lines() -> list[dict]:
    return [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]


class TestPictures:
    def test_a_folder_is_all_its_pictures_in_order(self):
        for name in ("deep/z.PNG", "deep/er/y.jpeg", ".hidden/x.png", "deep/notes.txt", "deep/.dot.png"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()
        inside = ["a.png", "b.png", "c.png", "deep/er/y.jpeg", "deep/z.PNG"]
        assert pictures.in_places(["."], "x") == [Picture(name, name, "x") for name in inside]
        assert pictures.in_places(["deep"])[0] == Picture("er/y.jpeg", "deep/er/y.jpeg")
        many = ["c.png", "missing", "deep/er/y.jpeg", "deep/z.PNG"]
        assert pictures.in_places(["c.png", "missing", "deep"]) == [Picture(name, name) for name in many]

    def test_an_empty_folder_is_refused(self):
        Path("empty").mkdir()
        with pytest.raises(ValueError, match="empty holds no picture"):
            pictures.in_places(["empty"])

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("t.jsonl", '{"image": "a.png", "caption": "a, b"}\n\n{"image": "b.png", "id": 7, "generator": "x"}\n'),
            ("t.jsonl", '{"filepath": "a.png", "prompt": "a, b"}\n{"file_name": "b.png", "id": "7", "generator": "x"}'),
            ("t.csv", 'image,caption,id,generator\na.png,"a, b",,\nb.png,,7,x\n'),
            ("t.csv", '\ufeffcaption,image,id,generator\r\n"a, b",a.png\r\n,b.png,7,x\r\n'),
            ("t.tsv", "path\ttext\tid\tgenerator\na.png\ta, b\nb.png\t\t7\tx"),
        ],
    )
    def test_tables(self, name, text):
        Path("in").mkdir()
        Path("in", name).write_text(text, encoding="utf-8")
        first, second = pictures.from_table(Path("in", name))
        assert first == Picture("a.png", Path("in/a.png"), "a, b")
        assert second == Picture("b.png", Path("in/b.png"), None, "7", "x")
        assert pictures.from_table(Path("in", name), ".")[0].source == Path("a.png")

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("t.jsonl", '{"image": "a.png"}\n{"imag', "t.jsonl, line 2: .* one JSON object"),
            ("t.jsonl", "[1]", "line 1: a list"),
            ("t.jsonl", '{"picture": "a.png"}', "line 1: no picture; one of the columns .*image.* there are picture"),
            ("t.jsonl", '{"image": 3}', "image=3 is not the path"),
            ("t.jsonl", '{"image": "a.png", "caption": ["x"]}', r"caption=\['x'\] is not text"),
            ("t.csv", "image,caption\na.png,a red house, a tree\n", "line 2: more fields"),
            ("t.csv", 'image,caption\na.png,"open\n', "after line 1: unexpected end"),
            ("t.csv", "image,caption\n", "lists no picture"),
        ],
    )
    def test_tables_that_are_refused(self, name, text, said):
        Path(name).write_text(text)
        with pytest.raises(ValueError, match=said):
            pictures.from_table(name)

    def test_lines_of_text_are_captions_in_order(self):
        Path("t.txt").write_bytes("a cat \r\n\r\nein Käfer\u2028\n".encode())
        three = pictures.in_places(["."])
        found = pictures.captioned(three, "t.txt")
        assert [p.caption for p in found] == ["a cat", None, "ein Käfer"]
        with pytest.raises(ValueError, match=r"3 lines for 2 pictures.*first picture is a.png, the last b.png"):
            pictures.captioned(three[:2], "t.txt")


class TestRun:
    def test_outcomes_come_in_order_and_a_failure_is_one_of_them(self):
        Path("bad.png").write_text("no picture")
        asked = [Picture(n, n, c) for n, c in (("a.png", "clean"), ("bad.png", "clean"), ("b.png", "broken"))]
        asked.append(Picture("gone", error="record 3: no image"))
        found = list(detect_many(ScriptedDetector(), [*asked, Picture("c.png", "c.png", "unreadable")], 3))
        assert [o.picture.name for o in found] == ["a.png", "bad.png", "b.png", "gone", "c.png"]
        assert [o.failure is None for o in found] == [True, False, False, False, False]
        assert [o.error for o in found][2:] == ["RuntimeError: secret/path: out of memory", "record 3: no image", None]

    def test_a_server_that_no_picture_gets_through_to_ends_the_run(self):
        class Refused(ScriptedDetector):
            def __call__(self, images, captions=None, *, batch_size=8):
                if len(self.calls) == 1:
                    raise EndpointError("http://localhost/v1 refuses its key")
                return super().__call__(images, captions, batch_size=batch_size)

        stream = detect_many(Refused(), [Picture(name, name, "clean") for name in ("a.png", "b.png", "c.png")], 2)
        assert [next(stream).failure, next(stream).failure] == [None, None]
        with pytest.raises(EndpointError, match="refuses its key"):
            next(stream)

    def test_a_request_that_failed_is_an_error_and_a_bad_answer_is_not(self):
        class Failing(ScriptedDetector):
            def _answer(self, caption):
                info = {"error": "500"} if caption == "down" else {}
                return DefectSet(parse_error="500", info=info)

        down, bad = detect_many(Failing(), [Picture("a.png", "a.png", "down"), Picture("b.png", "b.png", "bad")])
        assert (down.error, down.found, down.to_line()["error"]) == ("500", None, "500")
        assert (bad.error, bad.to_line()["parse_error"]) == (None, "500")

    @pytest.mark.parametrize(("concurrency", "calls"), [(None, [2, 1]), (1, [3]), (8, [3])])
    def test_a_server_gets_more_than_a_batch(self, concurrency, calls):
        detector = ScriptedDetector()
        detector.engine = SimpleNamespace(name="m", concurrency=concurrency)
        list(detect_many(detector, [Picture(n, n, "clean") for n in ("a.png", "b.png", "c.png")], 2))
        assert detector.calls == calls

    def test_only_a_batch_of_pictures_is_taken_at_a_time(self):
        taken = []

        def source():
            for name in ("a.png", "b.png", "c.png"):
                taken.append(name)
                yield Picture(name, name, "clean")

        stream = detect_many(ScriptedDetector(), source(), 2)
        next(stream)
        assert taken == ["a.png", "b.png"]

    def test_a_line_names_what_is_known(self):
        line = Outcome(Picture("p", caption="c", id="7", generator="x"), found=DefectSet()).to_line()
        assert list(line)[:3] == ["id", "generator", "image"]
        assert (line["defects"], line["caption"], "error" in line) == ([], "c", False)
        assert Outcome(Picture("p"), error="no").to_line() == {"image": "p", "caption": None, "error": "no"}


class TestResults:
    def test_pictures_that_are_there_are_known(self):
        keep(*outcomes("a.png", "a.png"), *outcomes("b.png", caption="broken"))
        with Results("r.jsonl", SETTINGS) as file:
            asked = [("a.png", "clean"), ("a.png", "clean"), ("a.png", "clean"), ("a.png", "x"), ("b.png", "broken")]
            assert [file.take(Picture(n, None, c)) for n, c in asked] == [False, False, None, None, True]
            assert file.left_over == 0

    @pytest.mark.parametrize(
        ("cut", "left"), [(b"", 2), (b"{", 2), (b'{"image": "c.p', 2), (b"\x00\xff", 2), (b'{"image": "c.png"}', 3)]
    )
    def test_a_line_that_was_cut_off_is_dropped(self, cut, left):
        keep(*outcomes("a.png", "b.png"))
        with Path("r.jsonl").open("ab") as file:
            file.write(cut)
        keep(*outcomes("c.png"))
        assert [line["image"] for line in lines()] == ["a.png", "b.png", "c.png", "c.png"][: left + 1]

    @pytest.mark.parametrize(
        ("now", "said"),
        [({"model": "two"}, r"model 'one', now 'two'\): go on with the same"), ({**SETTINGS, "x": 1}, "x None, now 1")],
    )
    def test_other_settings_are_refused_and_change_nothing(self, now, said):
        keep(*outcomes("a.png"))
        before = Path("r.jsonl").read_bytes()
        with pytest.raises(ResumeError, match=said):
            Results("r.jsonl", now)
        assert Path("r.jsonl").read_bytes() == before
        keep(*outcomes("b.png"))
        assert len(lines()) == 2

    def test_start_anew(self):
        keep(*outcomes("a.png"))
        with Results("r.jsonl", {"model": "two"}, overwrite=True) as file:
            assert file.take(Picture("a.png", None, "clean")) is None
        assert lines() == []

    def test_errors_can_be_tried_again_but_not_answers(self):
        keep(*outcomes("a.png", caption="broken"), *outcomes("b.png", caption="unreadable"), *outcomes("c.png"))
        keep(*outcomes("a.png"), retry=True)
        assert [line["image"] for line in lines()] == ["b.png", "c.png", "a.png"]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('{"image": "a.png"}\nbroken\n{"image": "b.png"}\n', "line 2: not JSON"),
            ('{"id": 3}\n', "line 1: not a result"),
            ("7\n", "line 1: not a result"),
        ],
    )
    def test_a_file_that_is_broken_in_the_middle_is_refused(self, text, said):
        keep()
        Path("r.jsonl").write_text(text)
        with pytest.raises(ResumeError, match=said):
            Results("r.jsonl", SETTINGS)

    def test_a_file_of_unknown_origin_is_refused(self):
        Path("r.jsonl").write_text('{"image": "a.png"}\n')
        with pytest.raises(ResumeError, match="nobody knows which model wrote it"):
            Results("r.jsonl", SETTINGS)
        assert lines() == [{"image": "a.png"}]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
    def test_a_full_disk_is_named(self):
        with Results("r.jsonl", SETTINGS) as file, Path("/dev/full").open("ab", buffering=0) as full:
            file._file, kept = full, file._file
            with pytest.raises(OSError, match=r"r.jsonl does not take the result of a.png .*No space left"):
                file.write(*outcomes("a.png"))
            kept.close()

    def test_two_jobs_cannot_write_to_one_file(self):
        with Results("r.jsonl", SETTINGS), pytest.raises(ResumeError, match="another run is writing"):
            Results("r.jsonl", SETTINGS)
        assert sorted(p.name for p in Path().glob("r.*")) == ["r.jsonl", "r.jsonl.settings.json"]

    def test_a_name_that_is_not_unicode(self):
        keep(Outcome(Picture("bad\udcff.png"), found=DefectSet()))
        with Results("r.jsonl", SETTINGS) as file:
            assert file.take(Picture("bad\udcff.png")) is False

    def test_parquet(self, monkeypatch):
        monkeypatch.setattr(results, "_ROWS", 2)
        keep(*outcomes("a.png", caption="a red house"), *outcomes("b.png"), *outcomes("c.png", caption="broken"))
        keep(Outcome(Picture("bad\udcff.png", id="7", generator="x"), found=DefectSet(parse_error="no")))
        assert write_parquet("r.jsonl", "r.parquet") == 4
        rows = parquet.read_table("r.parquet").to_pylist()
        assert [d["box"] for d in rows[0]["defects"]] == [[100, 100, 400, 300], [50, 200, 900, 950]]
        assert DefectSet.from_json(rows[0] | {"info": None}) == DefectSet.from_json(lines()[0])
        assert [row["defects"] for row in rows[1:]] == [[], None, []]
        assert json.loads(rows[0]["info"]) == lines()[0]["info"]
        assert (rows[2]["error"], rows[3]["id"], rows[3]["generator"]) == (lines()[2]["error"], "7", "x")
        assert not Path("r.parquet.unfinished").exists()
