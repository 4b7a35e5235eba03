"""The loop of a decoding worker, run in a thread: what forked ones do cannot be measured."""

import io
import os
import socket
import sys
import threading
from multiprocessing.connection import Connection

import numpy as np
import pytest
from PIL import Image

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.errors import ImageError
from simsearch.images.crop import load_parts
from simsearch.images.decode import load_image
from simsearch.images.header import measure
from simsearch.images.read_signature import read_signature
from simsearch.web import decode_worker, decoder_pool
from simsearch.web.decoder_pool import DecoderPool
from simsearch.web.jpeg import encode_jpeg, make_thumbnail

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
TRANSFORM = Preprocessing(64, 56, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def pool(monkeypatch):
    """A pool whose workers are threads; they note how they ended."""
    threads, ended = [], []

    def leave(status):
        ended.append(status)
        raise SystemExit

    def work(descriptor):
        with pytest.raises(SystemExit):
            decode_worker._work(descriptor)

    def fork(_):
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=work, args=(theirs.detach(),))
        thread.start()
        threads.append(thread)
        return decoder_pool._Worker(0, Connection(ours.detach()))

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(decode_worker, "_limit_data", lambda size: None)
    monkeypatch.setattr(DecoderPool, "start", lambda self: True)
    monkeypatch.setattr(DecoderPool, "_start_process", lambda self: None)
    monkeypatch.setattr(DecoderPool, "_fork", fork)
    made = DecoderPool(1, 100_000_000)
    yield made
    made.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert set(ended) == {0}


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    paths = [str(tmp_path / f"{name}.png") for name in ("a", "b", "c")]
    for path, side in zip(paths, (300, 300, 200), strict=True):
        small.resize((side, 200)).save(path)
    return paths


def test_each_job_gives_what_its_function_gives(pool, files):
    path = files[0]
    boxes = [(0, 0, 0.5, 0.5), (0.25, 0.25, 1, 1)]
    image = load_image(path)
    assert pool.load(path, None).tobytes() == image.tobytes()
    parts = [each.tobytes() for each in pool.parts(path, boxes)]
    assert parts == [each.tobytes() for each in load_parts(path, boxes)]
    np.testing.assert_array_equal(
        pool.prepare(path, 64, TRANSFORM), TRANSFORM(load_image(path, 64))
    )
    assert pool.thumbnail(path, 64, 80, b"") == encode_jpeg(make_thumbnail(path, 64), 80, b"")
    assert pool.jpeg(path, 80) == encode_jpeg(image, 80)
    assert pool.measure(path) == measure(path)
    assert pool.equal(files[0], files[1])
    assert not pool.equal(files[0], files[2])
    assert pool.compare(files[0], files[1]).level == "identical"
    signed, expected = pool.signature(path), read_signature(path)
    assert (signed.frames, signed.signature.tobytes()) == (
        expected.frames,
        expected.signature.tobytes(),
    )


def test_a_worker_goes_on_after_a_damaged_picture(pool, files):
    damaged = io.BytesIO()
    Image.open(files[0]).save(damaged, "PNG")
    with pytest.raises(ImageError):
        pool.load(damaged.getvalue()[:60], None)
    with pytest.raises(ImageError):
        pool.load(files[0] + ".gone", None)
    assert pool.load(files[0], None).size == (300, 200)


def test_too_little_memory_is_an_error_of_the_picture(pool, files, monkeypatch):
    def run_out(*_):
        raise MemoryError

    monkeypatch.setitem(decode_worker.JOBS, "jpeg", run_out)
    with pytest.raises(ImageError, match="too much memory"):
        pool.jpeg(files[0], 80)


def test_a_worker_that_has_grown_retires(pool, files, monkeypatch):
    monkeypatch.setattr(decode_worker, "MAX_RESIDENT_BYTES", 0)
    sizes = [pool.load(path, None).size for path in files]
    assert sizes == [(300, 200), (300, 200), (200, 200)]
