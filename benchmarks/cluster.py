"""Ray and Milvus beside the local executor and the exact search, on the same files and processors.

    python benchmarks/cluster.py embed [--images 4000] [--rounds 3]
    python benchmarks/cluster.py search [--rows 25000] [--dim 1280] [--uri http://localhost:19530]
    python benchmarks/cluster.py lance [--rows 25000] [--dim 1280]

`embed`: Ray against the local executor, EfficientNet-Lite0 on the photos beside the project. Ray's
workers share this machine's processors: one worker with one thread per processor, or one worker
per processor. The cluster is started once, before the rounds; each run starts its own worker
processes in it. Each round times all candidates one after the other; ratios are taken within a
round, and their median over the rounds is printed.

`search`: Milvus beside the exact search of the same library, with the rows and queries of
`search.py`, k = 10. Local and remote searches alternate, query by query. A Lite file is served from
within this process, in Python: it shows that the results are right and the cost of the calls, not
the speed of a server.

`lance`: the same for LanceDB, which scans its table; and a publication beside a plain insert of the
same rows and paths by LanceDB's own client, in turns, in processor time of this process.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import INTEL, link_images, median, seconds, verdict
from search import K, make_queries, make_rows

import simsearch as ss
from simsearch.backbones.precision import usable_cores

QUERIES, TURNS = 100, 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    embedding = commands.add_parser("embed", help="Ray against the local executor")
    embedding.add_argument("--images", type=int, default=4000)
    embedding.add_argument("--rounds", type=int, default=3)
    embedding.set_defaults(run=embed)
    searching = commands.add_parser("search", help="Milvus beside the exact search")
    searching.add_argument("--rows", type=int, default=25_000)
    searching.add_argument("--dim", type=int, default=1280)
    searching.add_argument("--uri", help="of a server; a Milvus Lite file by default")
    searching.set_defaults(run=search)
    tables = commands.add_parser("lance", help="LanceDB beside the exact search")
    tables.add_argument("--rows", type=int, default=25_000)
    tables.add_argument("--dim", type=int, default=1280)
    tables.set_defaults(run=lance)
    options = vars(parser.parse_args())
    options.pop("run")(**options)


def embed(images: int, rounds: int) -> None:
    """Time runs from files to a library on disk, and the start of the workers by itself."""
    from ray import init, shutdown

    backbone = ss.load_backbone("efficientnet_lite0", device="cpu")
    one, several = ss.RayEngine(cpus=usable_cores(), threads=usable_cores()), ss.RayEngine(cpus=1)
    engines: dict[str, dict[str, Any]] = {
        "local": {},
        "Ray, one worker": {"engine": one},
        f"Ray, {usable_cores()} workers": {"engine": several},
    }
    print(f"{backbone!r}, {usable_cores()} cores, {images:,} images\n")
    init_options: dict[str, Any] = {"include_dashboard": False, "logging_level": logging.ERROR}
    start = seconds(lambda: init(num_cpus=usable_cores(), log_to_driver=False, **init_options))
    print(f"      start of a cluster of this machine alone {start:29.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        dataset = link_images(INTEL, Path(folder) / "dataset", images)
        sources = [path.as_posix() for path in sorted(dataset.iterdir())]
        first = [seconds(lambda: first_batch(several, sources, backbone)) for _ in range(3)]
        print(
            f"      from the call to the first batch, {usable_cores()} workers "
            f"{median(first):25.1f} s"
        )
        times: dict[str, list[float]] = {name: [] for name in engines}
        for number in range(rounds):
            for name, chosen in engines.items():
                outputs = Path(folder) / f"{name}{number}"
                run = partial(ss.embed_dataset, dataset, outputs, backbone, progress=False)
                times[name].append(seconds(partial(run, **chosen)))
        embeddings = [rows_of(Path(folder) / f"{name}0") for name in engines]
    shutdown()
    report(images, times)
    largest_difference = max(float(np.abs(other - embeddings[0]).max()) for other in embeddings[1:])
    verdict("largest difference of a row's entries", largest_difference, 1e-3, at_most=True)


def report(images: int, times: dict[str, list[float]]) -> None:
    """Print the median time of each candidate, and its ratio to the first, the local one."""
    for name, values in times.items():
        rate = images / median(values)
        print(f"      {name:<44} {median(values):8.1f} s {rate:8.1f} images/s")
    (_, local), *others = times.items()
    for name, values in others:
        ratio = median([there / here for there, here in zip(values, local, strict=True)])
        verdict(f"{name}, over the local executor", ratio, 1.15, at_most=True)


def first_batch(engine: ss.RayEngine, sources: list[str], backbone: ss.Backbone) -> None:
    """Embed until the first batch is there."""
    with closing(engine(sources, backbone)) as batches:
        next(batches)


def rows_of(outputs: Path) -> np.ndarray:
    return np.array(ss.ImageLibrary.load(outputs).embeddings)


def search(rows: int, dim: int, uri: str | None) -> None:
    """Publish a library of generated rows on Milvus, and search both copies."""
    with tempfile.TemporaryDirectory() as folder:
        library = make_library(Path(folder), rows, dim)
        measure(library, uri or str(Path(folder) / "images.db"))


def lance(rows: int, dim: int) -> None:
    """Publish a library of generated rows in LanceDB, and search both copies."""
    with tempfile.TemporaryDirectory() as folder:
        library = make_library(Path(folder), rows, dim)
        database = str(Path(folder) / "images.lancedb")
        published = ss.LanceLibrary.publish(library, database, "benchmark")
        queries = make_queries(library.embeddings, QUERIES)
        for condition in (None, "0*"):
            name = f"{rows:,} x {dim}, where={condition!r}"
            compare(name, library, published, queries, condition)
        beside_plain_insert(
            library,
            lambda i: ss.LanceLibrary.publish(library, database, f"turn_{i}"),
            partial(insert_into_lance, library, database),
        )


def make_library(folder: Path, rows: int, dim: int) -> ss.ImageLibrary:
    """Make a library of the rows of `search.py`, in a hundred folders."""
    make_rows(folder / "rows.npy", rows, dim)
    paths = [f"{i % 100:02}/{i:07}.jpg" for i in range(rows)]
    return ss.ImageLibrary(np.load(folder / "rows.npy"), paths)


def beside_plain_insert(
    library: ss.ImageLibrary, publish: Callable[[int], object], insert: Callable[[int], object]
) -> None:
    """Publish and insert in turns; print rows per processor second, and the median ratio."""
    spent = [(processor_seconds(publish, i), processor_seconds(insert, i)) for i in range(TURNS)]
    for place, name in enumerate(("published", "inserted plainly")):
        rate = len(library) / median([turn[place] for turn in spent])
        print(f"      {len(library):,} x {library.dim}: {rate:,.0f} rows {name} a CPU second")
    ratios = [plain / published for published, plain in spent]
    print(
        f"      in turns: {', '.join(f'{ratio:.2f}' for ratio in ratios)} of a plain insert's rate"
    )
    verdict("rate of publication, over a plain insert", median(ratios), 0.7)


def processor_seconds(call: Callable[[int], object], turn: int) -> float:
    start = time.process_time()
    call(turn)
    return time.process_time() - start


def insert_into_lance(library: ss.ImageLibrary, database: str, turn: int) -> None:
    """Write paths and embeddings as the client of LanceDB does."""
    import lancedb
    import pyarrow as pa

    numbers = pa.array(library.embeddings.reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(numbers, library.dim)
    table = pa.table({"path": pa.array(library.paths.tolist()), "vector": vectors})
    lancedb.connect(database).create_table(f"plain_{turn}", data=table)


def measure(library: ss.ImageLibrary, uri: str) -> None:
    """Time a publication and one without changes, then searches."""
    count = len(library)
    name = f"{count:,} x {library.dim}"
    publish = partial(ss.publish, library, uri, "benchmark", progress=False)
    print(f"      {name}: {count / seconds(publish):,.0f} rows published a second")
    print(f"      {name}: {seconds(publish):.1f} s to publish again, with nothing changed")
    with ss.RemoteLibrary(uri, "benchmark") as remote:
        queries = make_queries(library.embeddings, QUERIES)
        for condition in (None, "0*"):
            compare(f"{name}, where={condition!r}", library, remote, queries, condition)


def compare(
    name: str,
    library: ss.ImageLibrary,
    remote: ss.RemoteLibrary | ss.LanceLibrary,
    queries: np.ndarray,
    where: str | None,
) -> None:
    """Search both libraries, query by query; print times, recall and score error."""
    times_by_side: dict[str, list[float]] = {"local": [], "remote": []}
    hits, score_error = 0, 0.0
    for query in queries:
        answers = {}
        for side, searched in (("local", library), ("remote", remote)):
            started = time.perf_counter()
            answers[side] = ss.search(searched, query, K, where=where)
            times_by_side[side].append(time.perf_counter() - started)
        exact = {match.path: match.score for match in answers["local"]}
        found = [match for match in answers["remote"] if match.path in exact]
        hits += len(found)
        score_error = max([score_error, *(abs(match.score - exact[match.path]) for match in found)])
    for side, times in times_by_side.items():
        slow = float(np.percentile(times, 95))
        print(f"      {name}: {side} {median(times) * 1e3:.2f} ms a query, {slow * 1e3:.2f} at p95")
    verdict(f"{name}: recall@{K}", hits / (K * len(queries)), 0.99)
    verdict(f"{name}: scores differ by at most", score_error, 1e-3, at_most=True)


if __name__ == "__main__":
    main()
