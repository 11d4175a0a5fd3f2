"""Batches: the target alone is learnt, boxes are jittered, pictures come out as the processor's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from standins import build, picture

from sdg.defects import Defect, DefectSet
from sdg.engines.transformers import TransformersEngine
from sdg.microworld import VOCABULARY, generate
from sdg.prompts import Prompt
from sdg.records import Record, to_row
from sdg.response import parse_response, render_response
from sdg.training.collator import IGNORE, SFTCollator, jitter_box, pixel_batch, without_steps
from sdg.training.dense import DenseVocabulary
from sdg.training.tiny import build_processor

PROCESSOR = build_processor(VOCABULARY)
PROMPT = Prompt("caption: {caption}", "no caption")
RECORDS = list(generate(16, seed=4, split="train", uncaptioned=0.2))


def collator(**options):
    return SFTCollator(PROCESSOR, prompt=PROMPT, **options)


boxes = st.tuples(*[st.integers(0, 999)] * 2, *[st.integers(1, 1000)] * 2).filter(lambda b: b[0] < b[2] and b[1] < b[3])


@given(boxes, st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_a_jittered_box_stays_near_and_valid(box, amplitude, seed):
    moved = jitter_box(box, amplitude, np.random.default_rng(seed))
    assert max(abs(a - b) for a, b in zip(box, moved, strict=True)) <= amplitude
    Defect(moved, "artifact")


def test_jitter_is_uniform_and_drawn_for_each_coordinate():
    rng = np.random.default_rng(0)
    offsets = np.array([jitter_box((400, 300, 600, 700), 10, rng) for _ in range(4000)]) - [400, 300, 600, 700]
    assert offsets.min() == -10
    assert offsets.max() == 10
    assert np.abs(offsets.mean(0)).max() < 0.5
    assert np.abs(np.corrcoef(offsets.T) - np.eye(4)).max() < 0.08


def test_labels_are_the_response_and_the_end_mark():
    batch = collator(jitter=0)(RECORDS)
    for record, labels in zip(RECORDS, batch["labels"], strict=True):
        text = PROCESSOR.tokenizer.decode(labels[labels != IGNORE])
        assert text == render_response(record.defects) + "<|im_end|>"


def test_prompts_are_what_the_detector_sends():
    batch = collator()(RECORDS)
    engine = TransformersEngine(build()[0], PROCESSOR, max_new_tokens=1)
    for i, record in enumerate(RECORDS):
        sent = engine.inputs([record.image], [PROMPT.format(record.caption)])
        learnt = batch["input_ids"][i][(batch["labels"][i] == IGNORE) & (batch["attention_mask"][i] == 1)]
        assert torch.equal(sent["input_ids"][0], learnt)
        assert torch.equal(sent["mm_token_type_ids"][0], batch["mm_token_type_ids"][i, : len(learnt)].long())


def test_jitter_moves_boxes_anew_and_leaves_words_alone():
    collate = collator(jitter=10)
    record = next(r for r in RECORDS if len(r.defects) > 1)
    seen = []
    for _ in range(3):
        labels = collate([record])["labels"][0]
        seen.append(parse_response(PROCESSOR.tokenizer.decode(labels[labels != IGNORE])))
    assert len({tuple(d.box for d in s) for s in seen}) == 3
    assert {s.reasoning for s in seen} == {record.defects.reasoning}
    assert {tuple((d.reason, d.importance) for d in s) for s in seen} == {
        tuple((d.reason, d.importance) for d in record.defects)
    }


def test_coordinates_stand_where_the_boxes_are():
    batch = collator(jitter=0)(RECORDS)
    for record, places, labels in zip(RECORDS, batch["coordinates"], batch["labels"], strict=True):
        assert places[places >= 0].tolist() == [c for d in record.defects for c in d.box]
        assert [int(PROCESSOR.tokenizer.decode([t])) for t in labels[places >= 0]] == places[places >= 0].tolist()


def test_a_reason_that_looks_like_a_box_is_no_box():
    reason = 'reads {"box_2d": [1, 2, 3, 4], "label": "'
    record = Record(RECORDS[0].image, "a car", DefectSet([Defect((5, 6, 7, 8), "artifact", reason, 9)]))
    places = collator(jitter=0)([record])["coordinates"]
    assert places[places >= 0].tolist() == [5, 6, 7, 8]


def test_numbers_of_several_tokens_have_no_coordinates():
    _, processor = build(digits=True)
    assert "coordinates" not in SFTCollator(processor, prompt=PROMPT)(RECORDS[:2])


def test_rows_and_records_are_the_same():
    from_rows, from_records = (collator()(e) for e in ([to_row(r) for r in RECORDS], RECORDS))
    assert from_rows.keys() == from_records.keys()
    assert all(torch.equal(from_rows[name], from_records[name]) for name in from_rows)


def test_too_long_an_example_is_named():
    with pytest.raises(ValueError, match=r"microworld-train-4-\d+.*max_length=100"):
        collator(max_length=100)(RECORDS)


@pytest.mark.parametrize("sizes", [[(128, 128)] * 3, [(256, 256)] * 2, [(128, 128), (200, 90)]])
def test_pixels_are_the_processors(sizes):
    pictures = [picture(seed, size) for seed, size in enumerate(sizes)]
    ours, theirs = pixel_batch(PROCESSOR.image_processor, pictures), PROCESSOR.image_processor(pictures)
    np.testing.assert_allclose(ours["pixel_values"], theirs["pixel_values"], atol=1e-6)
    assert np.array_equal(ours["image_grid_thw"], theirs["image_grid_thw"])


def test_dense_labels_come_with_a_vocabulary():
    vocabulary = DenseVocabulary.of(to_row(r) for r in RECORDS)
    batch = collator(vocabulary=vocabulary)(RECORDS)
    assert batch["dense_kind"].shape == (64 * len(RECORDS),)
    assert batch["dense_artifact_box"].shape == (64 * len(RECORDS), 4)


def test_large_pictures_are_fitted_as_the_detector_fits_them():
    record = Record(Image.new("RGB", (3000, 1500)), "a car", DefectSet())
    _, processor = build(digits=True)
    processor.image_processor.size = {"shortest_edge": 128 * 128, "longest_edge": 10**8}
    grid = SFTCollator(processor, prompt=PROMPT)([record])["image_grid_thw"][0].tolist()
    assert grid == [1, 512 // 8, 1024 // 8]


def test_degradation_touches_the_stated_share_of_pictures_and_no_label():
    plain, all_of_them, half = (collator(jitter=0, degrade=share)(RECORDS) for share in (0.0, 1.0, 0.5))
    cells = plain["pixel_values"].shape[0] // len(RECORDS)

    def changed(batch):
        return (batch["pixel_values"] != plain["pixel_values"]).reshape(len(RECORDS), cells, -1).any(2).any(1).sum()

    assert changed(all_of_them) == len(RECORDS)
    assert 0 < changed(half) < len(RECORDS)
    assert torch.equal(all_of_them["labels"], plain["labels"])


THINK = "Step 1: a red car.\nStep 2: the wheel.\nStep 3: image-left."


@pytest.mark.parametrize(
    ("reasoning", "steps", "left"),
    [
        (THINK, [], THINK),
        (THINK, [1], "Step 2: the wheel.\nStep 3: image-left."),
        (THINK, [3], "Step 1: a red car.\nStep 2: the wheel."),
        (THINK, [3, 1], "Step 2: the wheel."),
        (THINK, [1, 2, 3], ""),
        ("So:\n## Step 1 - look\nstep by step\n\n**Step 2** spot", [1], "So:\n**Step 2** spot"),
    ],
)
def test_steps_are_left_out(reasoning, steps, left):
    assert without_steps(reasoning, steps) == left


def test_a_step_that_is_not_there_is_no_ablation():
    with pytest.raises(ValueError, match=r"has no 'Step 2' to leave out: 'I see a car'"):
        without_steps("I see a car", [2])
    record = replace(RECORDS[0], defects=DefectSet((), reasoning="I see a car"), kinds=())
    with pytest.raises(ValueError, match=rf"record '{record.id}': the think text has no 'Step 1'"):
        collator(think_without=[1])([record])


def test_parts_that_cannot_be_left_out_are_refused():
    with pytest.raises(
        ValueError, match=r"answer_without=\['label'\] names no part .*; choose description, importance"
    ):
        collator(answer_without=["label"])


@pytest.mark.parametrize(
    ("options", "reason", "importance"),
    [({"answer_without": ["description"]}, False, True), ({"answer_without": ["importance"]}, True, False)],
)
def test_targets_without_a_part(options, reason, importance):
    record = next(r for r in RECORDS if len(r.defects) > 1)
    labels = collator(jitter=0, think_without=[1], **options)([record])["labels"][0]
    learnt = parse_response(PROCESSOR.tokenizer.decode(labels[labels != IGNORE]))
    assert [d.box for d in learnt] == [d.box for d in record.defects]
    assert [d.reason for d in learnt] == [d.reason if reason else "" for d in record.defects]
    assert [d.importance for d in learnt] == [d.importance if importance else None for d in record.defects]
    assert learnt.reasoning.startswith("Step 2")
    assert record.defects.reasoning.startswith("Step 1")
