"""Editors by instruction on tiny pipelines of each family: what the pipeline is given, and what fails."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_edit_pipelines
import tiny_pipelines
import torch
from PIL import Image
from standins import picture
from tiny_edit_pipelines import AREA

from sdg.defects import Defect, DefectSet
from sdg.engines.base import CheckpointError
from sdg.refine.editors import RIGHT_HALF, SECOND_PICTURE, EditError, Task, paste
from sdg.refine.instruct import FAMILIES, InstructionEditor, drawn_size

SIZE = (60, 44)
DRAWN = {"kontext": (80, 48), "qwen": (64, 64), "qwen_plus": (64, 64)}
MASK = Image.new("L", SIZE)
MASK.paste(255, (10, 10, 40, 30))
TASK = Task(
    image=picture(0, SIZE),
    caption="a red car",
    defects=DefectSet([Defect((200, 200, 600, 600), "artifact", "a smear", 60)]),
    mask=MASK,
    instruction="Remove the smear.",
    prompt="a red car",
    overlay=picture(1, SIZE),
)
FAMILY = pytest.mark.parametrize("family", [builder.__name__ for builder in tiny_edit_pipelines.BUILDERS])


def changed(**fields):
    return Task(**{**vars(TASK), **fields})


@pytest.fixture(scope="module")
def pipelines():
    return {builder.__name__: builder() for builder in tiny_edit_pipelines.BUILDERS}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    tiny_edit_pipelines.small_area(monkeypatch)


def editor_on(pipeline, **options):
    return InstructionEditor(pipeline, **{"steps": 2, "area": AREA} | options)


def recorded(pipeline, answer=None):
    """A pipeline of the same class that writes down what it is called with, and answers with pictures of that size."""
    calls = []

    def call(self, **request):
        calls.append(request)
        if answer:
            return answer(request)
        images = [picture(7, (request["width"], request["height"]))] * request["num_images_per_prompt"]
        return type("Output", (), {"images": images})

    methods = {"__call__": call, "__init__": lambda self: None, "maybe_free_model_hooks": lambda self: None}
    return type(type(pipeline).__name__, (), methods)(), calls


# --- real pipelines, random weights ----------------------------------------------------------------------------------


@FAMILY
def test_a_seed_gives_its_picture_alone_and_in_a_batch(pipelines, family):
    pipeline = pipelines[family]
    alone = editor_on(pipeline)(TASK, [3, 4, 3])
    assert [(p.size, p.mode) for p in alone] == [(SIZE, "RGB")] * 3
    assert alone[0] == alone[2] != alone[1]
    together = editor_on(pipeline, batch=2)(TASK, [3, 4, 3])
    for one, other in zip(alone, together, strict=True):
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 3


@FAMILY
@pytest.mark.parametrize("fields", [{"instruction": "a blue tree"}, {"image": picture(5, SIZE)}, {"overlay": None}])
def test_all_that_the_model_is_shown_matters(pipelines, family, fields):
    editor = editor_on(pipelines[family])
    assert editor(changed(**fields), [3]) != editor(TASK, [3])


@FAMILY
def test_marks_of_the_model_inside_an_instruction_are_words(pipelines, family):
    """An image mark in a caption would be taken for another picture, and the pipeline would break."""
    (found,) = editor_on(pipelines[family])(changed(instruction="a <|image_pad|> <|im_end|> car"), [1])
    assert isinstance(found, Image.Image)


@FAMILY
def test_it_loads_what_diffusers_saved(pipelines, family, tmp_path):
    pipelines[family].save_pretrained(tmp_path / "mine")
    editor = InstructionEditor.from_pretrained(tmp_path / "mine", steps=2, area=AREA, dtype="float32", device="cpu")
    assert (editor.name, editor.local) == ("mine", False)
    assert editor(TASK, [3]) == editor_on(pipelines[family])(TASK, [3])


# --- what a pipeline is given -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("kontext", {"guidance_scale": 2.5, "max_area": 80 * 48, "_auto_resize": False, "num_inference_steps": 28}),
        ("qwen", {"true_cfg_scale": 4.0, "negative_prompt": " ", "num_inference_steps": 50}),
        ("qwen_plus", {"true_cfg_scale": 4.0, "negative_prompt": " ", "num_inference_steps": 40}),
    ],
)
def test_each_family_is_called_in_its_own_way(pipelines, family, expected):
    pipeline, calls = recorded(pipelines[family])
    InstructionEditor(pipeline, area=AREA)(changed(overlay=None), [1])
    (call,) = calls
    shown, generators = call.pop("image"), call.pop("generator")
    assert [g.initial_seed() for g in generators] == [1]
    assert [p.size for p in (shown if isinstance(shown, list) else [shown])] == [
        DRAWN[family] if family == "kontext" else SIZE
    ]
    width, height = DRAWN[family]
    common = {"prompt": "Remove the smear.", "width": width, "height": height, "num_images_per_prompt": 1}
    assert call == common | expected


@pytest.mark.parametrize(
    ("family", "words", "sizes"),
    [
        ("kontext", RIGHT_HALF, [(160, 48)]),
        ("qwen", RIGHT_HALF, [(120, 44)]),
        ("qwen_plus", SECOND_PICTURE, [SIZE, SIZE]),
    ],
)
def test_the_overlay_is_the_second_picture_or_the_right_half(pipelines, family, words, sizes):
    pipeline, calls = recorded(pipelines[family])
    editor_on(pipeline)(TASK, [1])
    editor_on(pipeline, overlay=False)(TASK, [1])
    assert [call["prompt"] for call in calls] == [f"{words} Remove the smear.", "Remove the smear."]
    shown = [call["image"] if isinstance(call["image"], list) else [call["image"]] for call in calls]
    assert [[p.size for p in pictures] for pictures in shown] == [
        sizes,
        [(sizes[0][0] // (3 - len(sizes)), sizes[0][1])],
    ]
    row = np.concatenate([np.asarray(p) for p in shown[0]], axis=1)
    halves = [np.asarray(p.resize((row.shape[1] // 2, row.shape[0]), 1)) for p in (TASK.image, TASK.overlay)]
    assert np.array_equal(row, np.concatenate(halves, axis=1))


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_without_guidance_qwen_is_not_asked_twice(pipelines, guidance):
    pipeline, calls = recorded(pipelines["qwen_plus"])
    editor_on(pipeline, guidance=guidance)(TASK, [1])
    assert calls[0]["true_cfg_scale"] == guidance
    assert "negative_prompt" not in calls[0]


@pytest.mark.parametrize(("paste_", "expected"), [(False, None), (True, MASK)])
def test_pasting_keeps_what_is_outside_the_mask(pipelines, paste_, expected):
    pipeline, _ = recorded(pipelines["kontext"])
    editor = editor_on(pipeline, paste=paste_)
    assert editor.local is paste_
    (found,) = editor(TASK, [1])
    drawn = picture(7, DRAWN["kontext"]).resize(SIZE, Image.Resampling.LANCZOS)
    assert found == (paste(TASK.image, drawn, expected) if expected else drawn)


@pytest.mark.parametrize(
    ("size", "area", "multiple", "drawn"),
    [
        ((1024, 1024), 1024**2, 16, (1024, 1024)),
        ((400, 300), 1024**2, 32, (1184, 896)),
        ((4000, 3000), 1024**2, 32, (1184, 896)),
        ((5000, 100), 1024**2, 16, (7248, 144)),
        ((8, 8), 1024**2, 16, (1024, 1024)),
        ((400, 8), 32**2, 16, (224, 16)),
    ],
)
def test_what_is_drawn_has_the_picture_s_ratio(size, area, multiple, drawn):
    assert drawn_size(size, area, multiple) == drawn


@pytest.mark.parametrize("ratio", [0.1, 0.5625, 0.75, 1.0, 1.5, 1.9, 4.0])
def test_qwen_draws_in_the_grid_that_it_sees(monkeypatch, ratio):
    monkeypatch.undo()
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions

    size = (round(1000 * ratio), 1000)
    assert drawn_size(size, 1024**2, 32) == calculate_dimensions(1024**2, size[0] / size[1])


# --- what fails -------------------------------------------------------------------------------------------------------


def broken(raised, when=lambda request: True):
    def answer(request):
        if when(request):
            raise raised
        images = [picture(7, (request["width"], request["height"]))] * request["num_images_per_prompt"]
        return type("Output", (), {"images": images})

    return answer


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
            "ran out of memory at 80 x 48 pixels: pass a",
        ),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "ran out of memory"),
        (MemoryError(), "ran out of memory"),
        (ValueError("shape\nmore"), "'mine' failed: ValueError: shape$"),
        (StopIteration(), "'mine' failed: StopIteration$"),
    ],
)
def test_a_pipeline_that_breaks_is_an_error_in_the_candidate_s_place(pipelines, raised, message):
    pipeline, _ = recorded(pipelines["kontext"], broken(raised, lambda r: r["generator"][0].initial_seed() == 2))
    found = editor_on(pipeline, name="mine")(TASK, [1, 2, 3])
    assert [isinstance(f, EditError) for f in found] == [False, True, False]
    with pytest.raises(EditError, match=message):
        raise found[1]
    assert found[1].__context__ is None  # it holds no frame of the pipeline, and so none of its tensors


def test_a_batch_that_is_too_large_is_drawn_one_by_one(pipelines):
    raised = torch.OutOfMemoryError("CUDA out of memory")
    pipeline, calls = recorded(pipelines["kontext"], broken(raised, lambda r: r["num_images_per_prompt"] > 1))
    found = editor_on(pipeline, batch=2)(TASK, [1, 2, 3])
    assert [f.size for f in found] == [SIZE] * 3
    assert [[g.initial_seed() for g in call["generator"]] for call in calls] == [[1, 2], [1], [2], [3]]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "drew 0 pictures for 1"),
        ([None], "the editor returned no picture"),
        ([Image.new("RGB", (80, 48))], "the editor returned a black picture"),
        ([Image.new("RGB", (10, 90))], "the editor returned 10 x 90 pixels for a picture of 60 x 44"),
    ],
)
def test_what_is_no_usable_picture(pipelines, images, message):
    pipeline, _ = recorded(pipelines["kontext"], lambda request: type("Output", (), {"images": images}))
    (found,) = editor_on(pipeline)(TASK, [1])
    with pytest.raises(EditError, match=message):
        raise found


def test_without_an_instruction_there_is_nothing_to_do(pipelines):
    pipeline, calls = recorded(pipelines["kontext"])
    with pytest.raises(EditError, match="there is no instruction for 'FluxKontextPipeline' to follow"):
        editor_on(pipeline)(changed(instruction=" \n"), [1])
    assert calls == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"guidance": -1}, "guidance=-1 must be at least 0"),
        ({"area": 255}, "area=255 must be at least 256"),
        ({"batch": 0}, "batch=0 must be at least 1"),
    ],
)
def test_bad_options_are_refused(pipelines, options, message):
    with pytest.raises(ValueError, match=message):
        editor_on(pipelines["kontext"], **options)


# --- loading ----------------------------------------------------------------------------------------------------------


def test_a_pipeline_of_another_kind_is_refused_by_name(tmp_path):
    message = f"FluxPipeline does not edit by instruction; these pipelines do: {', '.join(FAMILIES)}"
    with pytest.raises(ValueError, match=message):
        InstructionEditor(tiny_pipelines.flux())
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ValueError, match=message):  # from its index, before there are any weights
        InstructionEditor.from_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": ["mine", "Kontext"]}')
    with pytest.raises(CheckpointError, match="brings code of its own"):
        InstructionEditor.from_pretrained(tmp_path)
