"""What the Refine tab shows: the view of each state by the names of the tab's parts, and pictures as files."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from sdg.defects import DefectSet
from sdg.draw import overlay
from sdg.engines.images import fit
from sdg.refine import Refinement, Step
from sdg.web import html, refine_html, result
from sdg.web.detect import View, idle_buttons

SHOWN_SIDE, SHOWN_MOST = 512, 1024
"""Pixels of the longer side that pictures are shown with, at least and at most."""


def nothing() -> View:
    """Every part of an answer out of sight, what it held included."""
    empty = {name: gr.update(value="", visible=False) for name in ("picture", "fates", "facts", "steps")}
    hide = {name: gr.update(visible=False) for name in ("compared", "saved", "again", "another", "json_fold")}
    return empty | hide | {"json": "", "held": None, "path": None}


def going_on(done: Sequence[Step]) -> View:
    """What is seen between two steps: the picture as it is by now, and what the model finds in it.

    Args:
        done: the steps so far, at least one.
    """
    step = done[-1]
    now = step.found if step.kept is None or step.kept.found is None else step.kept.found
    told = f"{step.reason[:1].upper()}{step.reason[1:]}."
    return {
        "verdict": html.verdict("busy", f"Step {len(done)} is done, looking for more", told),
        "picture": gr.update(value=result.picture(step.after, now)),
        "fates": gr.update(value=refine_html.fates(now)),
        "steps": gr.update(value=refine_html.steps_of(done, finished=False), visible=True),
    }


def done_view(refinement: Refinement, detector: str) -> View:
    """The tab's view of a refinement: two halves to compare where something changed, else the picture as it was."""
    changed, before = refinement.changed, refinement.before
    names = [("All steps", -1), *((f"Step {number}", number - 1) for number in range(1, len(refinement.steps) + 1))]
    view: View = {
        **nothing(),
        **idle_buttons(),
        "verdict": refine_html.verdict_on(refinement),
        "steps": gr.update(value=refine_html.steps_of(refinement.steps), visible=bool(refinement.steps)),
        "facts": gr.update(value=refine_html.facts(refinement, detector), visible=True),
        "another": gr.update(visible=bool(refinement.steps)),
        "json": result.as_json(refinement.to_json()),
        "json_fold": gr.update(visible=True),
    }
    if not before.parse_error:
        left = refinement.after if changed else None
        view["fates"] = gr.update(value=refine_html.fates(before, left), visible=bool(before))
    if not changed:
        if not before.parse_error:
            doubted = bool(before.info.get("out_of_world", {}).get("outside"))
            view["picture"] = gr.update(value=result.picture(refinement.original, before, doubted), visible=True)
        return view
    path = saved_picture(refinement.image)
    held = shown_small(refinement)
    return view | {
        "compared": gr.update(visible=True),
        "slider": compare(held.original, held.image, before, held.after),
        "which": gr.update(choices=names, value=-1, visible=len(refinement.steps) > 1),
        "frames": True,
        "saved": gr.update(value=path, visible=True),
        "again": gr.update(visible=True),
        "held": held,
        "path": path,
    }


def shown_small(refinement: Refinement) -> Refinement:
    """As large as it is shown: a page holds it for an hour, and a browser loads two halves of it at every click."""

    def small(step: Step) -> Step:
        tried = list(step.candidates)
        if step.chosen is not None:
            tried[step.chosen] = replace(tried[step.chosen], image=fit(step.after, SHOWN_MOST))
        return replace(step, before=fit(step.before, SHOWN_MOST), mask=None, candidates=tuple(tried))

    return replace(
        refinement,
        original=fit(refinement.original, SHOWN_MOST),
        image=fit(refinement.image, SHOWN_MOST),
        steps=tuple(map(small, refinement.steps)),
    )


def compare(before: Image.Image, after: Image.Image, found: DefectSet, left: DefectSet) -> tuple[str, str]:
    """The two halves of the slider as files, of one size.

    Args:
        before: the picture.
        after: what became of it.
        found: the defects of ``before``, framed and numbered.
        left: those of ``after``, framed.
    """
    halves = overlay(before, found, min_side=SHOWN_SIDE, tiers=False), overlay(after, left, False, SHOWN_SIDE)
    return saved_picture(halves[0]), saved_picture(halves[1])


def chosen_halves(refinement: Refinement | None, index: int, frames: bool) -> Any:
    """The slider's halves for all steps (-1) or for one of them, with or without frames."""
    if refinement is None:
        return gr.skip()
    if index < 0:
        halves = refinement.original, refinement.image, refinement.before, refinement.after
    else:
        step = refinement.steps[index]
        left = step.found if step.kept is None else step.kept.found
        halves = step.before, step.after, step.found, left or DefectSet()
    return compare(*halves) if frames else compare(*halves[:2], DefectSet(), DefectSet())


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
