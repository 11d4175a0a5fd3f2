"""sdg push: dry runs, refusals, and round trips over a local Hub with the real clients in processes of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, snapshot_download
from local_hub import LocalHub
from PIL import Image
from safetensors.numpy import save
from typer.testing import CliRunner

import sdg
from sdg.cli import app
from sdg.microworld import generate
from sdg.records import write_records

ROOT = Path(sdg.__file__).parents[1]
WHEEL = "sdg_t2i-0.1.0-py3-none-any.whl"
DEFECT = {"box": [0, 0, 500, 500], "type": "artifact", "reason": "two heads", "importance": 80}
CARD = "---\nlicense: mit\nbase_model: org/base\n---\n\n# A card of its own\n"


@pytest.fixture
def hub(monkeypatch):
    with LocalHub() as served, served.here(monkeypatch):
        yield served


@pytest.fixture
def lora(tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    (tmp_path / "lora" / "adapter_model.safetensors").write_bytes(save({"w": np.zeros(4, np.float32)}))
    (tmp_path / "lora" / "README.md").write_text(CARD)
    return tmp_path / "lora"


def sdg_push(*words):
    done = CliRunner().invoke(app, ["push", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def elsewhere(hub, tmp_path, code, **variables):
    """What a program of somebody else prints, who has the library and the Hub and nothing that was pushed."""
    env = {**os.environ, **hub.environment(tmp_path / "home"), "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_dry_run_lists_the_files_shows_the_card_and_sends_nothing(hub, lora):
    done = sdg_push("lora", lora, "--repo", "me/lora", "--dry-run")
    assert done.exit_code == 0
    size = (lora / "adapter_model.safetensors").stat().st_size
    assert f"{size}  adapter_model.safetensors" in done.stderr
    assert f"3 files, 0.0 MB, for {hub.address}/me/lora" in done.stderr
    assert "# A card of its own" in done.stderr
    assert "Nothing was sent" in done.stderr
    assert done.stdout == ""
    assert not hub.requests


def test_a_push_prints_the_address(hub, lora):
    done = sdg_push("lora", lora, "--repo", "org/lora", "--private", "--message", "Better hands", "--revision", "next")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{hub.address}/org/lora/tree/next\n"
    repo = hub.repos["model", "org/lora"]
    assert repo.private
    assert repo.titles[repo.branches["next"]] == "Better hands"
    assert set(repo.files("main")) == {".gitattributes"}


def test_a_newer_push_says_what_it_took_away(hub, lora):
    sdg_push("lora", lora, "--repo", "me/lora")
    (lora / "adapter_model.safetensors").rename(lora / "pytorch_lora_weights.safetensors")
    assert (
        "adapter_model.safetensors of an earlier upload was taken away"
        in sdg_push("lora", lora, "--repo", "me/lora").stderr
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lora", "LORA", "--repo", "lora"], "repo='lora' names no owner: write owner/name"),
        (["lora", "LORA", "--repo", "a/b/c"], "repo='a/b/c'"),
        (["lora", "LORA", "--repo", "me/l ra"], "repo='me/l ra'"),
        (["lora", "--repo", "me/x"], "which lora? Name its folder"),
        (
            ["lora", "nowhere", "--repo", "me/x"],
            "there is no folder 'nowhere', nor is it an embedded checkpoint (sdg-tiny",
        ),
        (["detector", "LORA/..", "--repo", "me/x"], "holds no detector"),
        (["detector", "sdg-tiny-scorer", "--repo", "me/x"], "holds no detector"),
        (["generator", "LORA", "--repo", "me/x"], "holds no generator: model_index.json is missing"),
        (["dataset", "EMPTY", "--repo", "me/x"], "holds no dataset"),
        (["space", "LORA", "--repo", "me/x"], "space is assembled from this package: name no folder"),
        (["metric", "--repo", "me/x", "--wheel", "LORA/README.md"], "is no wheel of sdg-t2i"),
        (["picture", "LORA", "--repo", "me/x"], "Invalid value"),
        (["lora", "LORA"], "Missing option"),
    ],
)
def test_what_makes_no_sense_is_said(hub, lora, tmp_path, words, said):
    (tmp_path / "empty").mkdir()
    done = sdg_push(*(w.replace("LORA", str(lora)).replace("EMPTY", str(tmp_path / "empty")) for w in words))
    assert done.exit_code == 2
    assert said in done.stderr
    assert not hub.requests


def test_a_lora_without_a_card_gets_one_of_what_is_known(hub, lora, tmp_path):
    (lora / "README.md").unlink()
    refused = sdg_push("lora", lora, "--repo", "me/lora")
    assert refused.exit_code == 2
    assert "the card, is missing: write one" in refused.stderr
    assert "name the license (--license)" in refused.stderr
    refused = sdg_push("lora", lora, "--repo", "me/lora", "--license", "mit")
    assert "names no base_model" in refused.stderr
    assert "--base-model" in refused.stderr
    (lora / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    shown = sdg_push("lora", lora, "--repo", "me/lora", "--license", "mit", "--dry-run")
    assert "base_model: org/base" in shown.stderr
    assert not hub.requests
    done = sdg_push("lora", lora, "--repo", "me/lora", "--license", "mit")
    assert done.stdout == f"{hub.address}/me/lora\n", done.stderr
    assert b'load_lora_weights("me/lora")' in hub.repos["model", "me/lora"].files()["README.md"]
    assert sorted(p.name for p in lora.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"], (
        "kept as it was"
    )


def test_a_detector_is_pushed_with_the_figures_of_its_results(hub, tmp_path):
    references = [{"id": k, "defects": [DEFECT] * (k % 2)} for k in range(4)]
    for name, lines in (("references", references), ("predictions", references)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    told = [str(tmp_path / f"{name}.jsonl") for name in ("predictions", "references")]
    options = ("--json", str(tmp_path / "scores.json"), "--ci", "0", "--embedder", "none")
    scored = CliRunner().invoke(app, ["eval", *told, *options])
    assert scored.exit_code == 0, scored.stderr
    folder = tmp_path / "final"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "sdg_config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(save({"w": np.zeros(4, np.float32)}))
    words = ("detector", folder, "--repo", "me/eye", "--license", "apache-2.0", "--base-model", "org/base")
    done = sdg_push(*words, "--results", tmp_path / "scores.json", "--measured-on", "me/pictures")
    assert done.exit_code == 0, done.stderr
    files = hub.repos["model", "me/eye"].files()
    card = ModelCard(files["README.md"].decode())
    assert {e.metric_name: e.metric_value for e in card.data.eval_results}["artifact BoxF1@0.5"] == 1.0
    assert "`sdg eval predictions.jsonl references.jsonl --ci 0.0 --embedder none`" in card.text
    assert b"id: me/pictures" in files[".eval_results/sdg-eval.yaml"]
    refused = sdg_push(*words, "--results", tmp_path / "references.jsonl")
    assert (refused.exit_code, "references.jsonl is not JSON" in refused.stderr) == (2, True)
    refused = sdg_push(*words, "--results", tmp_path / "nowhere.json")
    assert (refused.exit_code, "nowhere.json" in refused.stderr) == (2, True)


def test_an_embedded_detector_brings_its_figures_where_its_data_set_is(hub):
    on = ("--dataset", "org/microworld", "--measured-on", "org/microworld")
    done = sdg_push("detector", "sdg-tiny", "--repo", "org/sdg-tiny", *on)
    assert done.exit_code == 0, done.stderr
    files = hub.repos["model", "org/sdg-tiny"].files()
    card = ModelCard(files["README.md"].decode())
    assert card.data.datasets == ["org/microworld"]
    figures = yaml.safe_load(files[".eval_results/sdg-eval.yaml"])
    assert [f["value"] for f in figures] == [result.metric_value for result in card.data.eval_results]
    assert {f["dataset"]["id"] for f in figures} == {"org/microworld"}


def test_a_data_set_without_a_card_is_told_by_its_counts(hub, tmp_path):
    records = list(generate(6, seed=5))
    write_records(records, tmp_path / "pictures")
    done = sdg_push("dataset", tmp_path / "pictures", "--repo", "me/pictures", "--license", "mit", "--dry-run")
    assert done.exit_code == 0, done.stderr
    defects = [d for r in records for d in r.defects]
    assert f"6 pictures with\n{sum(d.type == 'artifact' for d in defects)} artifacts" in done.stderr
    assert f"| microworld | 6 | {len(defects)} |" in done.stderr
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "rows.csv").write_text("a,b\n1,2\n")
    refused = sdg_push("dataset", tmp_path / "other", "--repo", "me/other", "--license", "mit")
    assert refused.exit_code == 2
    assert "none can be made of what it holds" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("metric", "--repo", "me/x", "--license", "mit"), "metric has its own card"),
        (
            ("lora", "LORA", "--repo", "me/x", "--license", "mit"),
            "README.md, the card, is there: write license into it",
        ),
        (("dataset", "LORA", "--repo", "me/x", "--dataset", "me/y"), "a data set has a license, but no base model"),
    ],
)
def test_what_a_card_cannot_be_told_is_refused(hub, lora, words, said):
    done = sdg_push(*(word.replace("LORA", str(lora)) for word in words))
    assert done.exit_code == 2
    assert said in done.stderr
    assert not hub.requests


def test_a_refusal_and_a_failure_have_their_own_exit_codes(hub, lora):
    hub.fail("POST", "/commit/", 429, times=9)
    failed = sdg_push("lora", lora, "--repo", "me/lora")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "too many requests" in failed.stderr
    (lora / "training_args.bin").write_bytes(b"x")
    refused = sdg_push("lora", lora, "--repo", "me/lora")
    assert refused.exit_code == 2
    assert "training_args.bin is a pickle" in refused.stderr


DETECT = """
import json
from PIL import Image
from sdg import SDGDetector
found = SDGDetector.from_pretrained({name!r})(Image.open("picture.png"), {caption!r})
print(json.dumps([found.raw, found.to_json()["defects"], str(found.info.get("made_for"))]))
"""


@pytest.mark.slow
def test_a_pushed_detector_answers_the_same_in_another_process(hub, tmp_path):
    done = sdg_push("detector", "sdg-tiny", "--repo", "me/sdg-tiny")
    assert done.exit_code == 0, done.stderr
    record = next(generate(1, seed=11, split="test"))
    record.image.save(tmp_path / "picture.png")
    there = elsewhere(hub, tmp_path, DETECT.format(name="me/sdg-tiny", caption=record.caption))
    assert hub.asked("GET", r"/lfs/"), "it came over the socket"
    found = sdg.SDGDetector.from_pretrained()(Image.open(tmp_path / "picture.png"), record.caption)
    # Confidences included: the calibration travels, too.
    assert there == json.loads(json.dumps([found.raw, found.to_json()["defects"], str(found.info.get("made_for"))]))


METRIC = """
import json, evaluate
truth = [{"box": [0, 0, 500, 500], "type": "artifact", "reason": "two heads", "importance": 80}]
near = [{"box": [0, 0, 480, 520], "type": "artifact", "reason": "a second head", "importance": 70}]
metric = evaluate.load("org/sdg_eval")
print(json.dumps(metric.compute(predictions=[near, []], references=[truth, truth], embedder=None)))
"""


@pytest.mark.slow
def test_a_pushed_metric_gives_the_same_numbers(hub, tmp_path):
    (tmp_path / WHEEL).write_bytes(b"a wheel")
    assert sdg_push("metric", "--repo", "org/sdg_eval", "--wheel", tmp_path / WHEEL).exit_code == 0
    there = elsewhere(hub, tmp_path, METRIC, HF_MODULES_CACHE=str(tmp_path / "modules"))
    assert hub.asked("GET", r"/spaces/org/sdg_eval/resolve/.*/sdg_eval\.py")
    truth = [{"box": [0, 0, 500, 500], "type": "artifact", "reason": "two heads", "importance": 80}]
    near = [{"box": [0, 0, 480, 520], "type": "artifact", "reason": "a second head", "importance": 70}]
    here = sdg.SDGEval(embedder=None).compute(predictions=[near, []], references=[truth, truth])
    assert json.dumps(there, sort_keys=True) == json.dumps(json.loads(json.dumps(here)), sort_keys=True)


STREAM = """
import json, datasets
rows = datasets.load_dataset("me/pictures", split="train", streaming=True)
print(json.dumps([[row["caption"], list(row["image"].size)] for row in rows]))
"""


@pytest.mark.slow
def test_a_pushed_data_set_streams(hub, tmp_path):
    folder = tmp_path / "pictures"
    (folder / "train").mkdir(parents=True)
    records = list(generate(3, seed=5))
    lines = []
    for k, record in enumerate(records):
        record.image.save(folder / "train" / f"{k}.png")
        lines.append(json.dumps({"file_name": f"{k}.png", "caption": record.caption}))
    (folder / "train" / "metadata.jsonl").write_text("\n".join(lines))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    done = sdg_push("dataset", folder, "--repo", "me/pictures")
    assert done.stdout == f"{hub.address}/datasets/me/pictures\n", done.stderr
    assert elsewhere(hub, tmp_path, STREAM) == [[r.caption, list(r.image.size)] for r in records]


def test_a_pushed_page_is_checked_out_as_it_was_assembled(hub, tmp_path):
    (tmp_path / WHEEL).write_bytes(b"a wheel")
    done = sdg_push("space", "--repo", "org/page", "--wheel", tmp_path / WHEEL)
    assert done.stdout == f"{hub.address}/spaces/org/page\n", done.stderr
    out = Path(snapshot_download("org/page", repo_type="space", local_dir=tmp_path / "out"))
    assert (out / "app.py").read_bytes() == (ROOT / "app.py").read_bytes()
    line = (out / "requirements.txt").read_text()
    assert line.startswith(f"sdg-t2i[app] @ {hub.address}/spaces/org/page/resolve/main/{WHEEL}#sha256=")
    (tmp_path / WHEEL).rename(tmp_path / WHEEL.replace("0.1.0", "0.2.0"))
    done = sdg_push("space", "--repo", "org/page", "--wheel", tmp_path / WHEEL.replace("0.1.0", "0.2.0"), "--private")
    assert "make it private first" in done.stderr
    done = sdg_push("space", "--repo", "org/page", "--wheel", tmp_path / WHEEL.replace("0.1.0", "0.2.0"))
    assert f"{WHEEL} of an earlier upload was taken away" in done.stderr


def test_a_private_space_comes_with_a_warning(hub, tmp_path):
    (tmp_path / WHEEL).write_bytes(b"a wheel")
    done = sdg_push("space", "--repo", "me/page", "--wheel", tmp_path / WHEEL, "--private", "--dry-run")
    assert "it starts once it is public" in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_publish_pushes_everything_in_order():
    def planned(*words):
        done = subprocess.run(["make", "-n", "publish", *words], cwd=ROOT, capture_output=True, text=True)
        return done.returncode, [line for line in done.stdout.splitlines() if "sdg push" in line], done.stderr

    code, lines, _ = planned("HF_ORG=org", "DRY_RUN=1", "DATASET=made")
    assert code == 0
    assert [line.split("sdg push ")[1] for line in lines] == [
        "detector sdg-tiny --repo org/sdg-tiny --dataset org/microworld --measured-on org/microworld --dry-run",
        "generator sdg-tiny-t2i --repo org/sdg-tiny-t2i --dataset org/microworld --dry-run",
        "dataset made --repo org/microworld --dry-run",
        "metric --repo org/sdg_eval --dry-run",
        "space --repo org/sdg --dry-run",
    ]
    code, lines, _ = planned("HF_ORG=org")
    assert len(lines) == 4
    assert not any("--dry-run" in line or "dataset" in line for line in lines)
    code, lines, said = planned()
    assert (code != 0, lines) == (True, [])
    assert "HF_ORG=" in said
