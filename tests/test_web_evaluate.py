import json
import re
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from defect_cases import answer, one
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from scripted_detector import ScriptedDetector
from test_import import fresh_python
from typer.testing import CliRunner

from sdg import cli
from sdg.embedding import PAPER, Embedder, EmbedderNotFound
from sdg.evaluation.plot import Curve
from sdg.provenance import made_by
from sdg.web import build_page, curve, launch_options, scores, scoring
from sdg.web import evaluate as tab
from sdg.web.example_scores import microworld_scores
from sdg.web.scoring import Options, picture_of, pictures_by_name, score
from sdg.web.uploads import upload

QUICK = Options(embedder="none", ci=0)
REFERENCES = [
    {"id": "a", "image": "shots/a.png", "defects": [one(reason="a hand")]},
    {"id": "b", "image": "b.png", "defects": []},
]
PREDICTIONS = [{"id": "b", "response": answer()}, {"id": "a", "response": answer(one(reason="a hand"))}]


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """The folder that uploads lie in; files of it may be read, others not."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def sent(folder, name, lines):
    """What the browser hands over for a file that was dropped."""
    content = lines if isinstance(lines, bytes) else "".join(json.dumps(line) + "\n" for line in lines).encode()
    (folder / f"stored-{name}").write_bytes(content)
    return {"path": str(folder / f"stored-{name}"), "orig_name": name}


def scored(folder, predictions=PREDICTIONS, references=REFERENCES, against=None, options=QUICK):
    other = None if against is None else sent(folder, "o.jsonl", against)
    return score(sent(folder, "p.jsonl", predictions), sent(folder, "r.jsonl", references), other, options)


@pytest.mark.parametrize("value", [None, "p.jsonl", 3, {}, {"path": None}, {"url": "data:,"}])
def test_what_is_no_file_is_refused(value):
    with pytest.raises(ValueError, match="The picture must be sent as a file"):
        upload(value, "The picture")


def test_only_uploads_are_read(uploads, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("1")
    (uploads / "link").symlink_to(secret)
    for path in (secret, uploads / "link", uploads / ".." / "secret", uploads, uploads / "absent"):
        with pytest.raises(ValueError, match="a path on the server is not read"):
            upload({"path": str(path)}, "The picture")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("p.jsonl", "p.jsonl"),
        ("C:\\data\\p.jsonl", "p.jsonl"),
        ("../../p.jsonl", "p.jsonl"),
        ("", "stored"),
        (3, "stored"),
    ],
)
def test_an_upload_is_called_what_its_sender_calls_it(given, name, uploads):
    (uploads / "stored").write_text("")
    assert upload({"path": str(uploads / "stored"), "orig_name": given}, "x").name == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matching": "best"}, "matching='best' is none of hungarian, greedy"),
        ({"order": "xywh"}, "order='xywh' is none of xyxy, yxyx"),
        ({"embedder": "/etc"}, "embedder='/etc' is none of auto, none, Qwen/Qwen3-Embedding-0.6B"),
        ({"ci": 1.5}, "ci=1.5 is neither a level"),
        ({"ci": float("nan")}, "ci=nan is neither a level"),
        ({"ci": True}, "ci=True is neither a level"),
        ({"ci": "0.9"}, "ci='0.9' is neither a level"),
        ({"by": "tier"}, "by='tier' is not a list"),
        ({"by": [3]}, r"by=\[3\] is not a list of field names"),
        ({"by": list("abcdefg")}, "by names 7 fields, more than 6"),
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (b'{"id": "a", "defects": []}\n{"id": \n', REFERENCES, "p.jsonl, line 2: Expecting value at column"),
        (PREDICTIONS, [*REFERENCES, {"id": "c", "defects": []}], "p.jsonl: no prediction has the id 'c'"),
        (PREDICTIONS[:1] * 2, REFERENCES, "p.jsonl, line 2: the id 'b' is that of .*p.jsonl, line 1 already"),
        ([{"defects": []}], [{"defects": []}] * 2, "1 predictions and 2 references"),
        (PREDICTIONS, [{"id": "a", "response": answer()}], "r.jsonl, line 1: no defects; a clean picture has an empty"),
        (PREDICTIONS, [{"id": "a", "defects": [one((9, 0, 3, 5))]}], r"r.jsonl, line 1: defect 0: .*x0=9"),
        (b"", REFERENCES, "p.jsonl holds no line"),
        (b"\xff\xfe", REFERENCES, "p.jsonl is not text in UTF-8"),
        (b"[" * 5000, REFERENCES, "p.jsonl, line 1: "),
    ],
)
def test_what_is_wrong_with_a_file_is_said_without_where_it_lies(predictions, references, message, uploads):
    with pytest.raises(ValueError, match=message) as refused:
        scored(uploads, predictions, references)
    assert str(uploads) not in str(refused.value)
    assert "stored" not in str(refused.value)


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ({"MAX_MEGABYTES": 0}, "p.jsonl has 0 MB, more than the 0 MB"),
        ({"MAX_IMAGES": 1}, "p.jsonl has 2 lines, more than the 1"),
        ({"MAX_DEFECTS_PER_IMAGE": 0}, "r.jsonl: image 1 has 1 defects, more than the 0"),
        ({"MAX_DEFECTS": 0}, "r.jsonl has 1 defects, more than the 0"),
        ({"MAX_PARTS": 1}, "kind has 2 values, too many to break down by"),
        ({"MAX_REASONS": 0}, "1 different reasons, more than the 0"),
    ],
)
def test_too_much_is_refused(bound, message, uploads, monkeypatch):
    for name, value in bound.items():
        monkeypatch.setattr(scoring, name, value)
    references = [line | {"kind": line["id"]} for line in REFERENCES]
    by = ["kind"] if "MAX_PARTS" in bound else []
    embedder = "auto" if "MAX_REASONS" in bound else "none"
    monkeypatch.setattr(scoring, "_loadable", lambda name: pytest.fail("loaded"))
    monkeypatch.setattr(scoring, "_embedder", lambda name: name)
    with pytest.raises(ValueError, match=message):
        scored(uploads, references=references, options=Options(embedder=embedder, ci=0, by=by))


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_lines_are_bounded_however_they_end(ending, uploads, monkeypatch):
    monkeypatch.setattr(scoring, "MAX_IMAGES", 3)
    with pytest.raises(ValueError, match="has 4 lines"):
        scored(uploads, b'{"defects": []}'.join([b"", *[ending] * 4]))


def test_nothing_sent_is_said(uploads):
    with pytest.raises(ValueError, match="There are no predictions yet"):
        score(None, sent(uploads, "r.jsonl", REFERENCES), None, QUICK)
    with pytest.raises(ValueError, match="There are no references yet"):
        score(sent(uploads, "p.jsonl", PREDICTIONS), [], None, QUICK)


def test_exchanged_coordinates_unread_answers_and_a_missing_embedder_are_warned_of(uploads, monkeypatch):
    boxes = [[0, 10 * k, 900, 10 * k + 100] for k in range(8)]
    references = [{"defects": [one(box)]} for box in boxes]
    turned = [{"defects": [one([b[1], b[0], b[3], b[2]])]} for b in boxes[1:]] + [{"error": "out of memory"}]
    monkeypatch.setattr("sdg.embedding.PACKAGED", "no_such_package")
    scoring._loadable.cache_clear()
    outcome = scored(uploads, turned[-1:] + turned[:-1], references, options=Options(ci=0))
    turning, unread, words = outcome.warnings
    assert turning.startswith("p.jsonl: 0 boxes fit a reference as they are, 7 with x and y exchanged")
    assert "look like yxyx" in turning
    assert unread.startswith("p.jsonl: 1 of 8 answers could not be read")
    assert words.startswith("DescCos is undefined: ")
    assert "no_such_package" not in words
    assert [(u.image, u.why) for u in outcome.unread] == [("line 1", "out of memory")]
    assert scored(uploads, turned, references, options=Options(order="yxyx", ci=0, embedder="none")).warnings == [
        unread
    ]


def test_an_embedder_that_is_not_there_is_said(uploads, monkeypatch):
    def absent():
        raise EmbedderNotFound("not in /home/server/cache")

    monkeypatch.setattr(scoring, "_loadable", lambda name: Embedder(name, absent))
    with pytest.raises(ValueError, match=r"Qwen3-Embedding-0\.6B could not be loaded on this server") as refused:
        scored(uploads, options=Options(embedder=PAPER))
    assert "/home" not in str(refused.value)


def test_two_files_of_one_name_are_told_apart(uploads):
    (uploads / "other").mkdir()
    other = sent(uploads / "other", "p.jsonl", PREDICTIONS)
    outcome = score(sent(uploads, "p.jsonl", PREDICTIONS), sent(uploads, "r.jsonl", REFERENCES), other, QUICK)
    assert outcome.scored.report.names == {"predictions": "p.jsonl (predictions)", "against": "p.jsonl (against)"}


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"image": "shots/a.png"}, "a.png"),
        ({"image": "C:\\shots\\a.png"}, "a.png"),
        ({"image": "a.jpg"}, "a.png"),
        ({"id": "a"}, "a.png"),
        ({"id": 7}, "7.png"),
        ({"image": "/etc/passwd"}, None),
        ({"image": ["a.png"]}, None),
        ({}, None),
    ],
)
def test_pictures_are_found_by_name_among_the_uploads_only(fields, found, uploads):
    pictures = pictures_by_name([sent(uploads, "a.png", b""), sent(uploads, "7.png", b"")])
    line = scored(uploads).lines.references[0]
    picture = picture_of(type(line)(line.where, fields, line.defects), pictures)
    assert (picture and picture.name) == found


def test_paths_in_the_files_are_never_opened(uploads, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(tab, "open_image", lambda path: opened.append(path) or Image.new("RGB", (64, 64)))
    mine = tmp_path / "server.png"
    Image.new("RGB", (64, 64)).save(mine)
    references = [{"id": str(mine), "image": str(mine), "filepath": f"file://{mine}", "defects": [one()]}]
    outcome = scored(uploads, [{"id": str(mine), "defects": []}], references)
    assert tab._pairs(outcome, [sent(uploads, "other.png", b"")]) == []
    assert tab._pairs(outcome, None) == []
    assert opened == []
    (pair,) = tab._pairs(outcome, [sent(uploads, "server.png", b"")])
    assert opened == [uploads / "stored-server.png"]
    truth, prediction = (pair.sides[side] for side in ("truth", "prediction"))
    assert truth.address.startswith("data:image/jpeg;base64,")
    assert truth.address != prediction.address
    assert (len(truth.defects), len(prediction.defects)) == (1, 0)


def test_a_picture_that_is_none_is_said_in_its_place(uploads):
    outcome = scored(uploads, [{"id": k, "defects": []} for k in "ab"])
    (pair,) = tab._pairs(outcome, [sent(uploads, "a.png", b"no picture")])
    assert pair.problem == "'a.png' is not an image that Pillow can read"
    assert "not an image" in scores.pairs([pair])


def test_words_from_outside_are_escaped(uploads):
    bad = "<script>x</script>"
    lines = [{"id": f"{bad}{k}", "kind": f"{bad}{k % 2}", "defects": [one(reason=bad)] if k else []} for k in range(4)]
    answers = [{"id": f"{bad}{k}", "response": bad} for k in range(4)]
    outcome = score(sent(uploads, "<b>.jsonl", answers), sent(uploads, "r.jsonl", lines), None, QUICK)
    page = tab.verdict_on(outcome) + tab.figures_of(outcome) + tab.details_of(outcome)
    assert "<script" not in page
    assert "<b>.jsonl" not in page
    assert "By kind" in page
    assert page.count("&lt;script&gt;") > 10


def test_pairs_are_numbered_as_on_the_picture_and_escaped(uploads):
    bad = [one(reason="<i>small</i>", importance=9), one((0, 0, 9, 9), reason="<i>big</i>", importance=90)]
    outcome = scored(
        uploads,
        [{"id": "a", "response": "no answer"}],
        [{"id": "a", "caption": "<i>red</i>", "defects": [d | {"subtype": "x"} for d in bad]}],
    )
    picture = sent(uploads, "a.png", b"")
    Image.new("RGB", (64, 64)).save(picture["path"], "PNG")
    page = scores.pairs(tab._pairs(outcome, [picture]))
    assert "<i>" not in page
    assert page.index("&lt;i&gt;red") < page.index("&lt;i&gt;big") < page.index("&lt;i&gt;small")
    assert "The answer could not be read" in page
    assert "<p>no defect</p>" not in page
    assert page.count("<img") == 1


def test_undefined_metrics_are_said_to_be_undefined(uploads):
    outcome = scored(uploads, [{"defects": []}], [{"defects": []}])
    page = tab.figures_of(outcome) + tab.details_of(outcome)
    assert "nan" not in page.lower()
    assert page.count('<b class="sdg-faint">undefined</b>') == 10  # of 12, only ClnAcc has something to count
    assert "undefined, there is no box" in page
    assert "No image has a miss or a false alarm" in page


def test_the_plot_has_a_point_at_every_threshold():
    values = np.array([0.9, 0.5])
    line = Curve(values, values - 0.1, values + 0.1)
    gone = Curve(*[np.array([np.nan, np.nan])] * 3)
    picture = curve.plot({"mine": {"artifact": line, "misalignment": gone}}, (0.1, 0.5), 0.95)
    assert re.findall(r"<title>(.*?)</title>", picture) == [
        "IoU 0.1: 0.900 [0.800, 1.000]",
        "IoU 0.5: 0.500 [0.400, 0.600]",
    ]
    assert picture.count("<polyline") == 1
    assert "0.90 at 0.1, 0.50 at 0.5" in picture


def test_the_example_is_the_same_each_time_and_imperfect(tmp_path, uploads):
    folders = [tmp_path / "1", tmp_path / "2"]
    for folder in folders:
        folder.mkdir()
    first, second = (microworld_scores(folder, 12) for folder in folders)
    for field in ("predictions", "against", "references"):
        assert getattr(first, field).read_bytes() == getattr(second, field).read_bytes()
        assert getattr(first, field).name.startswith("microworld-")
    files = [sent(uploads, p.name, p.read_bytes()) for p in (first.predictions, first.references, first.against)]
    outcome = score(*files, QUICK)
    better, worse = (outcome.scored.report.results[key]["artifact/box_f1@0.5"] for key in ("predictions", "against"))
    assert 0 < worse < better < 1
    assert len(outcome.unread) == 1
    assert set(outcome.scored.report.by) == {"objects", "tier", "subtype"}


@pytest.fixture(scope="module")
def served():
    page = build_page(ScriptedDetector())
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield url
    page.close(verbose=False)


@pytest.fixture(scope="module")
def client(served):
    return Client(served, verbose=False)


def test_page_and_command_give_the_same_figures(client, tmp_path, monkeypatch):
    made = microworld_scores(tmp_path)
    answer = client.predict(
        handle_file(made.predictions),
        handle_file(made.references),
        handle_file(made.against),
        embedder="none",
        api_name="/evaluate",
    )
    monkeypatch.chdir(tmp_path)
    paths = [made.predictions.name, made.references.name, "--against", made.against.name]
    by = ["--by", "objects", "--by", "tier", "--by", "subtype"]
    run = CliRunner().invoke(cli.app, ["eval", *paths, *by, "--embedder", "none", "--json", "s.json"])
    assert run.exit_code == 0, run.output
    command = json.loads(Path("s.json").read_text())
    for origin in (*made_by(), "data"):
        command.pop(origin)
    assert {field: answer[field] for field in command} == command
    assert set(answer) - set(command) == {"warnings", "worst_images", "unread"}
    assert answer["results"]["predictions"]["artifact/box_f1@0.5/ci"][0] > 0
    assert answer["worst_images"][0]["missed"]["artifact"] + answer["worst_images"][0]["missed"]["misalignment"] > 0


def test_a_file_from_the_papers_response_format_is_scored(client, tmp_path):
    for name, lines in (("p.jsonl", PREDICTIONS), ("r.jsonl", REFERENCES)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = {"ci": 0, "embedder": "none", "by": ["tier"], "api_name": "/evaluate"}
    answer = client.predict(handle_file(tmp_path / "p.jsonl"), handle_file(tmp_path / "r.jsonl"), **options)
    assert answer["results"]["predictions"]["artifact/box_f1@0.5"] == 1
    assert answer["results"]["predictions"]["misalignment/box_f1@0.5"] is None
    assert answer["names"] == {"predictions": "p.jsonl"}
    assert answer["comparison"] is None
    assert list(answer["by"]) == ["tier"]
    assert answer["worst_images"] == answer["unread"] == answer["warnings"] == []


def test_programs_are_refused_in_a_sentence(client, tmp_path):
    broken, good = tmp_path / "broken.jsonl", tmp_path / "good.jsonl"
    broken.write_text('{"defects": []}\n{"defects": [}\n')
    good.write_text('{"defects": []}\n{"defects": []}\n')

    def refusal(predictions, references, **options):
        with pytest.raises(AppError) as refused:
            client.predict(predictions, references, api_name="/evaluate", **options)
        return str(refused.value)

    assert refusal(handle_file(broken), handle_file(good)).startswith("broken.jsonl, line 2: Expecting value")
    assert "a path on the server is not read" in refusal({"path": str(good)}, handle_file(good))
    assert "a path on the server is not read" in refusal(handle_file(good), {"path": "/etc/passwd"})
    assert "is none of auto, none" in refusal(handle_file(good), handle_file(good), embedder=str(tmp_path))
    assert "There are no references yet" in refusal(handle_file(good), None)


def test_what_fails_inside_is_reported_without_its_inside(monkeypatch, uploads):
    def broken(*_):
        raise RuntimeError("secret/path: out of memory")

    monkeypatch.setattr(tab, "score", broken)
    with pytest.raises(gr.Error, match=r"Scoring failed \(RuntimeError\)"):
        tab.evaluate(None, None)


def test_the_endpoint_says_what_it_takes(client):
    told = client.view_api(return_format="dict")["named_endpoints"]["/evaluate"]
    names = [parameter["parameter_name"] for parameter in told["parameters"]]
    assert names == ["predictions", "references", "against", "matching", "ci", "embedder", "order", "by"]
    for name in names:
        assert f"{name}:" in tab.evaluate.__doc__


@pytest.mark.slow
def test_the_page_is_built_without_what_only_scoring_needs(tmp_path):
    code = (
        "import sys; from types import SimpleNamespace as N; from sdg.web import build_page\n"
        "build_page(N(engine=N(name='m'), made_for=None))\n"
        "print(*[n for n in ('sentence_transformers', 'matplotlib', 'sdg.evaluation') if n in sys.modules])"
    )
    assert fresh_python(code, tmp_path) == ""


def told(steps):
    """The next view that says something; between them are signs of life."""
    return next(view for view in steps if isinstance(view[0], str))


def test_running_the_tab_hands_over_reports_that_are_there(uploads, tmp_path):
    made = microworld_scores(tmp_path, 4)
    files = [sent(uploads, p.name, p.read_bytes()) for p in (made.predictions, made.references, made.against)]
    pictures = [sent(uploads, p.name, p.read_bytes()) for p in made.pictures]
    steps = tab._run(*files, pictures, "hungarian", 0.95, "none", "xyxy")
    busy = next(steps)
    assert 'data-state="busy"' in busy[0]
    assert [button["visible"] for button in busy[-2:]] == [False, True]
    verdict, figures, _, as_json, as_markdown, details, run, stop = told(steps)
    assert [run["visible"], stop["visible"]] == [True, False]
    assert "microworld-predictions.jsonl: 4 pictures scored" in verdict
    assert json.loads(Path(as_json).read_text())["names"]["against"] == made.against.name
    assert Path(as_markdown).read_text().startswith("## SDG-Eval of microworld-predictions.jsonl against")
    assert "sdg-card artifact" in figures["value"]
    assert "data:image/jpeg" in details["value"]
    with pytest.raises(StopIteration):
        next(steps)
    assert not Path(as_json).exists()


def test_a_failure_in_the_tab_leaves_nothing_of_the_figures_before(uploads):
    steps = tab._run(None, None, None, None, "hungarian", 0.95, "none", "xyxy")
    next(steps)
    verdict, *rest, run, stop = told(steps)
    assert "There are no predictions yet" in verdict
    assert [run["visible"], stop["visible"]] == [True, False]
    assert all(value is None or value.get("visible") is False for value in rest)
    with pytest.raises(gr.Error, match="There are no predictions yet"):
        next(steps)


def test_examples_leave_no_folder_behind():
    choose = tab._example(True)()
    predictions, *_ = next(choose)
    folder = Path(predictions).parent
    assert folder.is_dir()
    choose.close()
    assert not folder.exists()
