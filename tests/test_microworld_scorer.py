import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from sdg import microworld
from sdg.embedded import ROOT
from sdg.microworld.scorer import LENGTH, MicroworldScorer


@pytest.fixture(scope="module")
def scorer():
    torch.set_num_threads(1)
    return MicroworldScorer.from_pretrained("sdg-tiny-scorer")


@pytest.fixture(scope="module")
def records():
    return list(microworld.generate(120, seed=8, split="validation"))


def test_it_ranks_pictures_as_their_defects_do(scorer, records):
    truth = [1 - min(1.0, sum(d.importance for d in r.defects) / 100) for r in records]
    marks = scorer.score([r.image for r in records], [r.caption for r in records])
    assert all(0 <= mark <= 1 for mark in marks)
    assert spearmanr(marks, truth).statistic > 0.45


def test_the_caption_counts(scorer):
    records = list(microworld.generate(40, seed=9, split="validation", clean=True))
    images, captions = [r.image for r in records], [r.caption for r in records]
    right = scorer.score(images, captions)
    wrong = scorer.score(images, captions[1:] + captions[:1])
    assert sum(right) > sum(wrong) + 0.1 * len(records)


def test_marks_do_not_depend_on_the_batch_nor_on_padding(scorer, records):
    images, captions = [r.image for r in records[:6]], [r.caption for r in records[:6]]
    together = scorer.score(images, captions)
    assert scorer.score(images, captions, batch_size=1) == pytest.approx(together, abs=1e-5)


def test_columns_of_a_trainer_are_ignored_and_the_mode_is_kept(scorer, records):
    scorer.train()
    try:
        scorer.score([records[0].image], [records[0].caption], completions=[""], trainer_state=None)
        assert scorer.training
    finally:
        scorer.eval()


def test_any_size_and_any_words_are_marked(scorer):
    (mark,) = scorer.score([Image.new("RGBA", (90, 200))], ["zebras " * 100])
    assert 0 <= mark <= 1
    assert scorer.score([], []) == []


def test_words(scorer):
    ids = scorer.ids(["A red car , zebra", ""])
    assert ids.shape == (2, LENGTH)
    assert ids[0, :5].tolist() == [scorer.index[w] for w in ("a", "red", "car", ",")] + [1]
    assert not ids[1].any()


def test_every_image_needs_its_prompt(scorer):
    with pytest.raises(ValueError, match="1 images and 2 prompts"):
        scorer.score([Image.new("RGB", (128, 128))], ["a red car", "a blue car"])


def test_saving_and_loading_keeps_the_marks(tmp_path, records):
    small = MicroworldScorer(["a", "red", "car"], fine=8, width=8, text=16).eval()
    small.save_pretrained(tmp_path)
    again = MicroworldScorer.from_pretrained(tmp_path)
    one = [records[0].image], ["a red car"]
    assert again.score(*one) == pytest.approx(small.score(*one))


def test_the_embedded_file_is_small():
    assert (ROOT / "sdg-tiny-scorer" / "model.safetensors").stat().st_size < 1_000_000
