"""How the page looks: neutral surfaces, which leave colour to the defects; system fonts, so that none is fetched."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

CSS = tuple(Path(__file__).with_name(name) for name in ("page.css", "refine.css", "evaluate.css"))
SCRIPT = Path(__file__).with_name("page.js")


def fragment(value: str, elem_id: str, visible: bool = True) -> gr.HTML:
    """A piece of our own HTML, without Gradio's styles for prose."""
    return gr.HTML(value, elem_id=elem_id, visible=visible, apply_default_css=False, padding=False)


def theme() -> gr.themes.Base:
    """The page's theme, light and dark."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]
    look = gr.themes.Base(
        primary_hue="slate",
        secondary_hue="slate",
        neutral_hue="slate",
        radius_size="lg",
        font=sans,
        font_mono=mono,
    )
    return look.set(
        body_background_fill="#f6f7f9",
        body_background_fill_dark="#0f1217",
        body_text_color="#1c2430",
        body_text_color_dark="#e6e9ee",
        body_text_color_subdued="#5b6675",
        body_text_color_subdued_dark="#98a2b1",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#171b22",
        background_fill_secondary="#f6f7f9",
        background_fill_secondary_dark="#1d222b",
        block_background_fill="#ffffff",
        block_background_fill_dark="#171b22",
        block_border_color="#e0e4ea",
        block_border_color_dark="#2a313c",
        border_color_primary="#e0e4ea",
        border_color_primary_dark="#2a313c",
        table_odd_background_fill="#f6f7f9",
        table_odd_background_fill_dark="#1d222b",
        table_even_background_fill="#f6f7f9",
        table_even_background_fill_dark="#1d222b",
        block_radius="12px",
        container_radius="12px",
        block_shadow="none",
        block_title_text_color="#1c2430",
        block_title_text_color_dark="#e6e9ee",
        block_label_text_color="#5b6675",
        block_label_text_color_dark="#98a2b1",
        block_title_text_weight="600",
        input_background_fill="#ffffff",
        input_background_fill_dark="#11151b",
        input_border_color="#cfd5dd",
        input_border_color_dark="#343d4a",
        input_border_color_focus="#1c2430",
        input_border_color_focus_dark="#e6e9ee",
        button_primary_background_fill="#1c2430",
        button_primary_background_fill_hover="#36414f",
        button_primary_background_fill_dark="#e6e9ee",
        button_primary_background_fill_hover_dark="#ffffff",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#12161c",
        button_large_text_weight="600",
    )
