import pytest
from PIL import Image

from sdg import microworld
from sdg.defects import Defect, DefectSet
from sdg.records import Record, features, from_row, load_records, to_dataset, to_row


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
