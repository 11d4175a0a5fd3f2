"""Data for training: rows from parquet and from SDG-30K's layout, batches of like length."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import truth, write_coco, write_folder, write_sdg30k
from standins import picture

from sdg.microworld import generate
from sdg.records import from_row, to_dataset, to_row, write_records
from sdg.response import render_response
from sdg.training.data import LengthGroupedBatches, hold_out, load_training_rows, text_length

lengths = st.lists(st.integers(1, 500), min_size=1, max_size=120)


@given(lengths, st.integers(1, 9), st.integers(1, 5), st.integers(0, 3))
def test_every_example_once(lengths, batch_size, pool, epoch):
    sampler = LengthGroupedBatches(lengths, batch_size, pool)
    sampler.set_epoch(epoch)
    assert sorted(sampler) == list(range(len(lengths))) == list(range(len(sampler)))


def test_no_caption_is_on_both_sides_of_a_hold_out():
    records = [replace(r, caption=f"caption {k % 5}") for k, r in enumerate(generate(12, seed=1))]
    train, aside = hold_out(to_dataset(records), 2)
    assert aside["caption"] == ["caption 0", "caption 1"]
    assert set(train["caption"]) == {"caption 2", "caption 3", "caption 4"}
    with pytest.raises(ValueError, match="hold_out=12 leaves none of 12"):
        hold_out(to_dataset(records), 12)


def test_batches_hold_like_lengths_in_random_order():
    lengths = np.random.default_rng(0).integers(50, 300, 1600)
    padded = {
        pool: lengths[np.array(list(LengthGroupedBatches(lengths, 32, pool))).reshape(-1, 32)].max(1) for pool in (1, 8)
    }
    assert padded[8].mean() < 0.7 * padded[1].mean()
    assert abs(np.corrcoef(padded[8][:-1], padded[8][1:])[0, 1]) < 0.4


def test_an_epoch_has_its_own_order_and_the_same_after_a_restart():
    def order(epoch):
        sampler = LengthGroupedBatches(range(100), 8, 4, seed=5)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(2) == order(2) != order(3)


def test_pool_of_none_is_refused():
    with pytest.raises(ValueError, match="pool=0"):
        LengthGroupedBatches([1, 2], 1, pool=0)


def test_text_length_goes_with_the_response():
    records = list(generate(30, seed=1))
    true = [len(r.caption) + len(render_response(r.defects)) for r in records]
    assert np.corrcoef(true, [text_length(to_row(r)) for r in records])[0, 1] > 0.99


def test_rows_come_from_parquet(tmp_path):
    records = list(generate(3, seed=1))
    to_dataset(records).to_parquet(tmp_path / "part.parquet")
    rows = load_training_rows(tmp_path)
    back = [from_row(row) for row in rows]
    assert rows[0]["image"]["bytes"]
    assert [r.defects for r in back] == [r.defects for r in records]
    assert [r.objects for r in back] == [tuple(dict(o) for o in r.objects) for r in records]


def test_rows_come_from_sdg30k_with_pictures_by_path(tmp_path):
    (tmp_path / "annotations").mkdir()
    picture().save(tmp_path / "one.png")
    bad = {"box_2d": [1, 2, 3, 4], "label": "artifact", "description": "melted", "importance": 5}
    line = {"filepath": "one.png", "caption": "a car", "ann_translated_bboxes": [bad]}
    (tmp_path / "annotations" / "train.jsonl").write_text(json.dumps(line) + "\n")
    rows = load_training_rows(tmp_path, "train", "xyxy")
    assert rows[0]["image"] == {"bytes": None, "path": str(tmp_path / "one.png")}
    record = from_row(rows[0])
    assert record.image.size == (128, 128)
    assert record.defects[0].box == (1, 2, 3, 4)


@pytest.mark.parametrize(("form", "name"), [("imagefolder", "folder"), ("jsonl", "lines.jsonl"), ("parquet", "parts")])
def test_rows_come_from_every_form_of_records(form, name, tmp_path):
    records = list(generate(3, seed=1))
    write_records(records, tmp_path / name, form)
    back = [from_row(row) for row in load_training_rows(tmp_path / name)]
    assert [r.defects for r in back] == [r.defects for r in records]
    assert [r.image.tobytes() for r in back] == [r.image.tobytes() for r in records]


def test_rows_come_from_another_layout(tmp_path):
    items = truth(4)
    rows = load_training_rows(write_coco(tmp_path, items))
    assert [list(from_row(row).defects) for row in rows] == [list(item.defects) for item in items]


def test_rows_of_files_that_were_changed_are_read_anew(tmp_path):
    source = write_sdg30k(tmp_path, truth(8))
    assert len(load_training_rows(source)) == 6
    path = source / "annotations" / "train.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:2]))
    assert len(load_training_rows(source)) == 2


def test_transposed_boxes_do_not_come_into_training(tmp_path):
    from datasets.exceptions import DatasetGenerationError

    with pytest.raises(DatasetGenerationError) as error:
        load_training_rows(write_sdg30k(tmp_path, truth(), transposed=True))
    assert "contradicted by the data" in str(error.value.__cause__)


def test_pictures_that_nobody_looked_at_are_not_trained_on(tmp_path):
    from datasets.exceptions import DatasetGenerationError

    with pytest.raises(DatasetGenerationError) as error:
        load_training_rows(write_folder(tmp_path, truth(2)))
    assert "is not annotated" in str(error.value.__cause__)
