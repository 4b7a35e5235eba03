"""The server under load and under siege: memory of its processes, latency of health, errors.

    python trials/server.py --minutes 30 --report outputs/trials/server.json

Serves a library of 25,000 rows with EfficientNet-Lite0; 64 clients ask for all that there is, with
a few pictures that are very large; then each attack of `server_siege.py` runs for some seconds, and
schemathesis goes through the whole schema. The report (JSON, and Markdown beside it) has figures
and limits; the exit status is 1 if a limit is broken. Seeded; it needs Linux and the extras `web`
and `dev`. On a machine that others use, memory can be trusted and latency cannot: a control beside
it, a process that only sleeps, tells by how much. What the server's event loop computes without a
break is counted in processor time, which holds on any machine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import server_pictures
import server_siege

ROOT = Path(__file__).parents[1]
MEMORY_LIMIT_MB = 1500  # PSS of the process tree
GROWTH_LIMIT_MB = 60  # from the second to the last fifth of the mixed load
LOOP_LIMIT_SECONDS = 0.05  # of the processor, that the event loop may compute without a break
HEALTH_LIMIT_MS = 100  # 99 of 100 answers, beyond what the control is late
# Processes of their own, each line of which is when, and how many ms: a thread beside the clients
# would wait for these. One sleeps; others ask a port for health.
CONTROL = """
import time
while True:
    start = time.monotonic()
    time.sleep(0.01)
    print(start, 1000 * (time.monotonic() - start - 0.01), flush=True)
"""
ASK_HEALTH = """
import http.client, sys, time
while True:
    time.sleep(0.2)
    start = time.monotonic()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
        connection.request("GET", "/api/health")
        status = connection.getresponse().status
        connection.close()
    except OSError:
        status = 0
    took = 1000 * (time.monotonic() - start) if status == 200 else float("inf")
    print(start, took, flush=True)
"""
SAMPLE_SECONDS = 1.0
START_SECONDS = 180


class Server:
    """`simsearch serve` in a process of its own, watched."""

    def __init__(self, outputs: Path, log: Path) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "simsearch.cli", "serve", str(outputs)),
                *("--port", "0", "--health-port", "0"),
            ],
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )
        lines = [self.process.stdout.readline() for _ in range(3)]
        self.port = int(re.search(r":(\d+)/", lines[0])[1])
        health_port = re.search(r"\d{4,}", lines[2])[0]
        self.memory: list[tuple[float, float, float]] = []  # seconds, MB of all, of the first
        self.health: list[tuple[float, float]] = []  # seconds, ms; of a failure, inf
        self.health_port: list[tuple[float, float]] = []
        self.control: list[tuple[float, float]] = []  # seconds, ms that a sleep is late
        self._stop, self._watching = threading.Event(), []
        self._watch(self.control, CONTROL)
        self._watch(self.health, ASK_HEALTH, str(self.port))
        self._watch(self.health_port, ASK_HEALTH, health_port)
        threading.Thread(target=self._watch_memory, daemon=True).start()

    def request(self, method, path, body=None, headers=None, seconds=120):
        """Send a request; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def close(self) -> None:
        self._stop.set()
        for each in self._watching:
            each.kill()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _watch_memory(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            own, all_of_it = pss(self.process.pid), pss_of_tree(self.process.pid)
            self.memory.append((time.monotonic(), all_of_it, own))

    def _watch(self, found: list[tuple[float, float]], program: str, *arguments: str) -> None:
        command = [sys.executable, "-c", program, *arguments]
        watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._watching.append(watching)

        def read() -> None:
            for line in watching.stdout:
                at, value = map(float, line.split())
                found.append((at, value))

        threading.Thread(target=read, daemon=True).start()


def loop_histograms(server: Server) -> dict:
    """Read how late, and how busy, the event loop was: counts up to each bound, from /metrics."""
    text = server.request("GET", "/metrics")[1].decode()
    found: dict = {}
    for kind in ("late", "busy"):
        pattern = rf'^simsearch_loop_{kind}_seconds_bucket{{le="([^"]+)"}} (\S+)$'
        found[kind] = {bound: int(float(n)) for bound, n in re.findall(pattern, text, re.M)}
    return found


def pss_of_tree(pid: int) -> float:
    """Add up the memory of a process and all below it, shared pages by their parts: MB."""
    total, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        total += pss(one)
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:  # it has just ended
            continue
    return total


def pss(pid: int) -> float:
    """Return the memory of a process, shared pages by their parts: MB; 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss: +(\d+)", text, re.M)[1]) / 1024
    except (OSError, TypeError):
        return 0.0


class Load:
    """Clients that ask for everything, one after the other."""

    def __init__(self, server: Server, pictures: server_pictures.Pictures, seed: int) -> None:
        self.server, self.pictures, self.seed = server, pictures, seed
        self.statuses: Counter[tuple[str, int | str]] = Counter()
        self.seconds: dict[str, list[float]] = {}
        self._stop = threading.Event()

    def run(self, clients: int, seconds: float) -> None:
        threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(clients)]
        for thread in threads:
            thread.start()
        self._stop.wait(seconds)
        self._stop.set()
        for thread in threads:
            thread.join()

    def _ask(self, number: int) -> None:
        rng = random.Random(f"{self.seed} {number}")
        while not self._stop.is_set():
            kind, method, path, body, headers = server_pictures.any_request(rng, self.pictures)
            start = time.monotonic()
            try:
                status: int | str = self.server.request(method, path, body, headers)[0]
            except OSError as error:
                status = type(error).__name__
            self.statuses[kind, status] += 1
            self.seconds.setdefault(kind, []).append(time.monotonic() - start)
            if status == 503:
                self._stop.wait(rng.random())


def describe(server: Server, start: float, end: float) -> dict:
    """Return what was measured in a span of time."""
    memory = [mb for at, mb, _ in server.memory if start <= at <= end]
    own = [mb for at, _, mb in server.memory if start <= at <= end]
    health, port, late = (
        sorted(ms for at, ms in each if start <= at <= end)
        for each in (server.health, server.health_port, server.control)
    )
    return {
        "seconds": round(end - start),
        "memory_mb": round(max(memory, default=0)),
        "memory_median_mb": round(statistics.median(memory)) if memory else 0,
        "growth_mb": growth(memory),
        "own_growth_mb": growth(own),
        "own_each_minute_mb": [round(mb) for mb in own[:: round(60 / SAMPLE_SECONDS)]],
        "health_asked": len(health),
        "health_failed": sum(ms == float("inf") for ms in health + port),
        "health_median_ms": percentile(health, 50),
        "health_99_ms": percentile(health, 99),
        "health_max_ms": percentile(health, 100),
        "health_port_99_ms": percentile(port, 99),
        "control_99_ms": percentile(late, 99),
        "load": round(os.getloadavg()[0], 1),
    }


def growth(memory: list[float]) -> int:
    """Return by how much the median of the last fifth is over that of the second: MB."""
    fifth = len(memory) // 5
    if fifth < 2:
        return 0
    last, second = memory[-fifth:], memory[fifth : 2 * fifth]
    return round(statistics.median(last) - statistics.median(second))


def percentile(ordered: list[float], percent: int) -> float:
    return round(ordered[int(percent / 100 * (len(ordered) - 1))], 1) if ordered else 0.0


def run_schemathesis(server: Server, seed: int, examples: int) -> dict:
    """Let schemathesis go through the whole schema."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            f"http://127.0.0.1:{server.port}/api/openapi.json",
            *("--checks", checks, "--max-examples", str(examples), "--seed", str(seed)),
            *("--phases", "examples,coverage,fuzzing", "--no-color"),
            *("--wait-for-schema", "60", "--request-timeout", "60"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tempfile.gettempdir(),
    )
    return {"exit": done.returncode, "tail": done.stdout[-1500:]}


def check(report: dict) -> list[str]:
    """Return the limits that are broken."""
    broken = [
        f"{name}: {fault}"
        for name, part in report["parts"].items()
        for fault in [*faults_of(part), *part.get("broken", [])]
    ]
    grown = report["parts"].get("mixed load", {}).get("growth_mb", 0)
    if grown > GROWTH_LIMIT_MB:
        broken.append(f"mixed load: memory grew by {grown} MB, over {GROWTH_LIMIT_MB}")
    slow = busy_beyond(report["loop"]["busy"], LOOP_LIMIT_SECONDS)
    if slow > 1:  # the first request of its kind may load modules
        broken.append(f"the event loop computed for over {LOOP_LIMIT_SECONDS} s {slow} times")
    bad = {key: n for key, n in report["answers"].items() if not re.search(r" (2|4|503)", key)}
    if bad:
        broken.append(f"mixed load: answers {bad}")
    if report["schemathesis"].get("exit"):
        broken.append("schemathesis found a failure")
    if not report["alive"]:
        broken.append("the server has ended")
    return broken


def faults_of(part: dict) -> Iterator[str]:
    """Yield the limits that are broken in a part."""
    if part["memory_mb"] > MEMORY_LIMIT_MB:
        yield f"{part['memory_mb']} MB, over {MEMORY_LIMIT_MB}"
    if part["health_failed"]:
        yield f"health was not answered {part['health_failed']} times"
    limit = HEALTH_LIMIT_MS + part["control_99_ms"]
    for place in ("health_99_ms", "health_port_99_ms"):
        if part[place] > limit:
            yield f"{place} is {part[place]}, over {limit:.0f}"


def busy_beyond(counts: dict[str, int], seconds: float) -> int:
    """Return how often the event loop computed for longer without a break."""
    return counts.get("+Inf", 0) - counts.get(str(seconds), 0)


def to_markdown(report: dict) -> str:
    """Put a report as a table."""
    columns = (
        *("seconds", "memory_mb", "growth_mb", "own_growth_mb", "health_median_ms"),
        *("health_asked", "health_99_ms", "health_max_ms", "health_port_99_ms"),
        *("control_99_ms", "load"),
    )
    lines = [
        "# The server: "
        f"{report['rows']:,} rows, {report['clients']} clients, seed {report['seed']}",
        "",
        "| part | " + " | ".join(columns) + " | health failed |",
        "|---|" + "---:|" * (len(columns) + 1),
    ]
    for name, part in report["parts"].items():
        cells = [str(part[column]) for column in columns] + [str(part["health_failed"])]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "control: how late a sleep of 10 ms ended in a process that does nothing else.",
        "",
    ]
    for kind, counts in report["loop"].items():
        lines += [f"- event loop {kind} for up to so many seconds: {counts}"]
    lines += [f"- {key}: {count:,}" for key, count in sorted(report["answers"].items())]
    lines += ["", *(f"- **broken**: {each}" for each in report["broken"])]
    return "\n".join(lines) + "\n"


def run(options: argparse.Namespace, folder: Path) -> dict:
    print("making pictures and library", flush=True)
    pictures = server_pictures.make(folder, options.rows, options.seed)
    server = Server(folder / "outputs", folder / "serve.log")
    report: dict = {"rows": options.rows, "clients": options.clients, "seed": options.seed}
    parts = report["parts"] = {}
    try:
        start = time.monotonic()
        time.sleep(5)
        parts["at rest"] = describe(server, start, time.monotonic())
        load = Load(server, pictures, options.seed)
        start = time.monotonic()
        print("mixed load", flush=True)
        load.run(options.clients, 60 * options.minutes)
        parts["mixed load"] = describe(server, start, time.monotonic())
        report["loop under load"] = loop_histograms(server)
        report["answers"] = {f"{kind} {status}": n for (kind, status), n in load.statuses.items()}
        report["median_ms"] = {
            kind: round(1000 * statistics.median(each), 1) for kind, each in load.seconds.items()
        }
        for name, attack in server_siege.ATTACKS.items():
            if not options.siege or not re.search(options.siege, name):
                continue
            print(name, flush=True)
            start = time.monotonic()
            broken = attack(server, pictures, options.seconds)
            parts[name] = describe(server, start, time.monotonic()) | {"broken": broken}
        report["schemathesis"] = (
            run_schemathesis(server, options.seed, options.examples) if options.examples else {}
        )
        time.sleep(5)
        report["loop"] = loop_histograms(server)
        report["alive"] = server.process.poll() is None
    finally:
        server.close()
        report["log"] = (folder / "serve.log").read_text()[-2000:]
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2, help="of mixed load")
    parser.add_argument("--seconds", type=float, default=30, help="of each attack")
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=20, help="of schemathesis; 0 for none")
    parser.add_argument("--siege", default=".", metavar="REGEX", help='attacks; "" for none')
    parser.add_argument("--report", type=Path, help="JSON file; Markdown goes beside it")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="simsearch-trial-"))
    try:
        report = run(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report["broken"] = check(report)
    text = to_markdown(report)
    if options.report:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(report, indent=1) + "\n")
        options.report.with_suffix(".md").write_text(text)
    print(text)
    return 1 if report["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
