"""The Evaluate tab, and its endpoint: predictions and references in, the figures of SDG-Eval out."""

from __future__ import annotations

import base64
import io
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from sdg.defects import DefectSet
from sdg.draw import overlay
from sdg.embedding import PAPER
from sdg.engines.images import ImageError, fit, open_image
from sdg.web import html, scores
from sdg.web.background import in_background
from sdg.web.example_scores import PICTURES, microworld_scores
from sdg.web.places import Latest, before, check_room, while_wanted
from sdg.web.scoring import Options, Outcome, picture_of, pictures_by_name, score
from sdg.web.theme import fragment
from sdg.web.uploads import Upload

log = logging.getLogger(__name__)

TURN = threading.Lock()
"""Held while something is scored; a scoring that was stopped holds it until it is done."""
EVALUATION_QUEUE: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "evaluation"}

FILE_TYPES = [".jsonl", ".ndjson", ".json", ".txt"]
MAX_PICTURES = 500
PAIRS = 6
DRAWN = ("box", "type", "reason", "importance")
PAIR_SIDE = 512
"""Pixels of the longer side of a picture in the list of the worst."""

IDLE = ("Ready", "Drop predictions and references, one JSON object a line, or choose an example.")

BUSY = ("busy", "Scoring", "Boxes are matched, then reasons compared.")

FORMAT = """<details class="sdg-fold sdg-format"><summary>What the files look like</summary>
<p>One JSON object a line. References:</p>
<pre tabindex="0">{"id": "p1", "defects": [
 {"box": [100, 200, 400, 600],
  "type": "artifact", "importance": 80,
  "reason": "a hand of six fingers"}]}
{"id": "p2", "defects": []}</pre>
<p>Predictions: the same, or a model's own text:</p>
<pre tabindex="0">{"id": "p1", "response": "&lt;think&gt;…&lt;/think&gt;
 &lt;answer&gt;[…]&lt;/answer&gt;"}</pre>
<p>Boxes are x0, y0, x1, y1 on a grid from 0 to 1000. Lines belong together by <code>id</code> or <code>image</code>,
else by their place. Further fields of few values, such as <code>generator</code>, are broken down by.</p></details>"""

View = tuple[Any, ...]
"""Values of the tab's outputs: verdict, figures, row of downloads, JSON, Markdown, details."""


def evaluate_tab(page: gr.Blocks) -> None:
    """Build the tab inside the page that is being built.

    Args:
        page: the page itself, whose queue visitors wait in.
    """
    with gr.Row(elem_classes="sdg-columns"):
        with gr.Column(scale=3, min_width=300, elem_classes="sdg-input"):
            predictions = _file("Predictions", "predictions")
            references = _file("References", "references")
            with gr.Accordion("Comparison and pictures", open=False, elem_id="more"):
                against = _file("Other predictions of the same pictures", "against")
                pictures = gr.File(
                    label="Pictures, found by their file names",
                    file_count="multiple",
                    file_types=["image"],
                    height=140,
                    elem_id="pictures",
                )
            with gr.Accordion("Options", open=False, elem_id="options"):
                matching = gr.Radio(
                    [("Hungarian, as the paper", "hungarian"), ("greedy, as its released code", "greedy")],
                    value="hungarian",
                    label="Matching",
                )
                ci = gr.Radio(
                    [("90 %", 0.9), ("95 %", 0.95), ("99 %", 0.99), ("none", 0)],
                    value=0.95,
                    label="Intervals over pictures",
                )
                embedder = gr.Radio(
                    [
                        ("all-MiniLM-L6-v2", "auto"),
                        ("Qwen3-Embedding-0.6B, the paper's", PAPER),
                        ("not compared", "none"),
                    ],
                    value="auto",
                    label="Reasons compared by",
                    info="The paper's is a download of 1.2 GB, once, and slow without a GPU.",
                )
                order = gr.Radio(
                    [("x0, y0, x1, y1", "xyxy"), ("y0, x0, y1, x1", "yxyx")],
                    value="xyxy",
                    label="Order of coordinates in the predictions",
                )
            button = gr.Button("Score", variant="primary", elem_id="score")
            stop = gr.Button("Stop", variant="secondary", visible=False, elem_id="score-stop")
            fragment("<h3>Or choose a microworld example</h3>", "or-score")
            with gr.Row(elem_id="scoring-examples"):
                one = gr.Button("One detector", size="md", min_width=120)
                two = gr.Button("Two compared", size="md", min_width=120)
            fragment(
                f'<p class="sdg-note">{PICTURES} drawn pictures whose defects are known. The predictions are these '
                "with errors put in; no model made them.</p>",
                "example-note",
            )
            fragment(FORMAT, "format")
        with gr.Column(scale=7, min_width=320, elem_classes="sdg-output"):
            verdict = fragment(html.verdict("idle", *IDLE), "score-verdict")
            figures = fragment("", "figures", visible=False)
            with gr.Row(visible=False, elem_id="downloads") as downloads:
                as_json = gr.DownloadButton("Report as JSON", size="md", elem_id="report-json")
                as_markdown = gr.DownloadButton("Report as Markdown", size="md", elem_id="report-markdown")
            details = fragment("", "details", visible=False)
    files = [predictions, references, against, pictures]
    inputs = [*files, matching, ci, embedder, order]
    outputs = [verdict, figures, downloads, as_json, as_markdown, details, button, stop]

    # preprocess=False: the tab looks at the files itself, so that what is wrong with them is said in a sentence.
    options: dict[str, Any] = {
        "preprocess": False,
        "show_progress": "hidden",
        "api_visibility": "private",
        **EVALUATION_QUEUE,
    }
    question, latest = gr.Textbox(visible=False), Latest()

    def begin(request: gr.Request) -> tuple[Any, ...]:
        check_room(page, request.session_hash)
        ahead = before(page, EVALUATION_QUEUE["concurrency_id"])
        said = html.waiting(ahead) if ahead else html.verdict(*BUSY)
        return (*_view(said, busy=True), latest.ask(request.session_hash))

    def shown(
        predictions: Any, references: Any, against: Any, pictures: Any, matching: str, ci: float, embedder: str,
        order: str, question: str, request: gr.Request,
    ) -> Iterator[View]:  # fmt: skip
        def wanted() -> bool:
            return latest.is_last(request.session_hash, question)

        views = _run(predictions, references, against, pictures, matching, ci, embedder, order, wanted)
        with closing(while_wanted(views, wanted, SKIP)) as told:
            yield from told

    def stopped(request: gr.Request) -> View:
        latest.ask(request.session_hash)
        return _view(html.verdict("idle", "Stopped", IDLE[1]))

    at_once: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    begun = [button.click(begin, None, [*outputs, question], **at_once)]
    for choice, compared in ((one, False), (two, True)):
        chosen = choice.click(begin, None, [*outputs, question], **at_once)
        begun.append(chosen.success(_example(compared), None, files, **options))
    for event in begun:
        event.success(shown, [*inputs, question], outputs, trigger_mode="multiple", **options)
    stop.click(stopped, None, outputs, **at_once)
    gr.api(evaluate, api_name="evaluate", **EVALUATION_QUEUE)


def _file(label: str, elem_id: str) -> gr.File:
    return gr.File(label=label, file_types=FILE_TYPES, height=140, elem_id=elem_id)


def _example(compared: bool) -> Any:
    def choose() -> Iterator[tuple[Any, ...]]:
        with TemporaryDirectory(prefix="sdg-scores-") as folder:  # the page has its own copies when it comes back here
            made = microworld_scores(Path(folder))
            other = str(made.against) if compared else None
            yield str(made.predictions), str(made.references), other, [str(picture) for picture in made.pictures]

    return choose


def _run(
    predictions: Any,
    references: Any,
    against: Any,
    pictures: Any,
    matching: str,
    ci: float,
    embedder: str,
    order: str,
    wanted: Callable[[], bool] = lambda: True,
) -> Generator[View]:

    def scored() -> Generator[tuple[Outcome, str]]:
        outcome = score(predictions, references, against, Options(matching, ci, embedder, order))
        yield outcome, details_of(outcome, _pairs(outcome, pictures))

    try:
        yield _view(html.verdict(*BUSY), busy=True)
        with closing(in_background(scored(), TURN)) as steps:
            for step in steps:
                if not wanted():
                    return
                if step is None:
                    yield SKIP
                    continue
                outcome, body = step
                with TemporaryDirectory(prefix="sdg-report-") as folder:  # the page copies them before it comes back
                    data, text = Path(folder, "sdg-eval.json"), Path(folder, "sdg-eval.md")
                    data.write_text(outcome.scored.report.to_json() + "\n", encoding="utf-8")
                    text.write_text(outcome.scored.report.markdown(), encoding="utf-8")
                    yield _view(verdict_on(outcome), figures_of(outcome), str(data), str(text), body)
    except Exception as error:
        if not wanted():
            return
        message = _sentence(error)
        yield _view(html.verdict("failed", "This could not be scored", message))
        raise gr.Error(message, title="This could not be scored", print_exception=False) from error


SKIP = (gr.skip(),) * 8
"""A view that changes nothing."""


def _view(
    verdict: str, figures: str = "", as_json: str | None = None, as_markdown: str | None = None, details: str = "",
    busy: bool = False,
) -> View:  # fmt: skip
    """New values of the tab's outputs; what is empty is out of sight."""
    return (
        verdict,
        gr.update(value=figures, visible=bool(figures)),
        gr.update(visible=as_json is not None),
        as_json,
        as_markdown,
        gr.update(value=details, visible=bool(details)),
        gr.update(visible=not busy),
        gr.update(visible=busy),
    )


def evaluate(
    predictions: gr.FileData,
    references: gr.FileData,
    against: gr.FileData | None = None,
    matching: str = "hungarian",
    ci: float = 0.95,
    embedder: str = "auto",
    order: str = "xyxy",
    by: list[str] | None = None,
) -> dict[str, Any]:
    """Score a defect detector with SDG-Eval: its predictions against the true defects of the same pictures.

    Args:
        predictions: a JSON-lines file with one object a picture: `defects`, a list of {box, type, reason, importance},
            or the model's text as `response`, and `id` or `image`. Boxes lie on a 0..1000 grid.
        references: a JSON-lines file with the true `defects` of the same pictures; a clean picture has an empty list.
        against: other predictions of the same pictures, to compare with: differences, intervals and p-values.
        matching: hungarian, as the paper defines it, or greedy, as its released code does it.
        ci: level of the bootstrap intervals over pictures; 0 for none.
        embedder: what compares reasons: auto (all-MiniLM-L6-v2), none, or Qwen/Qwen3-Embedding-0.6B, the paper's.
        order: xyxy or yxyx, the order of coordinates in the predictions.
        by: fields to break the results down by, among them tier and subtype of the references; by default the fields
            of few values.

    Returns:
        names, matching, ci, results (metrics by set of predictions, with KEY/ci intervals; null where undefined),
        image_level, comparison (null without `against`), by, warnings, worst_images, unread.
    """
    try:
        with TURN:
            return score(predictions, references, against, Options(matching, ci, embedder, order, by)).to_json()
    except Exception as error:
        raise gr.Error(_sentence(error), print_exception=False) from error


def verdict_on(outcome: Outcome) -> str:
    """How many pictures were scored, and how; figures of other embedders are not to be compared."""
    report = outcome.scored.report
    result = report.results["predictions"]
    images = result["n_images"]
    said = [
        f"{100 * result['parse_rate']:.3g} % of the answers could be read.",
        f"Matching: {report.matching}.",
        f"Reasons compared by {result['embedder']}." if result["embedder"] else "Reasons not compared.",
    ]
    said += [f"Intervals: {100 * report.ci:g} %, over pictures."] if report.ci else []
    headline = f"{report.names['predictions']}: {images:,} picture{'s' * (images != 1)} scored"
    return html.verdict("scored", headline, " ".join(said))


def figures_of(outcome: Outcome) -> str:
    """What a reader wants first: warnings, then the metrics as bars."""
    report = outcome.scored.report
    return "".join(map(scores.remark, outcome.warnings)) + scores.cards(report.results, report.names)


def details_of(outcome: Outcome, pairs: Sequence[scores.Pair] = ()) -> str:
    """All the rest: comparison, plot, tables, the worst images, and what could not be read."""
    from sdg.evaluation.plot import THRESHOLDS, box_f1_curve
    from sdg.evaluation.published import TABLE_2
    from sdg.evaluation.worst import WORST_IOU
    from sdg.web.curve import plot

    scored = outcome.scored
    report, level = scored.report, scored.report.ci or 0.95
    tables = report.sections()
    curves = {report.names[key]: box_f1_curve(table, ci=level) for key, table in scored.tables.items()}
    worst = scores.worst([(outcome.name(e.image), e) for e in outcome.worst], WORST_IOU)
    if outcome.worst and not pairs:
        worst += '<p class="sdg-note">Drop the pictures, too, to see truth and prediction side by side.</p>'
    folds = scores.folded("Every metric", scores.grids(tables["metrics"]))
    folds += "".join(scores.folded(f"By {column}", scores.grids(tables[f"by {column}"])) for column in report.by)
    return "".join(
        [
            scores.section("against", "Against the other predictions", scores.grids(tables.get("comparison", []))),
            scores.section(
                "published",
                "Beside the paper's published rows",
                scores.grids(tables["published"], frozenset(f"{name} *" for name in TABLE_2)),
            ),
            scores.section("curve", "BoxF1 by IoU threshold", plot(curves, THRESHOLDS, level)),
            scores.section("image-level", "Image level", scores.grids(tables["image level"])),
            scores.section("tables", "More tables", folds),
            scores.section("worst", "Worst pictures", worst + scores.pairs(pairs)),
            scores.section("unread", "Answers that could not be read", scores.unread(outcome.unread)),
        ]
    )


def _pairs(outcome: Outcome, sent: Any) -> list[scores.Pair]:
    if not sent:
        return []
    if len(sent) > MAX_PICTURES:
        raise ValueError(f"{len(sent):,} pictures are more than the {MAX_PICTURES} that this page takes.")
    pictures = pictures_by_name(sent)
    found = [(e, picture_of(outcome.lines.references[e.image], pictures)) for e in outcome.worst]
    return [_pair(outcome, errors, picture) for errors, picture in found if picture is not None][:PAIRS]


def _pair(outcome: Outcome, errors: Any, picture: Upload) -> scores.Pair:
    line = outcome.lines.references[errors.image]
    name, caption = outcome.name(errors.image), line.fields.get("caption")
    told = caption[:500] if isinstance(caption, str) else ""
    try:
        image = fit(open_image(picture.path), PAIR_SIDE)
    except ImageError as error:
        return scores.Pair(name, told, errors, {}, str(error).replace(str(picture.path), picture.name))
    rows: Any = line.defects
    truth = DefectSet.of([{field: row[field] for field in DRAWN} for row in rows])
    predicted = outcome.lines.predictions["predictions"][errors.image].defects
    sides = {
        title: scores.Side("" if found.parse_error else _address(overlay(image, found)), found)
        for title, found in {"truth": truth, "prediction": predicted}.items()
    }
    return scores.Pair(name, told, errors, sides)


def _address(image: Any) -> str:
    """The picture as a data address, so that nobody else can ask the page for it."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _sentence(error: Exception) -> str:
    """What a visitor is told: our own refusals as they are; anything else by its kind, with the details in the log."""
    if isinstance(error, ValueError):
        return str(error)
    log.exception("scoring failed", exc_info=error)
    return f"Scoring failed ({type(error).__name__}). The log of the page has the details."
