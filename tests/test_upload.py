"""The gate to the Hub: what it refuses, and one commit on a real socket, with the real client."""

import errno
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from local_hub import STRANGER, LocalHub
from safetensors.numpy import save

from sdg.upload import RefusedError, UploadError, check_folder, upload

CARD = "---\nlicense: mit\nbase_model: org/base\n---\n\n# A model\n"
WEIGHTS = save({"w": np.arange(60000, dtype=np.float32)})
GOOD = {"README.md": CARD, "config.json": "{}", "model.safetensors": WEIGHTS}
HF, SK = "hf_" + "aB3" * 11, "sk-" + "proj-aB3" * 5  # no secrets, but they look like some


def fill(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


@pytest.fixture
def hub(monkeypatch):
    with LocalHub() as served, served.here(monkeypatch):
        yield served


def push(folder, files=None, repo="me/model", kind="model", **options):
    fill(folder, GOOD if files is None else files)
    return upload(check_folder(folder, kind), repo, kind, message="Upload it", **options)


@pytest.mark.parametrize(
    ("kind", "files", "words"),
    [
        ("model", {"pytorch_model.bin": b"x"}, r"pytorch_model\.bin is a pickle"),
        ("model", {"old/Optimizer.PT": b"x"}, r"old/Optimizer\.PT is a pickle"),
        ("dataset", {"rows.pkl": b"x"}, "is a pickle"),
        ("model", {"model.onnx": b"x"}, "other than safetensors"),
        ("model", {"model.safetensors": b"\x80\x04pickled"}, "cannot be opened as safetensors"),
        ("model", {"model.safetensors": WEIGHTS[:-4]}, "cannot be opened as safetensors"),
        ("model", {"notes.md": f"one\ntwo {HF}"}, r"notes\.md holds what looks like a token of the Hub in line 2"),
        ("model", {"README.md": CARD + SK}, r"README\.md holds what looks like a key of an API"),
        ("space", {"app.py": f'KEY = "{SK}"'}, r"app\.py holds what looks like a key of an API in line 1"),
        ("model", {"a.txt": "-----BEGIN OPENSSH " + "PRIVATE KEY-----\n"}, "a private key"),
        ("model", {"a.txt": "gh" + "p_" + "a1B2" * 9}, "a token of GitHub"),
        ("model", {"a.txt": "AK" + "IA" + "A1B2" * 4}, "a key of AWS"),
        ("model", {".env": "A=1"}, r"\.env is a file that secrets are kept in"),
        ("model", {"x/.env.local": "A=1"}, "secrets are kept in"),
        ("model", {"README.md": "# no head"}, "names no license.*\n.*names no base_model"),
        (
            "model",
            {"README.md": "---\nlicense: mit\n---\n"},
            "names no base_model: write what .* `trained-from-scratch`",
        ),
        (
            "adapter",
            {"README.md": "---\nlicense: mit\ntags: [trained-from-scratch]\n---\n"},
            "that the adapter belongs to",
        ),
        ("dataset", {"README.md": "---\npretty_name: x\n---\n"}, "names no license"),
        ("space", {"README.md": "---\nsdk: gradio\n---\n"}, "names no license"),
        ("model", {"README.md": "---\nlicense: [mit\n---\n"}, "a head that cannot be read"),
    ],
)
def test_what_must_not_leave_is_named(kind, files, words, tmp_path):
    with pytest.raises(RefusedError, match=words) as refused:
        check_folder(fill(tmp_path, GOOD | files), kind)
    assert HF not in str(refused.value)
    assert SK not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "card"),
    [
        ("model", CARD),
        ("model", "---\nlicense: mit\ntags:\n- trained-from-scratch\n---\n"),
        ("adapter", CARD),
        ("dataset", "---\nlicense: mit\n---\n"),
        ("space", "---\nlicense: mit\nsdk: gradio\n---\n"),
    ],
)
def test_a_good_folder_passes_without_what_tools_leave_behind(kind, card, tmp_path):
    left = {".git/config": "x", "__pycache__/a.pyc": "x", ".cache/huggingface/x.bin": "x", "sub/.DS_Store": "x"}
    task = {"sub/words.txt": "a task-like-word-of-20-letters, hf_hub_download, xhf_" + "a" * 40 + " and sk-learn"}
    files = check_folder(fill(tmp_path, GOOD | left | task | {"README.md": card, "empty": b""}), kind)
    assert [f.path for f in files] == ["README.md", "config.json", "empty", "model.safetensors", "sub/words.txt"]
    assert files[3].size == len(WEIGHTS)


def test_a_file_over_the_limit_a_dead_link_and_a_linked_folder_are_named(tmp_path):
    fill(tmp_path / "model", GOOD)
    fill(tmp_path / "elsewhere", {"a.txt": "a"})
    (tmp_path / "model" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "model" / "gone.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RefusedError) as refused:
        check_folder(tmp_path / "model", "model", max_bytes=1000)
    said = str(refused.value)
    assert re.search(r"model\.safetensors has .* GB, more than .*split it", said)
    assert "linked is a link to another folder" in said
    assert "gone.txt is not a file that can be read" in said
    with pytest.raises(RefusedError, match="there is no folder"):
        check_folder(tmp_path / "nowhere", "model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RefusedError, match=r"holds no file\n- README.md, the card, is missing"):
        check_folder(tmp_path / "empty", "model")


def test_one_push_is_one_commit(hub, tmp_path):
    done = push(tmp_path / "one")
    repo = hub.repos["model", "me/model"]
    assert list(repo.titles.values()) == ["initial commit", "Upload it"]
    assert done.address == f"{hub.address}/me/model"
    assert done.commit == f"{done.address}/commit/{repo.branches['main']}"
    assert repo.files() == {
        ".gitattributes": b"*.safetensors filter=lfs\n",
        **{name: content.encode() if isinstance(content, str) else content for name, content in GOOD.items()},
    }
    assert not repo.private
    folder = snapshot_download("me/model", cache_dir=tmp_path / "cache")
    assert Path(folder, "model.safetensors").read_bytes() == WEIGHTS


def test_what_an_earlier_push_left_is_taken_away_by_the_same_commit(hub, tmp_path):
    shards = {
        "model-00001-of-00002.safetensors": WEIGHTS,
        "model.safetensors.index.json": "{}",
        "calibration.json": "{}",
    }
    push(tmp_path / "one", {"README.md": CARD, **shards, "other/lora.safetensors": WEIGHTS, "sheet.png": b"png"})
    done = push(tmp_path / "two")
    assert set(done.removed) == set(shards)
    kept = {".gitattributes", "other/lora.safetensors", "sheet.png", *GOOD}
    assert set(hub.repos["model", "me/model"].files()) == kept
    assert len(hub.repos["model", "me/model"].commits) == 3


def test_pushing_the_same_again_sends_no_file_and_makes_no_commit(hub, tmp_path):
    first = push(tmp_path / "one")
    assert push(tmp_path / "one").commit == first.commit
    assert len(hub.asked("PUT", "/lfs/")) == 1
    assert len(hub.asked("POST", "/commit/")) == 1


def test_a_branch_is_made_and_main_stays(hub, tmp_path):
    push(tmp_path / "one")
    push(tmp_path / "two", GOOD | {"config.json": "[]"}, revision="next/try")
    repo = hub.repos["model", "me/model"]
    assert (repo.files()["config.json"], repo.files("next/try")["config.json"]) == (b"{}", b"[]")


@pytest.mark.parametrize(("kind", "repo_type"), [("adapter", "model"), ("dataset", "dataset"), ("space", "space")])
def test_each_kind_goes_to_its_kind_of_repository(kind, repo_type, hub, tmp_path):
    files = GOOD | {"README.md": CARD.replace("license: mit", "license: mit\nsdk: gradio")}
    done = push(tmp_path / "one", files, repo="org/it", kind=kind, private=True)
    assert hub.repos[repo_type, "org/it"].private
    assert done.address == f"{hub.address}/{'' if repo_type == 'model' else repo_type + 's/'}org/it"


def test_private_never_ends_up_in_public(hub, tmp_path):
    hub.create("me/model")
    with pytest.raises(RefusedError, match="everyone can read it"):
        push(tmp_path / "one", private=True)
    assert not hub.asked("POST", "/preupload/")


def test_a_cut_upload_shows_nothing_and_the_second_try_sends_what_is_missing(hub, tmp_path):
    files = GOOD | {"big.safetensors": save({"v": np.ones(300000, dtype=np.float32)})}
    big = hashlib.sha256(files["big.safetensors"]).hexdigest()
    hub.cut("PUT", f"/lfs/{big}", after=4096, times=100)
    with pytest.raises(UploadError, match=r"could not be reached to the end .*Run it again: what has arrived is not"):
        push(tmp_path / "one", files)
    repo = hub.repos["model", "me/model"]
    assert set(repo.files()) == {".gitattributes"}, "no half of it can be seen"
    hub.faults.clear()
    before = len(hub.asked("PUT", "/lfs/"))
    push(tmp_path / "one", files)
    assert [r.path for r in hub.asked("PUT", "/lfs/")[before:]] == [f"/lfs/{big}"]
    assert set(repo.files()) == {".gitattributes", *files}


@pytest.mark.parametrize(
    ("method", "path", "status", "headers", "words"),
    [
        ("POST", "/api/repos/create", 401, {}, "401 .*the token is missing or not valid: log in"),
        ("POST", "/preupload/", 403, {"X_Error_Message": "no write"}, "403 .*the token may not write for me: make one"),
        ("GET", "/api/models/me/model", 404, {"X_Error_Code": "RepoNotFound"}, "404 .*may not see what me has"),
        ("POST", "/commit/", 412, {}, "412 .*someone else has pushed at the same time: run it again"),
        ("POST", "/batch", 429, {}, "429 .*too many requests: wait some minutes"),
        ("PUT", "/lfs/", 503, {}, "503 .*Run it again"),
        ("POST", "/commit/", 400, {}, r"400 \(as the test asks\)$"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(method, path, status, headers, words, hub, tmp_path):
    hub.fail(method, path, status, times=100, **headers)
    with pytest.raises(UploadError, match=f"me/model was not published: {hub.address} answered {words}") as failed:
        push(tmp_path / "one")
    assert "hf_" not in str(failed.value)
    if ("model", "me/model") in hub.repos:
        assert set(hub.repos["model", "me/model"].files()) == {".gitattributes"}


def test_a_short_disturbance_is_waited_out(hub, tmp_path):
    hub.fail("POST", "/batch", 429, times=2)
    hub.fail("PUT", "/lfs/", 503, times=1)
    push(tmp_path / "one")
    assert "model.safetensors" in hub.repos["model", "me/model"].files()


def test_a_card_that_the_hub_does_not_take_is_its_own_sentence(hub, tmp_path):
    with pytest.raises(UploadError, match=r"Invalid metadata in README\.md"):
        push(tmp_path / "one", GOOD | {"README.md": "---\nlicense: none-that-is-known\nbase_model: a/b\n---\n"})


def test_without_a_token_or_with_a_strangers(hub, tmp_path, monkeypatch):
    with hub.here(monkeypatch, token=None), pytest.raises(UploadError, match="hf auth login"):
        push(tmp_path / "one")
    with pytest.raises(UploadError, match="may not write for me"):
        push(tmp_path / "one", token=STRANGER)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UploadError, match="HF_HUB_OFFLINE is set: unset it"):
        push(tmp_path / "one")
    assert not hub.repos


def test_nobody_there(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UploadError, match=r"http://127\.0\.0\.1:9 could not be reached"):
        push(tmp_path / "one")


def test_the_local_hub_is_enough_of_one(hub, tmp_path, monkeypatch):
    """What tests of loading lean on: revisions, listings, ranges, and the errors by which the client tells cases."""
    from huggingface_hub import errors

    api = HfApi()
    repo = hub.create("org/open", files={"a/b.txt": b"text", "w.safetensors": WEIGHTS})
    api.create_tag("org/open", tag="v1")
    first = repo.branches["main"]
    assert api.whoami()["name"] == "me"
    assert api.model_info("org/open", revision="v1").sha == first
    assert [b.name for b in api.list_repo_refs("org/open").branches] == ["main"]
    assert sorted(api.list_repo_files("org/open")) == [".gitattributes", "a/b.txt", "w.safetensors"]
    assert [f.path for f in api.list_repo_tree("org/open")] == ["a", ".gitattributes", "w.safetensors"]
    assert api.get_paths_info("org/open", ["w.safetensors"])[0].lfs.size == len(WEIGHTS)
    got = hf_hub_download("org/open", "a/b.txt", revision=first, cache_dir=tmp_path)
    assert Path(got).read_text() == "text"
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)
    hub.cut("GET", "/lfs/", after=100_000)
    got = hf_hub_download("org/open", "w.safetensors", cache_dir=tmp_path)
    assert Path(got).read_bytes() == WEIGHTS
    assert [r.range for r in hub.asked("GET", "/lfs/")] == [None, "bytes=100000-"], "it goes on"
    hub.create("org/closed", files={"a.txt": b"x"}, gated=True)
    hub.create("org/secret", files={"a.txt": b"x"}, private=True)
    for where, error in [
        (("org/none", "a.txt"), errors.RepositoryNotFoundError),
        (("org/open", "none.txt"), errors.EntryNotFoundError),
        (("org/closed", "a.txt"), errors.GatedRepoError),
        (("org/secret", "a.txt"), errors.RepositoryNotFoundError),
    ]:
        with pytest.raises(error):
            hf_hub_download(*where, cache_dir=tmp_path, token=STRANGER)
    with pytest.raises(errors.RevisionNotFoundError):
        hf_hub_download("org/open", "a/b.txt", revision="v2", cache_dir=tmp_path)
    assert hf_hub_download("org/closed", "a.txt", cache_dir=tmp_path)


def test_a_file_that_cannot_be_read_is_an_error_not_a_pass(tmp_path, monkeypatch):
    fill(tmp_path, GOOD)

    def no(*_args, **_options):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("sdg.upload.open", no, raising=False)
    with pytest.raises(OSError, match="Permission denied"):
        check_folder(tmp_path, "model")
