"""The Space: serves the page on the checkpoint that SDG_MODEL names, by default the embedded one.

SDG_ENDPOINT, the address of an OpenAI-compatible API, serves SDG_MODEL of that server instead (its key is in
SDG_API_KEY); SDG_PROMPT is the instruction where it is not the checkpoint's own, such as `zero-shot`.
SDG_MODELS="sdg-tiny,owner/name,model@http://host/v1" are further models that visitors may choose; SDG_PICKER=any lets
them type any other, on a page that this machine alone can open.
"""

from __future__ import annotations

import contextlib
import os
import sys

with contextlib.suppress(ImportError):
    import spaces  # noqa: F401  (ZeroGPU: it has to come before torch)

ENDPOINT = os.environ.get("SDG_ENDPOINT") or None
PROMPT = os.environ.get("SDG_PROMPT") or None
MODEL = os.environ.get("SDG_MODEL") or "sdg-tiny"
OFFERED = [name.strip() for name in os.environ.get("SDG_MODELS", "").split(",") if name.strip()]
PICKER = os.environ.get("SDG_PICKER") or "list"
if ENDPOINT and not os.environ.get("SDG_MODEL"):
    sys.exit(f"SDG_ENDPOINT={ENDPOINT} serves which model? Set SDG_MODEL to the name that the server has for it")
if PICKER not in ("list", "any"):
    sys.exit(f"SDG_PICKER={PICKER} is neither list (the models of SDG_MODELS) nor any")
SERVER = os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
if PICKER == "any" and (os.environ.get("SPACE_ID") or SERVER not in ("127.0.0.1", "localhost", "::1")):
    sys.exit(
        "SDG_PICKER=any is for a page that only this machine opens: others could have it load any model and ask any "
        "address. List the models that they may choose in SDG_MODELS, or leave GRADIO_SERVER_NAME as it is"
    )

# Both libraries read these when they are imported. Models that are here already need nothing from the network.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
if PICKER == "list" and not ENDPOINT and all(name == "sdg-tiny" or os.path.isdir(name) for name in [MODEL, *OFFERED]):
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

from sdg.detector import load_detector  # noqa: E402
from sdg.web import Models, build_page, launch_options, microworld_examples  # noqa: E402
from sdg.web.gpu import placed  # noqa: E402

try:
    detector = load_detector(MODEL, ENDPOINT, PROMPT, **placed(ENDPOINT))
    models = Models(detector, OFFERED, anything=PICKER == "any")
    if placed():  # what came into memory later would have no GPU there
        models.load_all()
except (OSError, ValueError, ImportError) as error:
    sys.exit(f"SDG_MODEL={MODEL} cannot be served: {error}")

demo = build_page(models, microworld_examples())

if __name__ == "__main__":
    demo.launch(**launch_options())
