"""Decoding in processes for a device: the same batches, whatever happens to a process."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from odd_preprocessing import Crashing, Telling
from PIL import Image

from simsearch.backbones.backbone import load_backbone
from simsearch.backbones.preprocessing import Preprocessing
from simsearch.embedding import batching, decoding
from simsearch.embedding.batching import embed_batches
from simsearch.embedding.decoding import CRASHED, embed_by_processes, suits
from simsearch.images.read_signature import sign


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("efficientnet_lite0", device="cpu", precision="float32")


@pytest.fixture
def sources(tmp_path):
    """Twenty pictures, of which one is long, one is no picture, and one is missing."""
    rng = np.random.default_rng(5)
    for i in range(20):
        size = (300, 40) if i == 7 else (40 + i, 60)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
        coarse.resize(size).save(tmp_path / f"{i:02d}.png")
    (tmp_path / "03.png").write_bytes(b"no picture")
    (tmp_path / "11.png").unlink()
    return [str(tmp_path / f"{i:02d}.png") for i in range(20)]


def collected(batches):
    rows, failures, signed = {}, {}, {}
    for batch in batches:
        rows |= dict(zip(batch.positions, batch.embeddings, strict=True))
        failures |= {position: str(error) for position, error in batch.failures}
        signed |= {position: (each.signature.tobytes(), each.frames) for position, each in
                   batch.signed.items()}  # fmt: skip
    return rows, failures, signed


def test_processes_give_what_threads_give(backbone, sources):
    threads = collected(embed_batches(sources, backbone, 4, 2, sign))
    processes = collected(embed_by_processes(sources, backbone, 4, 2, sign))
    assert sorted(processes[0]) == sorted({*range(20)} - {3, 11})
    for position, row in threads[0].items():
        assert np.allclose(processes[0][position], row, atol=1e-6)
    assert processes[1:] == threads[1:]
    assert sorted(threads[1]) == [3, 11]


def crashing(backbone):
    made = object.__new__(type(backbone))
    spec = backbone.transform
    vars(made).update(
        vars(backbone), transform=Crashing(spec.resize, spec.crop, spec.mean, spec.std)
    )
    return made


def test_a_crash_costs_the_picture_that_caused_it(backbone, sources):
    expected = collected(embed_batches(sources, backbone, 4, 2))
    rows, failures, _ = collected(embed_by_processes(sources, crashing(backbone), 4, 2))
    assert failures.pop(5) == CRASHED
    assert failures == expected[1]
    assert sorted(rows) == sorted({*range(20)} - {3, 5, 11})
    for position, row in rows.items():
        assert np.allclose(row, expected[0][position], atol=1e-6)


def test_processes_share_the_memory_for_decoding(backbone, sources, monkeypatch):
    seen = []
    monkeypatch.setattr(decoding, "_embed", lambda decoded, _: seen.append(decoded.inputs))
    monkeypatch.setattr(decoding, "decoding_budget", lambda: SimpleNamespace(size=3 * 40 << 24))
    spec = backbone.transform
    telling = SimpleNamespace(
        transform=Telling(spec.resize, spec.crop, spec.mean, spec.std), min_side=None
    )
    list(embed_by_processes(sources[:3], telling, 3, 3))
    assert {int(each.max()) for each in seen} == {40}


def test_what_is_logged_in_a_process_is_logged_here(backbone, tmp_path, caplog):
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((200, 200), 80).convert("RGB").save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:-2000])
    sources = [str(whole), str(cut)] * 3
    list(embed_batches(sources, backbone, 2, 1))
    expected = sorted(record.getMessage() for record in caplog.records)
    assert len(expected) == 3
    caplog.clear()
    list(embed_by_processes(sources, backbone, 2, 2))
    assert sorted(record.getMessage() for record in caplog.records) == expected
    assert {record.name for record in caplog.records} == {"simsearch"}


def test_processes_end_with_the_run(backbone, sources):
    batches = embed_by_processes(sources, backbone, 2, 2)
    next(batches)
    assert [each for each in children(os.getpid()) if b"popen_loky" in command(each)]
    batches.close()  # as Ctrl-C does
    assert not [each for each in children(os.getpid()) if b"popen_loky" in command(each)]


def test_processes_end_when_their_caller_is_killed(tmp_path, sources):
    code = (
        "import simsearch as ss\n"
        "from simsearch.embedding import decoding\n"
        "backbone = ss.load_backbone('efficientnet_lite0', device='cpu', precision='float32')\n"
        f"batches = decoding.embed_by_processes({sources!r} * 50, backbone, 2, 2)\n"
        "next(batches)\n"
        "print('begun', flush=True)\n"
        "input()\n"
    )  # no `if __name__ == '__main__'`: the processes do not run it again
    script = tmp_path / "script.py"
    script.write_text(code)
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout.readline() == "begun\n"
        started = children(caller.pid)
        assert started
        caller.kill()
    deadline = time.monotonic() + 120
    while [pid for pid in started if b"loky" in command(pid)]:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def children(pid):
    """Processes that a process has started, and theirs."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += [int(stat.parent.name), *children(int(stat.parent.name))]
    return found


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({}, True),
        ({"device": SimpleNamespace(type="cpu")}, False),
        ({"transform": np.asarray}, False),  # a user's own need not go to another process
    ],
)
def test_processes_suit_many_files_for_a_device(backbone, change, answer):
    made = SimpleNamespace(
        **{"device": SimpleNamespace(type="cuda"), "transform": backbone.transform, **change}
    )
    files = [f"{i}.jpg" for i in range(decoding.MIN_SOURCES)]
    assert suits(files, made) is answer
    assert not suits(files[1:], made)
    assert not suits([*files, "s3://bucket/1.jpg"], made)
    assert not suits([*files, b"bytes"], made)


@dataclass(frozen=True)
class Unknown(Preprocessing):
    """Of a module that no other process finds, by its name."""


def test_without_processes_threads_decode(backbone, sources, monkeypatch, caplog):
    monkeypatch.setattr(Unknown, "__module__", "nowhere")
    monkeypatch.setitem(sys.modules, "nowhere", SimpleNamespace(Unknown=Unknown))
    monkeypatch.setattr(decoding, "suits", lambda *_: True)
    spec = backbone.transform
    made = object.__new__(type(backbone))
    vars(made).update(vars(backbone), device=SimpleNamespace(type="cuda"), _cpu_batch=4)
    vars(made)["transform"] = Unknown(spec.resize, spec.crop, spec.mean, spec.std)
    monkeypatch.setattr(made, "embed", backbone.embed, raising=False)
    monkeypatch.setattr(batching, "OPTIMISED_SOURCES", 10)
    found, expected = (collected(embed_batches(sources, each, 4, 2)) for each in (made, backbone))
    assert found[1:] == expected[1:]
    assert sorted(found[0]) == sorted(expected[0])
    assert "pictures are decoded in threads, as processes cannot be started" in caplog.text


def test_a_device_with_many_files_takes_processes(backbone, sources, monkeypatch):
    monkeypatch.setattr(decoding, "suits", lambda given, used: given == many and used is device)
    taken = []
    monkeypatch.setattr(
        decoding, "embed_by_processes", lambda *given: iter(taken.append(given) or ["batch"])
    )
    many = sources * 20
    device = SimpleNamespace(
        device=SimpleNamespace(type="cuda"), batch_size=64, optimise=lambda: None
    )
    assert list(embed_batches(many, device, None, 3, sign)) == ["batch"]
    assert taken == [(many, device, 64, 3, sign)]
