"""A Ray cluster on two hosts: network namespaces of this machine, joined by a cable of their own.

Each has its own addresses and ports, so that nothing but the network joins the two nodes; files and
processes are this machine's.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

RAY = Path(sys.executable).with_name("ray")
PORT = 6399
NO_RIGHTS = "no network namespaces for this user"
STORE_BYTES = "80000000"  # the least that Ray takes
# A busy machine starts a node's processes late. Fixed ports spare Ray some of its waiting for them.
PATIENCE = {"RAY_agent_register_timeout_ms": "60000", "RAY_raylet_start_wait_time_s": "60"}
ATTEMPTS = 4
PORTS = [
    f"--{name}-port={7000 + number}"
    for number, name in enumerate(
        (
            *("dashboard-agent-grpc", "dashboard-agent-listen", "runtime-env-agent"),
            *("metrics-export", "node-manager", "object-manager"),
        )
    )
]


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


class TwoHosts:
    """Two namespaces, the first with the cluster's head; each node counts as many processors."""

    def __init__(self, folder, cpus=1):
        self.folder, self.token, self.cpus = folder, secrets.token_hex(32), cpus
        part = os.getpid() % 250
        self.names = [f"ray{os.getpid()}{side}" for side in "ab"]
        self.addresses = [f"10.231.{part}.{number}" for number in (1, 2)]
        self.cluster = f"{self.addresses[0]}:{PORT}"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("RAY_")
        }
        self.environment |= PATIENCE | {"RAY_AUTH_MODE": "token", "HOME": str(folder)}

    def open(self):
        """Make the namespaces; skip where that is not allowed."""
        if not shutil.which("ip"):
            pytest.skip(f"{NO_RIGHTS}: there is no command ip")
        try:
            for name in self.names:
                ip("netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"{NO_RIGHTS}: {error.stderr.strip()}")
        first, second = self.names
        ip(*f"link add cable netns {first} type veth peer name cable netns {second}".split())
        for name, address in zip(self.names, self.addresses, strict=True):
            for words in (
                "link set lo up",
                f"addr add {address}/24 dev cable",
                "link set cable up",
            ):
                ip("-n", name, *words.split())

    def run(self, host, *command, token=True, **options):
        """Start a command on a host, with the cluster's token or without."""
        environment = self.environment | {"RAY_ADDRESS": self.cluster}
        environment |= {"RAY_AUTH_TOKEN": self.token} if token else {}
        inside = ["ip", "netns", "exec", self.names[host], *map(str, command)]
        return subprocess.Popen(
            inside, env=environment | options.pop("env", {}), text=True, **options
        )

    def start_node(self, host):
        """Start Ray on a host; again, if the machine is so busy that Ray gives up."""
        for _ in range(ATTEMPTS):
            if self._try_node(host):
                return
            self.kill(host)
        pytest.fail((self.folder / f"node{host}.log").read_text()[-2000:])

    def _try_node(self, host):
        place = ["--head", f"--port={PORT}", f"--temp-dir={self.folder}/ray"]
        place = ["--include-dashboard=false", *place] if not host else [f"--address={self.cluster}"]
        sizes = [
            f"--num-cpus={self.cpus}",
            f"--object-store-memory={STORE_BYTES}",
            "--disable-usage-stats",
        ]
        first = ["nice", "-n", "-10", RAY, "start", f"--node-ip-address={self.addresses[host]}"]
        with (self.folder / f"node{host}.log").open("w") as log:
            node = self.run(
                host,
                *first,
                *place,
                *PORTS,
                *sizes,
                env={"RAY_ADDRESS": ""},
                stdout=log,
                stderr=log,
            )
            return not node.wait(timeout=100)

    def processes(self, host):
        return [int(number) for number in ip("netns", "pids", self.names[host]).split()]

    def kill(self, host):
        """Let a host end as by a power cut: all of its processes at once, and its cable."""
        for number in self.processes(host):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def close(self):
        known = ip("netns", "list").split()
        for host, name in enumerate(self.names):
            if name in known:
                self.kill(host)
                end = time.monotonic() + 10
                while self.processes(host) and time.monotonic() < end:
                    time.sleep(0.05)
                ip("netns", "del", name)


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory):
    """Start a node on each host."""
    folder = tmp_path_factory.mktemp("hosts")
    hosts = TwoHosts(folder)
    try:
        hosts.open()
        for host in range(2):
            hosts.start_node(host)
        yield hosts
    finally:
        hosts.close()
