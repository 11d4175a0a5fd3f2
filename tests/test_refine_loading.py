"""The loader of both pipeline editors: where they go, how files are found, what is refused and in which words."""

import sys

import pytest
import tiny_edit_pipelines
import tiny_pipelines
import torch
from local_hub import OWNER, Entry, LocalHub
from test_hub_loading import files_of

from sdg.engines.base import CheckpointError
from sdg.refine.inpaint import InpaintEditor
from sdg.refine.instruct import InstructionEditor
from sdg.refine.loading import edit_pipeline, load_editor

EDITORS = pytest.mark.parametrize("editor", [InpaintEditor, InstructionEditor])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder for each editor, of a pipeline with random weights."""
    made = {InpaintEditor: tiny_pipelines.sd3(channels=16), InstructionEditor: tiny_edit_pipelines.kontext()}
    folders = {}
    for editor, pipeline in made.items():
        folders[editor] = tmp_path_factory.mktemp("saved") / "mine"
        pipeline.save_pretrained(folders[editor])
    return folders


def types_of(pipeline) -> set:
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    return {parameter.dtype for part in parts for parameter in part.parameters()}


@EDITORS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cpu", "offload": "model"}, "device, device_map and offload exclude each other"),
        ({"device": "cpu", "device_map": "cpu"}, "device, device_map and offload exclude each other"),
        ({"offload": "disk"}, "offload='disk' is not 'model', 'sequential' or None"),
        ({"dtype": "bf17"}, "dtype='bf17' is not a type of torch"),
    ],
)
def test_options_of_loading_are_checked_before_anything_is_looked_for(editor, options, message):
    with pytest.raises(ValueError, match=message):
        editor.from_pretrained("nobody/nothing", **options)


@EDITORS
def test_offloading_needs_something_to_offload_from(editor, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(ValueError, match="offload='model' needs a GPU to bring the weights to, and there is none"):
        editor.from_pretrained("nobody/nothing", offload="model")


@EDITORS
def test_without_diffusers_it_says_what_to_install(editor, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "sdg-t2i\[refine\]"'):
        editor.from_pretrained(tmp_path)


@EDITORS
@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "has no model_index.json: it is nothing that draws; a pipeline of diffusers is wanted"),
        ("{", "model_index.json of .* is damaged"),
        ('{"_class_name": ["mine", "Kontext"]}', "brings code of its own"),
    ],
)
def test_what_is_no_pipeline(editor, tmp_path, index, message):
    if index is not None:
        (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        editor.from_pretrained(tmp_path)


def test_a_class_that_this_diffusers_lacks(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxTomorrowPipeline"}')
    with pytest.raises(CheckpointError, match=r"a FluxTomorrowPipeline, which diffusers \S+ lacks: install"):
        load_editor(tmp_path)


@EDITORS
def test_a_repository_that_cannot_be_had(editor):
    with pytest.raises(CheckpointError, match="'nobody/nothing' is not in the cache"):
        editor.from_pretrained("nobody/nothing", local_files_only=True)


@EDITORS
def test_pickled_weights_are_not_loaded(editor, saved, tmp_path):
    pipeline = edit_pipeline(saved[editor], device="cpu")
    pipeline.save_pretrained(tmp_path / "mine", safe_serialization=False)
    assert list((tmp_path / "mine").rglob("*.bin"))
    with pytest.raises(CheckpointError, match=r"mine' could not be loaded: .*safetensors"):
        editor.from_pretrained(tmp_path / "mine")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"device": "cpu"}, torch.float32),
        ({"device": "cpu", "dtype": "bfloat16"}, torch.bfloat16),
        ({"device": "cpu", "dtype": torch.bfloat16}, torch.bfloat16),
        ({"device": "meta"}, torch.bfloat16),  # what is no CPU, and is here
    ],
)
def test_weights_are_bfloat16_off_the_cpu(saved, options, expected):
    assert types_of(edit_pipeline(saved[InpaintEditor], **options)) == {expected}


@EDITORS
def test_a_gated_repository_at_a_revision(editor, saved, tmp_path, monkeypatch):
    with LocalHub() as hub, hub.here(monkeypatch, token=None):
        files = files_of(saved[editor])
        repo = hub.create("org/editor", files=files, gated=True)
        first = repo.find("main")
        tree = {**repo.commits[first], "model_index.json": Entry(b"{}", lfs=False)}
        repo.commit("main", tree, "Break it")
        where = {"cache_dir": tmp_path / "cache", "revision": first, "device": "cpu"}
        with pytest.raises(CheckpointError, match=r"'org/editor' is gated \(nobody is logged in\)"):
            editor.from_pretrained("org/editor", **where)
        loaded = editor.from_pretrained("org/editor", token=OWNER, **where)
        assert loaded.name == "org/editor"
        with pytest.raises(CheckpointError, match=r"model_index\.json of 'org/editor' is damaged"):
            editor.from_pretrained("org/editor", token=OWNER, cache_dir=tmp_path / "cache")
    again = editor.from_pretrained("org/editor", local_files_only=True, **where)
    assert again.name == "org/editor"
