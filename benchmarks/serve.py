"""Load test of the server: a library of 25,000 rows, and clients on this machine.

    python benchmarks/serve.py [--rows N] [--seconds S] [--requests N]

1, 8 and 64 clients at once send a request, wait for the response, and send the next. Photos are
uploaded: each is decoded, embedded by ResNet50 and ranked; rows are only ranked. Then the same
without batching, thumbnails from the cache, and the server's memory over many requests. Clients
and server share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import INTEL, median, resnet50_weights, verdict

import simsearch as ss

CLIENTS = (1, 8, 64)
ROUNDS = 3
SERVER_CODE = "from simsearch.web.server import serve; serve({outputs!r}, port=0, **{settings!r})"
NOISE = 0.3  # share of the difference of two embeddings that is added to a third


class Load(NamedTuple):
    """Result of a measurement: requests per second, milliseconds each, and failures (not 200)."""

    rate: float
    milliseconds: np.ndarray
    failed: int

    def __str__(self) -> str:
        p50, p95, p99 = np.percentile(self.milliseconds, [50, 95, 99])
        return (
            f"{self.rate:8.1f} requests/s   p50 {p50:7.1f}   p95 {p95:7.1f}   p99 {p99:7.1f} ms"
            f"   {len(self.milliseconds)} answered, {self.failed} failed"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--seconds", type=float, default=8, help="per measurement")
    parser.add_argument("--requests", type=int, default=5000, help="over which memory is watched")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = sorted((INTEL / "seg_pred").iterdir())[:400]
        outputs = make_library(Path(folder), photos, options.rows)
        uploads = [search_photo(photo) for photo in photos]
        rows = [search_row(row) for row in range(0, options.rows, 97)]
        with serving(outputs) as server:
            under_load(server, "photos", uploads, options.seconds)
            under_load(server, "rows", rows, options.seconds)
            thumbnails(server, options.rows, options.seconds)
        batching(outputs, uploads, options.seconds)
        with serving(outputs) as server:
            memory(server, uploads, options.requests)


def make_library(folder: Path, photos: Sequence[Path], rows: int) -> Path:
    """Save a library of real images whose embeddings are mixed from real ones."""
    backbone = ss.load_backbone("resnet50", resnet50_weights(folder))
    embeddings = ss.embed_images(photos, backbone)
    rng = np.random.default_rng(0)
    first, second, third = embeddings[rng.integers(0, len(embeddings), (3, rows))]
    mixed = first + NOISE * (second - third)  # varies in the directions of the real ones
    names = [f"{photos[i % len(photos)]}" for i in range(rows)]
    ss.ImageLibrary(mixed, names, backbone).save(folder / "outputs")
    return folder / "outputs"


@contextmanager
def serving(outputs: Path, **settings: object) -> Iterator[subprocess.Popen[str]]:
    """Run a server in a process of its own."""
    code = SERVER_CODE.format(outputs=str(outputs), settings=settings)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        greeting = server.stdout.readline()
        server.port = int(re.search(r":(\d+)/", greeting)[1])  # type: ignore[attr-defined, index]
        try:
            yield server
        finally:
            server.terminate()


# Requests


def search_photo(photo: Path) -> bytes:
    """Make the request of a search with an uploaded photo."""
    return post({"k": "24"}, photo.read_bytes())


def search_row(row: int) -> bytes:
    """Make the request of a search with an image of the library."""
    return post({"k": "24", "row": str(row)})


def post(fields: dict[str, str], image: bytes | None = None) -> bytes:
    """Write a multipart request by hand, so that clients take little processor time."""
    parts = [
        f'--XX\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    if image is not None:
        named = b'Content-Disposition: form-data; name="image"; filename="photo.jpg"'
        parts.append(b"--XX\r\n" + named + b"\r\n\r\n" + image + b"\r\n")
    body = b"".join([*parts, b"--XX--\r\n"])
    head = (
        "POST /api/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n"
        "Content-Type: multipart/form-data; boundary=XX\r\n\r\n"
    )
    return head.format(len(body)).encode() + body


async def client(
    port: int, requests: Iterator[bytes], done: Callable[[], bool], records: list[tuple[float, int]]
) -> None:
    """Send requests one after another over one connection; record seconds and status of each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not done():
        start = time.perf_counter()
        writer.write(next(requests))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
        await reader.readexactly(length)
        records.append((time.perf_counter() - start, int(head.split(b" ", 2)[1])))
    writer.close()
    await writer.wait_closed()


def run_clients(
    server: subprocess.Popen[str],
    requests: Sequence[bytes],
    clients: int,
    *,
    seconds: float = float("inf"),
    count: float = float("inf"),
) -> Load:
    """Run clients for a number of seconds, or of requests."""
    records: list[tuple[float, int]] = []
    start = time.perf_counter()
    turns = (requests[i % len(requests)] for i in iter(int, 1) for i in range(len(requests)))

    def done() -> bool:
        return time.perf_counter() - start > seconds or len(records) + clients > count

    async def run() -> None:
        port: int = server.port  # type: ignore[attr-defined]
        await asyncio.gather(*(client(port, turns, done, records) for _ in range(clients)))

    asyncio.run(run())
    rate = len(records) / (time.perf_counter() - start)
    return Load(rate, 1e3 * np.array([t for t, _ in records]), sum(s != 200 for _, s in records))


# Measurements


def under_load(
    server: subprocess.Popen[str], name: str, requests: Sequence[bytes], seconds: float
) -> None:
    run_clients(server, requests, 8, seconds=2)  # warm-up
    failed = 0
    for clients in CLIENTS:
        load = run_clients(server, requests, clients, seconds=seconds)
        print(f"      {name}, {clients:2} clients: {load}", flush=True)
        failed += load.failed
    verdict(f"{name}: requests lost", failed, 0, at_most=True)


def thumbnails(server: subprocess.Popen[str], rows: int, seconds: float) -> None:
    requests = [
        f"GET /api/images/{row}/thumbnail HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        for row in range(0, rows, rows // 400)
    ]
    run_clients(server, requests, 8, count=3 * len(requests))  # fills the cache
    load = run_clients(server, requests, 8, seconds=seconds)
    print(f"      thumbnails,  8 clients: {load}")
    verdict("thumbnails from the cache: a second", load.rate, 500)
    verdict("thumbnails: requests lost", load.failed, 0, at_most=True)


def batching(outputs: Path, requests: Sequence[bytes], seconds: float) -> None:
    """Compare with a server without batching, in alternation."""
    with serving(outputs) as together, serving(outputs, max_batch=1) as alone:
        ratios = []
        for _ in range(ROUNDS):
            rates = [
                run_clients(each, requests, 8, seconds=seconds).rate for each in (together, alone)
            ]
            ratios.append(rates[0] / rates[1])
            print(f"      batches {rates[0]:.1f}, one at a time {rates[1]:.1f} requests/s")
    verdict("batches over one at a time, 8 clients: requests/s", median(ratios), 1.5)


def memory(server: subprocess.Popen[str], requests: Sequence[bytes], count: int) -> None:
    run_clients(server, requests, 8, count=count // 5)
    before = resident(server)
    load = run_clients(server, requests, 8, count=count)
    grown = resident(server) - before
    print(f"      memory: {before:.0f} MB, after {len(load.milliseconds)} requests {grown:+.0f} MB")
    verdict("memory gained over those requests, in MB", grown, 20, at_most=True)


def resident(server: subprocess.Popen[str]) -> float:
    """Memory of a process in MB."""
    status = Path(f"/proc/{server.pid}/status").read_text("utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


if __name__ == "__main__":
    main()
