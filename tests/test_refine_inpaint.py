"""Inpainting editors on pipelines built from config: what they leave alone, and what they say when they fail."""

import inspect

import numpy as np
import pytest
import tiny_pipelines
import torch
from diffusers import FluxFillPipeline, FluxInpaintPipeline, StableDiffusion3InpaintPipeline
from PIL import Image

from sdg import Defect
from sdg.refine.editors import EditError
from sdg.refine.feedback import Feedback, task_of
from sdg.refine.inpaint import InpaintEditor
from sdg.refine.loading import load_editor
from sdg.refine.tiny import TinyEditor
from sdg.training.repair import Repair, add_lora, save_repair

BOX = (300, 400, 500, 600)


def picture(size=(96, 64)):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def task(image=None, feedback=Feedback.BOXES_AND_TEXT, boxes=(BOX,)):
    defects = [Defect(box, "artifact", "it melts", 50) for box in boxes]
    return task_of(image or picture(), "a red car", defects, feedback)


def inpainter(kind, source, **options):
    expected, _ = kind._get_signature_keys(kind)
    pipeline = kind(**{name: part for name, part in source.components.items() if name in expected})
    pipeline.set_progress_bar_config(disable=True)
    return InpaintEditor(pipeline, **{"size": 64, "num_inference_steps": 2} | options)


@pytest.fixture(scope="module")
def sd3():
    return tiny_pipelines.sd3(channels=16)


FAMILIES = [
    (StableDiffusion3InpaintPipeline, lambda: tiny_pipelines.sd3(channels=16)),
    (FluxInpaintPipeline, tiny_pipelines.flux),
]


@pytest.mark.parametrize(("kind", "build"), FAMILIES)
@pytest.mark.parametrize("size", [(96, 64), (40, 200), (333, 97)])
def test_only_the_mask_changes_whatever_the_size(kind, build, size):
    image = picture(size)
    asked = task(image, boxes=[BOX, (0, 0, 100, 100), (900, 900, 1000, 1000)])
    edits = inpainter(kind, build())(asked, [1, 2])
    outside = np.asarray(asked.mask) == 0
    for edit in edits:
        assert edit.size == size
        assert (np.asarray(edit)[outside] == np.asarray(image)[outside]).all()
        assert (np.asarray(edit) != np.asarray(image)).any()
    assert edits[0].tobytes() != edits[1].tobytes()


def test_a_seed_gives_the_same_picture_alone_and_in_a_batch(sd3):
    alone = inpainter(StableDiffusion3InpaintPipeline, sd3)(task(), [7])[0]
    _, batched = inpainter(StableDiffusion3InpaintPipeline, sd3, batch=2)(task(), [3, 7])
    assert np.abs(np.asarray(alone, dtype=int) - np.asarray(batched, dtype=int)).max() <= 1


def test_without_a_mask_the_whole_picture_is_drawn(sd3):
    edit = inpainter(StableDiffusion3InpaintPipeline, sd3, strength=1.0)(task(feedback=Feedback.FIXED), [1])[0]
    assert (np.asarray(edit) != np.asarray(picture())).mean() > 0.9


def test_what_a_pipeline_raises_is_a_reason_in_its_place(sd3):
    editor = inpainter(StableDiffusion3InpaintPipeline, sd3)
    editor.pipeline = lambda **_: (_ for _ in ()).throw(torch.OutOfMemoryError("12 GiB wanted"))
    editor._takes = {}
    first, second = editor(task(), [1, 2])
    assert isinstance(first, EditError)
    assert isinstance(second, EditError)
    assert "OutOfMemoryError: 12 GiB wanted" in str(first)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 8}, "size=8 is below 16"),
        ({"context": 0.5}, "context=0.5"),
        ({"batch": 0}, "batch=0"),
        ({"magic": 1}, "magic: no arguments of StableDiffusion3InpaintPipeline"),
    ],
)
def test_options_are_checked(sd3, options, words):
    with pytest.raises(ValueError, match=words):
        inpainter(StableDiffusion3InpaintPipeline, sd3, **options)


def test_a_pipeline_that_fills_no_mask_is_refused(sd3):
    with pytest.raises(ValueError, match="does not fill in masks"):
        InpaintEditor(sd3)


@pytest.mark.slow
def test_a_saved_text_to_image_pipeline_is_loaded_as_its_inpainting_variant(sd3, tmp_path):
    sd3.save_pretrained(tmp_path)
    editor = load_editor(tmp_path, size=64, num_inference_steps=2, device="cpu")
    assert type(editor.pipeline).__name__ == "StableDiffusion3InpaintPipeline"
    asked = task()
    edit = editor(asked, [1])[0]
    assert (np.asarray(edit) == np.asarray(asked.image))[np.asarray(asked.mask) == 0].all()


@pytest.fixture(scope="module")
def pipeline():
    made = tiny_pipelines.microworld()
    add_lora(made.transformer, 4)
    return made


class TestTiny:
    @pytest.mark.parametrize("size", [(128, 128), (256, 200), (40, 64)])
    def test_only_the_mask_changes(self, pipeline, size):
        asked = task(picture(size))
        edits = TinyEditor(pipeline, steps=2)(asked, [1, 2, 3, 4])
        outside = np.asarray(asked.mask) == 0
        assert len(edits) == 4
        for edit in edits:
            assert edit.size == size
            assert (np.asarray(edit)[outside] == np.asarray(asked.image)[outside]).all()
        assert len({edit.tobytes() for edit in edits}) > 1  # random weights hardly change some

    def test_a_seed_gives_the_same_picture(self, pipeline):
        first, second = (TinyEditor(pipeline, steps=2)(task(), [5])[0].tobytes() for _ in range(2))
        assert first == second

    def test_strengths_take_turns(self, pipeline, monkeypatch):
        editor, seen = TinyEditor(pipeline, steps=2, strengths=(0.5, 1.0)), []
        run = editor._run
        monkeypatch.setattr(editor, "_run", lambda *a: seen.append((list(a[3]), a[4])) or run(*a))
        editor(task(), [1, 2, 3])
        assert seen == [([1, 3], 0.5), ([2], 1.0)]

    def test_strengths_are_noise_levels(self, pipeline):
        with pytest.raises(ValueError, match="strengths=\\(0,\\)"):
            TinyEditor(pipeline, strengths=(0,))

    def test_a_saved_lora_loads_with_its_scale(self, pipeline, tmp_path):
        for name, parameter in pipeline.transformer.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        save_repair(pipeline, tmp_path)
        other = tiny_pipelines.microworld()
        other.load_lora_weights(str(tmp_path), adapter_name="repair")
        asked = task(picture((128, 128)))
        a, b = (np.asarray(TinyEditor(p, steps=2)(asked, [1])[0], dtype=int) for p in (pipeline, other))
        assert np.abs(a - b).max() <= 3  # its weights are written in bfloat16


def test_the_loss_of_a_repair_counts_masked_cells_only():
    pipeline = tiny_pipelines.microworld()
    parameters = add_lora(pipeline.transformer, 4)
    loss = Repair(pipeline, unseen=0.0)
    sound, broken = torch.randn(2, 2, 8, 16, 16)
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, 4:8, 4:8] = 1
    ids = {"input_ids": torch.ones(2, 36, dtype=torch.long), "third_ids": torch.ones(2, 36, dtype=torch.long)}

    def run(broken):
        torch.manual_seed(0)
        return loss(sound, broken, mask, **ids)["loss"]

    elsewhere = torch.where(mask > 0, broken, torch.randn_like(broken))
    assert run(broken).item() == pytest.approx(run(elsewhere).item())
    assert run(broken).item() != pytest.approx(run(-broken).item())
    run(broken).backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in parameters)
    assert all(p.grad is None for p in pipeline.text_encoder.parameters())


def test_flux_fill_takes_what_the_editor_gives_it():
    takes = inspect.signature(FluxFillPipeline.__call__).parameters
    assert {"prompt", "image", "mask_image", "width", "height", "generator"} <= set(takes)
