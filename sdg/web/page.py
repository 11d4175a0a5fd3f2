"""The page: its head, its tabs, and the options it is launched with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from sdg.web import html
from sdg.web.about import about_tab
from sdg.web.detect import Detector, detect_tab
from sdg.web.evaluate import evaluate_tab
from sdg.web.examples import Example
from sdg.web.served import Served, describe
from sdg.web.theme import CSS, fragment, theme

WAITING = 32
"""Visitors that may wait for the model; the next one is told to come back."""

KEEP_UPLOADS = (3600, 86400)
"""Every hour, remove uploads older than a day."""


def build_page(detector: Detector, examples: Sequence[Example] = (), served: Served | None = None) -> gr.Blocks:
    """The page as Gradio blocks, not launched.

    Args:
        detector: what answers; anything with ``detector(image, caption)`` and ``detector.stream(image, caption)``.
        examples: pictures with captions to choose from.
        served: what the head says about the model; by default what the detector knows of itself.

    Example:
        >>> build_page(SDGDetector.from_pretrained()).launch(**launch_options())  # doctest: +SKIP
    """
    told = served or describe(detector.engine.name, detector.made_for)
    with gr.Blocks(title="Structured Defect Grounding", analytics_enabled=False, delete_cache=KEEP_UPLOADS) as page:
        fragment(html.header(told.name, told.made_for), "header")
        if told.notice:
            fragment(html.notice(told.notice), "notice")
        with gr.Tabs():
            with gr.Tab("Detect", id="detect"):
                detect_tab(detector, examples)
            with gr.Tab("Evaluate", id="evaluate"):
                evaluate_tab()
            with gr.Tab("About", id="about"):
                about_tab()
    page.queue(max_size=WAITING)
    return page


def launch_options() -> dict[str, Any]:
    """Keyword arguments for ``Blocks.launch``: looks, bounded uploads, and nothing that asks the network."""
    return {
        "theme": theme(),
        "css_paths": list(CSS),
        "max_file_size": "30mb",
        "ssr_mode": False,
        "share": False,
        "footer_links": ["api", "settings"],
    }
