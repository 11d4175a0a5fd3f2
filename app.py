"""The Space: serves the page on the checkpoint that SDG_MODEL names, by default the embedded one.

SDG_ENDPOINT, the address of an OpenAI-compatible API, serves SDG_MODEL of that server instead (its key is in
SDG_API_KEY); SDG_PROMPT is the instruction where it is not the checkpoint's own, such as `zero-shot`.
SDG_EDITOR is what repairs pictures (the embedded generator for the embedded checkpoint, else none): folder or Hub id of
a diffusers pipeline, or with SDG_EDITOR_ENDPOINT the model of an OpenAI-compatible images API.
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
EDITOR_ENDPOINT = os.environ.get("SDG_EDITOR_ENDPOINT") or None
EDITOR = os.environ.get("SDG_EDITOR") or ("sdg-tiny-t2i" if MODEL == "sdg-tiny" and not ENDPOINT else None)
PICKER = os.environ.get("SDG_PICKER") or "list"
if ENDPOINT and not os.environ.get("SDG_MODEL"):
    sys.exit(f"SDG_ENDPOINT={ENDPOINT} serves which model? Set SDG_MODEL to the name that the server has for it")
if EDITOR_ENDPOINT and not EDITOR:
    sys.exit(f"SDG_EDITOR_ENDPOINT={EDITOR_ENDPOINT} edits with which model? Set SDG_EDITOR to its name there")
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
NAMES = [MODEL, *OFFERED, *([EDITOR] if EDITOR else [])]
HERE = all(name in ("sdg-tiny", "sdg-tiny-t2i") or os.path.isdir(name) for name in NAMES)
if PICKER == "list" and HERE and not ENDPOINT and not EDITOR_ENDPOINT:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

from sdg.detector import load_detector  # noqa: E402
from sdg.refine.loading import load_editor  # noqa: E402
from sdg.web import Models, build_page, launch_options, microworld_examples, repair_examples  # noqa: E402
from sdg.web.gpu import placed, placed_editor  # noqa: E402

try:
    detector = load_detector(MODEL, ENDPOINT, PROMPT, **placed(ENDPOINT))
    models = Models(detector, OFFERED, anything=PICKER == "any")
    if placed():  # what came into memory later would have no GPU there
        models.load_all()
except (OSError, ValueError, ImportError) as error:
    sys.exit(f"SDG_MODEL={MODEL} cannot be served: {error}")

try:
    editor = load_editor(EDITOR, EDITOR_ENDPOINT, **placed_editor(EDITOR, EDITOR_ENDPOINT)) if EDITOR else None
except (OSError, ValueError, ImportError) as error:
    sys.exit(f"SDG_EDITOR={EDITOR} cannot edit: {error}")

repairs = repair_examples() if EDITOR == "sdg-tiny-t2i" and not EDITOR_ENDPOINT else []
demo = build_page(models, microworld_examples(), editor=editor, repairs=repairs)

if __name__ == "__main__":
    demo.launch(**launch_options())
