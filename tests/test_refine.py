"""The loop: what is kept, what is refused and why, with detectors and editors that do as the test says."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from refine_hands import GREY, LEFT, RED, RIGHT, Eye, Hand, mend, picture

from sdg import Defect, DefectRefiner, DefectSet
from sdg.engines.base import EndpointError
from sdg.refine import EditError, load
from sdg.refine.similarity import similarity, spread


def refine(hand, image=None, eye=None, **options):
    return DefectRefiner(eye or Eye(), hand, **options)(image or picture(LEFT, RIGHT), "grey")


def cut_off(image):
    """A file that opens, and whose end is missing."""
    file = io.BytesIO()
    image.effect_spread(50).save(file, "JPEG")
    return Image.open(io.BytesIO(file.getvalue()[:-200]))


def test_what_is_broken_is_mended_and_nothing_else_changes():
    hand = Hand(mend)
    out = refine(hand)
    assert out.changed
    assert len(out.before) == 2
    assert not out.after
    assert (np.asarray(out.image) == GREY).all()
    assert [step.defects[0].box for step in out.steps] == [LEFT, RIGHT]
    assert out.reason == "2 of 2 attempts kept: the defect load fell from 1.00 to 0.00"
    assert out.to_json()["load"] == {"before": 1.0, "after": 0.0}


def test_a_clean_picture_comes_back_itself():
    image = picture()
    out = refine(Hand(mend), image)
    assert not out.changed
    assert np.array_equal(np.asarray(out.image), np.asarray(image))
    assert out.reason == "unchanged: no defect found"
    assert out.steps == ()


@pytest.mark.parametrize(
    ("act", "local", "words"),
    [
        (lambda task, seed: EditError("its safety filter refused the picture"), True, "safety filter"),
        (lambda task, seed: None, True, "no picture"),
        (lambda task, seed: Image.new("RGB", task.image.size), True, "black picture"),
        (lambda task, seed: Image.new("RGB", (100, 40), GREY), True, "100 x 40 pixels for a picture of 100 x 100"),
        (lambda task, seed: task.image.copy(), True, "changed nothing"),
        (lambda task, seed: picture(), True, "outside the mask"),
        (lambda task, seed: picture(LEFT, (0, 0, 99, 99)), True, "outside the mask"),
        (lambda task, seed: Image.effect_noise(task.image.size, 90).convert("RGB"), False, "rest of the picture"),
        (lambda task, seed: 1 / 0, True, "the editor failed: ZeroDivisionError"),
        (lambda task, seed: np.asarray(task.image), True, "returned ndarray in place of a PIL picture"),
        (lambda task, seed: "mended.png", True, "returned str in place of a PIL picture"),
        (lambda task, seed: Image.new("RGB", (100, 0)), True, "without pixels"),
        (lambda task, seed: cut_off(task.image), True, "could not be read (image file is truncated"),
    ],
)
def test_whatever_an_editor_does_the_picture_is_never_worse(act, local, words):
    image = picture(LEFT, RIGHT)
    out = refine(Hand(act, local), image)
    assert not out.changed
    assert np.array_equal(np.asarray(out.image), np.asarray(image))
    assert words in out.reason


def test_an_edit_that_does_not_lower_the_load_is_refused():
    def darker(task, seed):
        pixels = np.asarray(task.image).copy()
        pixels[np.asarray(task.mask) > 0] -= np.uint8(5)
        return Image.fromarray(pixels)

    out = refine(Hand(darker))
    assert not out.changed
    assert "not better: defect load 1.00, before 1.00" in out.reason


def test_the_best_of_the_candidates_is_kept_and_among_equals_the_one_that_changes_least():
    def act(task, seed):
        turn = seed % 3
        if turn == 0:
            return task.image.copy()
        pixels = np.asarray(task.image).copy()
        pixels[np.asarray(task.mask) > 0] = GREY if turn == 1 else (255, 255, 255)
        return Image.fromarray(pixels)

    out = refine(Hand(act), candidates=3)
    assert [step.chosen for step in out.steps] == [1, 1]
    assert (np.asarray(out.image) == GREY).all()


class TestSpread:
    @staticmethod
    def shade(task, seed):
        pixels = np.asarray(task.image).copy()
        pixels[(pixels == RED).all(axis=2) & (np.asarray(task.mask) > 0)] = 100 + 20 * (seed % 2)
        return Image.fromarray(pixels)

    def test_candidates_that_differ_are_refused_before_the_detector_is_asked(self):
        out = refine(Hand(self.shade), max_spread=0.1)
        assert not out.changed
        assert "the editor is guessing: its candidates differ (spread 0.11, at most 0.1)" in out.reason
        assert all(candidate.found is None for step in out.steps for candidate in step.candidates)
        assert out.steps[0].to_json()["spread"] == pytest.approx(10 / (10 + 250 / 3))  # from 200, 30, 30 to 110

    def test_candidates_that_agree_are_judged(self):
        out = refine(Hand(self.shade), max_spread=0.11)
        assert out.changed
        assert 0.1 < out.steps[0].spread < 0.11

    def test_an_editor_says_what_it_wants_and_the_caller_overrules_it(self):
        hand = Hand(self.shade)
        hand.max_spread = 0.05
        assert not refine(hand).changed
        assert refine(hand, max_spread=1).changed
        assert refine(hand).settings["max_spread"] == 0.05

    def test_one_candidate_has_nothing_to_differ_from(self):
        out = refine(Hand(self.shade), max_spread=0, candidates=1)
        assert out.changed
        assert out.steps[0].spread is None

    def test_it_is_the_share_of_the_change_in_which_edits_differ_inside_the_mask(self):
        image = Image.new("RGB", (4, 2))
        edits = [Image.new("RGB", (4, 2), (value, value, value)) for value in (0, 30, 60)]
        assert spread(image, edits) == pytest.approx(20 / (20 + 30))
        edits[0].paste((30, 30, 30), (0, 0, 2, 2))
        edits[2].paste((30, 30, 30), (0, 0, 2, 2))
        mask = Image.new("L", (4, 2))
        mask.paste(255, (0, 0, 2, 2))
        assert spread(image, edits, mask) == 0
        assert spread(image, edits) == pytest.approx(10 / (10 + 30))
        assert spread(image, [image, image]) == 0

    def test_large_pictures_are_compared_smaller(self):
        def grainy(size, shift):
            grain = (np.indices((size[1], size[0])).sum(axis=0) + shift) % 2 * 40  # smaller pictures are its mean, 20
            return Image.fromarray(np.repeat(grain.astype(np.uint8)[..., None], 3, axis=2))

        sizes = (64, 32), (2048, 1024)
        small, large = (spread(Image.new("RGB", size), [grainy(size, 0), grainy(size, 1)]) for size in sizes)
        assert small == pytest.approx(0.5)
        assert large == pytest.approx(0)

    def test_a_mask_of_which_nothing_is_left_when_smaller_leaves_nothing_out(self):
        mask = Image.new("L", (3000, 3000))
        for corner in ((1, 1), (2998, 2998)):
            mask.putpixel(corner, 255)
        edits = [Image.new("RGB", (3000, 3000), (value, value, value)) for value in (0, 60)]
        assert spread(Image.new("RGB", (3000, 3000)), edits, mask) == pytest.approx(30 / (30 + 30))


class TestBetter:
    @staticmethod
    def half_of_them(task, seed):
        if seed % 2:
            return mend(task)
        pixels = np.asarray(task.image).copy()
        pixels[np.asarray(task.mask) > 0] -= np.uint8(5)
        return Image.fromarray(pixels)

    def test_by_default_one_is_enough(self):
        assert not refine(Hand(self.half_of_them)).after

    def test_a_share_of_the_candidates_can_be_asked_for(self):
        out = refine(Hand(self.half_of_them), min_better=0.75)
        assert not out.changed
        assert "2 of 4 candidates better, at least 3 have to be" in out.reason
        assert "not better: defect load" in out.reason
        assert not refine(Hand(self.half_of_them), min_better=0.5).after
        assert not refine(Hand(mend), min_better=1).after
        three = refine(Hand(self.half_of_them), picture(LEFT), rounds=1, candidates=3, min_better=0.5)
        assert "1 of 3 candidates better, at least 2 have to be" in three.reason

    def test_what_the_editor_did_not_deliver_is_not_better(self):
        def act(task, seed):
            return mend(task) if seed % 2 else EditError("its safety filter refused the picture")

        assert "2 of 4 candidates better, at least 4 have to be" in refine(Hand(act), min_better=1).reason

    def test_an_editor_says_what_it_wants_and_the_caller_overrules_it(self):
        hand = Hand(self.half_of_them)
        hand.min_better = 1.0
        assert not refine(hand).changed
        assert refine(hand, min_better=0).changed
        assert refine(hand).settings["min_better"] == 1.0


class TestGain:
    class Fading(Eye):
        """What is less red matters less."""

        def one(self, image):
            found = super().one(image)
            red = np.asarray(image).astype(int)[:, :, 0].max()
            return DefectSet(tuple(replace(d, importance=int(red) - 150) for d in found), info=found.info)

    @staticmethod
    def fade(task, seed):
        pixels = np.asarray(task.image).copy()
        pixels[(pixels == RED).all(axis=2)] = (185, 30, 30)
        return Image.fromarray(pixels)

    def refine(self, hand, **options):
        return refine(hand, picture(LEFT), self.Fading(), rounds=1, **options)

    def test_by_default_any_fall_will_do(self):
        assert self.refine(Hand(self.fade)).reason.endswith("fell from 0.50 to 0.35")

    def test_a_share_of_what_was_to_be_repaired_can_be_asked_for(self):
        out = self.refine(Hand(self.fade), min_gain=0.5)
        assert not out.changed
        assert "hardly better: defect load 0.35, before 0.50; at least 0.25 had to go" in out.reason
        assert self.refine(Hand(self.fade), min_gain=0.2).changed
        assert self.refine(Hand(mend), min_gain=1.0).changed

    def test_all_of_it_can_be_asked_for_however_sums_are_rounded(self):
        class Two(Eye):
            def one(self, image):
                found = super().one(image)
                return DefectSet(tuple(replace(d, importance=35 if d.box == LEFT else 29) for d in found))

        assert 0.35 + 0.29 - 0.29 < 0.35
        assert not refine(Hand(mend), eye=Two(), min_gain=1.0).after

    def test_an_editor_says_what_it_wants_and_the_caller_overrules_it(self):
        hand = Hand(self.fade)
        hand.min_gain = 0.5
        assert not self.refine(hand).changed
        assert self.refine(hand, min_gain=0).changed
        assert self.refine(hand).settings["min_gain"] == 0.5


def test_an_editor_of_whole_pictures_gets_all_defects_at_once():
    hand = Hand(mend, local=False)
    out = refine(hand, min_similarity=0.5)
    assert len(out.steps) == 1
    assert len(hand.tasks[0].defects) == 2
    assert 0.5 < out.steps[0].kept.similarity < 1  # by its window it sees a little beyond the mask's edge
    assert not out.after


def test_another_size_of_the_same_shape_is_scaled_back():
    out = refine(Hand(lambda task, seed: picture(size=(256, 256)), local=False), min_similarity=0.5)
    assert out.changed
    assert out.image.size == (100, 100)


@pytest.mark.parametrize(
    ("options", "eye", "attempts"),
    [
        ({"min_importance": 60}, Eye(importance=59), 0),
        ({"min_importance": 60}, Eye(importance=60), 2),
        ({"min_importance": 60}, Eye(importance=None), 2),
        ({"min_confidence": 0.5}, Eye(confidence=0.49), 0),
        ({"min_confidence": 0.5}, Eye(confidence=0.5), 2),
        ({}, Eye(info={"out_of_world": {"outside": True, "score": None, "threshold": 1}}), 0),
        ({"outside": True}, Eye(info={"out_of_world": {"outside": True, "score": None, "threshold": 1}}), 2),
    ],
)
def test_only_what_matters_and_is_sure_is_touched(options, eye, attempts):
    out = refine(Hand(mend), eye=eye, **options)
    assert len(out.steps) == attempts
    assert out.changed is bool(attempts)
    if not attempts:
        assert out.reason.startswith("unchanged: ")


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10)])
def test_a_picture_that_cannot_be_used_is_refused_in_a_sentence(size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}"):
        refine(Hand(mend), Image.new("RGB", size))


def test_an_answer_that_cannot_be_read_changes_nothing():
    out = refine(Hand(mend), eye=lambda images, captions, batch_size: [DefectSet(parse_error="no list")] * len(images))
    assert not out.changed
    assert "could not be read (no list)" in out.reason
    assert out.to_json()["load"] == {"before": None, "after": None}


def test_a_repaired_picture_keeps_its_colour_space():
    image = picture(LEFT)
    image.info["icc_profile"] = b"a profile"
    out = refine(Hand(mend), image)
    assert out.changed
    assert out.image.info["icc_profile"] == b"a profile"
    assert out.steps[-1].after is not out.image


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_server_that_is_not_there_ends_the_job_and_is_no_reason_of_a_candidate(wrapped):
    def act(task, seed):
        if wrapped:
            raise EditError("no server") from EndpointError("http://nowhere does not answer")
        raise EndpointError("http://nowhere does not answer")

    with pytest.raises(EndpointError, match="does not answer"):
        refine(Hand(act))


def test_a_candidate_on_which_the_detector_fails_is_refused():
    eye = Eye()

    def forgetful(images, captions, batch_size):
        return [found if found else DefectSet(parse_error="gibberish") for found in eye(images)]

    out = refine(Hand(mend), picture(LEFT), eye=forgetful)
    assert not out.changed
    assert "could not be read" in out.reason
    said = out.to_json()["steps"][0]["candidates"][0]
    assert (said["load"], said["defects"], said["parse_error"]) == (None, None, "gibberish")


def test_seeds_differ_between_steps_rounds_and_pictures_and_are_the_same_again():
    seen = []

    def note(task, seed):
        seen.append(seed)
        return EditError("no")

    refine(Hand(note), candidates=2)
    assert len(set(seen)) == len(seen) == 8  # two rounds of two groups
    first, seen[:] = list(seen), []
    refine(Hand(note), candidates=2)
    assert seen == first
    DefectRefiner(Eye(), Hand(note), candidates=2)(picture(LEFT), seed=1)
    assert not set(seen[8:]) & set(first)


def test_rounds_end_where_nothing_is_left():
    hand = Hand(mend)
    refine(hand, rounds=5)
    assert len(hand.tasks) == 2


def test_progress_is_told_step_by_step():
    told = list(DefectRefiner(Eye(), Hand(mend)).iter(picture(LEFT, RIGHT)))
    assert [type(part).__name__ for part in told] == ["DefectSet", "Step", "Step", "Refinement"]


@pytest.mark.parametrize("size", [(8, 8), (9, 400), (3000, 100)])
def test_pictures_of_any_size(size):
    everything = DefectSet((Defect((0, 0, 1000, 1000), "artifact", "all", 90),))
    clean = iter([everything] + [DefectSet()] * 99)
    eye = lambda images, captions, batch_size: [next(clean) for _ in images]  # noqa: E731
    out = refine(Hand(lambda task, seed: Image.new("RGB", task.image.size, RED)), picture(size=size), eye=eye)
    assert out.changed
    assert out.image.size == size


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("feedback", "loud", "none of fixed, text, boxes, boxes[+]text"),
        ("rounds", 0, "rounds=0 must be at least 1"),
        ("candidates", 0, "candidates=0"),
        ("min_importance", 0, "outside 1..100"),
        ("min_confidence", 1.5, "outside 0..1"),
        ("min_similarity", -1, "outside 0..1"),
        ("grow", 1, "grow=1"),
        ("max_spread", -1, "max_spread=-1 is outside 0..1"),
        ("min_gain", 1.5, "min_gain=1.5 is outside 0..1"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_loaded(option, value, words):
    with pytest.raises(ValueError, match=words):
        DefectRefiner("no-such-detector", "no-such-editor", **{option: value})


def test_the_load_weighs_importance_by_confidence():
    def d(importance, confidence):
        return Defect((0, 0, 10, 10), "artifact", "", importance, confidence=confidence)

    assert load(DefectSet((d(50, 0.5), d(None, None), d(20, None)))) == pytest.approx(0.25 + 1 + 0.2)
    assert load(DefectSet()) == 0


def test_similarity_is_one_for_equal_pictures_and_looks_outside_the_mask():
    rng = np.random.default_rng(0)
    a = Image.fromarray(rng.integers(0, 256, (50, 80, 3), dtype=np.uint8))
    b = np.asarray(a).copy()
    b[10:30, 10:30] = 0
    b = Image.fromarray(b)
    mask = np.zeros((50, 80), np.uint8)
    mask[:40, :40] = 255
    assert similarity(a, a) == pytest.approx(1)
    assert similarity(a, b) < 0.9
    assert similarity(a, b, Image.fromarray(mask)) == pytest.approx(1)
    assert similarity(a, b, Image.new("L", a.size, 255)) == similarity(a, b)


def test_ssim_agrees_with_scikit_image():
    skimage = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(1)
    from scipy.ndimage import gaussian_filter

    a = gaussian_filter(rng.uniform(0, 255, (60, 60)), 2).clip(0, 255).astype(np.uint8)
    b = (a.astype(int) + rng.integers(-20, 20, a.shape)).clip(0, 255).astype(np.uint8)
    options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    _, expected = skimage.structural_similarity(a, b, **options)
    images = (Image.fromarray(np.stack([x] * 3, -1)) for x in (a, b))
    assert similarity(*images) == pytest.approx(expected.mean(), abs=2e-3)
