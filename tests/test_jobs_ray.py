"""The same job on a Ray cluster of this machine: the same outcomes, each picture once, whatever becomes of a worker."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from scripted_detector import ScriptedDetector

import sdg
from sdg.engines.base import EndpointError
from sdg.jobs.run import Picture, detect_many

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'sdg-t2i[ray]'")

from sdg.jobs.ray import detect_on_ray  # noqa: E402

pytestmark = pytest.mark.slow
CAPTIONS = ["clean", "a red house", "unreadable", "broken"]


class Mortal(ScriptedDetector):
    """Kills its own process in the middle of a batch, the first time that anybody gets there."""

    def __init__(self, tombstone: Path) -> None:
        super().__init__()
        self.tombstone = tombstone

    def __call__(self, images, captions=None, *, batch_size=8):
        if "clean" in captions and len(self.calls) >= 2 and not self.tombstone.exists():
            self.tombstone.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images, captions, batch_size=batch_size)


class Refused(ScriptedDetector):
    """A server that takes no key."""

    def __call__(self, images, captions=None, *, batch_size=8):
        raise EndpointError("http://localhost/v1 refuses its key")


def no_checkpoint():
    raise OSError("no such checkpoint")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    patch = pytest.MonkeyPatch()  # the workers know this folder's modules
    patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(sdg.__file__).parents[1])]))
    ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR", object_store_memory=100_000_000)
    yield
    ray.shutdown()
    patch.undo()


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """24 pictures by relative path, one that is missing, one that its data set says is broken, one as bytes."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), "grey").save("grey.png")
    some = [Picture(f"{n}", "grey.png", CAPTIONS[n % len(CAPTIONS)], id=str(n)) for n in range(24)]
    some[5] = Picture("5", "missing.png", "clean")
    some[6] = Picture("6", error="line 6: no JSON")
    some[7] = Picture("7", Path("grey.png").read_bytes(), "clean")
    return some


def lines(outcomes):
    return [outcome.to_line() for outcome in outcomes]


def test_a_worker_that_is_killed_costs_nothing_and_doubles_nothing(pictures, tmp_path):
    tombstone = tmp_path / "tombstone"
    found = lines(detect_on_ray(partial(Mortal, tombstone), pictures, batch_size=3, workers=2))
    assert tombstone.exists(), "no worker was killed"
    assert int(tombstone.read_text()) != os.getpid()
    assert found == lines(detect_many(ScriptedDetector(), pictures, batch_size=3))


@pytest.mark.parametrize(
    ("load", "kind", "said"),
    [(Refused, EndpointError, "refuses its key"), (no_checkpoint, OSError, "no such checkpoint")],
)
def test_what_ends_the_job_is_raised_here(pictures, load, kind, said):
    with pytest.raises(kind, match=said):
        list(detect_on_ray(load, pictures, workers=1))


def test_no_picture_needs_no_worker():
    assert list(detect_on_ray(no_checkpoint, [])) == []
