"""Ray and Milvus beside the local executor and the exact search, on the same files and processors.

    python benchmarks/cluster.py embed [--images 4000] [--rounds 3]
    python benchmarks/cluster.py search [--rows 25000] [--dim 1280] [--uri http://localhost:19530]
    python benchmarks/cluster.py lance [--rows 25000] [--dim 1280]
    python benchmarks/cluster.py publish --uri http://localhost:19530 [--rows 20000] [--dim 384]

`embed`: Ray against the local executor, EfficientNet-Lite0 on the photos beside the project. Ray's
workers share this machine's processors: one worker with one thread per processor, or one worker
per processor. The cluster is started once, before the rounds; each run starts its own worker
processes in it. Each round times all candidates one after the other; ratios are taken within a
round, and their median over the rounds is printed.

`search`: Milvus beside the exact search of the same library, with the rows and queries of
`search.py`, k = 10. Local and remote searches alternate, query by query. A Lite file is served from
within this process, in Python: it shows that the results are right and the cost of the calls, not
the speed of a server.

`publish`: on a Milvus server, such as `python tests/support/milvus_server.py FOLDER` starts: a
publication beside a plain insert of the same rows and paths by Milvus' own client, in turns, by the
clock and in processor time of this process; then a change of 1% of the rows, published as such, and
as a whole new collection that an alias is turned to.

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
from common import INTEL, copy_images, median, seconds, verdict
from search import EFFORTS, K, make_queries, make_rows, nearest, recall

import simsearch as ss
from simsearch.backbones.precision import usable_cores

QUERIES, TURNS, BATCH_ROWS = 100, 3, 2_000
INDEX_SECONDS = 1200  # that a server may take to index what is published


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
    searching.add_argument("--kind", default="hnsw", help="of Milvus' index, as `publish` takes it")
    searching.add_argument("--faiss", action="store_true", help="also FAISS' own graph and scan")
    searching.set_defaults(run=search)
    tables = commands.add_parser("lance", help="LanceDB beside the exact search")
    tables.add_argument("--rows", type=int, default=25_000)
    tables.add_argument("--dim", type=int, default=1280)
    tables.set_defaults(run=lance)
    publishing = commands.add_parser("publish", help="a publication beside a plain insert")
    publishing.add_argument("--rows", type=int, default=20_000)
    publishing.add_argument("--dim", type=int, default=384)
    publishing.add_argument("--uri", required=True, help="of a Milvus server")
    publishing.set_defaults(run=publish)
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
        dataset = copy_images(INTEL, Path(folder) / "dataset", images)
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


def search(rows: int, dim: int, uri: str | None, kind: Any, faiss: bool) -> None:
    """Publish a library of generated rows on Milvus, and search both copies."""
    with tempfile.TemporaryDirectory() as folder:
        library = make_library(Path(folder), rows, dim)
        measure(library, uri or str(Path(folder) / "images.db"), kind)
        if faiss:
            beside_faiss(library)


def publish(rows: int, dim: int, uri: str) -> None:
    """Publish whole libraries, and changes of one, beside the plain ways to do it."""
    from pymilvus import MilvusClient

    client = MilvusClient(uri)
    with tempfile.TemporaryDirectory() as folder:
        library = make_library(Path(folder), rows, dim)
        whole = partial(ss.publish, library, uri, progress=False)
        beside_plain_insert(
            library,
            lambda i: whole(f"turn_{i}"),
            lambda i: insert_into_milvus(client, library, f"plain_{i}"),
            clock=time.perf_counter,
        )
        client.create_alias("plain_0", "plain")
        changes = [change(library, seed) for seed in range(TURNS)]
        sent = [
            seconds(partial(ss.publish, changed, uri, "turn_0", progress=False))
            for changed in changes
        ]
        swapped = [
            seconds(partial(swap, client, changed, f"swapped_{i}"))
            for i, changed in enumerate(changes)
        ]
        print(f"      1% changed: {median(sent):.1f} s to publish the change")
        print(f"      1% changed: {median(swapped):.1f} s for a new collection and its alias")
        verdict("publishing a change, over a new collection", median(sent) / median(swapped), 1,
                at_most=True)  # fmt: skip
    for name in client.list_collections():
        if name.startswith(("turn_", "swapped_", "plain_")):
            for alias in client.list_aliases(name)["aliases"]:
                client.drop_alias(alias)
            client.drop_collection(name)


def change(library: ss.ImageLibrary, seed: int) -> ss.ImageLibrary:
    """Turn one row of a hundred round."""
    rng, rows = np.random.default_rng(seed), np.array(library.embeddings)
    rows[rng.choice(len(rows), len(rows) // 100, replace=False)] *= -1
    return ss.ImageLibrary(rows, library.paths)


def insert_into_milvus(client: Any, library: ss.ImageLibrary, name: str) -> None:
    """Write paths and embeddings as the client of Milvus does, in batches as large as ours."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("path", DataType.VARCHAR, max_length=65_535)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=library.dim)
    index = client.prepare_index_params()
    graph = {"M": 32, "efConstruction": 200}
    index.add_index("vector", index_type="HNSW", metric_type="COSINE", params=graph)
    client.create_collection(name, schema=schema, index_params=index)
    for start in range(0, len(library), BATCH_ROWS):
        block = slice(start, start + BATCH_ROWS)
        columns = zip(library.paths[block].tolist(), library.embeddings[block], strict=True)
        rows = [{"id": i, "path": p, "vector": v} for i, (p, v) in enumerate(columns, start)]
        client.insert(name, rows)
    client.flush(name)


def swap(client: Any, library: ss.ImageLibrary, name: str) -> None:
    """Make a new collection, and let the alias name it."""
    insert_into_milvus(client, library, name)
    client.alter_alias(name, "plain")


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
    library: ss.ImageLibrary,
    publish: Callable[[int], object],
    insert: Callable[[int], object],
    clock: Callable[[], float] = time.process_time,
) -> None:
    """Publish and insert in turns; print rows per second, and the median ratio by a clock."""
    clocks = {"CPU second of this process": time.process_time, "second": time.perf_counter}
    spent = [[measured(call, i, clocks) for call in (publish, insert)] for i in range(TURNS)]
    for place, name in enumerate(("published", "inserted plainly")):
        for unit in clocks:
            rate = len(library) / median([turn[place][unit] for turn in spent])
            print(f"      {len(library):,} x {library.dim}: {rate:,.0f} rows {name} a {unit}")
    for unit, read in clocks.items():
        ratios = [plain[unit] / published[unit] for published, plain in spent]
        print(f"      of a plain insert's rate, by the {unit}: "
              f"{' '.join(f'{ratio:.2f}' for ratio in ratios)}")  # fmt: skip
        if read is clock:
            verdict("rate of publication, over a plain insert", median(ratios), 0.7)


def measured(
    call: Callable[[int], object], turn: int, clocks: dict[str, Callable[[], float]]
) -> dict[str, float]:
    starts = {unit: read() for unit, read in clocks.items()}
    call(turn)
    return {unit: read() - starts[unit] for unit, read in clocks.items()}


def insert_into_lance(library: ss.ImageLibrary, database: str, turn: int) -> None:
    """Write paths and embeddings as the client of LanceDB does."""
    import lancedb
    import pyarrow as pa

    numbers = pa.array(library.embeddings.reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(numbers, library.dim)
    table = pa.table({"path": pa.array(library.paths.tolist()), "vector": vectors})
    lancedb.connect(database).create_table(f"plain_{turn}", data=table)


def measure(library: ss.ImageLibrary, uri: str, kind: Any) -> None:
    """Time a publication and one without changes, then searches."""
    count = len(library)
    name = f"{count:,} x {library.dim}"
    publish = partial(ss.publish, library, uri, "benchmark", kind=kind, progress=False)
    print(f"      {name}: {count / seconds(publish):,.0f} rows published a second", flush=True)
    print(f"      {name}: {seconds(publish):.1f} s to publish again, with nothing changed")
    queries = make_queries(library.embeddings, QUERIES)
    with ss.RemoteLibrary(uri, "benchmark") as remote:
        print(
            f"      {name}: {seconds(partial(indexed, uri)):.0f} s until all is indexed", flush=True
        )
        for condition in (None, "0*"):
            compare(f"{name}, where={condition!r}", library, remote, queries, condition)


def indexed(uri: str) -> None:
    """Wait for the server, which indexes by itself."""
    if "://" not in uri:
        return
    from pymilvus import MilvusClient

    client, deadline = MilvusClient(uri), time.monotonic() + INDEX_SECONDS
    rows = next(name for name in client.list_collections() if name.startswith("benchmark_rows"))
    while True:
        state = client.describe_index(rows, "vector")
        # Rows that the server puts together into larger segments wait for an index, and have one.
        if min(state["pending_index_rows"], state["total_rows"] - state["indexed_rows"]) <= 0:
            return
        if time.monotonic() > deadline:
            print(f"      not all is indexed after {INDEX_SECONDS} s")
            return
        time.sleep(1)


def beside_faiss(library: ss.ImageLibrary) -> None:
    """Ask FAISS' own graph, with the effort that finds 0.99 of the nearest of other queries."""
    import faiss

    name = f"{len(library):,} x {library.dim}"
    rows, queries = (
        np.ascontiguousarray(library.embeddings),
        make_queries(library.embeddings, QUERIES),
    )
    graph = faiss.IndexHNSWFlat(library.dim, 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 200
    faiss.omp_set_num_threads(usable_cores())
    print(
        f"      {name}: FAISS, HNSW: built in {seconds(lambda: graph.add(rows)):.0f} s", flush=True
    )
    faiss.omp_set_num_threads(1)
    tuning = make_queries(rows[::-1], QUERIES)
    truths = [nearest(rows, asked) for asked in (tuning, queries)]
    for effort in EFFORTS:
        graph.hnsw.efSearch = effort
        if recall(graph.search(tuning, K)[1], truths[0]) >= 0.99:
            break
    times = [seconds(partial(graph.search, query[None], K)) for query in queries]
    found = recall(graph.search(queries, K)[1], truths[1])
    print(f"      {name}: FAISS, HNSW, efSearch={effort}: {median(times) * 1e3:.2f} ms a query, "
          f"recall@{K} {found:.3f}")  # fmt: skip
    flat = faiss.IndexFlatIP(library.dim)
    flat.add(rows)
    times = [seconds(partial(flat.search, query[None], K)) for query in queries]
    print(f"      {name}: FAISS, flat: {median(times) * 1e3:.2f} ms a query")


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
