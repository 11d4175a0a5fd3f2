"""Prompts come from where users keep them, and a source that holds none says so."""

import pytest
from datasets import Dataset

from sdg.boxflow.data import load_prompts

PROMPTS = ["a red car", "a blue tree"]


def write(kind, folder, column="prompt"):
    """A file or folder of this kind that holds PROMPTS and an empty one."""
    rows = Dataset.from_dict({column: [PROMPTS[0], "", PROMPTS[1]], "id": [1, 2, 3]})
    path = folder / f"prompts{kind}"
    if kind == ".txt":
        path.write_text("a red car\n\n  a blue tree \n", encoding="utf-8")
    elif kind == ".jsonl":
        rows.to_json(path)
    elif kind == ".csv":
        rows.to_csv(path)
    elif kind == ".parquet":
        rows.to_parquet(path)
    else:
        (path / "part").mkdir(parents=True)
        rows.to_parquet(path / "part" / "0.parquet")
    return path


@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".csv", ".parquet", ""])
def test_prompts_of_a_file(kind, tmp_path):
    data = load_prompts(write(kind, tmp_path))
    assert (data.column_names, list(data["prompt"])) == (["prompt"], PROMPTS)
    assert list(load_prompts(write(kind, tmp_path / "again" if kind else tmp_path / "b"), 1)["prompt"]) == PROMPTS[:1]


@pytest.fixture(autouse=True)
def room(tmp_path):
    (tmp_path / "again").mkdir()


@pytest.mark.parametrize("column", ["caption", "text"])
def test_the_column_may_have_another_name(column, tmp_path):
    path = write(".jsonl", tmp_path, column)
    wanted = "prompt" if column == "caption" else column
    assert list(load_prompts(path, column=wanted)["prompt"]) == PROMPTS


def test_captions_of_the_microworld():
    first = list(load_prompts("microworld", 5, seed=3)["prompt"])
    assert len(set(first)) == 5
    assert list(load_prompts("microworld", 3, seed=3)["prompt"]) == first[:3]
    assert not set(first) & set(load_prompts("microworld", 5, seed=4)["prompt"])
    assert not set(first) & set(load_prompts("microworld", 5, split="test", seed=3)["prompt"])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: "microworld", ValueError, "0 captions of the microworld: say how many"),
        (lambda p: p / "nowhere.txt", FileNotFoundError, "is not there; give a text file"),
        (lambda p: p, ValueError, "holds no parquet file"),
        (lambda p: write(".jsonl", p, "text"), ValueError, "no column 'caption'; it has text, id"),
    ],
)
def test_a_source_without_prompts_is_refused(make, error, message, tmp_path):
    with pytest.raises(error, match=message):
        load_prompts(make(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", " \n", "holds no prompt"),
        ("p.png", "x", "is none of .txt"),
        ("p.jsonl", '{"prompt": [1]}\n', "which is no text"),
    ],
)
def test_a_file_without_prompts_is_refused(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_prompts(path)
