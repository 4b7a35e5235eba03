"""Files written by earlier versions open, answer, grow and resume; see tests/fixtures/*/README.md.

Each job runs in a fresh process on a copy of the fixtures, and uses the public API alone.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import compat_jobs
import numpy as np
import pytest

import simsearch as ss

FIXTURES = Path(__file__).parent / "fixtures" / "v0.1.0"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text("utf-8"))
TOLERANCE = 1e-5  # of a cosine
# Limits that a small library needs to have a pruned copy.
LIMITS = {
    "simsearch.retrieval.exact": {"PRUNED_FROM_BYTES": 0, "GATHER_ROW_COST": 0.0},
    "simsearch.retrieval.pruned_copy": {"LEVEL_COLUMNS": (2, 4, 8), "MAX_COLUMNS": 16},
}


@pytest.fixture
def fixtures(tmp_path):
    """A copy of the fixtures, in which each image has the time that it had when it was embedded."""
    folder = tmp_path / "fixtures"
    shutil.copytree(FIXTURES, folder)
    for name, time in json.loads((folder / "mtimes.json").read_text("utf-8")).items():
        os.utime(folder / name, ns=(time, time))
    return folder


@pytest.fixture
def run_job(fixtures):
    """Run a job in a fresh process, and return its results."""

    def run(name):
        environment = os.environ | {
            "PYTHONPATH": str(Path(ss.__file__).parents[1]),
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
        }
        done = subprocess.run(
            [sys.executable, compat_jobs.__file__, name],
            cwd=fixtures,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads((fixtures / "result.json").read_text("utf-8"))

    return run


def assert_same(given, expected, place="result"):
    """Compare results: floats within the tolerance, everything else, ranks included, exactly."""
    if isinstance(expected, dict):
        assert given.keys() == expected.keys(), place
        for key, value in expected.items():
            assert_same(given[key], value, f"{place}[{key!r}]")
    elif isinstance(expected, list):
        assert len(given) == len(expected), place
        for i, value in enumerate(expected):
            assert_same(given[i], value, f"{place}[{i}]")
    elif isinstance(expected, float):
        assert given == pytest.approx(expected, abs=TOLERANCE, rel=0, nan_ok=True), place
    else:
        assert given == expected, place


def test_fixtures_are_complete_and_small():
    files = [path for path in FIXTURES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10**6
    assert {job.__name__ for job in compat_jobs.JOBS} < EXPECTED.keys()


@pytest.mark.parametrize("job", ["plain", "chained"])
def test_library_answers_as_before_and_embeds_only_a_new_image(run_job, job):
    result = run_job(job)
    assert result["extended"]["unchanged"] == [0, 24, 0, 0]  # embedded, reused, removed, skipped
    assert result["extended"]["counts"] == [1, 24, 0, 0]
    assert_same(result, EXPECTED[job])


def test_refined_library_answers_as_before(run_job):
    assert_same(run_job("refined"), EXPECTED["refined"])


def test_faiss_index_of_each_kind_answers_as_before(run_job):
    pytest.importorskip("faiss")
    result = run_job("indexes")
    assert list(result) == list(compat_jobs.INDEX_KINDS)
    assert_same(result, EXPECTED["indexes"])


def test_killed_embedding_run_resumes_with_the_images_that_are_missing(run_job):
    result = run_job("unfinished")
    assert result["counts"] == [16, 8, 0, 0]
    assert result["counts with an older library"] == [12, 12, 0, 0]
    assert_same(result, EXPECTED["unfinished"])


def test_fine_tuning_continues_after_its_last_epoch(run_job):
    """The images are negatives by now: an epoch that was run again would have another loss."""
    result, expected = run_job("tuning"), EXPECTED["tuning"]
    for key in ("fingerprint", "answers"):
        assert_same(result[key], expected[key])
    history, scores, anew = (
        result[key] for key in ("history", "scores", "history without the checkpoint")
    )
    assert [number for number, _ in history] == [0, 1, 2, 3]
    assert history[1:3] == expected["history"][1:3]
    assert scores[:3] == expected["scores"][:3]
    assert history[3][1] == pytest.approx(expected["history"][3][1], rel=1e-3)
    for (_, kept), (_, other) in zip(history[1:], anew[1:], strict=True):
        assert kept != pytest.approx(other, rel=1e-2)


def test_fingerprints_of_backbones_are_unchanged(run_job):
    result, expected = run_job("fingerprints"), dict(EXPECTED["fingerprints"])
    excluded = set()
    if EXPECTED["python"].split(".")[:2] != [str(part) for part in sys.version_info[:2]]:
        excluded.add("own, with a function")  # whose fingerprint holds bytecode
    if find_spec("timm") is None:
        excluded.update(compat_jobs.TIMM)
    for made in (result, expected):
        for name in excluded:
            made.pop(name, None)
    assert result == expected


class TestPrunedCopy:
    """Made for 1e8 bytes of rows and more, so its limits are lowered here."""

    @pytest.fixture(autouse=True)
    def lowered_limits(self, monkeypatch):
        for module, limits in LIMITS.items():
            for name, value in limits.items():
                monkeypatch.setattr(importlib.import_module(module), name, value)

    @staticmethod
    def search(folder):
        library = ss.ImageLibrary.load(folder)
        vectors = np.asarray(library.embeddings)[[0, 123, 399]]
        answers = [compat_jobs.found(ss.search(library, vector, k=5)) for vector in vectors]
        assert_same(answers, EXPECTED["sketch"])

    def test_stored_copy_is_used_as_it_is_once_it_is_trusted(self, fixtures):
        folder = fixtures / "sketch"
        assert ss.trust_library(folder).derived == ("shortened copy of rows",)
        copies = sorted(folder.glob("sketch.*"))
        for path in copies:
            os.utime(path, ns=(10**18, 10**18))
        self.search(folder)
        assert [path.name for path in copies] == ["sketch.json", "sketch.npy"]
        assert [path.stat().st_mtime_ns for path in copies] == [10**18] * 2  # not made anew

    def test_stored_copy_without_a_mark_is_made_anew(self, fixtures):
        folder = fixtures / "sketch"
        for path in folder.glob("sketch.*"):
            os.utime(path, ns=(10**18, 10**18))
        self.search(folder)
        for path in folder.glob("sketch.*"):
            assert path.stat().st_mtime_ns != 10**18

    def test_missing_copy_is_made(self, fixtures):
        """So the limits are low enough for the test above to mean something."""
        folder = fixtures / "sketch"
        for path in folder.glob("sketch.*"):
            path.unlink()
        self.search(folder)
        assert len(list(folder.glob("sketch.*"))) == 2
