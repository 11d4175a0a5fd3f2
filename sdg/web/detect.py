"""The Detect tab, and the page's API: a picture and its caption in, its defects out."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr
from PIL import Image

from sdg.defects import DefectSet
from sdg.draw import overlay
from sdg.engines.images import ImageError, open_image
from sdg.prompts import MAX_CAPTION
from sdg.web import html, result
from sdg.web.background import in_background
from sdg.web.examples import Example, Kept
from sdg.web.gpu import on_gpu
from sdg.web.inputs import caption_input, example_gallery, picture_input, reveal
from sdg.web.models import Detector, Models
from sdg.web.places import Latest, before, check_room, while_wanted
from sdg.web.theme import fragment
from sdg.web.uploads import upload

log = logging.getLogger(__name__)

REFRESH = 0.1
"""Seconds between two updates of the streaming text: more often only costs the browser."""

LINE = "detector"
"""What takes turns on the models: the tab, and the endpoint."""

IDLE = ("Ready", "Choose a picture, write the caption that it was made from, and press Find defects.")

View = dict[str, Any]
"""New values of parts of the tab, by the part's name; parts that are not named stay as they are."""

SKIP: View = {"verdict": gr.skip()}
"""Changes nothing."""

Parts = dict[str, Any]
"""The components that show an answer, by name: verdict, picture, words, table, take (the row of downloads), overlay,
file, json, json_fold, raw, raw_fold, run and stop (the buttons)."""


def detect_tab(models: Models, examples: Sequence[Example], chosen: gr.Textbox, page: gr.Blocks) -> None:
    """Build the tab inside the page that is being built.

    Args:
        models: what answers.
        examples: pictures with captions to try.
        chosen: holds the label of the visitor's model.
        page: the page itself, whose queue visitors wait in.
    """
    with gr.Row(elem_classes="sdg-columns"):
        with gr.Column(scale=3, min_width=300, elem_classes="sdg-input"):
            picture = picture_input("Picture", "picture")
            caption = caption_input(
                "The prompt that the picture was made from. Without it only artifacts are looked for.", "caption"
            )
            button = gr.Button("Find defects", variant="primary", elem_id="run")
            stop = gr.Button("Stop", variant="secondary", visible=False, elem_id="stop")
            if examples:
                gallery = example_gallery(examples, "Or try an example", "examples")
        with gr.Column(scale=7, min_width=320, elem_classes="sdg-output"):
            parts = _answer_parts() | {"run": button, "stop": stop}

    question, latest = gr.Textbox(visible=False), Latest()
    outputs = [*parts.values(), question]
    run = _runner(models, Kept(examples))

    def named(view: View) -> dict[Any, Any]:
        return {parts[name]: value for name, value in view.items()}

    def begin(request: gr.Request) -> dict[Any, Any]:
        check_room(page, request.session_hash)
        return {**named({**_nothing(), **waiting(before(page, LINE))}), question: latest.ask(request.session_hash)}

    def choose(event: gr.SelectData, request: gr.Request) -> dict[Any, Any]:
        example = examples[event.index]
        return {picture: str(example.path), caption: example.caption, **begin(request)}

    def shown(picture: Any, caption: Any, chosen: Any, question: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        def wanted() -> bool:
            return latest.is_last(request.session_hash, question)

        with closing(while_wanted(run(picture, caption, chosen, wanted), wanted, SKIP)) as views:
            yield from map(named, views)

    def stopped(request: gr.Request) -> dict[Any, Any]:
        latest.ask(request.session_hash)
        return named({**_nothing(), **idle_buttons(), "verdict": html.verdict("idle", "Stopped", IDLE[1])})

    hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    begun = [gr.on([button.click, caption.submit], begin, None, outputs, queue=False, **hidden)]
    if examples:
        begun.append(gallery.select(choose, None, [picture, caption, *outputs], queue=False, **hidden))
    # preprocess=False: the tab opens the file itself, so that what is no picture is refused in a sentence. Who stops or
    # asks anew ends the question before, which looks for that: Gradio's own cancelling may lose a question.
    for event in begun:
        event.success(
            shown,
            [picture, caption, chosen, question],
            list(parts.values()),
            preprocess=False,
            trigger_mode="multiple",
            **hidden,
            **queue_of(models),
        )
    reveal([button.click, *([gallery.select] if examples else [])], "verdict")
    stop.click(stopped, None, outputs, queue=False, **hidden)
    gr.api(_endpoint(models), api_name="detect", **queue_of(models))


def _answer_parts() -> Parts:
    parts: Parts = {"verdict": fragment(html.verdict("idle", *IDLE), "verdict")}
    with gr.Row(elem_classes="sdg-result"):
        with gr.Column(scale=1, min_width=260):
            parts["picture"] = fragment("", "drawn", visible=False)
        with gr.Column(scale=1, min_width=260):
            parts["table"] = fragment("", "defects", visible=False)
            parts["words"] = fragment("", "reasoning", visible=False)
    with gr.Row(visible=False, elem_id="take") as parts["take"]:
        parts["overlay"] = gr.DownloadButton("Download overlay", size="md", min_width=140, elem_id="take-overlay")
        parts["file"] = gr.DownloadButton("Download JSON", size="md", min_width=140, elem_id="take-json")
    with gr.Accordion("JSON", open=False, visible=False, elem_id="json") as parts["json_fold"]:
        parts["json"] = gr.Code(language="json", show_label=False, interactive=False, max_lines=24, lines=4)
    with gr.Accordion("Raw answer", open=False, visible=False, elem_id="raw") as parts["raw_fold"]:
        parts["raw"] = gr.Code(
            language=None, show_label=False, interactive=False, wrap_lines=True, max_lines=24, lines=4
        )
    return parts


def queue_of(models: Models) -> dict[str, Any]:
    """How visitors wait: the tab and the API take turns on a model; one that works on many at a time takes as many."""
    return {"concurrency_limit": models.at_a_time, "concurrency_id": LINE}


def watch(detector: Detector, image: Image.Image, caption: str) -> Generator[str | DefectSet]:
    """Detect while telling: the text so far, again and again, and at the end the set.

    Args:
        detector: what answers.
        image: RGB.
        caption: may be empty.

    Yields:
        The model's text so far, at most every :data:`REFRESH` seconds, then one :class:`DefectSet`.
    """
    stream = detector.stream(image, caption)
    text, shown = "", time.monotonic()
    with closing(stream):  # a visitor who leaves stops the model
        for piece in stream:
            text += piece
            if time.monotonic() - shown >= REFRESH:
                yield text
                shown = time.monotonic()
    yield stream.result


def show(image: Image.Image, found: DefectSet) -> View:
    """The tab's view of an answer; without a readable one the bare picture is not shown as if it were clean."""
    doubted = bool(found.info.get("out_of_world", {}).get("outside"))
    readable = not found.parse_error
    words = html.reasoning(found.reasoning or "") if readable else html.reasoning(found.raw or "", "raw")
    return {
        "verdict": html.verdict_on(found),
        "picture": gr.update(value=result.picture(image, found, doubted) if readable else "", visible=readable),
        "table": gr.update(value=result.table(found, doubted), visible=bool(found)),
        "words": gr.update(value=words, visible=True),
        "take": gr.update(visible=True),
        "overlay": gr.update(visible=readable),
        "json": result.as_json(found),
        "json_fold": gr.update(visible=True),
        "raw": found.raw or "",
        "raw_fold": gr.update(visible=bool(found.raw)),
        **idle_buttons(),
    }


def so_far(text: str) -> str:
    """What of a half-written answer a person reads: the think text, without the answer's JSON."""
    return text.split("<answer>")[0].replace("<think>", "").replace("</think>", "").strip()


def _nothing() -> View:
    """Every part of an answer out of sight, what it held included."""
    empty = {name: gr.update(value="", visible=False) for name in ("picture", "table", "words")}
    hide = {name: gr.update(visible=False) for name in ("take", "json_fold", "raw_fold")}
    return empty | hide | {"json": "", "raw": "", "overlay": None, "file": None}


def idle_buttons() -> View:
    """Nothing is at work: a tab's button that runs, and not the one that stops."""
    return {"run": gr.update(visible=True), "stop": gr.update(visible=False)}


def waiting(ahead: int) -> View:
    """A visitor waits in the line; ``ahead`` requests are before."""
    return {"verdict": html.waiting(ahead), "run": gr.update(visible=False), "stop": gr.update(visible=True)}


def _runner(models: Models, kept: Kept[DefectSet]) -> Callable[..., Generator[View]]:
    def answer(name: str | None, image: Image.Image, caption: str) -> Generator[str | DefectSet]:
        yield from watch(models.get(name), image, caption)

    answering = on_gpu(answer)

    def run(picture: Any, caption: Any, chosen: Any, wanted: Callable[[], bool] = lambda: True) -> Generator[View]:
        caption = caption if isinstance(caption, str) else ""
        chosen = chosen if isinstance(chosen, str) else None
        if not wanted():
            return
        try:
            path, image = opened(picture)
            if len(caption) > MAX_CAPTION:
                gr.Warning(f"The caption is long: only its first {MAX_CAPTION} characters are given to the model.")
            known = kept.find(chosen, path, caption)
            if known is not None:
                yield from _told(image, known)
                return
            if not models.ready(chosen):
                yield {"verdict": html.verdict("busy", "Loading the model", f"{chosen} comes into memory.")}
                models.get(chosen)
            yield {
                "verdict": html.verdict("busy", "Looking", "The model reads the caption, then the picture."),
                "picture": gr.update(value=result.picture(image, DefectSet()), visible=True),
                "words": gr.update(value=html.reasoning("", "writing"), visible=True),
            }
            with closing(in_background(answering(chosen, image, caption), models.turn)) as steps:
                for step in steps:
                    if not wanted():
                        return
                    if step is None:
                        yield SKIP
                    elif isinstance(step, DefectSet):
                        if not step.parse_error:
                            kept.keep(chosen, path, caption, step)
                        yield from _told(image, step)
                    else:
                        yield {"words": html.reasoning(so_far(step), "writing")}
        except Exception as error:
            if not wanted():
                return
            message = sentence(error)
            failed = html.verdict("failed", "This did not work", message)
            yield {**_nothing(), **idle_buttons(), "verdict": failed}
            raise gr.Error(message, title="This did not work", print_exception=False) from error

    return run


def _told(image: Image.Image, found: DefectSet) -> Iterator[View]:
    """The view of an answer with its files to download."""
    view = show(image, found)
    with TemporaryDirectory(prefix="sdg-answer-") as folder:  # the page has its own copies when it comes back here
        data, drawn = Path(folder, "defects.json"), Path(folder, "overlay.png")
        data.write_text(result.as_json(found) + "\n", encoding="utf-8")
        view["file"] = str(data)
        if not found.parse_error:
            overlay(image, found).save(drawn)
            view["overlay"] = gr.update(value=str(drawn), visible=True)
        yield view


def _endpoint(models: Models) -> Callable[..., dict[str, Any]]:
    def answer(name: str | None, image: Image.Image, caption: str) -> DefectSet:
        return models.get(name)(image, caption)

    answering = on_gpu(answer)

    def detect(image: gr.FileData, caption: str = "", model: str = "") -> dict[str, Any]:
        """Find the defects of a generated picture: where it fails, what is wrong, why, and how much it matters.

        Args:
            image: the picture, as a file.
            caption: the prompt that the picture was made from; empty looks for artifacts only.
            model: one of the models that the page offers, by its name there; empty is the page's own.

        Returns:
            defects (box on a 0..1000 grid as x0, y0, x1, y1, type, reason, importance 1..100, tier), caption,
            reasoning, parse_error (None, or why the model's answer could not be read), raw, info.
        """
        try:
            check_text(caption=caption, model=model)
            picture = opened(image)[1]
            with models.turn:
                return answering(model, picture, caption or "").to_json()
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from error

    return detect


def opened(picture: Any) -> tuple[Path, Image.Image]:
    """The uploaded file, and what it holds as an RGB picture.

    Raises:
        ValueError: where nothing was uploaded, where the path is not that of an upload, or where it is no picture.
    """
    if not picture:
        raise ValueError("There is no picture yet: upload one or choose an example.")
    path = upload(picture, "The picture").path
    try:
        return path, open_image(path)
    except ImageError as error:
        raise ImageError(str(error).replace(str(path), path.name)) from error


def check_text(**given: Any) -> None:
    """Refuse what a program sends in place of text.

    Raises:
        ValueError: naming the argument.
    """
    for name, value in given.items():
        if not isinstance(value, str | None):
            raise ValueError(f"{name}={value!r:.100} is not text")


def sentence(error: Exception) -> str:
    """What a visitor is told: refusals, ours and ZeroGPU's, as they are; anything else by its kind, with a log."""
    if isinstance(error, gr.Error):  # a ValueError, too
        return re.sub(r"<[^>]*>", "", str(error.message))
    if isinstance(error, ValueError):
        return str(error)
    log.exception("detection failed", exc_info=error)
    return f"The model failed on this picture ({type(error).__name__}). The log of the page has the details."
