"""Inpainting editors on pipelines built from config: what they leave alone, and what they say when they fail."""

from types import SimpleNamespace

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
from sdg.training.repair import Repair

BOX = (300, 400, 500, 600)


def picture(size=(96, 64)):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def task(image=None, feedback=Feedback.BOXES_AND_TEXT, boxes=(BOX,)):
    defects = [Defect(box, "artifact", "it melts", 50) for box in boxes]
    return task_of(image or picture(), "a red car", defects, feedback, 0.03)


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


def filling(sd3, *fills, flagged=None, batch=4):
    """An editor whose pipeline gives these pictures, or raises them, in turn."""
    editor, turns = inpainter(StableDiffusion3InpaintPipeline, sd3, batch=batch), iter(fills)

    def fill(image, **_):
        made = [next(turns) for _ in image]
        for one in made:
            if isinstance(one, Exception):
                raise one
        return SimpleNamespace(images=made, nsfw_content_detected=flagged)

    editor.pipeline = fill
    return editor


GREEN, BLACK = Image.new("RGB", (64, 64), "green"), Image.new("RGB", (64, 64))


def test_one_that_the_safety_filter_refuses_does_not_cost_the_others(sd3):
    first, second = filling(sd3, GREEN, GREEN, flagged=[True, False])(task(), [1, 2])
    assert str(first) == "its safety filter refused the picture"
    assert (np.asarray(second) != np.asarray(picture())).any()


def test_a_black_fill_is_no_candidate(sd3):
    first, second = filling(sd3, BLACK, GREEN)(task(), [1, 2])
    assert "black picture, as safety filters" in str(first)
    assert (np.asarray(second) != np.asarray(picture())).any()


def test_what_was_refused_once_is_not_filled_in_further(sd3):
    two = task(boxes=[(0, 0, 100, 100), (900, 900, 1000, 1000)])
    first, second = filling(sd3, BLACK, GREEN, GREEN)(two, [1, 2])
    assert isinstance(first, EditError)
    assert isinstance(second, Image.Image)


def test_a_batch_that_fails_is_made_one_by_one(sd3):
    full = torch.OutOfMemoryError("12 GiB wanted")
    first, second = filling(sd3, full, GREEN, GREEN, full)(task(), [1, 2])
    assert isinstance(first, Image.Image)
    assert "12 GiB wanted" in str(second)


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
    return tiny_pipelines.microworld()


class TestTiny:
    @pytest.mark.parametrize("size", [(128, 128), (256, 200), (40, 64)])
    def test_only_the_mask_changes(self, pipeline, size):
        asked = task(picture(size))
        # Noise enough for random weights to change something.
        edits = TinyEditor(pipeline, steps=2, strengths=(0.75, 0.9))(asked, [1, 2, 3, 4])
        outside = np.asarray(asked.mask) == 0
        assert len(edits) == 4
        for edit in edits:
            assert edit.size == size
            assert (np.asarray(edit)[outside] == np.asarray(asked.image)[outside]).all()
        assert len({edit.tobytes() for edit in edits}) > 1

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


@pytest.fixture
def examples():
    """Latents of two pictures, sound and broken, and what their captions are."""
    torch.manual_seed(1)
    sound, broken = torch.randn(2, 2, 8, 16, 16)
    ids = torch.ones(2, 36, dtype=torch.long)
    return {"sound": sound, "broken": broken, "input_ids": ids, "third_ids": ids}


def loss_of(repair, examples, **changed):
    torch.manual_seed(0)
    return repair(**examples | changed)["loss"]


def test_the_loss_of_a_repair_counts_masked_cells_only(examples):
    pipeline = tiny_pipelines.microworld()
    repair = Repair(pipeline, unseen=0.0).eval()
    mask, broken = torch.zeros(2, 1, 16, 16), examples["broken"]
    mask[:, :, 4:8, 4:8] = 1
    loss = loss_of(repair, examples, mask=mask)
    elsewhere = torch.where(mask > 0, broken, torch.randn_like(broken))
    assert loss_of(repair, examples, mask=mask, broken=elsewhere).item() == pytest.approx(loss.item())
    assert loss_of(repair, examples, mask=mask, broken=-broken).item() != pytest.approx(loss.item())
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in pipeline.transformer.parameters())
    assert all(p.grad is None for p in pipeline.text_encoder.parameters())


def test_a_mask_over_all_asks_for_a_picture_from_nothing(examples):
    repair = Repair(tiny_pipelines.microworld()).eval()
    whole, half = torch.ones(2, 1, 16, 16), torch.ones(2, 1, 16, 16)
    half[..., 8:] = 0
    broken = -examples["broken"]
    same = loss_of(repair, examples, mask=whole)
    assert loss_of(repair, examples, mask=whole, broken=broken).item() == same.item()
    found = repair(**examples, mask=torch.cat([whole[:1], half[:1]]))
    assert found["loss"].item() == pytest.approx((found["draw_loss"] + found["mend_loss"]).item() / 2)


def test_a_batch_with_the_long_caption_is_a_quarter(examples, monkeypatch):
    repair = Repair(tiny_pipelines.microworld()).train()
    repair.flow.long, seen, embed = 1.0, [], repair.flow.embed
    monkeypatch.setattr(repair.flow, "embed", lambda ids, *rest: seen.append((len(ids), rest[-1])) or embed(ids, *rest))
    four = {name: torch.cat([rows, rows]) for name, rows in examples.items()}
    assert repair(**four, mask=torch.ones(4, 1, 16, 16))["loss"].isfinite()
    assert seen == [(1, 256)]


@pytest.mark.slow
def test_a_saved_flux_fill_is_loaded_as_what_it_is(tmp_path):
    tiny_pipelines.flux_fill().save_pretrained(tmp_path)
    editor = load_editor(tmp_path, size=64, num_inference_steps=2, device="cpu")
    assert type(editor.pipeline) is FluxFillPipeline
    asked = task()
    edit = editor(asked, [1])[0]
    changed = (np.asarray(edit) != np.asarray(asked.image)).any(axis=2)
    assert changed.any()
    assert not changed[np.asarray(asked.mask) == 0].any()
