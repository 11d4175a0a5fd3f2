"""The metric's Space: drop predictions and references, see SDG-Eval. The page's own Evaluate tab, alone."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from sdg.web.evaluate import evaluate_tab
from sdg.web.page import KEEP_UPLOADS, launch_options
from sdg.web.places import bounded_queue

with gr.Blocks(title="SDG-Eval", analytics_enabled=False, delete_cache=KEEP_UPLOADS) as demo:
    gr.Markdown("# SDG-Eval\nHow well predicted defects of generated pictures agree with the true ones.")
    evaluate_tab(demo)
bounded_queue(demo, waiting=32)

if __name__ == "__main__":
    demo.launch(**launch_options())
