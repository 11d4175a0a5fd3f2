"""The Refine tab, and its endpoint: a broken picture in, a mended one out, and what was done to it, step by step."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from sdg.defects import DefectSet
from sdg.draw import overlay
from sdg.refine import DefectRefiner, Editor, Refinement, Step, load
from sdg.web import html, result
from sdg.web.background import in_background
from sdg.web.detect import opened, queue_of, sentence
from sdg.web.examples import Example
from sdg.web.inputs import caption_input, example_gallery, picture_input
from sdg.web.models import Models
from sdg.web.places import Latest
from sdg.web.refine_html import steps_of, told
from sdg.web.theme import fragment

MAX_CANDIDATES, MAX_ROUNDS = 8, 4
PARTS = 11
"""How many values a view has."""
SHOWN_SIDE = 512
"""Pictures are shown at least this large."""

IDLE = ("Ready", "Choose a broken picture, write its caption, and press Repair. It gets better, or stays as it is.")
NO_EDITOR = (
    "This page has nothing to edit pictures with. Start it with `SDG_EDITOR` set to a diffusers pipeline that fills in "
    "masks or follows instructions, such as `SDG_EDITOR=black-forest-labs/FLUX.1-Fill-dev`."
)

View = tuple[Any, ...]
"""Values of the tab's outputs: verdict, row of the answer, slider, choice of a step, list of steps, file to download,
JSON and its fold, the refinement, the file of its picture, the button that stops."""


def refine_tab(models: Models, editor: Editor | None, examples: Sequence[Example], chosen: gr.Textbox) -> None:
    """Build the tab inside the page that is being built.

    Args:
        models: what finds the defects.
        editor: what repairs them; None where the page has none, which it then says.
        examples: pictures with captions to try.
        chosen: holds the label of the visitor's model.
    """
    if editor is None:
        fragment(html.notice(NO_EDITOR), "no-editor")
        return
    with gr.Row(elem_classes="sdg-columns"):
        with gr.Column(scale=3, min_width=300, elem_classes="sdg-input"):
            picture = picture_input("Broken picture", "refine-picture")
            caption = caption_input(
                "What the picture should show. Without it only artifacts are repaired.", "refine-caption"
            )
            with gr.Row(elem_classes="sdg-buttons"):
                button = gr.Button("Repair", variant="primary", elem_id="refine-run", min_width=120)
                cancel = gr.Button("Stop", elem_id="refine-stop", min_width=80, visible=False)
            with gr.Accordion("Options", open=False, elem_id="refine-options"):
                rounds = gr.Slider(1, MAX_ROUNDS, 2, step=1, label="Rounds", info="Of detecting and editing.")
                candidates = gr.Slider(
                    1, MAX_CANDIDATES, 4, step=1, label="Candidates", info="Edits of a place; the best is kept."
                )
                importance = gr.Slider(1, 100, 1, step=1, label="Repair from importance")
                confidence = gr.Slider(0, 1, 0.5, step=0.05, label="Repair from confidence")
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="refine-seed")
            if examples:
                gallery = example_gallery(examples, "Or choose an example", "refine-examples")
        with gr.Column(scale=7, min_width=320, elem_classes="sdg-output"):
            verdict = fragment(html.verdict("idle", *IDLE), "refine-verdict")
            with gr.Row(elem_classes="sdg-result", visible=False) as row:
                with gr.Column(scale=4, min_width=260):
                    slider = gr.ImageSlider(
                        label="Before and after",
                        show_label=False,
                        interactive=False,
                        type="pil",
                        format="png",
                        buttons=["fullscreen"],
                        elem_id="refine-slider",
                    )
                    which = gr.Radio(
                        [("All steps", -1)],
                        value=-1,
                        label="Show",
                        container=False,
                        visible=False,
                        elem_id="refine-which",
                    )
                with gr.Column(scale=3, min_width=240):
                    steps = fragment("", "refine-steps")
                    with gr.Row(elem_classes="sdg-buttons"):
                        again = gr.Button("Use this result as input", size="md", elem_id="refine-again", min_width=120)
                        saved = gr.DownloadButton(
                            "Download picture", size="md", elem_id="refine-download", min_width=120
                        )
            with gr.Accordion("JSON", open=False, visible=False, elem_id="refine-json") as fold:
                code = gr.Code(language="json", show_label=False, interactive=False, max_lines=24, lines=4)
    held = gr.State(None, time_to_live=3600)
    mended = gr.State(None, time_to_live=3600)
    outputs = [verdict, row, slider, which, steps, saved, code, fold, held, mended, cancel]
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    # preprocess=False: the tab opens the file itself, so that what is no picture is refused in a sentence.
    inputs = [picture, caption, rounds, candidates, importance, confidence, seed, chosen]
    queue = queue_of(models)
    hide, triggers = gr.update(visible=False), [button.click, caption.submit]
    waiting = html.verdict("busy", "Waiting", "One picture is repaired after the other; your turn comes.")
    stopped = html.verdict("idle", "Stopped", IDLE[1])
    seen, question, latest = [verdict, row, cancel, fold], gr.Textbox(visible=False), Latest()
    turn = threading.Lock()  # a repair that was stopped holds it until its step is done

    def begin(request: gr.Request) -> tuple[Any, ...]:
        return waiting, hide, gr.update(visible=True), hide, latest.ask(request.session_hash)

    def stop(request: gr.Request) -> tuple[Any, ...]:
        latest.ask(request.session_hash)
        return stopped, hide, hide, hide

    # Who stops or asks anew ends the repair before, which looks for that: Gradio's own cancelling may lose a question.
    begun = gr.on(triggers, begin, None, [*seen, question], queue=False, **private)
    begun.then(
        _runner(models, editor, latest, turn),
        [*inputs, question],
        outputs,
        preprocess=False,
        trigger_mode="multiple",
        **private,
        **queue,
    )
    cancel.click(stop, None, seen, queue=False, **private)
    which.change(_shown, [held, which], slider, queue=False, **private)
    again.click(lambda path: path, mended, picture, queue=False, **private)
    if examples:

        def choose(event: gr.SelectData) -> tuple[str, str]:
            example = examples[event.index]
            return str(example.path), example.caption

        gallery.select(choose, None, [picture, caption], **private)
    gr.api(_endpoint(models, editor, turn), api_name="refine", **queue)


def compare(before: Image.Image, after: Image.Image, defects: DefectSet) -> tuple[str, str]:
    """The two halves of the slider as files: before, with the frames of what was to be repaired, and after."""
    framed = overlay(before, defects, min_side=SHOWN_SIDE)
    shown = after if after.size == framed.size else after.resize(framed.size, Image.Resampling.BICUBIC)
    return saved_picture(framed), saved_picture(shown)


def _shown(refinement: Refinement | None, index: int) -> Any:
    if refinement is None:
        return gr.skip()
    if index < 0:
        return compare(refinement.original, refinement.image, refinement.before)
    step = refinement.steps[index]
    return compare(step.before, step.after, DefectSet(step.defects))


def _runner(models: Models, editor: Editor, latest: Latest, turn: threading.Lock) -> Callable[..., Iterator[View]]:
    def run(
        picture: Any,
        caption: str | None,
        rounds: int,
        candidates: int,
        importance: int,
        confidence: float,
        seed: int,
        chosen: str | None,
        question: str,
        request: gr.Request,
    ) -> Iterator[View]:
        hide, skip = gr.update(visible=False), gr.skip()
        try:
            if not latest.is_last(request.session_hash, question):
                return
            _, image = opened(picture)
            mender = _refiner(models.get(chosen), editor, rounds, candidates, importance, confidence)
            looking = html.verdict("busy", "Looking", "The model reads the caption, then the picture.")
            start = gr.update(value=compare(image, image, DefectSet()))
            yield looking, gr.update(visible=True), start, hide, "", hide, "", hide, None, None, gr.update(visible=True)
            before, done = DefectSet(), list[Step]()
            work = in_background(mender.iter(image, caption or "", seed=_seed(seed)), turn)
            with closing(work) as steps:
                for part in steps:
                    if not latest.is_last(request.session_hash, question):
                        return
                    if part is None:
                        yield (skip,) * PARTS
                    elif isinstance(part, Refinement):
                        yield _done(part)
                    elif isinstance(part, Step):
                        done.append(part)
                        halves = compare(image, part.after, before)
                        yield _busy(part), skip, halves, skip, steps_of(done), skip, skip, skip, skip, skip, skip
                    else:
                        before = part
                        busy = html.verdict("busy", "Repairing", told(before))
                        yield busy, skip, compare(image, image, before), skip, skip, skip, skip, skip, skip, skip, skip
        except Exception as error:
            message = sentence(error)
            failed = html.verdict("failed", "This did not work", message)
            yield failed, hide, skip, hide, "", hide, "", hide, None, None, hide
            raise gr.Error(message, title="This did not work", print_exception=False) from error

    return run


def _busy(step: Step) -> str:
    return html.verdict("busy", f"Round {step.round}", f"{step.reason[:1].upper()}{step.reason[1:]}.")


def _done(refinement: Refinement) -> View:
    """The tab's outputs for a refinement."""
    names = [("All steps", -1), *((f"Step {number}", number - 1) for number in range(1, len(refinement.steps) + 1))]
    several = len(refinement.steps) > 1
    path = saved_picture(refinement.image)
    return (
        _verdict(refinement),
        gr.update(visible=True),
        compare(refinement.original, refinement.image, refinement.before),
        gr.update(choices=names, value=-1, visible=several),
        steps_of(refinement.steps),
        gr.update(value=path, visible=True),
        result.as_json(refinement.to_json()),
        gr.update(visible=True),
        refinement,
        path,
        gr.update(visible=False),
    )


def _verdict(refinement: Refinement) -> str:
    before, after = load(refinement.before), load(refinement.after)
    reason = f"{refinement.reason[:1].upper()}{refinement.reason[1:]}."
    if refinement.before.parse_error:
        return html.verdict_on(refinement.before)
    if refinement.changed:
        left = f" {len(refinement.after)} left." if refinement.after else " Nothing is left that the model finds."
        return html.verdict("clean", f"Repaired: defect load {before:.2f} → {after:.2f}", reason + left)
    if not refinement.before:
        return html.verdict("clean", "Nothing to repair", "No defect found: the picture is as it was, to the bit.")
    return html.verdict("unread" if not refinement.steps else "found", "Left as it was", reason)


def _endpoint(models: Models, editor: Editor, turn: threading.Lock) -> Callable[..., Any]:
    def refine(
        image: gr.FileData,
        caption: str = "",
        rounds: int = 2,
        candidates: int = 4,
        min_importance: int = 1,
        min_confidence: float = 0.5,
        seed: int = 0,
        model: str = "",
    ) -> tuple[gr.FileData, dict[str, Any]]:
        """Repair the defects of a generated picture and leave everything else as it is.

        Args:
            image: the picture, as a file.
            caption: what it should show; empty repairs artifacts only.
            rounds: of detecting and editing, 1..4.
            candidates: edits of a place, of which the best is kept if it is better, 1..8.
            min_importance: less important defects are left alone, 1..100.
            min_confidence: less sure ones likewise, 0..1.
            seed: of the candidates; the same one gives the same picture.
            model: one of the models that the page offers, by its name there; empty is the page's own.

        Returns:
            the picture as a PNG file, and what was done: changed, reason, load and defects before and after, steps.
        """
        try:
            mender = _refiner(models.get(model), editor, rounds, candidates, min_importance, min_confidence)
            with turn:
                refinement = mender(opened(image)[1], caption, seed=_seed(seed))
            return gr.FileData(path=saved_picture(refinement.image)), refinement.to_json()
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from error

    return refine


def saved_picture(image: Image.Image) -> str:
    """A PNG file of the picture among the page's uploads, where it may be read again and is removed in time.

    A picture that lies there is not written again: a browser may be reading it at that moment.
    """
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    path = Path(get_upload_folder(), hashlib.sha256(buffer.getvalue()).hexdigest(), "refined.png")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{threading.get_ident()}.unfinished")
        unfinished.write_bytes(buffer.getvalue())
        os.replace(unfinished, path)
    return str(path)


def _seed(seed: Any) -> int:
    if seed is None or not 0 <= int(seed) < 2**31:
        raise ValueError(f"seed={seed!r} is not a whole number from 0 to {2**31 - 1}")
    return int(seed)


def _refiner(
    detector: Any, editor: Editor, rounds: int, candidates: int, importance: int, confidence: float
) -> DefectRefiner:
    """A refiner with a visitor's options, bounded."""
    for name, value, most in (("rounds", rounds, MAX_ROUNDS), ("candidates", candidates, MAX_CANDIDATES)):
        if value > most:
            raise ValueError(f"{name}={value!r} is above {most}, the most that this page takes")
    return DefectRefiner(
        detector,
        editor,
        rounds=int(rounds),
        candidates=int(candidates),
        min_importance=int(importance),
        min_confidence=float(confidence),
    )
