"""Labels of pictures after an attempt to mend them."""

import numpy as np
import pytest
from PIL import Image

from sdg import microworld
from sdg.training.mended import fault, object_at, relabelled

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def records():
    drawn = microworld.generate(120, seed=8, split="train")
    return [r for r in drawn if r.defects.artifacts and not r.defects.misalignments]


def places(record):
    return [(defect.box, object_at(record, i)) for i, defect in enumerate(record.defects)]


def test_what_was_left_as_it_was_keeps_its_reason(records):
    for record in records:
        after = relabelled(record, record.image, places(record), RNG)
        assert [d.reason for d in after.defects] == [d.reason for d in record.defects]
        assert (
            after.defects.reasoning.split("; ", 1)[1].split(".\n")[0]
            == record.defects.reasoning.split("; ", 1)[1].split(".\n")[0]
        )
        assert after.provenance["mended"]


def test_what_was_mended_has_no_defect(records):
    for record in records:
        after = relabelled(record, record.clean_image, places(record), RNG)
        assert not after.defects
        assert after.defects.reasoning.endswith("no defect.\nStep 3: nowhere.")


def test_what_became_something_else_is_called_warped(records):
    record = records[0]
    (x0, y0, x1, y1), kind = places(record)[0]
    pixels = np.asarray(record.image).copy()
    pixels[y0 * 128 // 1000 : -(-y1 * 128 // 1000), x0 * 128 // 1000 : -(-x1 * 128 // 1000)] = (255, 0, 255)
    after = relabelled(record, Image.fromarray(pixels), places(record), RNG)
    assert after.defects[0].subtype == "warped_geometry"
    assert f"artifact {kind} middle warped" in after.defects.reasoning


def test_a_faultless_picture_that_an_attempt_spoils_gets_a_defect():
    record = next(r for r in microworld.generate(50, seed=8, split="train") if not r.defects)
    thing = record.objects[0]
    place = [(tuple(thing["box"]), thing["kind"])]
    assert not relabelled(record, record.image, place, RNG).defects
    spoilt = Image.effect_noise(record.image.size, 120).convert("RGB")
    assert len(relabelled(record, spoilt, place, RNG).defects) == 1


@pytest.mark.parametrize(("side", "found"), [(4, False), (30, True)])
def test_a_speck_is_no_fault(side, found):
    clean, edited = Image.new("RGB", (128, 128), "grey"), Image.new("RGB", (128, 128), "grey")
    edited.paste((255, 0, 0), (40, 40, 40 + side, 40 + side))
    box = fault(edited, clean, (0, 0, 1000, 1000))
    assert (box is not None) is found
    assert fault(edited, clean, (700, 700, 900, 900)) is None
