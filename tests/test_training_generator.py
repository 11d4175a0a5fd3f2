"""The microworld's tiny text-to-image pipeline: it loads plainly, and trains on what the pipeline computes."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusion3Pipeline

from sdg import microworld
from sdg.engines.base import CheckpointError
from sdg.microworld import VOCABULARY
from sdg.microworld.oracle import measure
from sdg.training.dense import DenseVocabulary
from sdg.training.generator import (
    LONG,
    SHORT,
    Flow,
    Reconstruction,
    build_pipeline,
    encode,
    find_pipeline,
    normalise,
    object_labels,
    token_ids,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pipeline")
    build_pipeline(VOCABULARY).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pipeline(folder):
    loaded = DiffusionPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_a_plain_load_draws_a_picture_of_the_worlds_size(pipeline):
    assert type(pipeline) is StableDiffusion3Pipeline
    image = pipeline("a red car", num_inference_steps=1, guidance_scale=1.0, max_sequence_length=SHORT).images[0]
    assert image.size == (128, 128)


def test_it_is_as_small_as_it_says(pipeline):
    parts = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
    assert sum(p.numel() for part in parts for p in getattr(pipeline, part).parameters()) < 5e6


def test_every_word_is_one_token_and_captions_fit(pipeline):
    captions = [r.caption for r in microworld.generate(40, seed=1, split="train", clean=True)]
    for word in {word for caption in captions for word in caption.split()}:
        assert len(pipeline.tokenizer(word)["input_ids"]) == 3, word
        assert len(pipeline.tokenizer_3(word)["input_ids"]) == 2, word
    assert (
        max(len(pipeline.tokenizer(caption)["input_ids"]) for caption in captions)
        <= pipeline.tokenizer.model_max_length
    )


@pytest.mark.parametrize("length", [SHORT, LONG])
def test_training_embeds_captions_as_the_pipeline_does(pipeline, length):
    captions = ["a red car to the left of a blue house", "two green trees"]
    tokens, pooled = Flow(pipeline).embed(**token_ids(pipeline, captions), length=length)
    expected = pipeline.encode_prompt(
        captions, None, None, do_classifier_free_guidance=False, max_sequence_length=length
    )
    torch.testing.assert_close(tokens, expected[0])
    torch.testing.assert_close(pooled, expected[2])


def test_both_losses_fall_and_the_start_is_what_theory_says():
    torch.manual_seed(0)
    pipeline = build_pipeline(VOCABULARY)
    flow = Flow(pipeline, long=0.0)
    latents, ids = torch.randn(16, 8, 16, 16), token_ids(pipeline, ["a red car"] * 16)
    optimizer = torch.optim.AdamW(flow.parameters(), 2e-3)

    def measured():
        torch.manual_seed(1)
        with torch.no_grad():
            return flow.eval()(latents, **ids)["loss"].item()

    before = measured()
    for _ in range(30):
        flow.train()(latents, **ids)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    # The untrained velocity is 0, and the target the difference of two unit Gaussians.
    assert before == pytest.approx(2, abs=0.1)
    assert measured() < before - 0.05
    autoencoder = Reconstruction(pipeline.vae)
    picture = torch.rand(2, 3, 32, 32) * 2 - 1
    first = autoencoder(picture)["loss"]
    optimizer = torch.optim.AdamW(autoencoder.parameters(), 1e-3)
    first.backward()
    optimizer.step()
    assert autoencoder(picture)["loss"] < first


def test_latents_are_normalised_for_the_pipeline(pipeline):
    pictures = torch.rand(4, 3, 64, 64) * 2 - 1
    latents = encode(pipeline.vae, pictures)
    assert latents.shape == (4, 8, 8, 8)
    normalise(pipeline.vae, latents)
    scaled = (latents.float() - pipeline.vae.config.shift_factor) * pipeline.vae.config.scaling_factor
    assert scaled.mean().item() == pytest.approx(0, abs=1e-3)
    assert scaled.std().item() == pytest.approx(1, abs=1e-3)


def test_objects_are_labelled_at_the_tokens_that_they_cover():
    objects = [{"kind": "car", "colour": "red", "box": [0, 0, 500, 250]}]
    vocabulary = DenseVocabulary(("none", "car"), ("none", "red"), ("none",))
    labels = object_labels([objects, []], vocabulary, side=4)
    assert labels["dense_kind"].tolist() == [[1, 1] + [0] * 14, [0] * 16]
    assert labels["dense_colour"].tolist() == labels["dense_kind"].tolist()
    assert labels["dense_object_box"][0, 0].tolist() == [0, 0, 0.5, 0.25]


def test_the_heads_add_to_the_loss_and_reach_the_transformer():
    flow = Flow(build_pipeline(VOCABULARY), DenseVocabulary(("none", "car"), ("none", "red"), ("none",)), 1.0).train()
    records = [[{"kind": "car", "colour": "red", "box": [0, 0, 500, 500]}]] * 2
    labels = object_labels(records, DenseVocabulary(("none", "car"), ("none", "red"), ("none",)))
    ids = token_ids(build_pipeline(VOCABULARY), ["a red car"] * 2)
    out = flow(torch.randn(2, 8, 16, 16), **ids, **labels)
    assert out["loss"] > out["velocity_loss"]
    (out["loss"] - out["velocity_loss"]).backward()
    assert flow.transformer.pos_embed.proj.weight.grad.abs().sum() > 0


def test_the_embedded_generator_loads_plainly_and_is_as_small_as_it_says():
    folder = Path(find_pipeline("sdg-tiny-t2i"))
    assert sum(file.stat().st_size for file in folder.rglob("*.safetensors")) < 10e6
    assert not [file for file in folder.rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    parts = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
    assert sum(p.numel() for part in parts for p in getattr(pipeline, part).parameters()) < 5e6
    # Enough of the captions come out as they say to show that these are the trained weights.
    captions = [f"a {colour} {kind} on open ground" for colour in ("red", "blue") for kind in ("tree", "car", "lamp")]
    options = {"num_inference_steps": 20, "guidance_scale": 1.0, "max_sequence_length": SHORT}
    images = pipeline(captions, generator=torch.Generator().manual_seed(0), **options).images
    right = [not measure(i, c).defects.misalignments for i, c in zip(images, captions, strict=True)]
    assert sum(right) >= 3


def test_a_folder_is_itself_and_one_that_draws_nothing_is_refused(tmp_path):
    assert find_pipeline(find_pipeline("sdg-tiny-t2i")) == find_pipeline("sdg-tiny-t2i")
    with pytest.raises(CheckpointError, match=r"has no model_index.json: it is nothing that draws"):
        find_pipeline(str(tmp_path))
