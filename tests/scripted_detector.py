"""A detector that says what a test wants to see; the caption chooses the answer."""

import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

from PIL import Image

from sdg.defects import DefectSet
from sdg.response import ResponseFormatError, parse_response

THINK = "The caption asks for a red house.\n- misalignment: the house is blue\n- artifact: the chimney <melts>"
ANSWERS = {
    "a red house": f"""<think>{THINK}</think><answer>[
        {{"box_2d": [100, 100, 400, 300], "label": "artifact", "description": "the chimney melts", "importance": 30}},
        {{"box_2d": [50, 200, 900, 950], "label": "misalignment",
          "description": "the <b>house</b> is blue, not red", "importance": 92}}]</answer>""",
    "outside": f"""<think>{THINK}</think><answer>[
        {{"box_2d": [300, 100, 800, 600], "label": "artifact", "description": "a face of wax", "importance": 60}}]
        </answer>""",
    "slowly": "<think>" + " ".join(f"Step {n}." for n in range(1, 300)) + "</think><answer>[]</answer>",
    "clean": "<think>Nothing is wrong.</think><answer>[]</answer>",
    "unreadable": "<think>Hmm.</think> I would rather not say <script>alert(1)</script> ${1+1} {{value}}",
}
OUTSIDE = {"out_of_world": {"score": 5.11, "threshold": 1.64, "outside": True, "false_alarms": 0.01}}


class ScriptedStream:
    """The answer in small pieces, and at the end as a set; ``ended`` once all of it was said."""

    def __init__(self, text: str, result: DefectSet, pause: float = 0) -> None:
        self.text, self.result, self.pause = text, result, pause
        self.closed = self.ended = False

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self.text), 7):
            time.sleep(self.pause)
            yield self.text[start : start + 7]
        self.ended = True

    def close(self) -> None:
        self.closed = True


class ScriptedDetector:
    """Answers :data:`ANSWERS` by caption, the red house's by default; "broken" raises, "slowly" takes a minute."""

    made_for: str | None = "pictures of houses"
    engine = SimpleNamespace(name="scripted")

    def __init__(self, name: str | None = None) -> None:
        self.calls: list[int] = []
        self.streams: list[tuple[str | None, ScriptedStream]] = []
        if name:
            self.engine = SimpleNamespace(name=name)

    def stream(self, image: Image.Image, caption: str | None = None) -> "ScriptedStream":
        stream = ScriptedStream(self._text(caption), self._answer(caption), 0.2 if caption == "slowly" else 0)
        self.streams.append((caption, stream))
        return stream

    def __call__(self, images, captions=None, *, batch_size: int = 8):
        if isinstance(images, list):
            self.calls.append(len(images))
            return [self._answer(caption) for caption in captions]
        return self._answer(captions)

    def _answer(self, caption: str | None) -> DefectSet:
        text = self._text(caption)
        try:
            found = parse_response(text)
        except ResponseFormatError as error:
            return DefectSet(caption=caption, parse_error=str(error), raw=text)
        info = {"model": self.engine.name, "seconds": 0.1} | (OUTSIDE if caption == "outside" else {})
        sure = tuple(replace(d, confidence=s) for d, s in zip(found, (0.34, 0.93), strict=False))
        return DefectSet(sure, caption=caption, reasoning=found.reasoning, raw=text, info=info)

    def _text(self, caption: str | None) -> str:
        if caption == "broken":
            raise RuntimeError("secret/path: out of memory")
        return ANSWERS.get(caption or "", ANSWERS["a red house"])
