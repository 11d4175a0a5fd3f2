"""The head of the page: which model answers, what it was made for, and a picker where there is a choice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from sdg.web import html
from sdg.web.models import Models
from sdg.web.served import Served
from sdg.web.theme import fragment

LOADING: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "loading"}


def page_head(models: Models, told: Served) -> gr.Textbox:
    """Build the head inside the page that is being built.

    Args:
        models: what visitors may choose from.
        told: what is said of the page's own model.

    Returns:
        What holds the label of the model that a visitor has chosen, for the tabs to pass to :meth:`Models.get`. The
        browser keeps it: the page forgets visitors, and would then answer with another model than the head names.
    """
    chosen = gr.Textbox(models.default, visible=False)
    with gr.Row(elem_classes="sdg-head"):
        fragment(html.header(), "header")
        with gr.Column(min_width=260, elem_classes="sdg-model"):
            if len(models.labels) > 1 or models.anything:
                typed = "Or type a Hub id, a folder, or model@http://host/v1" if models.anything else None
                picker = gr.Dropdown(
                    models.labels,
                    value=models.default,
                    label="Model that answers",
                    show_label=False,
                    container=False,
                    info=typed,
                    allow_custom_value=models.anything,
                    elem_id="model",
                )
            said = fragment(html.served(told.name, told.made_for), "served")
    notice = fragment(html.notice(told.notice) if told.notice else "", "notice", visible=bool(told.notice))
    if len(models.labels) > 1 or models.anything:

        def choose(name: Any, before: str) -> Iterator[dict[Any, Any]]:
            name = name.strip() if isinstance(name, str) else ""
            if name == before:
                return
            try:
                if not models.ready(name):
                    coming = "Loading; a large model takes minutes. Until then the one before it answers."
                    yield {said: html.served(name, coming, "loading")}
                now, label = (told if name in ("", models.default) else models.served(name)), name or models.default
            except ValueError as error:
                gr.Warning(str(error), title="The model stays as it was")
                now, label = (told if before == models.default else models.served(before)), before
            yield {
                said: html.served(now.name, now.made_for),
                notice: gr.update(value=html.notice(now.notice) if now.notice else "", visible=bool(now.notice)),
                picker: label,
                chosen: label,
            }

        # preprocess=False: what is chosen is checked against the owner's list by the models, in a sentence.
        picker.input(
            choose,
            [picker, chosen],
            [said, notice, picker, chosen],
            preprocess=False,
            api_visibility="private",
            show_progress="hidden",
            trigger_mode="always_last",
            **LOADING,
        )
    return chosen
