"""A real Milvus server for the tests: PyPI's package `milvus` in a folder of its own.

The package is fetched once, into the environment that runs the tests, and stays there.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

PACKAGE = "milvus==2.3.5"  # the last one that carries the server's program
PLACE = Path(sys.prefix) / "servers" / PACKAGE.replace("==", "-")
START_SECONDS = 120

# Unpacks the program on the first run, writes the server's configuration, and becomes the server.
# The etcd in it takes fixed ports, unless a file of its own names others.
RUN = """
import json, os, sys
from pathlib import Path
from milvus import MilvusServer, MilvusServerConfig, _initialize_data_files
data, programs, proxy, health, *urls = sys.argv[1:]
_initialize_data_files(programs)
milvus, etcd = (Path(data, "configs", name) for name in ("milvus.yaml", "etcd.yaml"))
if not etcd.exists():
    MilvusServerConfig(data_dir=data, proxy_port=int(proxy)).resolve()
    text = milvus.read_text().replace("etcd:\\n", f"etcd:\\n  config:\\n    path: {etcd}\\n", 1)
    # A killed server is forgotten, and its successor takes over, after these seconds.
    milvus.write_text(text.replace("ttl: 30", "ttl: 3"))
    client, peer = (f"http://127.0.0.1:{port}" for port in urls)
    etcd.write_text(json.dumps({
        "name": "one", "initial-cluster": f"one={peer}", "listen-client-urls": client,
        "listen-peer-urls": peer, "advertise-client-urls": client,
        "initial-advertise-peer-urls": peer}))
os.environ |= {"DEPLOY_MODE": "STANDALONE", "METRICS_PORT": health,
               "MILVUS_RUN_DIR": f"{data}/run", "LD_LIBRARY_PATH": f"{programs}/bin"}
os.chdir(data)
os.execv(f"{programs}/bin/milvus", ["milvus", "run", "standalone"])
"""


def fetch_package():
    """Install the package, unless it is there; skip where it cannot be had."""
    if (PLACE / "milvus").is_dir():
        return
    part = PLACE.with_name(f"{PLACE.name}.{os.getpid()}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    done = subprocess.run([*command, part, PACKAGE], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package {PACKAGE} for this machine: {done.stderr.strip()[-200:]}")
    part.rename(PLACE)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class MilvusProcess:
    """One server; stopped and started again, it keeps its data and its address."""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        self.port, self.health, *self.etcd = (free_port() for _ in range(4))
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self, *, wait=True):
        places = map(str, (self.folder, PLACE, self.port, self.health, *self.etcd))
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, *places],
                env=os.environ | {"PYTHONPATH": str(PLACE)},
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait()

    def wait(self):
        deadline = time.monotonic() + START_SECONDS
        while not self.is_healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Milvus has not started; see {self.folder / 'server.log'}")
            time.sleep(0.1)

    def is_healthy(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/healthz", timeout=5) as it:
                return b"OK" in it.read()
        except OSError:
            return False

    def stop(self, how=signal.SIGKILL):
        """End it at once, as a power cut would."""
        self.process.send_signal(how)
        self.process.wait()


@pytest.fixture(scope="module")
def milvus_server(tmp_path_factory):
    """Return a server that runs; a test that stops it starts it again."""
    fetch_package()
    server = MilvusProcess(tmp_path_factory.mktemp("milvus-server"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


if __name__ == "__main__":  # python tests/support/milvus_server.py FOLDER
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    fetch_package()
    alone = MilvusProcess(Path(sys.argv[1]).absolute())
    alone.start()
    sys.stdout.write(f"{alone.address}\n")
    sys.stdout.flush()
    try:
        alone.process.wait()
    finally:
        alone.stop()
