"""The Space: serves the page on the checkpoint that SDG_MODEL names, by default the embedded one.

SDG_ENDPOINT, the address of an OpenAI-compatible API, serves SDG_MODEL of that server instead (its key is in
SDG_API_KEY); SDG_PROMPT is the instruction where it is not the checkpoint's own, such as `zero-shot`.
"""

from __future__ import annotations

import os
import sys

ENDPOINT = os.environ.get("SDG_ENDPOINT") or None
PROMPT = os.environ.get("SDG_PROMPT") or None
MODEL = os.environ.get("SDG_MODEL") or "sdg-tiny"
if ENDPOINT and not os.environ.get("SDG_MODEL"):
    sys.exit(f"SDG_ENDPOINT={ENDPOINT} serves which model? Set SDG_MODEL to the name that the server has for it")

# Both libraries read these when they are imported. A model that is here already needs nothing from the network.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
if not ENDPOINT and (MODEL == "sdg-tiny" or os.path.isdir(MODEL)):
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

from sdg.detector import load_detector  # noqa: E402
from sdg.web import build_page, launch_options, microworld_examples  # noqa: E402

try:
    detector = load_detector(MODEL, ENDPOINT, PROMPT)
except (OSError, ValueError, ImportError) as error:
    sys.exit(f"SDG_MODEL={MODEL} cannot be served: {error}")

demo = build_page(detector, microworld_examples())

if __name__ == "__main__":
    demo.launch(**launch_options())
