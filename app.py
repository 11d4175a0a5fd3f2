"""The Space: serves the page on the checkpoint that SDG_MODEL names, by default the embedded one."""

from __future__ import annotations

import os
import sys

MODEL = os.environ.get("SDG_MODEL") or "sdg-tiny"

# Both libraries read these when they are imported. A model that is here already needs nothing from the network.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
if MODEL == "sdg-tiny" or os.path.isdir(MODEL):
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

from sdg import SDGDetector  # noqa: E402
from sdg.web import build_page, launch_options, microworld_examples  # noqa: E402

try:
    detector = SDGDetector.from_pretrained(MODEL)
except (OSError, ValueError) as error:
    sys.exit(f"SDG_MODEL={MODEL} cannot be served: {error}")

demo = build_page(detector, microworld_examples())

if __name__ == "__main__":
    demo.launch(**launch_options())
