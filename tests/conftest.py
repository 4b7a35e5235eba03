"""What the tests share: real photos, a small library, and no way out to the network."""

import atexit
import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path

import matplotlib as mpl
import pillow_heif
import pytest
from filelock import FileLock

import simsearch as ss

pytest_plugins = ["marks", "scheduling", "skips"]

pillow_heif.register_heif_opener()  # to write files with; simsearch puts its own reader in place
mpl.use("agg")  # no window, whatever this machine has
# Converting a network takes longer than most tests; those of OpenVINO ask for it by name.
os.environ["SIMSEARCH_RUNTIME"] = "torch"

# The key and the caches of the tests are not those of whoever runs them. Each process of a parallel
# run has its own key, as each has its own libraries; its children inherit it.
_home = tempfile.mkdtemp(prefix="simsearch-tests-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ |= {"XDG_STATE_HOME": f"{_home}/state", "XDG_CACHE_HOME": f"{_home}/cache"}

# A shell that starts the tests in its background ignores Ctrl-C for them and all their children.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Fail name look-ups at once, as offline; only this machine can be reached."""
    look_up = socket.getaddrinfo

    def local_only(host, *args, **kwargs):
        if host not in {"127.0.0.1", "localhost", "::1", None}:
            raise socket.gaierror(-2, "Name or service not known")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", local_only)


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """The whole sample dataset, made once for all processes of a run; no test may change it."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    with FileLock(place / "sample.lock"):
        return ss.make_sample(place / "sample" / "dataset")


@pytest.fixture(scope="session")
def shared():
    """Real photos beside the project; tests that use them are marked `shared`."""
    if not SHARED.is_dir():
        pytest.skip(f"no photos at {SHARED}")
    return SHARED
