"""The Refine tab, and its endpoint: a broken picture in, a better one or the same out, and what was done to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr
from PIL import Image

from sdg.defects import DefectSet, DefectType
from sdg.refine import DefectRefiner, Editor, Refinement, Step
from sdg.refine.refiner import Options
from sdg.web import html, refine_html, result
from sdg.web.background import Turn, in_background
from sdg.web.detect import LINE, SKIP, Parts, View, check_text, idle_buttons, opened, queue_of, sentence, waiting
from sdg.web.examples import Example, Kept
from sdg.web.gpu import on_gpu, refining_seconds
from sdg.web.inputs import caption_input, example_gallery, picture_input, reveal
from sdg.web.models import Models
from sdg.web.places import Latest, before, check_room, while_wanted
from sdg.web.refine_views import chosen_halves, done_view, going_on, nothing, saved_picture
from sdg.web.served import WORLDS
from sdg.web.theme import fragment

MAX_CANDIDATES, MAX_ROUNDS = 8, 4
OPTIONS: dict[str, Any] = {"rounds": 2, "candidates": 4, "min_importance": 1, "min_confidence": 0.5}
"""What a visitor may choose, by argument of :class:`~sdg.refine.DefectRefiner`, as it is before."""
NO_EDITOR = (
    "This page has nothing to edit pictures with. Start it with `SDG_EDITOR` set to a diffusers pipeline that fills in "
    "masks or follows instructions, such as `SDG_EDITOR=black-forest-labs/FLUX.1-Fill-dev`."
)

Work = Callable[[str | None, Image.Image, str, dict[str, Any], int], Generator[DefectSet | Step | Refinement]]
"""Repairs a picture and tells how it goes: of a model's name, picture, caption, :data:`OPTIONS` and seed."""


def refine_tab(
    models: Models,
    editor: Editor | None,
    examples: Sequence[Example],
    chosen: gr.Textbox,
    page: gr.Blocks,
    repairs: Sequence[Example] = (),
) -> None:
    """Build the tab inside the page that is being built.

    Args:
        models: what finds the defects.
        editor: what repairs them; None where the page has none, which it then says.
        examples: pictures with captions to try.
        chosen: holds the label of the visitor's model.
        page: the page itself, whose queue visitors wait in.
        repairs: examples that the editor does well on, in place of the others.
    """
    if editor is None:
        fragment(html.notice(NO_EDITOR), "no-editor")
        return
    can = set(getattr(editor, "types", tuple(DefectType)))
    # A clean one, too: it stays as it is.
    examples = repairs or [e for e in examples if not e.types or e.types & can]
    invitation = "Or repair an example" + (", chosen where this editor does well" if repairs else "")
    with gr.Row(elem_classes="sdg-columns"):
        with gr.Column(scale=3, min_width=300, elem_classes="sdg-input"):
            picture = picture_input("Picture to repair", "refine-picture")
            caption = caption_input(
                "What the picture should show. Without it only artifacts are looked for.", "refine-caption"
            )
            if (world := getattr(editor, "made_for", None)) is not None:
                said = f"{editor.name} repairs pictures of {WORLDS.get(world, world)}; in others it draws nonsense."
                fragment(f'<p class="sdg-note">{escape(said)}</p>', "editor-world")
            button = gr.Button("Repair", variant="primary", elem_id="refine-run")
            stop = gr.Button("Stop", variant="secondary", visible=False, elem_id="refine-stop")
            if examples:
                gallery = example_gallery(examples, invitation, "refine-examples")
            with gr.Accordion("Options", open=False, elem_id="refine-options"):
                options = _options()
                seed = gr.Number(
                    0, label="Seed", precision=0, minimum=0, elem_id="refine-seed", info="The same one, the same edits."
                )
        with gr.Column(scale=7, min_width=320, elem_classes="sdg-output"):
            parts = _answer_parts(editor) | {"run": button, "stop": stop}
    held, path = gr.State(None, time_to_live=3600), gr.State(None, time_to_live=3600)
    parts |= {"held": held, "path": path}

    question, latest = gr.Textbox(visible=False), Latest()
    # A repair that was stopped holds it until its step is done; no editor works on two pictures at a time.
    turn: Turn = models.turn if models.at_a_time == 1 else threading.Lock()
    work = _work(models, editor)
    run = _runner(models, work, turn, Kept(examples))
    idle = refine_html.idle(editor.local, "Stopped")

    def named(view: View) -> dict[Any, Any]:
        return {parts[name]: value for name, value in view.items()}

    def begin(request: gr.Request) -> dict[Any, Any]:
        check_room(page, request.session_hash)
        return {**named({**nothing(), **waiting(before(page, LINE))}), question: latest.ask(request.session_hash)}

    def choose(event: gr.SelectData, request: gr.Request) -> dict[Any, Any]:
        example = examples[event.index]
        return {picture: str(example.path), caption: example.caption, **begin(request)}

    def reseed(number: Any, request: gr.Request) -> dict[Any, Any]:
        return {seed: _seed(number or 0) + 1, **begin(request)}

    def stopped(request: gr.Request) -> dict[Any, Any]:
        latest.ask(request.session_hash)
        return named({**nothing(), **idle_buttons(), "verdict": idle})

    def shown(
        picture: Any, caption: Any, rounds: Any, candidates: Any, importance: Any, confidence: Any, seed: Any,
        chosen: Any, question: str, request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:  # fmt: skip
        def wanted() -> bool:
            return latest.is_last(request.session_hash, question)

        asked = picture, caption, rounds, candidates, importance, confidence, seed, chosen
        with closing(while_wanted(run(*asked, wanted), wanted, SKIP)) as views:
            yield from map(named, views)

    hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    outputs = [*parts.values(), question]
    begun = [
        gr.on([button.click, caption.submit], begin, None, outputs, queue=False, **hidden),
        parts["another"].click(reseed, seed, [seed, *outputs], queue=False, **hidden),
    ]
    if examples:
        begun.append(gallery.select(choose, None, [picture, caption, *outputs], queue=False, **hidden))
    # preprocess=False: the tab opens the file itself, so that what is no picture is refused in a sentence. Who stops or
    # asks anew ends the repair before, which looks for that: Gradio's own cancelling may lose a question.
    for event in begun:
        event.success(
            shown,
            [picture, caption, *options, seed, chosen, question],
            list(parts.values()),
            preprocess=False,
            trigger_mode="multiple",
            **hidden,
            **queue_of(models),
        )
    reveal([button.click, *([gallery.select] if examples else [])], "refine-verdict")
    stop.click(stopped, None, outputs, queue=False, **hidden)
    gr.on(
        [parts["which"].change, parts["frames"].change],
        chosen_halves,
        [held, parts["which"], parts["frames"]],
        parts["slider"],
        queue=False,
        **hidden,
    )
    parts["again"].click(lambda path: path, path, picture, queue=False, **hidden)
    gr.api(_endpoint(models, work, turn), api_name="refine", **queue_of(models))


def _options() -> list[gr.Slider]:
    """A slider for each of :data:`OPTIONS`, in their order."""
    return [
        gr.Slider(1, MAX_ROUNDS, OPTIONS["rounds"], step=1, label="Rounds", info="Of looking and redrawing."),
        gr.Slider(
            1,
            MAX_CANDIDATES,
            OPTIONS["candidates"],
            step=1,
            label="Candidates",
            info="Edits of a place, of which the best is kept, if it is better.",
        ),
        gr.Slider(1, 100, OPTIONS["min_importance"], step=1, label="Repair from importance"),
        gr.Slider(0, 1, OPTIONS["min_confidence"], step=0.05, label="Repair from confidence"),
    ]


def _answer_parts(editor: Editor) -> Parts:
    """The components that show an answer, by name."""
    parts: Parts = {"verdict": fragment(refine_html.idle(editor.local), "refine-verdict")}
    with gr.Row(elem_classes="sdg-result"):
        with gr.Column(scale=4, min_width=260):
            parts["picture"] = fragment("", "refine-drawn", visible=False)
            with gr.Column(visible=False, elem_id="refine-compared") as parts["compared"]:
                parts["slider"] = gr.ImageSlider(
                    label="Before and after",
                    show_label=False,
                    interactive=False,
                    type="pil",
                    format="png",
                    buttons=["fullscreen"],
                    elem_id="refine-slider",
                )
                fragment(f"<figure>{result.legend()}</figure>", "refine-legend")
                with gr.Row(elem_classes="sdg-shown-row"):
                    parts["which"] = gr.Radio(
                        [("All steps", -1)],
                        value=-1,
                        label="Which step is shown",
                        show_label=False,
                        container=False,
                        visible=False,
                        elem_id="refine-which",
                    )
                    parts["frames"] = gr.Checkbox(
                        True, label="Frames", container=False, min_width=90, elem_id="refine-frames"
                    )
        with gr.Column(scale=3, min_width=240):
            parts["fates"] = fragment("", "refine-fates", visible=False)
            parts["saved"] = gr.DownloadButton("Download picture", size="md", visible=False, elem_id="refine-download")
            parts["again"] = gr.Button("Use this result as input", size="md", visible=False, elem_id="refine-again")
            parts["another"] = gr.Button("Try another seed", size="md", visible=False, elem_id="refine-another")
            parts["facts"] = fragment("", "refine-facts", visible=False)
    parts["steps"] = fragment("", "refine-steps", visible=False)
    with gr.Accordion("JSON", open=False, visible=False, elem_id="refine-json") as parts["json_fold"]:
        parts["json"] = gr.Code(language="json", show_label=False, interactive=False, max_lines=24, lines=4)
    return parts


def light(part: DefectSet | Step | Refinement) -> DefectSet | Step | Refinement:
    """Without the pictures of candidates that were not kept: a page holds what it shows for an hour."""
    if isinstance(part, Step):
        kept = part.chosen
        tried = tuple(c if i == kept else replace(c, image=None) for i, c in enumerate(part.candidates))
        return replace(part, candidates=tried)
    if isinstance(part, Refinement):
        return replace(part, steps=tuple(map(light, part.steps)))  # type: ignore[arg-type]
    return part


def _work(models: Models, editor: Editor) -> Work:
    """The work on models, which asks for a GPU where the page borrows one."""

    def work(
        name: str | None, image: Image.Image, caption: str, options: dict[str, Any], seed: int
    ) -> Generator[DefectSet | Step | Refinement]:
        detector: Any = models.get(name)  # which looks at lists, too, as the page itself never asks
        mender = DefectRefiner(detector, editor, **options)
        for part in mender.iter(image, caption, seed=seed):
            yield light(part)

    return on_gpu(work, refining_seconds)


def _runner(models: Models, work: Work, turn: Turn, kept: Kept[Refinement]) -> Callable[..., Generator[View]]:
    def run(
        picture: Any,
        caption: Any,
        rounds: int,
        candidates: int,
        importance: int,
        confidence: float,
        seed: Any,
        chosen: Any,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Generator[View]:
        caption = caption if isinstance(caption, str) else ""
        chosen = chosen if isinstance(chosen, str) else None
        try:
            if not wanted():
                return
            path, image = opened(picture)
            options, number = checked(rounds, candidates, importance, confidence), _seed(seed)
            # Of examples only what everyone gets at a click is kept: who turns the options would fill the memory.
            plain = options == OPTIONS and number == 0
            known = kept.find(chosen, path, caption) if plain else None
            if known is not None:
                yield done_view(known, _name(models, chosen))
                return
            if not models.ready(chosen):
                yield {"verdict": html.verdict("busy", "Loading the model", f"{chosen} comes into memory.")}
                models.get(chosen)
            yield {
                "verdict": html.verdict("busy", "Looking", "The model reads the caption, then the picture."),
                "picture": gr.update(value=result.picture(image, DefectSet()), visible=True),
            }
            done = list[Step]()
            with closing(in_background(work(chosen, image, caption, options, number), turn)) as parts:
                for part in parts:
                    if not wanted():
                        return
                    if part is None:
                        yield SKIP
                    elif isinstance(part, Refinement):
                        if plain and not part.before.parse_error:
                            kept.keep(chosen, path, caption, part)
                        yield done_view(part, _name(models, chosen))
                    elif isinstance(part, Step):
                        done.append(part)
                        yield going_on(done)
                    elif part:
                        yield {
                            "verdict": html.verdict("busy", "Repairing", refine_html.told(part)),
                            "picture": gr.update(value=result.picture(image, part)),
                            "fates": gr.update(value=refine_html.fates(part), visible=True),
                        }
        except Exception as error:
            if not wanted():
                return
            message = sentence(error)
            failed = html.verdict("failed", "This did not work", message)
            yield {**nothing(), **idle_buttons(), "verdict": failed}
            raise gr.Error(message, title="This did not work", print_exception=False) from error

    return run


def _name(models: Models, chosen: str | None) -> str:
    return chosen or models.default


def _endpoint(models: Models, work: Work, turn: Turn) -> Callable[..., Any]:
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
            check_text(caption=caption, model=model)
            options = checked(rounds, candidates, min_importance, min_confidence)
            picture, number = opened(image)[1], _seed(seed)
            models.get(model)
            with turn:
                *_, refinement = work(model, picture, caption or "", options, number)
            assert isinstance(refinement, Refinement)
            return gr.FileData(path=saved_picture(refinement.image)), refinement.to_json()
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from error

    # As values, not as text: Gradio then makes two results of them, and the file gets an address.
    refine.__annotations__["return"] = tuple[gr.FileData, dict]
    return refine


def _seed(seed: Any) -> int:
    number = _number("seed", seed, whole=True)
    if not 0 <= number < 2**31:
        raise ValueError(f"seed={seed!r} is not a whole number from 0 to {2**31 - 1}")
    return int(number)


def _number(name: str, value: Any, whole: bool) -> float:
    """What a slider or a program sends as a number.

    Raises:
        ValueError: naming the argument, where it is none.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53  # not of nan
    if not number or (whole and value != int(value)):
        raise ValueError(f"{name}={value!r:.100} is not a {'whole ' if whole else ''}number")
    return float(value)


def checked(rounds: Any, candidates: Any, importance: Any, confidence: Any) -> dict[str, Any]:
    """A visitor's options as arguments of :class:`~sdg.refine.DefectRefiner`.

    Raises:
        ValueError: for one that is out of range, or above what the page takes.
    """
    options: dict[str, Any] = {}
    for name, value in zip(OPTIONS, (rounds, candidates, importance, confidence), strict=True):
        kind = type(OPTIONS[name])
        options[name] = kind(_number(name, value, whole=kind is int))
    for name, most in (("rounds", MAX_ROUNDS), ("candidates", MAX_CANDIDATES)):
        if options[name] > most:
            raise ValueError(f"{name}={options[name]} is above {most}, the most that this page takes")
    Options(**options)
    return options
