"""The page: its head, its tabs, and the options it is launched with."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import gradio as gr

from sdg.refine import Editor
from sdg.web.about import about_tab
from sdg.web.detect import detect_tab
from sdg.web.evaluate import evaluate_tab
from sdg.web.examples import Example
from sdg.web.head import page_head
from sdg.web.models import Detector, Models
from sdg.web.places import bounded_queue
from sdg.web.refine import refine_tab
from sdg.web.served import Served
from sdg.web.theme import CSS, SCRIPT, theme

KEEP_UPLOADS = (3600, 86400)
"""Every hour, remove uploads older than a day."""

SESSIONS = 128
"""Visitors that Gradio remembers, at about 0.2 MB each: it forgets nobody who leaves, only the one longest ago."""


def build_page(
    detector: Detector | Models,
    examples: Sequence[Example] = (),
    served: Served | None = None,
    editor: Editor | None = None,
    repairs: Sequence[Example] = (),
) -> gr.Blocks:
    """The page as Gradio blocks, not launched.

    Args:
        detector: what answers; anything with ``detector(image, caption)`` and ``detector.stream(image, caption)``, or
            :class:`Models` that visitors choose from.
        examples: pictures with captions to choose from.
        editor: what repairs pictures in the Refine tab; None where the page has nothing to edit with.
        repairs: examples of the Refine tab, chosen because its editor does well on them, which it says; without them it
            has those of ``examples`` whose types of defects the editor can repair.
        served: what the head says about the page's own model; by default what the detector knows of itself.

    Example:
        >>> build_page(SDGDetector.from_pretrained()).launch(**launch_options())  # doctest: +SKIP
    """
    models = detector if isinstance(detector, Models) else Models(detector)
    with gr.Blocks(title="Structured Defect Grounding", analytics_enabled=False, delete_cache=KEEP_UPLOADS) as page:
        chosen = page_head(models, served or models.served())
        with gr.Tabs():
            with gr.Tab("Detect", id="detect"):
                detect_tab(models, examples, chosen, page)
            with gr.Tab("Refine", id="refine"):
                refine_tab(models, editor, examples, chosen, page, repairs)
            with gr.Tab("Evaluate", id="evaluate"):
                evaluate_tab(page)
            with gr.Tab("About", id="about"):
                about_tab(editor is not None)
    bounded_queue(page)
    return page


def launch_options() -> dict[str, Any]:
    """Keyword arguments for ``Blocks.launch``: looks, bounded uploads, and nothing that asks the network.

    The endpoints are tools of the Model Context Protocol too, where ``mcp`` is installed; the extra ``app`` brings it.
    """
    return {
        "theme": theme(),
        "css_paths": list(CSS),
        "head": f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>",
        "max_file_size": "30mb",
        "ssr_mode": False,
        "share": False,
        "footer_links": ["api", "settings"],
        "state_session_capacity": SESSIONS,
        "mcp_server": find_spec("mcp") is not None,
    }
