"""The Detect tab, and the page's API: a picture and its caption in, its defects out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, Protocol

import gradio as gr
from PIL import Image

from sdg.defects import DefectSet
from sdg.draw import overlay
from sdg.engines.images import ImageError, open_image
from sdg.prompts import MAX_CAPTION
from sdg.web import html
from sdg.web.examples import Example
from sdg.web.theme import fragment
from sdg.web.uploads import upload

log = logging.getLogger(__name__)

REFRESH = 0.1
"""Seconds between two updates of the streaming text: more often only costs the browser."""


class Stream(Protocol):
    """Pieces of text, and once they have all come the set that they make up."""

    @property
    def result(self) -> DefectSet: ...
    def __iter__(self) -> Iterator[str]: ...
    def close(self) -> None: ...


class Named(Protocol):
    """Where the text comes from; the name is the model's."""

    @property
    def name(self) -> str: ...


class Detector(Protocol):
    """What the page asks of a detector; :class:`sdg.SDGDetector` is one."""

    @property
    def engine(self) -> Named: ...
    @property
    def made_for(self) -> str | None: ...
    def __call__(self, images: Any, captions: str | None = None) -> DefectSet: ...
    def stream(self, image: Any, caption: str | None = None) -> Stream: ...


View = tuple[Any, ...]
"""Values of the tab's outputs: picture, legend, verdict, reasoning, table, JSON and the fold that it lies in."""


def detect_tab(detector: Detector, examples: Sequence[Example]) -> None:
    """Build the tab inside the page that is being built.

    Args:
        detector: what answers.
        examples: pictures with captions to try.
    """
    with gr.Row(elem_classes="sdg-columns"):
        with gr.Column(scale=3, min_width=300, elem_classes="sdg-input"):
            picture = gr.Image(
                type="filepath",
                image_mode=None,
                label="Picture",
                sources=["upload", "clipboard"],
                buttons=[],
                height=280,
                elem_id="picture",
                placeholder="Drop a picture here, paste it, or click to choose a file",
            )
            caption = gr.Textbox(
                label="Caption",
                info="The prompt that the picture was made from. Without it only artifacts are looked for.",
                placeholder="a red house beside a lake",
                lines=2,
                max_lines=6,
                elem_id="caption",
            )
            button = gr.Button("Find defects", variant="primary", elem_id="run")
            if examples:
                fragment("<h3>Or choose an example</h3>", "or")
                gallery = gr.Gallery(
                    value=[(example.path, example.caption) for example in examples],
                    show_label=False,
                    container=False,
                    columns=3,
                    height="auto",
                    object_fit="cover",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="examples",
                )
        with gr.Column(scale=7, min_width=320, elem_classes="sdg-output"):
            verdict = fragment(html.verdict("idle", *IDLE), "verdict")
            with gr.Row(elem_classes="sdg-result"):
                with gr.Column(scale=4, min_width=260):
                    drawn = gr.Image(
                        label="Defects",
                        show_label=False,
                        interactive=False,
                        format="png",
                        buttons=["download", "fullscreen"],
                        visible=False,
                        elem_id="drawn",
                    )
                    key = fragment(html.legend(), "legend", visible=False)
                with gr.Column(scale=3, min_width=240):
                    words = fragment("", "reasoning", visible=False)
            table = fragment("", "defects", visible=False)
            with gr.Accordion("JSON", open=False, visible=False, elem_id="json") as fold:
                code = gr.Code(language="json", show_label=False, interactive=False, max_lines=24, lines=4)
    outputs = [drawn, key, verdict, words, table, code, fold]

    # preprocess=False: the tab opens the file itself, so that what is no picture is refused in a sentence.
    gr.on(
        [button.click, caption.submit],
        _runner(detector),
        [picture, caption],
        outputs,
        preprocess=False,
        show_progress="hidden",
        api_visibility="private",
        **queue_of(detector),
    )
    if examples:

        def choose(event: gr.SelectData) -> tuple[str, str]:
            example = examples[event.index]
            return str(example.path), example.caption

        gallery.select(choose, None, [picture, caption], api_visibility="private", show_progress="hidden")
    gr.api(_endpoint(detector), api_name="detect", **queue_of(detector))


def queue_of(detector: Detector) -> dict[str, Any]:
    """How visitors wait: the tab and the API take turns on a model; one that works on many at a time takes as many."""
    return {"concurrency_limit": getattr(detector.engine, "concurrency", 1), "concurrency_id": "detector"}


IDLE = ("Ready", "Choose a picture, write the caption that it was made from, and press Find defects.")


def watch(detector: Detector, image: Image.Image, caption: str) -> Iterator[str | DefectSet]:
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
    """The tab's outputs for an answer; without a readable one the bare picture is not shown as if it were clean."""
    if found.parse_error:
        picture, words = gr.update(value=None, visible=False), html.reasoning(found.raw or "", "raw")
    else:
        picture, words = gr.update(value=overlay(image, found), visible=True), html.reasoning(found.reasoning or "")
    return (
        picture,
        gr.update(visible=bool(found)),
        html.verdict_on(found) + html.outside(found),
        gr.update(value=words, visible=True),
        gr.update(value=html.table(found), visible=bool(found)),
        html.as_json(found),
        gr.update(visible=True),
    )


def so_far(text: str) -> str:
    """What of a half-written answer a person reads: the think text, without the answer's JSON."""
    return text.split("<answer>")[0].replace("<think>", "").replace("</think>", "").strip()


def _runner(detector: Detector) -> Callable[..., Iterator[View]]:
    def run(picture: Any, caption: str | None) -> Iterator[View]:
        hide = gr.update(visible=False)
        try:
            image = _opened(picture)
            if len(caption or "") > MAX_CAPTION:
                gr.Warning(f"The caption is long: only its first {MAX_CAPTION} characters are given to the model.")
            waiting = html.verdict("busy", "Looking", "The model reads the caption, then the picture.")
            plain = gr.update(value=overlay(image, DefectSet()), visible=True)
            thinking = gr.update(value=html.reasoning("", "writing"), visible=True)
            yield plain, hide, waiting, thinking, hide, "", hide
            for step in watch(detector, image, caption or ""):
                if isinstance(step, DefectSet):
                    yield show(image, step)
                else:
                    yield gr.skip(), gr.skip(), gr.skip(), html.reasoning(so_far(step), "writing"), hide, "", hide
        except Exception as error:
            message = _sentence(error)
            yield hide, hide, html.verdict("failed", "This did not work", message), hide, hide, "", hide
            raise gr.Error(message, title="This did not work", print_exception=False) from error

    return run


def _endpoint(detector: Detector) -> Callable[..., dict[str, Any]]:
    def detect(image: gr.FileData, caption: str = "") -> dict[str, Any]:
        """Find the defects of a generated picture.

        Args:
            image: the picture, as a file.
            caption: the prompt that the picture was made from; empty looks for artifacts only.

        Returns:
            defects (box on a 0..1000 grid as x0, y0, x1, y1, type, reason, importance 1..100, tier), caption,
            reasoning, parse_error (None, or why the model's answer could not be read), raw, info.
        """
        try:
            return detector(_opened(image), caption or "").to_json()
        except Exception as error:
            raise gr.Error(_sentence(error), print_exception=False) from error

    return detect


def _opened(picture: Any) -> Image.Image:
    """The uploaded file as an RGB picture.

    Raises:
        ValueError: where nothing was uploaded, where the path is not that of an upload, or where it is no picture.
    """
    if not picture:
        raise ValueError("There is no picture yet: upload one or choose an example.")
    path = upload(picture, "The picture").path
    try:
        return open_image(path)
    except ImageError as error:
        raise ImageError(str(error).replace(str(path), path.name)) from error


def _sentence(error: Exception) -> str:
    """What a visitor is told: our own refusals as they are; anything else by its kind, with the details in the log."""
    if isinstance(error, ValueError):
        return str(error)
    log.exception("detection failed", exc_info=error)
    return f"The model failed on this picture ({type(error).__name__}). The log of the page has the details."
