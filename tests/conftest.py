"""What all tests share: no network, and a detector that answers at once."""

import os

# Before anything imports gradio or huggingface_hub: both read these on import.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A test process of pytest-xdist has one, and rich keeps to what it finds first; tests say how wide they want it.
os.environ.pop("COLUMNS", None)
