"""What a tab about one picture asks a visitor for: the picture, its caption, or an example of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from sdg.web.examples import Example
from sdg.web.theme import fragment


def picture_input(label: str, elem_id: str) -> gr.Image:
    """A place for a picture, handed over as a file: the tab opens it itself."""
    return gr.Image(
        type="filepath",
        image_mode=None,
        label=label,
        sources=["upload", "clipboard"],
        buttons=[],
        height=280,
        elem_id=elem_id,
        elem_classes="sdg-upload",
        placeholder="Drop a picture here, paste it, or click to choose a file",
    )


def caption_input(info: str, elem_id: str) -> gr.Textbox:
    """A place for the caption."""
    return gr.Textbox(
        label="Caption",
        info=info,
        placeholder="a red house beside a lake",
        lines=2,
        max_lines=6,
        elem_id=elem_id,
        elem_classes="sdg-prompt",
    )


def reveal(triggers: Sequence[Any], elem_id: str) -> None:
    """On a phone, where an answer comes below what it is asked for with, scroll to it.

    Args:
        triggers: events of components.
        elem_id: of the answer's first part.
    """
    scroll = f"document.getElementById('{elem_id}')?.scrollIntoView({{behavior: 'smooth'}})"
    gr.on(triggers, None, js=f"() => {{ if (innerWidth <= 720) {scroll} }}", api_visibility="private")


def example_gallery(examples: Sequence[Example], title: str, elem_id: str) -> gr.Gallery:
    """Pictures to choose from, under a title."""
    fragment(f"<h3>{title}</h3>", f"{elem_id}-title")
    return gr.Gallery(
        value=[(example.path, example.caption) for example in examples],
        show_label=False,
        container=False,
        columns=3 if len(examples) % 3 == 0 else 4,
        height="auto",
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id=elem_id,
        elem_classes="sdg-gallery",
    )
