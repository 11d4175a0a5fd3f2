import json

import pytest
from datasets import load_dataset
from PIL import Image

from sdg import microworld
from sdg.defects import Defect, DefectSet
from sdg.readers import read, recognise
from sdg.records import (
    ImageFile,
    Record,
    features,
    from_row,
    load_records,
    to_dataset,
    to_row,
    write_records,
)


@pytest.fixture(scope="module")
def drawn():
    return list(microworld.generate(12, seed=4, split="validation"))


def same(a: Record, b: Record) -> bool:
    return (
        a.image.tobytes() == b.image.tobytes()
        and a.defects == b.defects
        and [d.subtype for d in a.defects] == [d.subtype for d in b.defects]
        and a.defects.reasoning == b.defects.reasoning
        and (a.id, a.caption, a.kinds, a.split, a.generator) == (b.id, b.caption, b.kinds, b.split, b.generator)
        and [dict(o) for o in a.objects] == [dict(o) for o in b.objects]
        and dict(a.provenance) == dict(b.provenance)
    )


def test_rows_round_trip(drawn):
    assert all(same(from_row(to_row(r)), r) for r in drawn)


def test_parquet_round_trip(drawn, tmp_path):
    to_dataset(drawn, with_clean_image=True).to_parquet(tmp_path / "part.parquet")
    data = load_records(tmp_path)
    assert data.features == features(with_clean_image=True)
    back = [from_row(row) for row in data]
    assert all(same(a, b) for a, b in zip(back, drawn, strict=True))
    assert back[0].clean_image.tobytes() == drawn[0].clean_image.tobytes()


def test_a_folder_without_records_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no parquet file"):
        load_records(tmp_path)


def test_missing_importance_survives():
    record = Record(Image.new("RGB", (8, 8)), "", DefectSet((Defect((1, 2, 3, 4), "artifact"),)), id="a")
    back = from_row(to_dataset([record])[0])
    assert back.defects[0].importance is None
    assert back.defects == record.defects


def test_a_bad_row_is_named(drawn):
    row = to_row(drawn[0])
    row["defects"] = [{"box": [5, 5, 2, 9], "type": "artifact"}]
    with pytest.raises(ValueError, match=r"record 'microworld-validation-4-0'.*defect 0: box x1=2"):
        from_row(row)


def test_kinds_must_name_every_defect():
    with pytest.raises(ValueError, match="kinds="):
        Record(Image.new("RGB", (8, 8)), "", DefectSet(()), kinds=("warp",))


FORMS = [("parquet", "parts"), ("parquet", "one.parquet"), ("imagefolder", "folder"), ("jsonl", "lines.jsonl")]


@pytest.fixture(scope="module")
def varied(drawn):
    """Drawn records, and some that have every gap: no importance, no reason, no defect, letters of many scripts."""
    image = Image.new("RGB", (8, 8), "red")
    defects = DefectSet(
        (
            Defect((1, 2, 3, 4), "artifact", 'Die Tasse "löst" sich auf 茶碗 🫖\n', None, "garbled_text"),
            Defect((0, 0, 1000, 1000), "misalignment", "", 100),
        ),
        caption="une théière",
        reasoning="<b>Schritt 1</b>\n茶",
    )
    return [
        Record(image, "", DefectSet((), caption=""), id="clean"),
        Record(image, "une théière", defects, id="茶", split="test", provenance={"von": ["ü", 1, None]}),
        *drawn,
    ]


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_every_form_is_read_back(form, name, varied, tmp_path):
    assert write_records(iter(varied), tmp_path / name, form) == len(varied)
    assert recognise(tmp_path / name) == "records"
    assert [p.name for p in tmp_path.rglob("*unfinished")] == []
    back = list(read(tmp_path / name))
    assert all(same(a, b) for a, b in zip(back, varied, strict=True))


@pytest.mark.parametrize(("form", "name"), FORMS[:3])
@pytest.mark.parametrize("streaming", [False, True])
def test_plain_datasets_reads_what_is_written(form, name, streaming, varied, tmp_path):
    write_records(varied, tmp_path / name, form)
    path = tmp_path / name
    source = {"path": "parquet", "data_files": str(path)} if path.is_file() else {"path": str(path)}
    data = load_dataset(**source, split="train", streaming=streaming, cache_dir=str(tmp_path / "cache"))
    assert dict(data.features) == dict(features())
    back = [from_row(row) for row in data]
    assert all(same(a, b) for a, b in zip(back, varied, strict=True))


def test_a_folder_that_datasets_saved_is_read(varied, tmp_path):
    to_dataset(varied).save_to_disk(tmp_path / "saved")
    assert recognise(tmp_path / "saved") == "records"
    assert all(same(a, b) for a, b in zip(read(tmp_path / "saved"), varied, strict=True))


def test_an_image_folder_with_lines_of_json_is_read(varied, tmp_path):
    (tmp_path / "images").mkdir()
    rows = []
    for k, record in enumerate(varied):
        record.image.save(tmp_path / f"images/{k}.png")
        rows.append({**to_row(record), "file_name": f"images/{k}.png"})
        del rows[-1]["image"]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert all(same(a, b) for a, b in zip(read(tmp_path), varied, strict=True))


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_pictures_in_files_are_copied_as_they_are(form, name, tmp_path):
    Image.effect_noise((32, 32), 60).convert("RGB").save(tmp_path / "a.jpg", quality=80)
    record = Record(ImageFile(str(tmp_path / "a.jpg")), "", DefectSet(()), id="a")
    write_records([record], tmp_path / name, form)
    (back,) = read(tmp_path / name)
    assert back.image_file.encoded() == (tmp_path / "a.jpg").read_bytes()


def test_lines_name_pictures_relative_to_themselves(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "a.png")
    record = Record(ImageFile(str(tmp_path / "pictures" / "a.png")), "", DefectSet(()), id="a")
    write_records([record], tmp_path / "lines.jsonl", "jsonl")
    assert json.loads((tmp_path / "lines.jsonl").read_text())["image"] == "pictures/a.png"


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_what_fails_half_way_leaves_no_records(form, name, drawn, tmp_path):
    def failing():
        yield from drawn[:3]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_records(failing(), tmp_path / name, form)
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".parquet", ".jsonl") and p.is_file()]
    assert not list(tmp_path.rglob("*unfinished"))


def test_parts_are_closed_when_they_are_large(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr("sdg.records._FLUSH_ROWS", 2)
    monkeypatch.setattr("sdg.records._PART_BYTES", 1)
    write_records(drawn[:5], tmp_path / "parts")
    assert [p.name for p in sorted((tmp_path / "parts").iterdir())] == [f"part-{k:05d}.parquet" for k in range(3)]
    assert all(same(a, b) for a, b in zip(read(tmp_path / "parts"), drawn[:5], strict=True))


def test_nothing_is_written_over(drawn, tmp_path):
    write_records(drawn[:1], tmp_path / "out")
    with pytest.raises(FileExistsError, match="exists already"):
        write_records(drawn[:1], tmp_path / "out")
    with pytest.raises(ValueError, match="form='csv' is none of parquet, imagefolder, jsonl"):
        write_records(drawn[:1], tmp_path / "other", "csv")


def test_no_records_are_a_data_set_too(tmp_path):
    assert write_records([], tmp_path / "none") == 0
    assert list(read(tmp_path / "none")) == []
