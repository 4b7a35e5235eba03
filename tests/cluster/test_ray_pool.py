"""The pool of workers on a cluster that is played: places that come and go, and who waits for them.

What Ray itself does is in `test_ray.py`; here each call ends at once or never, and time is counted.
"""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simsearch as ss
from simsearch.cluster.ray import Share
from simsearch.embedding.batching import Batch

pytest.importorskip("ray")
from simsearch.cluster import ray_workers
from simsearch.cluster.ray_workers import RayRun


class RayError(Exception):
    """What Ray raises for a worker that is gone."""


class PlayedCluster:
    """A cluster with places for some workers, of which each dies after so many batches."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=ZeroDivisionError)

    def __init__(self, places, lives=()):
        self.places, self.lives, self.now = places, list(lives), 0.0
        self.workers, self.calls, self.killed = [], {}, set()

    def start(self):
        worker = PlayedWorker(self, self.lives.pop(0) if self.lives else None)
        self.workers.append(worker)
        return worker

    def is_placed(self, worker):
        alive = [each for each in self.workers if not each.dead and each not in self.killed]
        return worker.dead or worker in alive[: self.places]

    def wait(self, calls, timeout):
        for call in calls:
            if self.is_placed(self.calls[call][0]):
                return [call], []
        self.now += timeout
        return [], calls

    def get(self, call):
        worker, positions = self.calls.pop(call)
        if worker.dead or (positions is not None and worker.tire()):
            raise RayError("the node is gone")
        if positions is None:
            return None
        return Batch([*positions], np.ones((len(positions), 2), np.float32), [])

    def kill(self, worker):
        self.killed.add(worker)

    def cluster_resources(self):
        return {"CPU": float(self.places)}

    available_resources = dict


class PlayedWorker:
    """A worker that runs, waits for a place or is dead."""

    def __init__(self, cluster, life):
        self.cluster, self.life, self.dead = cluster, life, False
        self.check = SimpleNamespace(remote=lambda *_: self.call(None))
        self.embed = SimpleNamespace(
            remote=lambda sources, start: self.call(range(start, start + len(sources)))
        )

    def call(self, positions):
        call = object()
        self.cluster.calls[call] = self, positions
        return call

    def tire(self):
        """Tell whether the worker, and its place, are gone with this batch."""
        if self.life is not None:
            self.life -= 1
            if self.life < 0:
                self.dead, self.cluster.places = True, self.cluster.places - 1
        return self.dead


def played(patch, cluster, batches, workers=2, wait_seconds=600.0):
    """Run a number of batches of two on a played cluster; yield what comes back."""
    patch.setattr(ray_workers, "ray", cluster)
    patch.setattr(ray_workers, "find_reference", lambda *_: (None, None))
    patch.setattr(ray_workers, "_worker_starter", lambda *_: cluster.start)
    patch.setattr(ray_workers.time, "monotonic", lambda: cluster.now)
    sources, share = [f"{i}.jpg" for i in range(2 * batches)], Share(workers, 1, 0, 1)
    backbone = SimpleNamespace(dim=2, optimise=lambda: None)
    run = RayRun(sources, 2, share, backbone, wait_seconds=wait_seconds)
    for batch in run.batches():
        assert not batch.failures
        yield from batch.positions
    run.close()
    assert {each for each in cluster.workers if not each.dead} <= cluster.killed


@pytest.fixture
def play(monkeypatch):
    return partial(played, monkeypatch)


def test_run_ends_although_the_successor_of_a_dead_worker_has_no_place(play, caplog):
    cluster = PlayedCluster(places=2, lives=[3])
    assert sorted(play(cluster, 50)) == list(range(100))
    assert "A worker has died" in caplog.text
    assert cluster.now < 60  # nobody was waited for at the end


def test_missing_workers_are_told_once_the_others_have_to_be_waited_for(play, caplog):
    cluster = PlayedCluster(places=1)
    run = play(cluster, 3)
    first = next(run)
    cluster.places = 0  # the node does not answer for a while
    cluster.wait, wait = lambda calls, timeout: late(cluster, wait, calls, timeout), cluster.wait
    assert sorted([first, *run]) == list(range(6))
    assert "Without a place: 1 of 2 workers; the work goes on. The cluster has" in caplog.text


def test_missing_workers_are_told_while_the_others_never_pause(play, caplog):
    cluster = PlayedCluster(places=2, lives=[3])
    wait = cluster.wait

    def busy(calls, timeout):
        cluster.now += 1
        return wait(calls, timeout)

    cluster.wait = busy
    assert sorted(play(cluster, 80)) == list(range(160))
    assert (
        "Without a place: 1 of 2 workers; the work goes on. The cluster has 1 CPUs" in caplog.text
    )


def late(cluster, wait, calls, timeout):
    """Bring the place back after a minute."""
    if cluster.now > 60:
        cluster.places = 1
    return wait(calls, timeout)


def test_no_worker_for_the_stated_time_ends_the_run_and_keeps_what_was_done(play, caplog):
    cluster, done = PlayedCluster(places=2, lives=[3, 5]), []
    with pytest.raises(ss.EngineError, match=r"no worker has run for 90 s: The cluster has 0 CPUs"):
        done.extend(play(cluster, 50, wait_seconds=90))
    assert len(done) == 2 * 8  # which the caller has
    assert 90 <= cluster.now < 100
    assert "no worker has started yet" in caplog.text


@settings(max_examples=100, deadline=None)
@given(
    places=st.integers(1, 4),
    workers=st.integers(1, 6),
    batches=st.integers(1, 30),
    lives=st.lists(st.integers(0, 6), max_size=5),
)
def test_every_picture_comes_back_once_or_the_run_ends_for_want_of_places(
    places, workers, batches, lives
):
    """Oracle: with a place left, all are embedded; without one, the error says so."""
    cluster = PlayedCluster(places, lives)
    with pytest.MonkeyPatch.context() as patch:
        try:
            found = sorted(played(patch, cluster, batches, workers, 60.0))
        except ss.EngineError:
            found = None
    assert (found is None) == (cluster.places <= 0)
    assert found in (None, list(range(2 * batches)))
