"""Cards: the ones that the project has, and the ones that are made of what is known."""

import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard, SpaceCard, parse_eval_result_entries
from local_hub import LocalHub

import sdg
from sdg.cards import BOXES, About, card_files, read_recipe, read_results, size_category, write_recipe
from sdg.microworld.dataset import Plan
from sdg.microworld.dataset import card as microworld_card

ROOT = Path(sdg.__file__).parents[1]
CARDS = sorted((ROOT / "model_cards").glob("*.md"))
SPACES = ("demo", "sdg_eval")
QUALITY = ROOT / "benchmarks/results/sdg-tiny/quality.json"
COUNTS = {
    "images": 1200,
    "defects": {"artifact": 900, "misalignment": 400},
    "composition": {"clean": {"images": 300, "share": 0.25}, "both": {"images": 900, "share": 0.75}},
    "importance_by_generator": {"FLUX": {"images": 1200, "defects": 1300, "tiers": {}}},
}


class Settings:
    """What a trainer was told."""

    learning_rate, max_steps, beta, lora_r, use_peft, sde_window = 3e-5, -1, 0.0, 64, False, [1, 4]


@pytest.fixture
def hub(monkeypatch):
    with LocalHub() as served, served.here(monkeypatch):
        yield served


@pytest.fixture
def detector(tmp_path):
    """A folder as train/sft.py leaves it, but for its weights."""
    folder = tmp_path / "final"
    folder.mkdir()
    (folder / "sdg_config.json").write_text('{"box_order": "xyxy", "prompt": "{caption}"}')
    started = {"base_model": "Qwen/Qwen3-VL-4B-Instruct", "data": "/home/somebody/SDG-30K"}
    write_recipe(folder, "supervised fine-tuning", Settings(), **started)
    return folder


def plain(text):
    return " ".join(text.split())


def made(folder, subject, about, **options):
    files = card_files(folder, subject, "me/mine", about, **options)
    card = (DatasetCard if subject == "dataset" else ModelCard)(files["README.md"])
    card.validate()  # asked of the Hub, over a socket
    return card, files


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_card_of_the_project_is_what_the_hub_asks_for(hub, path):
    space = path.stem in SPACES
    text = path.read_text(encoding="utf-8")
    text = text.replace("OWNER/NAME", "org/name")
    card = (SpaceCard if space else ModelCard)(text)
    card.validate()
    assert card.data.license == "apache-2.0"
    if not space:
        assert card.data.base_model or "trained-from-scratch" in card.data.tags
        assert card.data.library_name
        assert card.data.language == "en"
        assert "## How it was trained" in text
    if path.stem in ("sdg-tiny", *SPACES):
        assert plain(text).count(plain(BOXES)) == 1
    assert "[More Information Needed]" not in text


def test_every_checkpoint_and_space_has_its_card_in_one_place():
    there = {p.resolve() for p in CARDS}
    assert there == {*(p.resolve() for p in ROOT.glob("sdg/checkpoints/*/README.md")), *ROOT.glob("spaces/*/README.md")}


def test_the_hub_of_the_tests_refuses_a_wrong_head(hub):
    for head in ("license: none-such", "tags: [1]\nlicense: mit", "license: mit\npipeline_tag: guessing", "tags: [a]"):
        with pytest.raises(ValueError, match="errors"):
            ModelCard(f"---\n{head}\n---\n").validate()


def test_a_detector_is_told_with_its_base_its_recipe_and_its_figures(hub, detector):
    about = About("apache-2.0", dataset="me/pictures", measured_on="me/test", results=QUALITY)
    card, files = made(detector, "detector", about)
    assert card.data.base_model == "Qwen/Qwen3-VL-4B-Instruct"
    assert card.data.base_model_relation == "finetune"
    assert card.data.pipeline_tag == "image-text-to-text"
    assert card.data.library_name == "transformers"
    assert card.data.datasets == ["me/pictures"]
    assert {"f1", "precision", "recall"} <= set(card.data.metrics)
    assert "| `learning_rate` | 3e-05 |" in card.text
    assert "| `sde_window` | 1, 4 |" in card.text
    assert "`max_steps`" not in card.text, "was not set"
    assert "`lora_r`" not in card.text, "no LoRA was trained"
    assert "on `SDG-30K`" in card.text
    assert "somebody" not in card.text
    assert plain(card.text).count(plain(BOXES)) == 1
    assert "trained-from-scratch" not in card.data.tags

    metrics = json.loads(QUALITY.read_text())["metrics"]
    by_name = {result.metric_name: result for result in card.data.eval_results}
    value = metrics["misalignment/box_f1@0.5"]
    assert by_name["misalignment BoxF1@0.5"].metric_value == round(value, 4)
    low, high = metrics["misalignment/box_f1@0.5/ci"]
    row = next(line for line in card.text.splitlines() if line.startswith("| BoxF1@0.5 |"))
    assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in row
    source = json.loads(QUALITY.read_text())
    assert f"`{source['command']}` (commit {source['commit']})" in plain(card.text)

    entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/sdg-eval.yaml"]))
    assert {entry.dataset_id for entry in entries} == {"me/test"}
    assert {entry.task_id: entry.value for entry in entries}["misalignment_boxf1_0_5"] == round(value, 4)
    assert all(source["command"] in entry.notes and source["commit"] in entry.notes for entry in entries)


def test_what_was_not_measured_has_no_figure(hub, detector):
    card, files = made(detector, "detector", About("apache-2.0"))
    assert set(files) == {"README.md"}
    assert "It has not been measured" in card.text
    assert card.data.eval_results is None
    assert not re.search(r"\d\.\d{3}", card.text)


def test_what_is_undefined_is_left_out_of_the_head_and_said_in_the_table(hub, detector, tmp_path):
    scores = {"command": "sdg eval a b", "version": "0.1.0", "results": {"predictions": {"n_images": 3}}}
    scores["results"]["predictions"] |= {"artifact/box_f1@0.5": None, "artifact/cln_acc": 1.0}
    scores["results"]["predictions"] |= {"parse_rate": 1.0, "strict_rate": 0.5}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    card, _ = made(detector, "detector", About("mit", results=tmp_path / "scores.json"))
    assert [(e.metric_name, e.metric_value) for e in card.data.eval_results] == [("artifact ClnAcc", 1.0)]
    assert "| BoxF1@0.5 | undefined | undefined |" in card.text
    assert "`sdg eval a b` (sdg 0.1.0)" in card.text


def test_a_detector_from_nothing_says_so_and_its_world(hub, tmp_path):
    write_recipe(tmp_path, "supervised fine-tuning", data="data/microworld/train")
    (tmp_path / "sdg_config.json").write_text('{"made_for": "microworld"}')
    card, _ = made(tmp_path, "detector", About("mit"))
    assert "trained-from-scratch" in card.data.tags
    assert card.data.base_model is None
    assert "It knows one world only: microworld" in card.text


def test_a_folder_of_this_machine_is_nobodys_base_model(detector, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    write_recipe(detector, "GRPO", base_model="runs/mine")
    monkeypatch.chdir(detector)  # from where there is no such folder
    card = ModelCard(card_files(detector, "detector", "me/mine", About("mit"))["README.md"])
    assert card.data.base_model is None
    assert "trained-from-scratch" not in card.data.tags
    named = card_files(detector, "detector", "me/mine", About("mit", base_model="me/first"))["README.md"]
    assert ModelCard(named).data.base_model == "me/first"


def test_a_lora_is_told_with_its_base_and_its_licence(hub, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "black-forest-labs/FLUX.1-dev"}')
    write_recipe(tmp_path, "BoxFlow-GRPO", Settings(), more={"rewards": ["PickScore"], "detector": ["me/eye"]})
    about = About("flux-1-dev-non-commercial-license", license_link="https://example.com/license")
    card, _ = made(tmp_path, "lora", about)
    assert (card.data.license, card.data.license_name) == ("other", "flux-1-dev-non-commercial-license")
    assert card.data.base_model == "black-forest-labs/FLUX.1-dev"
    assert card.data.base_model_relation == "adapter"
    assert (card.data.library_name, card.data.pipeline_tag) == ("diffusers", "text-to-image")
    assert 'load_lora_weights("me/mine")' in card.text
    assert "| `rewards` | PickScore |" in card.text
    assert "BoxFlow-GRPO" in card.text


def test_an_adapter_that_nobody_told_about_claims_no_method(hub, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    for subject in ("lora", "detector"):
        card, _ = made(tmp_path, subject, About("mit"))
        assert "Its author has not said." in card.text
        assert "BoxFlow" not in card.text


def test_a_data_set_is_told_by_what_was_counted(hub, tmp_path):
    card, _ = made(tmp_path, "dataset", About("cc-by-4.0"), counts=COUNTS)
    assert card.data.size_categories == ["1K<n<10K"]
    assert "| both | 900 |" in card.text
    assert "| FLUX | 1,200 | 1,300 |" in card.text
    assert plain(card.text).count(plain(BOXES)) == 1


def test_the_microworld_says_that_it_is_synthetic_and_where_its_splits_are(hub):
    card = microworld_card(Plan({"train": 60000, "test": 500}), "sdg microworld --out FOLDER")
    card.validate()
    assert [f["split"] for f in card.data.configs[0]["data_files"]] == ["train", "test"]
    assert "**It is synthetic**" in card.text
    assert "| train | 60,000 |" in card.text
    assert "validation" not in card.text
    assert plain(card.text).count(plain(BOXES)) == 1


@pytest.mark.parametrize(
    "left", ["# Model Card for Model ID\n", "---\nbase_model: org/base\n---\n\n[More Information Needed]"]
)
def test_a_card_that_a_library_left_unfilled_is_none(detector, left):
    (detector / "README.md").write_text(left)
    assert "# mine" in card_files(detector, "detector", "me/mine", About("mit"))["README.md"]


def test_a_card_of_ones_own_stays_and_is_told_its_data_set(detector):
    own = f"---\nlicense: mit\nbase_model: org/base\n---\n\n# Mine\n\nIts own words, {0.123}.\n"
    (detector / "README.md").write_text(own)
    assert card_files(detector, "detector", "me/mine", About()) == {}
    with pytest.raises(ValueError, match="the card, is there: write license"):
        card_files(detector, "detector", "me/mine", About(license="mit"))
    files = card_files(detector, "detector", "me/mine", About(dataset="me/pictures"))
    assert set(files) == {"README.md"}
    with pytest.raises(ValueError, match="measured_on='me/test', and there is no figure"):
        card_files(detector, "detector", "me/mine", About(measured_on="me/test"))
    assert ModelCard(files["README.md"]).data.datasets == ["me/pictures"]
    assert "Its own words, 0.123." in files["README.md"]


def test_without_a_licence_nothing_is_written(detector):
    assert card_files(detector, "detector", "me/mine", About(results=QUALITY)) == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no results of SDG-Eval"),
        ('{"metrics": {"artifact/cln_acc": 1}}', "holds no results of SDG-Eval"),
        ('{"metrics": {"n_images": 3}, "commit": "abc"}', "names no command"),
        ('{"metrics": {"n_images": 3}, "command": "sdg eval"}', "names no commit or version"),
    ],
)
def test_results_of_unknown_origin_are_refused(tmp_path, content, words):
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        read_results(tmp_path / "scores.json")


def test_a_recipe_that_cannot_be_read_is_said(tmp_path):
    assert read_recipe(tmp_path) == {}
    (tmp_path / "sdg_recipe.json").write_text("{")
    with pytest.raises(ValueError, match=r"sdg_recipe\.json is not JSON"):
        read_recipe(tmp_path)
    (tmp_path / "sdg_recipe.json").write_text("[]")
    with pytest.raises(ValueError, match="a list, not an object"):
        read_recipe(tmp_path)


@pytest.mark.parametrize(
    ("n", "name"), [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**8, "100M<n<1B")]
)
def test_sizes_have_the_hubs_names(n, name):
    assert size_category(n) == name
