"""The About tab: what the answers mean, how to call the page from a program, how to serve another model."""

from __future__ import annotations

import os

import gradio as gr

from sdg.defects import TIERS
from sdg.detector import FULL_MODEL

TEXT = """
### What a defect is
Every defect has four fields.

| field | question | values |
|---|---|---|
| box | where | x0, y0, x1, y1 on a grid of 1000 by 1000 over the picture; x runs right, y runs down |
| type | what | *artifact*: a flaw that anyone sees without the caption; *misalignment*: it contradicts the caption |
| reason | why | the affected part and what can be seen there |
| importance | how much | 1 to 100: {tiers} |

A clean picture is an answer too: *no defect found*. An answer that *could not be read* is something else, a failure of
the model, and it is shown as one. So is a picture *outside this model's world*: what the model reports there is drawn
faintly and marked with a question mark.

### From a program
```python
from gradio_client import Client, handle_file

page = Client("{address}")
answer = page.predict(handle_file("picture.png"), "a red house beside a lake", api_name="/detect")
for defect in answer["defects"]:
    print(defect["type"], defect["box"], defect["importance"], defect["reason"])
```
{refine}
Detectors are scored in the same way; `against=` compares with other predictions of the same pictures.
```python
predictions, references = handle_file("predictions.jsonl"), handle_file("references.jsonl")
report = page.predict(predictions, references, api_name="/evaluate")
print(report["results"]["predictions"]["artifact/box_f1@0.5"])
```

The page is a server of the Model Context Protocol too, at `/gradio_api/mcp/`, with the same endpoints as tools: agents
hand pictures over by address, or as `data:image/png;base64,…`.

### Another model
The page serves the checkpoint that `SDG_MODEL` names: an embedded one, a local folder, or an id on the Hugging Face
Hub. `SDG_MODELS` lists further ones that visitors may choose at the top of the page, `model@http://host/v1` being one
of an OpenAI-compatible server; programs pass `model=` to `/detect`.
```bash
SDG_MODEL={full_model} make app
SDG_MODELS="sdg-tiny,{full_model}" make app
```
On a page that nobody but you can open, `SDG_PICKER=any` lets you type any other.

The method is that of [Structured Defect Grounding](https://arxiv.org/abs/2606.06113).
"""


REFINE = """
Repairs come back as a picture, and what was done to it.
```python
picture = handle_file("picture.png")
file, said = page.predict(picture, "a red house beside a lake", seed=0, api_name="/refine")
print(said["reason"], said["load"])
```
"""


def about_tab(repairs: bool) -> None:
    """Build the tab inside the page that is being built.

    Args:
        repairs: the page has an editor, and so the endpoint ``/refine``.
    """
    tiers = ", ".join(f"{name} {low}-{high}" for name, (low, high) in TIERS.items())
    # On the Hub a client knows a Space by its id.
    address = os.environ.get("SPACE_ID") or "http://127.0.0.1:7860"
    text = TEXT.format(tiers=tiers, full_model=FULL_MODEL, address=address, refine=REFINE if repairs else "")
    gr.Markdown(text, elem_classes="sdg-about")
