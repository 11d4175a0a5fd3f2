"""What the Refine tab says and shows of a refinement, and its work where a GPU is borrowed for it."""

import multiprocessing
import pickle
import sys
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from refine_hands import GREY, LEFT, RIGHT, Eye, Hand, mend, picture
from scripted_detector import OUTSIDE

from sdg import SDGDetector, microworld
from sdg.defects import Defect, DefectSet
from sdg.refine import DefectRefiner, EditError, Refinement
from sdg.refine.loading import load_editor
from sdg.web import build_page, launch_options, refine_html, repair_examples
from sdg.web.detect import sentence
from sdg.web.examples import REPAIRED, REPAIRED_SEED
from sdg.web.refine import OPTIONS, _seed, checked, light
from sdg.web.refine_views import chosen_halves, done_view

FOUND = DefectSet((Defect((1, 2, 30, 40), "artifact", "a bent <i>wheel</i>", 55),))


def refined(eye=None, act=mend, image=None, **options) -> Refinement:
    return DefectRefiner(eye or Eye(), Hand(act), **options)(image or picture(LEFT, RIGHT), "grey")


def refuse(task, seed):
    return EditError("its safety filter refused the picture")


def stray(task, seed):
    return EditError(f"it strayed by {seed}.5 pixels")


def worsen(task, seed):
    """Changes something inside the mask, which helps nothing."""
    pixels = np.asarray(task.image).copy()
    rows, columns = np.nonzero(np.asarray(task.mask))
    pixels[rows[0], columns[0]] = 0
    return Image.fromarray(pixels)


def sometimes(task, seed):
    return mend(task) if seed % 2 else worsen(task, seed)


def halved():
    """Of a picture whose defect weighs a little less after each edit: too little."""

    class Fading(Eye):
        def one(self, image):
            return DefectSet(tuple(replace(d, importance=35 if image.info else 50) for d in super().one(image)))

    def act(task, seed):
        edit = task.image.copy()
        edit.putpixel((20, 20), (201, 30, 30))
        edit.info["edited"] = True
        return edit

    return refined(Fading(), act, picture(LEFT), min_gain=0.5)


@pytest.mark.parametrize(
    ("refinement", "state", "words"),
    [
        (refined(), "better", ["2 defects before, none after", "1.00 → 0.00", "the model's own judgement"]),
        (refined(image=picture()), "clean", ["No defect found"]),
        (refined(act=refuse), "same", ["16 of 16 candidates could not be used: its safety filter", "Another seed"]),
        (refined(act=stray), "same", ["16 of 16 candidates could not be used: it strayed by 0.5 pixels. Another"]),
        (refined(act=worsen), "same", ["at 16 candidates and took none", "not better: defect load 1.00, before 1.00."]),
        (halved(), "same", ["The best: hardly better: defect load 0.35, before 0.50; at least 0.25 had to go."]),
        (refined(act=sometimes, min_better=1), "same", ["The best: 2 of 4 candidates better, at least 4 have to be."]),
        (refined(Eye(confidence=0.2)), "same", ["2 defects found, none of which", "confidence from 50 %"]),
        (refined(Eye(importance=5), min_importance=20), "same", ["importance from 20"]),
        (refined(types=["misalignment"]), "same", ["this editor repairs misalignments only"]),
        (refined(Eye(info=OUTSIDE)), "outside", ["Nothing was changed."]),
    ],
)
def test_every_outcome_has_its_own_verdict(refinement, state, words):
    said = refine_html.verdict_on(refinement)
    assert f'data-state="{state}"' in said
    for word in words:
        assert word in said
    assert "repaired" not in said.lower()  # who could know?


def test_an_unreadable_answer_is_no_clean_picture():
    image, found = picture(), DefectSet(parse_error="no list")
    unread = Refinement(image, "grey", image, found, found)
    said = refine_html.verdict_on(unread)
    assert 'data-state="unread"' in said
    assert "not a clean picture: no list. Nothing was changed." in said


@pytest.mark.parametrize(
    ("before", "after", "fates"),
    [
        ([(LEFT, "artifact")], None, [""]),
        ([(LEFT, "artifact")], [], ["gone"]),
        ([(LEFT, "artifact"), (RIGHT, "artifact")], [(RIGHT, "artifact")], ["gone", "left"]),
        ([(LEFT, "artifact")], [(LEFT, "misalignment")], ["gone", "new"]),
        ([(LEFT, "artifact")], [(RIGHT, "artifact")], ["gone", "new"]),
        ([], [], []),
    ],
)
def test_what_became_of_each_defect(before, after, fates):
    sets = [None if s is None else DefectSet(tuple(Defect(b, t, "x", 50) for b, t in s)) for s in (before, after)]
    text = refine_html.fates(*sets)
    assert [item.split('"')[0].split()[1:] for item in text.split('<li class="sdg-fate ')[1:]] == [
        [fate] if fate else [] for fate in fates
    ]


@pytest.mark.parametrize(
    "fragment",
    [
        refine_html.fates(FOUND),
        refine_html.fates(FOUND, FOUND),
        refine_html.facts(Refinement(None, "", None, FOUND, FOUND, settings={"seed": 0, "editor": "<i>"}), "<i>"),
    ],
)
def test_words_of_models_are_escaped(fragment):
    assert "<i>" not in fragment


def test_only_pictures_that_are_shown_are_held():
    part = light(refined(image=picture(LEFT)))
    assert part.changed
    (step,) = part.steps
    assert [c.image is not None for c in step.candidates] == [i == step.chosen for i in range(4)]
    assert (np.asarray(step.after) == GREY).all()
    again = pickle.loads(pickle.dumps(part))  # as it crosses to a process with a GPU
    assert again.changed


def test_a_view_names_what_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    better, same = done_view(refined(), "eye"), done_view(refined(act=refuse), "eye")
    assert [view["compared"]["visible"] for view in (better, same)] == [True, False]
    assert [view["saved"]["visible"] for view in (better, same)] == [True, False]
    assert [bool(view["picture"]["value"]) for view in (better, same)] == [False, True]
    assert [view["another"]["visible"] for view in (better, same)] == [True, True]
    assert "Seed <b>0</b>" in better["facts"]["value"]
    framed, bare = (chosen_halves(refined(), -1, frames) for frames in (True, False))
    pictures = [np.asarray(Image.open(path)) for path in (*framed, *bare)]
    assert (pictures[0] != pictures[2]).any()
    assert (pictures[1] == pictures[3]).all()  # nothing was left to frame


def test_a_step_shows_what_was_there_before_it_and_not_only_what_it_works_on():
    steps = chosen_halves(refined(), 0, True)
    frames = [np.asarray(Image.open(path)) for path in steps]
    bare = [np.asarray(Image.open(path)) for path in chosen_halves(refined(), 0, False)]
    changed = [(a != b).any(axis=2) for a, b in zip(frames, bare, strict=True)]
    middle = len(changed[0]) // 2
    assert changed[0][:middle, :middle].any()  # the place that this step repairs
    assert changed[0][middle:, middle:].any()  # the other one
    assert not changed[1][:middle, :middle].any()
    assert changed[1][middle:, middle:].any()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("rounds", 5, "rounds=5 is above 4"),
        ("candidates", 9, "candidates=9 is above 8"),
        ("rounds", 0, "rounds=0 must be at least 1"),
        ("min_importance", 101, "min_importance=101 is outside 1..100"),
        ("min_confidence", 1.5, "min_confidence=1.5 is outside 0..1"),
        ("rounds", "abc", "rounds='abc' is not a whole number"),
        ("rounds", 1.9, "rounds=1.9 is not a whole number"),
        ("rounds", True, "rounds=True is not a whole number"),
        ("rounds", 10**400, "is not a whole number"),
        ("min_importance", None, "min_importance=None is not a whole number"),
        ("min_confidence", float("nan"), "min_confidence=nan is not a number"),
    ],
)
def test_options_out_of_range_are_refused(name, value, words):
    with pytest.raises(ValueError, match=words):
        checked(*(OPTIONS | {name: value}).values())


@pytest.mark.parametrize("seed", [None, [1], 2.7, -1, float("inf"), 2**31])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="seed="):
        _seed(seed)


def test_a_large_picture_is_shown_small_and_taken_home_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    view = done_view(refined(image=picture(LEFT, RIGHT, size=(2000, 1500))), "eye")
    assert {Image.open(path).size for path in view["slider"]} == {(1024, 768)}
    assert Image.open(view["path"]).size == (2000, 1500)
    held = view["held"]
    shown = [held.original, held.image, *(part for step in held.steps for part in (step.before, step.after))]
    assert {part.size for part in shown} == {(1024, 768)}
    assert {Image.open(path).size for path in chosen_halves(held, 1, True)} == {(1024, 768)}


def test_types_are_told_in_words():
    told = refine_html.fates(FOUND, DefectSet())
    assert "<b>Artifact</b>" in told
    assert "sdg-unseen" not in told


def test_an_editor_of_one_world_says_so():
    editor = Hand(mend)
    editor.made_for = "microworld"
    assert refined().settings["editor_made_for"] is None
    page = build_page(Eye(), editor=editor)
    (said,) = [block.value for block in page.blocks.values() if getattr(block, "elem_id", None) == "editor-world"]
    assert "hand repairs pictures of the microworld" in said


def test_what_zerogpu_refuses_is_told_without_its_markup():
    assert sentence(gr.Error("You have exceeded your <b>GPU quota</b>")) == "You have exceeded your GPU quota"


class Borrowed:
    """`spaces`, as far as the page asks it: functions run in a forked process, and all that crosses is pickled."""

    def __init__(self):
        self.asked = []

    def GPU(self, duration):
        return lambda function: self.wrapped(function, duration)

    def wrapped(self, function, duration):
        def run(*arguments):
            self.asked.append(duration(*arguments))
            context = multiprocessing.get_context("fork")
            ours, theirs = context.Pipe()

            def child(arguments):
                try:
                    for part in function(*pickle.loads(arguments)):
                        theirs.send(("part", part))
                    theirs.send(("end", None))
                except Exception as error:
                    theirs.send(("error", type(error).__name__))

            process = context.Process(target=child, args=(pickle.dumps(arguments),), daemon=True)
            process.start()
            try:
                while True:
                    kind, value = ours.recv()
                    if kind == "end":
                        return
                    if kind == "error":
                        raise gr.Error(value, title="ZeroGPU worker error")
                    yield value
            finally:
                process.terminate()
                process.join()

        return run


def test_a_repair_runs_where_the_gpu_is(monkeypatch, tmp_path):
    borrowed = Borrowed()
    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=borrowed.GPU))
    hand = Hand()
    page = build_page(Eye(), editor=hand)
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        client = Client(address, verbose=False)
        picture(LEFT, RIGHT).save(tmp_path / "broken.png")
        sent = handle_file(tmp_path / "broken.png")
        file, said = client.predict(sent, "grey", rounds=1, candidates=2, api_name="/refine")
        assert said["changed"]
        assert (np.asarray(Image.open(file).convert("RGB")) == GREY).all()
        assert hand.tasks == []  # it worked elsewhere
        assert len(borrowed.asked) == 1
        client.predict(sent, "grey", rounds=4, candidates=8, api_name="/refine")
        assert borrowed.asked[0] < borrowed.asked[1]
        with pytest.raises(AppError, match="rounds=5 is above 4"):
            client.predict(sent, "grey", rounds=5, api_name="/refine")
        assert len(borrowed.asked) == 2  # what is refused asks for no GPU
    finally:
        page.close(verbose=False)


@pytest.mark.slow
def test_the_pages_examples_come_closer_to_their_clean_render():
    detector, editor = SDGDetector.from_pretrained("sdg-tiny"), load_editor("sdg-tiny-t2i")
    refiner = DefectRefiner(detector, editor, **OPTIONS)
    examples = repair_examples()
    records = [next(iter(microworld.generate(1, REPAIRED_SEED, "test", start=i))) for i in REPAIRED]
    nearer = 0
    for example, record in zip(examples, records, strict=False):
        assert Image.open(example.path).tobytes() == record.image.tobytes()
        out, clean = refiner(record.image, record.caption).image, np.asarray(record.clean_image, dtype=float)
        before, after = (np.abs(np.asarray(image, dtype=float) - clean).mean() for image in (record.image, out))
        nearer += after < 0.7 * before
    assert nearer >= len(REPAIRED) - 1  # another machine rounds otherwise
    assert examples[-1].types == frozenset()
