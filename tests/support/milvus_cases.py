"""Shared by the tests of Milvus: a library, and the same one published in a Lite file."""

import contextlib
import signal
import socket
import threading

import numpy as np
import pandas as pd
import pytest

import simsearch as ss
from simsearch.cluster.milvus.lite_file import lite_servers

COUNT, DIM = 640, 24


@pytest.fixture(autouse=True)
def time_limit(request):
    """End a test that waits for a server which does not answer."""

    def stop(*_):
        raise TimeoutError("this test took too long")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(getattr(request.module, "TIME_LIMIT", 60))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def clustered(count, dim, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, count // 40), dim))
    return centres[rng.integers(0, len(centres), count)] + 0.5 * rng.standard_normal((count, dim))


KINDS = ["shoe", "Hat", "red; blue", "Straße|GREEN", 'a "quoted" one', "x' or 1 == 1", "50%_off\\"]


def make_library(count=COUNT, dim=DIM, seed=0):
    """Rows in clusters, some of them twice, with a table that lacks some lines and cells."""
    rng = np.random.default_rng(seed)
    rows = clustered(count, dim, seed)
    rows[count // 2] = rows[3]
    rows[count // 2 + 1] = rows[3] + 1e-3
    folders = ["a", "a/b", "a/B", "c d", "e;f"]
    library = ss.ImageLibrary(
        rows, sorted(f"data/{folders[i % 5]}/{i:04}.jpg" for i in range(count))
    )
    library.root = "data"
    prices = rng.integers(-20, 20, count).astype(object)
    prices[::7] = None
    table = pd.DataFrame(
        {
            "path": library.paths,
            "title": [f"Item {i % 50}, {KINDS[i % 7]}" for i in range(count)],
            "price": prices,
            "weight": rng.standard_normal(count).round(2),
            "tags": [None if i % 5 == 0 else KINDS[i % 7] for i in range(count)],
            "new": [None if i % 11 == 0 else i % 2 == 0 for i in range(count)],
            "since": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(count) % 30, "D"),
            'odd "name"': np.arange(count) % 3,
        }
    )
    return library.attach(table[np.arange(count) % 9 != 4])


@pytest.fixture(scope="module")
def library():
    return make_library()


@pytest.fixture(scope="module")
def remote(library, tmp_path_factory):
    file = tmp_path_factory.mktemp("milvus") / "images.db"
    ss.publish(library, file, "shop", progress=False)
    with ss.RemoteLibrary(file, "shop") as opened:
        yield opened
    assert str(file) not in lite_servers  # its server has ended


def assert_same(found, expected):
    """Compare the answers of two libraries whose rows have the same numbers."""
    if isinstance(expected, list):
        for each in zip(found, expected, strict=True):
            assert_same(*each)
        return
    assert found.paths == expected.paths
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    for here, there in zip(found, expected, strict=True):
        assert here.percentile == there.percentile
        assert (here.row, here.caption, here.duplicates) == (
            there.row,
            there.caption,
            there.duplicates,
        )
        assert here.metadata == there.metadata
    assert found.query == expected.query


def small(count=30, seed=0, dim=8):
    return ss.ImageLibrary(
        np.random.default_rng(seed).standard_normal((count, dim)),
        [f"{i:03}.jpg" for i in range(count)],
    )


def subset(library, keep, change=()):
    rows = np.array(library.embeddings)
    rows[list(change)] *= -1
    return ss.ImageLibrary(rows[keep], library.paths[keep])


class Proxy:
    """A TCP proxy between a client and a server, whose connections a test can close."""

    def __init__(self, port):
        self.port, self.up, self.pairs = port, True, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self.up:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                client.close()
                continue
            self.pairs.append((client, server))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self.pump, args=(source, target), daemon=True).start()

    def pump(self, source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                end.close()

    def disconnect(self):
        self.up = False
        for pair in self.pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self.pairs.clear()
