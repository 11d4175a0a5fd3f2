"""Every layout: recognised, read for what it says, and refused when its coordinates are transposed."""

import dataclasses

import pytest
from layouts import SIZE, WRITERS, N, order_for, truth, write_folder, write_sdg30k

from sdg.readers import LAYOUTS, OrderError, read, recognise
from sdg.records import to_row

IMPORTANT = {"sdg-30k", "coco", "records"}
REASONED = {"sdg-30k", "coco", "genblemish-27k", "records"}


@pytest.mark.parametrize("stand_in", WRITERS)
def test_a_layout_says_what_is_true(stand_in, tmp_path):
    layout, write = WRITERS[stand_in]
    items = truth()
    source = write(tmp_path / "data", items)
    assert recognise(source) == layout
    reading = read(source, order=order_for(stand_in))
    by_name = {
        record.image_file.path.rsplit("/")[-1] if layout != "records" else record.id: record for record in reading
    }
    assert len(by_name) == reading.report.n_records == N
    for item in items:
        record = by_name[item.name]
        assert record.image.size == SIZE
        assert sorted(d.box for d in record.defects) == sorted(d.box for d in item.defects)
        for d in item.defects:
            (same,) = [found for found in record.defects if found.box == d.box]
            assert same.type == ("artifact" if layout == "hadm" else d.type)
            assert same.reason == (d.reason if layout in REASONED else "")
            assert same.importance == (d.importance if layout in IMPORTANT else None)
        assert record.caption == ("" if stand_in in ("hadm", "richhf-18k") else item.caption)
    assert reading.report.complete
    assert not reading.report.counts
    assert reading.report.n_defects == sum(len(item.defects) for item in items)


@pytest.mark.parametrize("stand_in", WRITERS)
def test_a_transposed_layout_is_refused(stand_in, tmp_path):
    layout, write = WRITERS[stand_in]
    source = write(tmp_path / "data", truth(), transposed=True)
    reading = read(source, order=order_for(stand_in), policy="skip")
    seen = []
    with pytest.raises(OrderError, match="contradicted by the data") as error:
        seen.extend(reading)
    assert len(str(error.value).splitlines()) > 1, "examples are shown"
    assert not reading.report.complete
    assert not seen or not LAYOUTS[layout].cheap, "where the annotations can be looked through first, nothing comes out"


@pytest.mark.parametrize("stand_in", [name for name, (layout, _) in WRITERS.items() if layout != "sdg-30k"])
def test_an_order_that_contradicts_the_layout_is_an_error(stand_in, tmp_path):
    _, write = WRITERS[stand_in]
    source = write(tmp_path / "data", truth(4))
    with pytest.raises(ValueError, match="order='yxyx' contradicts"):
        read(source, order="yxyx")


@pytest.mark.parametrize("stand_in", WRITERS)
def test_pictures_stay_unopened_until_they_are_asked_for(stand_in, tmp_path):
    _, write = WRITERS[stand_in]
    source = write(tmp_path / "data", truth(8))
    for record in read(source, order=order_for(stand_in), images=False):
        assert record.__dict__["_image"] is None
        assert record.replace(split="test").__dict__["_image"] is None
        assert record.image.mode == "RGB"
        assert dataclasses.replace(record, split="test").image.size == SIZE


@pytest.mark.parametrize("table", ["captions.csv", "captions.jsonl", "metadata.jsonl", "txt"])
def test_a_folder_has_captions_and_is_not_clean(table, tmp_path):
    items = truth(5)
    source = write_folder(tmp_path / "data", items, table)
    assert recognise(source) == "folder"
    found = list(read(source))
    assert [(r.id, r.caption) for r in found] == [(i.name, i.caption) for i in items]
    assert all("nobody looked" in r.defects.parse_error for r in found)
    with pytest.raises(ValueError, match=r"record '00000.png' is not annotated"):
        to_row(found[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "voc"}, "layout='voc' is none of records, sdg-30k"),
        ({"policy": "ignore"}, "policy='ignore' is none of raise, skip, mend"),
        ({"order": "zyxw"}, "order='zyxw' is not a box order"),
        ({"threshold": 0.2}, "sdg-30k takes no option threshold; it takes image_folder, fields, text_order"),
        ({"fields": "google"}, "fields='google' is none of ann, plain, gt, gemini"),
        ({"split": "validation"}, "validation.jsonl is missing"),
    ],
)
def test_arguments_that_are_none_are_refused_with_those_that_are(options, message, tmp_path):
    source = write_sdg30k(tmp_path, truth(4))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(source, **options)


def test_what_is_nothing_is_said_to_be_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        recognise(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"in no layout that is known; say which with layout=(.|\n)*coco: a JSON file"):
        read(tmp_path)


@pytest.mark.parametrize(("split", "count"), [("train", 30), ("test", 10), (None, 40)])
@pytest.mark.parametrize("stand_in", ["sdg-30k ann", "records"])
def test_a_split_is_read_alone(stand_in, split, count, tmp_path):
    _, write = WRITERS[stand_in]
    found = list(read(write(tmp_path / "data", truth()), split=split))
    assert len(found) == count
    assert {r.split for r in found} == ({split} if split else {"train", "test"})


def test_a_split_that_no_record_has_is_an_error(tmp_path):
    source = WRITERS["records"][1](tmp_path, truth(8))
    with pytest.raises(ValueError, match="no record of split='validation'; there are: test, train"):
        list(read(source, split="validation"))
