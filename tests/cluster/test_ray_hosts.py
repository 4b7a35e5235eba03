"""Embedding on a Ray cluster of two hosts, of which one is lost on the way."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_ray
from dataset_cases import contents, paint, stored
from tiny import tiny_backbone
from tiny_ray import backbone_with, hosted_thumbnail
from two_hosts import two_hosts  # noqa: F401

import simsearch as ss

pytest.importorskip("ray")
pytestmark = pytest.mark.server

TINY = Path(tiny_ray.__file__)
COUNT = 60


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(COUNT):
        paint(Path("dataset") / "abc"[i % 3] / f"{i:02d}.png", i)
    Path("hosts").mkdir()
    return Path("dataset")


def test_missing_token_is_told_in_the_words_of_ray(two_hosts, dataset):  # noqa: F811
    process = two_hosts.run(
        0, sys.executable, TINY, dataset, "outputs", token=False, stderr=subprocess.PIPE
    )
    told = process.communicate(timeout=100)[1].strip().splitlines()[-1]
    assert "EngineError: cannot connect to the Ray cluster at RAY_ADDRESS=" in told
    assert "no authentication token was found" in told
    assert "RAY_AUTH_TOKEN" in told


def test_both_hosts_work_and_one_goes_on_when_the_other_is_lost(two_hosts, dataset):  # noqa: F811
    process = two_hosts.run(
        0, sys.executable, TINY, dataset, "outputs", "hosted", stderr=subprocess.PIPE
    )
    while process.poll() is None and (
        stored("outputs") < 8 or len(list(Path("hosts").iterdir())) < 2
    ):
        time.sleep(0.01)
    assert len(list(Path("hosts").iterdir())) == 2
    assert stored("outputs") < COUNT - 8
    two_hosts.kill(1)
    told = process.communicate(timeout=100)[1]
    assert process.returncode == 0, told
    assert "A worker has died" in told
    assert "Without a place: 1 of 2 workers; the work goes on." in told, told
    ss.embed_dataset(dataset, "local", backbone_with(hosted_thumbnail), 2)
    assert contents("outputs") == contents("local")
    assert len(json.loads(Path("outputs/manifest.json").read_text())["files"]) >= 2
    assert len(ss.ImageLibrary.load("outputs", backbone=tiny_backbone())) == COUNT
