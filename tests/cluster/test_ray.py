"""Embedding on a Ray cluster of two workers, beside the local executor; workers that die."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import tiny_ray
from dataset_cases import FILES, contents, counts, names, paint, paint_forty, stored, wait_for_rows
from PIL import Image
from tiny import thumbnail, tiny_backbone
from tiny_ray import (
    AWAITED,
    DEADLY,
    backbone_with,
    deadly_thumbnail,
    failing_thumbnail,
    slow_thumbnail,
)

import simsearch as ss
from simsearch.cluster.ray import Share, check_address, first_cause
from simsearch.embedding import rows as embedding_rows
from simsearch.library.parts import open_parts
from simsearch.library.signatures import STORE
from simsearch.library.skipped import read_skipped
from simsearch.library.stored_rows import RowLog

ray = pytest.importorskip("ray")
from simsearch.cluster import ray_workers  # noqa: E402 (it imports Ray)
from simsearch.cluster.ray_workers import Job, RayRun, Worker, find_reference  # noqa: E402

TINY = Path(tiny_ray.__file__)


@pytest.fixture(scope="module")
def cluster():
    """Two processors, as two workers take them; return the address."""
    context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Forty pictures, seen from the folder above."""
    monkeypatch.chdir(tmp_path)
    return paint_forty()


def same_outputs(one, other):
    """Tell whether two outputs hold the same library and list the same files as skipped."""
    return contents(one) == contents(other) and read_skipped(one) == read_skipped(other)


# The same library


def test_named_backbone_and_bad_files(cluster, dataset, capsys):
    (dataset / "empty.jpg").touch()
    (dataset / "text.jpg").write_bytes(b"these are words, not pixels")
    (dataset / "a/broken_link.jpg").symlink_to("nowhere")
    (dataset / "b/.hidden.png").write_bytes(b"not looked at")
    ss.embed_dataset(dataset, "local", "efficientnet_lite0")
    library = ss.embed_dataset(dataset, "cluster", "efficientnet_lite0", engine="ray")
    assert counts(capsys) == (40, 0, 0, 3)
    assert same_outputs("local", "cluster")
    assert names("local") == names("cluster")
    assert library.source.backbone == "efficientnet_lite0"


def test_workers_make_signatures_on_their_way(cluster, dataset, monkeypatch):
    monkeypatch.setattr(embedding_rows, "SIGNED_FILES", 40)
    for engine in ("local", "ray"):
        ss.embed_dataset(dataset, engine, "efficientnet_lite0", engine=engine)
    local, cluster = (RowLog(STORE, Path(engine)).read() for engine in ("local", "ray"))
    assert len(local) == 40
    assert sorted(row.tobytes() for row in local) == sorted(row.tobytes() for row in cluster)


def test_only_new_and_changed_files_are_embedded(cluster, dataset, capsys, caplog, monkeypatch):
    """By a module of the user's own, into a library that the local executor has begun."""
    backbone = tiny_backbone()
    ss.embed_dataset(dataset, "outputs", backbone)
    paint(dataset / "a/new.png", 100)
    paint(dataset / "a/00.png", 101)
    os.utime(dataset / "a/00.png", ns=(0, 1))
    (dataset / "b/01.png").unlink()
    monkeypatch.setattr(ray_workers, "START_SECONDS", 0.01)
    ss.embed_dataset(dataset, "outputs", backbone, engine=ss.RayEngine(threads=2))
    assert counts(capsys) == (2, 38, 1, 0)
    assert "no worker has started yet" in caplog.text
    ss.embed_dataset(dataset, "fresh", backbone, batch_size=1)
    assert contents("outputs").keys() == set(FILES)
    np.testing.assert_allclose(*map(rows, ("outputs", "fresh")), atol=1e-6)
    assert contents("outputs")["file_stats.npy"] == contents("fresh")["file_stats.npy"]


def rows(outputs):
    return ss.ImageLibrary.load(outputs).embeddings


def test_nothing_to_embed_needs_no_cluster(dataset, capsys, monkeypatch):
    ss.embed_dataset(dataset, "outputs", tiny_backbone())
    monkeypatch.setattr(ray, "is_initialized", lambda: pytest.fail("went to the cluster"))
    ss.embed_dataset(dataset, "outputs", tiny_backbone(), engine="ray")
    assert counts(capsys) == (0, 40, 0, 0)


def test_archive_for_a_library_with_a_head(cluster, dataset, capsys):
    backbone = tiny_backbone()
    archive = shutil.make_archive("photos", "zip", ".", "dataset")
    root = f"zip://dataset::{archive}"
    library = ss.embed_dataset(root, "plain", backbone)
    head = ss.ProjectionHead([(np.random.default_rng(0).normal(size=(5, 16)), np.zeros(5))])
    library.with_head(head).save("local")
    shutil.copytree("local", "cluster")
    for i in range(5):
        paint(Path(f"dataset/new/{i}.png"), 200 + i)
    shutil.make_archive("photos", "zip", ".", "dataset")
    ss.embed_dataset(root, "local", backbone)
    capsys.readouterr()
    library = ss.embed_dataset(root, "cluster", backbone, engine="ray")
    assert counts(capsys) == (5, 40, 0, 0)
    assert same_outputs("local", "cluster")
    assert library.dim == 5
    assert library.paths[-1] == f"zip://dataset/new/4.png::{archive}"
    picture = ss.load_image("dataset/new/4.png")
    np.testing.assert_array_equal(ss.load_image(str(library.paths[-1])), picture)
    assert ss.search(library, picture, k=1)[0].path == library.paths[-1]


BOXES = "path,left,top,right,bottom,label\na/00.png,0,0,20,20,hat\nb/01.png,5,5,30,30,bag\n"


@pytest.mark.parametrize("kind", ["boxes.csv", "regions"])
def test_workers_embed_parts_as_this_machine_does(cluster, dataset, kind, caplog):
    if kind == "regions":  # which needs a network that pools a map
        for file in [*dataset.rglob("*.png")][4:]:
            file.unlink()
    Path("boxes.csv").write_text(BOXES)
    backbone = "efficientnet_lite0" if kind == "regions" else tiny_backbone()
    kept = {"parts": kind, "progress": False}
    local = ss.embed_dataset(dataset, "local", backbone, **kept)
    library = ss.embed_dataset(dataset, "cluster", backbone, engine="ray", **kept)
    one, other = open_parts(local), open_parts(library)
    assert one.missing == other.missing == 0
    assert len(one.parts) == len(other.parts) > 0
    for row in range(len(library)):
        ours, theirs = one.parts[one.of(row)], other.parts[other.of(row)]
        np.testing.assert_array_equal(ours["box"], theirs["box"])
        np.testing.assert_allclose(ours["row"], theirs["row"], atol=1e-3)  # of float16
        labels = [one.record.labels[i] if i >= 0 else "" for i in ours["label"]]
        assert labels == [other.record.labels[i] if i >= 0 else "" for i in theirs["label"]]
    assert "no parts" not in caplog.text


# Workers that die


@pytest.mark.slow
def test_killed_worker_is_replaced(cluster, dataset, capsys, caplog):
    backbone = backbone_with(slow_thumbnail)
    ss.embed_dataset(dataset, "local", backbone, 2)
    Path("processes").mkdir()
    killed = []

    def kill():
        workers = {int(note.name) for note in Path("processes").iterdir()} - {os.getpid()}
        killed.append(workers.pop())
        Path("awaited").mkdir()  # or else the other one may have done it all before
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=when_rows_are_logged, args=(4, kill))
    killer.start()
    ss.embed_dataset(dataset, "outputs", backbone, 2, engine="ray")
    killer.join()
    assert counts(capsys) == (40, 0, 0, 0)
    assert "A worker has died" in caplog.text
    assert same_outputs("local", "outputs")
    assert len(names("processes")) >= AWAITED


@pytest.mark.slow
def test_image_that_kills_its_worker_is_skipped(cluster, dataset, monkeypatch):
    monkeypatch.setattr(ray_workers, "BATCH_DEATHS", 1)  # each costs the start of a process
    monkeypatch.setattr(ray_workers, "IMAGE_DEATHS", 1)
    Image.new("RGB", DEADLY).save(dataset / "b/deadly.png")
    backbone = backbone_with(deadly_thumbnail)
    library = ss.embed_dataset(dataset, "outputs", backbone, engine="ray")
    assert len(library) == 40
    assert read_skipped("outputs") == [("dataset/b/deadly.png", "the process that reads it dies")]


def test_images_of_a_batch_that_kills_workers_are_tried_alone():
    """By hand: three deaths of the batch, then two of one of its images, and the others go on."""
    run = RayRun.__new__(RayRun)
    run._jobs, run._suspects = iter([]), deque()
    run._waiting, run._dim = {}, 16
    job = Job(range(4, 6))
    for deaths in (1, 2):
        assert run._retry(job) is None
        job = run._next_job()
        assert (job.positions, job.deaths) == (range(4, 6), deaths)
    assert run._retry(job) is None
    run._waiting = {"another": ("worker", job)}
    assert run._next_job() is None  # it would share the blame
    run._waiting = {}
    first = run._next_job()
    assert first == (range(4, 5), 0, True)
    assert run._retry(first) is None
    assert run._next_job().positions == range(5, 6)
    again = run._next_job()
    assert again == (range(4, 5), 1, True)
    (position, error), *others = run._retry(again).failures
    assert (position, error.reason, others) == (4, "the process that reads it dies", [])
    assert run._next_job() is None


def when_rows_are_logged(rows, then):
    """Call a function once a run has logged this many rows."""
    while stored("outputs") < rows:
        time.sleep(0.002)
    then()


def interrupt():
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def start(cluster, dataset, stderr=subprocess.DEVNULL):
    return subprocess.Popen(
        [sys.executable, TINY, str(dataset), "outputs"],
        env=os.environ | {"RAY_ADDRESS": cluster},
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
    )


# Ctrl-C between the opening of a file and the `with` that closes it leaves that to Python.
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_interrupted_and_killed_run_resumes(cluster, dataset, capsys):
    backbone = backbone_with(slow_thumbnail)
    ss.embed_dataset(dataset, "local", backbone, 2)
    interrupter = threading.Thread(target=when_rows_are_logged, args=(4, interrupt))
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        ss.embed_dataset(dataset, "outputs", backbone, 2, engine="ray")
    interrupter.join()
    interrupted = stored("outputs")
    assert 4 <= interrupted < 40
    process = start(cluster, dataset)
    wait_for_rows(process, "outputs", interrupted + 4)
    process.kill()
    process.wait()
    left = stored("outputs")
    assert interrupted < left < 40
    capsys.readouterr()
    ss.embed_dataset(dataset, "outputs", backbone, 2, engine="ray")
    assert counts(capsys) == (40 - left, left, 0, 0)
    assert same_outputs("local", "outputs")
    assert names("local") == names("outputs")


def test_error_in_the_users_own_code_is_raised(cluster, dataset):
    Image.new("RGB", DEADLY).save(dataset / "b/wrong.png")
    backbone = backbone_with(failing_thumbnail)
    for engine in ("local", "ray"):
        with pytest.raises(RuntimeError, match="the user's own code"):
            ss.embed_dataset(dataset, engine, backbone, engine=engine)
    assert not cluster_is_busy()


def cluster_is_busy():
    """Tell whether workers still hold the cluster a minute after a run."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if ray.available_resources().get("CPU") == 2:
            return False
        time.sleep(0.1)
    return True


# A cluster of its own, on the command line


@pytest.mark.slow
def test_command_line_starts_and_ends_ray(dataset, tmp_path):
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for file in sorted(dataset.rglob("*.png")):
            archive.write(file)
    line = "embed zip://::photos.zip outputs --backbone efficientnet_lite0 --engine ray --workers 1"
    script = f"import sys; from simsearch.cli.main import main; sys.exit(main({line.split()}))"
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "40 embedded" in done.stdout
    ss.embed_dataset(dataset, "local", "efficientnet_lite0")
    np.testing.assert_array_equal(rows("local"), rows("outputs"))


# Errors


def test_unknown_engine_is_refused(dataset):
    with pytest.raises(ss.EngineError, match="engine='spark': choose local or ray"):
        ss.embed_dataset(dataset, "outputs", tiny_backbone(), engine="spark")
    assert not Path("outputs").exists()


def test_missing_ray_names_the_extra(dataset, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ss.MissingExtraError, match=r'pip install "simsearch\[cluster\]"'):
        ss.embed_dataset(dataset, "outputs", tiny_backbone(), engine="ray")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpus": 0}, "cpus=0: a worker needs more than 0"),
        ({"gpus": -1}, "gpus=-1: a worker needs 0 or more"),
        ({"threads": 0}, "threads=0: a worker needs 1 or more"),
    ],
)
def test_resources_out_of_range_are_refused(options, message):
    with pytest.raises(ss.EngineError, match=message):
        ss.RayEngine(**options)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": -1}])
def test_batch_size_and_workers_out_of_range_are_refused(cluster, dataset, options):
    with pytest.raises(ss.DatasetError, match="must be at least 1"):
        ss.embed_dataset(dataset, "outputs", tiny_backbone(), engine="ray", **options)


@pytest.mark.parametrize(
    ("engine", "nodes", "share"),
    [
        ({}, [{"CPU": 2}], (2, 1, 0, 1)),
        ({"threads": 8}, [{"CPU": 3}, {"CPU": 1}], (4, 1, 0, 8)),
        ({"cpus": 4}, [{"CPU": 7}, {"CPU": 3}, {"CPU": 8}], (3, 4, 0, 4)),
        ({}, [{"CPU": 64}, {"CPU": 16, "GPU": 4}], (4, 4, 1, 4)),
        ({}, [{"CPU": 64, "GPU": 1}], (1, 16, 1, 16)),  # more threads would wait for each other
        ({}, [{"CPU": 2, "GPU": 4}], (4, 0.5, 1, 1)),
        ({"gpus": 0.25}, [{"CPU": 16, "GPU": 1}], (4, 4, 0.25, 4)),
        ({"gpus": 0}, [{"CPU": 4, "GPU": 1}], (4, 1, 0, 1)),
        ({"gpus": 2}, [{"CPU": 16, "GPU": 4}, {"CPU": 8, "GPU": 1}], (2, 8, 2, 8)),
    ],
)
def test_resources_are_divided_among_workers(engine, nodes, share):
    """Hand-computed: no GPU idle, no processor promised twice."""
    assert ss.RayEngine(**engine).share(nodes) == share


def test_no_room_for_a_worker_is_reported():
    with pytest.raises(ss.EngineError, match="no node has room for a worker of 4 CPUs and 0 GPUs"):
        ss.RayEngine(cpus=4).share([{"CPU": 2}, {"CPU": 3}])
    assert ss.RayEngine(cpus=4).share([{"CPU": 2}], workers=3).workers == 3  # which may come


def test_backbone_that_cannot_be_sent_is_refused(cluster, dataset):
    backbone = backbone_with(Guarded())
    with pytest.raises(ss.EngineError, match=r"cannot be sent to other processes: .*lock"):
        ss.embed_dataset(dataset, "outputs", backbone, engine="ray")


class Guarded:
    """A transform with a lock in it."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, image):
        with self.lock:
            return thumbnail(image)


def test_missing_cluster_is_reported(dataset):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_address(f"ray://127.0.0.1:{port}")
    for address in ("", "auto", "local"):
        check_address(address)
    done = start(f"127.0.0.1:{port}", dataset, stderr=subprocess.PIPE)
    errors = done.communicate(timeout=120)[1]
    assert f"EngineError: no Ray cluster answers at RAY_ADDRESS='127.0.0.1:{port}'" in errors


def test_reason_of_a_failed_connection_is_the_one_that_ray_gives_at_the_bottom():
    traced = RuntimeError(
        "no GCS. Last connection error: Traceback\n  File 'x'\n"
        "ray.exceptions.AuthenticationError: RPC error: token is missing. Set RAY_AUTH_TOKEN.\n"
    )
    outer = ConnectionError("Failed to connect to Ray cluster at x")
    outer.__cause__ = traced
    assert first_cause(outer) == "RPC error: token is missing. Set RAY_AUTH_TOKEN."
    assert first_cause(ValueError("bad address")) == "bad address"
    assert first_cause(RuntimeError()) == "RuntimeError"


def make_worker(backbone):
    """Make a worker in this process."""
    worker = Worker.__new__(Worker)
    worker._backbone, worker._share = backbone, Share(1, 1, 0, 1)
    return worker


def test_worker_that_embeds_differently_is_refused(dataset):
    backbone, other = tiny_backbone(0), tiny_backbone(1)
    file = "dataset/a/00.png"
    expected = ss.embed_images(file, backbone)[0]
    make_worker(backbone).check(file, expected)
    make_worker(backbone).check(None, None)
    with pytest.raises(ss.EngineError, match=r"embeds dataset/a/00\.png differently .*cosine"):
        make_worker(other).check(file, expected)
    with pytest.raises(ss.EngineError, match=r"cannot read nowhere\.png, and this program can"):
        make_worker(backbone).check("nowhere.png", expected)


def test_reference_image_is_a_readable_one(dataset):
    (dataset / "a/0.png").touch()
    backbone = tiny_backbone()
    sources = ["dataset/a/0.png", "dataset/a/00.png", "dataset/a/03.png"]
    source, expected = find_reference(sources, backbone)
    assert source == sources[1]
    np.testing.assert_array_equal(expected, ss.embed_images(source, backbone)[0])
    assert find_reference(sources[:1], backbone) == (None, None)
