"""Decoding in other processes: the same pictures, whatever becomes of the processes."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from web_server import wait_until

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.errors import ImageError, QueryError
from simsearch.images.compare import compare_files
from simsearch.images.crop import load_parts
from simsearch.images.decode import DECODER, load_image
from simsearch.images.header import measure
from simsearch.web import decode_worker, decoder_pool
from simsearch.web.decoder_pool import DecoderPool
from simsearch.web.jpeg import encode_jpeg, make_thumbnail
from simsearch.work import CHECK

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
TRANSFORM = Preprocessing(64, 56, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def pool():
    made = DecoderPool(3, 100_000_000)
    assert made.start()
    yield made
    made.close()


def encoded(kind="PNG", size=(300, 200), mode="RGB", **options):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize(size).convert(mode)
    data = io.BytesIO()
    small.save(data, kind, **options)
    return data.getvalue()


FILES = {
    "jpeg": encoded("JPEG", (900, 700)),
    "alpha": encoded("PNG", mode="RGBA"),
    "webp": encoded("WEBP"),
    "avif": encoded("AVIF"),
    "heif": encoded("HEIF"),
    "tiff": encoded("TIFF"),
    "large": encoded("PNG", (2500, 2000)),
    "float": encoded("TIFF", mode="F"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_comes_back_is_what_would_be_made_here(pool, name):
    data = FILES[name]
    assert pool.load(data, 64).tobytes() == load_image(data, 64).tobytes()
    assert pool.load(data, None).size == load_image(data).size
    prepared = TRANSFORM(load_image(data, 64))
    np.testing.assert_array_equal(pool.prepare(data, 64, TRANSFORM), prepared)
    assert pool.thumbnail(data, 50, 80, b"x") == encode_jpeg(make_thumbnail(data, 50), 80, b"x")
    assert pool.jpeg(data, 90) == encode_jpeg(load_image(data), 90)
    assert pool.measure(data) == measure(data)
    boxes = [(0, 0, 1, 1), (0.5, 0.5, 1, 1)]
    for found, wanted in zip(pool.parts(data, boxes), load_parts(data, boxes), strict=True):
        assert found.tobytes() == wanted.tobytes()


def test_large_parts_are_averaged_down_and_remember_their_size(pool):
    data = encoded("JPEG", (4200, 4200))
    for parts in (pool.parts, load_parts):
        whole, part = parts(data, [(0, 0, 1, 1), (0, 0, 0.1, 0.1)])
        assert whole.size == (1050, 1050)
        assert whole.full_size == (4200, 4200)
        assert part.size == (420, 420)
        assert not hasattr(part, "full_size")


def test_files_are_compared_elsewhere(pool, tmp_path):
    a, b, c = (tmp_path / name for name in ("a.png", "b.jpg", "c.png"))
    a.write_bytes(FILES["large"])
    load_image(a).save(b, quality=95)
    Image.effect_noise((300, 200), 90).convert("RGB").save(c)
    for other in (a, b, c):
        found = pool.compare(str(a), str(other))
        assert found == compare_files(str(a), str(other))


@pytest.mark.parametrize("data", [b"", b"x" * 100, FILES["jpeg"][:300]])
def test_errors_are_those_of_here(pool, data):
    with pytest.raises(ImageError) as here:
        load_image(data)
    with pytest.raises(ImageError) as there:
        pool.load(data, None)
    assert there.value.reason == here.value.reason
    with pytest.raises(QueryError, match="is not inside an image"):
        pool.parts(FILES["jpeg"], [(0, 0, 5000, 10)])


def test_a_thread_decodes_elsewhere_only_while_it_says_so(pool):
    assert DECODER.get() is None
    with pool.in_use():
        assert DECODER.get() is pool
        assert load_image(FILES["jpeg"]).size == (900, 700)
        assert load_image(Image.new("RGB", (3, 2))).size == (3, 2)  # is at hand
        with ThreadPoolExecutor(1) as other:
            assert other.submit(DECODER.get).result() is None
    assert DECODER.get() is None


@contextmanager
def frozen(pool):
    """Let the next jobs go to workers that do not move any more; yield their numbers."""
    pool.load(FILES["jpeg"], 64)
    pids = {each.pid for each in pool._idle}
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield pids
    for pid in filter(alive, pids):
        os.kill(pid, signal.SIGKILL)


def alive(pid):
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        return stat.read().split()[2] != "Z"


def workers_of(pool):
    path = f"/proc/{pool._process.pid}/task/{pool._process.pid}/children"
    with open(path) as children:  # noqa: PTH123
        return {int(pid) for pid in children.read().split() if alive(int(pid))}


def test_a_worker_that_is_killed_costs_one_file(pool):
    with frozen(pool) as pids, ThreadPoolExecutor(1) as executor:
        lost = executor.submit(pool.load, FILES["large"], None)
        time.sleep(0.3)
        assert not lost.done()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ImageError, match="the decoder failed"):
            lost.result(10)
    for _ in range(4):
        assert pool.load(FILES["jpeg"], 64).size == load_image(FILES["jpeg"], 64).size


def test_idle_workers_that_are_gone_cost_nothing(pool):
    pool.load(FILES["jpeg"], 64)
    for each in pool._idle:
        os.kill(each.pid, signal.SIGKILL)
    wait_until(lambda: not workers_of(pool))
    assert pool.load(FILES["jpeg"], 64)


def test_a_file_that_takes_too_long_is_given_up(pool, monkeypatch):
    with frozen(pool) as pids:
        monkeypatch.setattr(decoder_pool, "JOB_SECONDS", 0.3)
        with pytest.raises(ImageError, match=r"took over 0.3 seconds"):
            pool.load(FILES["jpeg"], None)
        wait_until(lambda: not all(map(alive, pids)))


def test_a_job_that_nobody_waits_for_is_stopped(pool):
    def check():
        if gone.is_set():
            raise KeyError("the client has left")

    def load():
        CHECK.set(check)
        pool.load(FILES["jpeg"], None)

    gone = threading.Event()
    with frozen(pool) as pids, ThreadPoolExecutor(1) as executor:
        found = executor.submit(load)
        time.sleep(0.3)
        assert not found.done()
        gone.set()
        with pytest.raises(KeyError):
            found.result(5)
        wait_until(lambda: not all(map(alive, pids)))


def test_large_files_wait_for_memory_and_small_ones_do_not(pool):
    with ThreadPoolExecutor(2) as executor:
        with pool.budget.reserve(pool.budget.size):
            waiting = executor.submit(pool.load, FILES["large"], 64)
            assert pool.load(FILES["jpeg"], 64)
            time.sleep(0.3)
            assert not waiting.done()
        assert waiting.result(10).width > 64


def test_workers_are_replaced_after_many_jobs(pool):
    seen = set()
    for _ in range(decode_worker.MAX_JOBS + 10):
        pool.measure(FILES["webp"])
        seen |= {each.pid for each in pool._idle}
    assert len(seen) >= 2


def test_a_job_cannot_take_the_memory_of_the_machine():
    """In a process of its own: what is allocated beyond the limit fails."""
    code = (
        "import numpy as np; from simsearch.web import decode_worker\n"
        "decode_worker._limit_data(50_000_000)\n"
        "np.ones(10_000_000, np.uint8)\n"
        "try: np.ones(100_000_000, np.uint8)\n"
        "except MemoryError: raise SystemExit(7)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7


def test_a_pool_starts_anew_and_ends_whole():
    made = DecoderPool(1, 10**8)
    assert made.load(FILES["jpeg"], 64)
    first, children = made._process.pid, workers_of(made)
    os.kill(first, signal.SIGKILL)
    made._process.wait()
    for each in made._idle:
        os.kill(each.pid, signal.SIGKILL)
    made._idle.clear()
    assert made.load(FILES["jpeg"], 64)
    children = workers_of(made)
    assert children
    made.close()
    wait_until(lambda: not any(map(alive, children)))
    assert not made.start()
    with made.in_use():
        assert DECODER.get() is None
