"""A download copied to a file, under a progress bar and a time limit."""

from __future__ import annotations

import hashlib
import time
from typing import IO, Any

from tqdm.auto import tqdm


def copy_stream(
    source: Any,  # noqa: ANN401
    target: IO[bytes],
    name: str,
    stall_seconds: float,
    max_seconds: float,
) -> str:
    """Copy a download to a file under a progress bar; return its SHA-256."""
    digest = hashlib.sha256()
    total = int(source.headers.get("Content-Length") or 0)
    received = 0  # the bar does not count while it is disabled
    start = time.monotonic()
    with tqdm(desc=name, total=total or None, unit="B", unit_scale=True) as bar:
        while chunk := source.read1(2**18):
            target.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
            received += len(chunk)
            elapsed = time.monotonic() - start
            if elapsed > stall_seconds and elapsed * max(1, total / received) > max_seconds:
                raise TimeoutError(f"the connection is slow: {received / elapsed / 1e3:.0f} kB/s")
    if total > received:
        raise OSError(f"the connection broke after {received:,} of {total:,} bytes")
    return digest.hexdigest()
