"""Parts beside a library: what is embedded, only what is missing, and nothing lost on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
from dataset_cases import paint, paint_forty
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.backbones.windows import embed_windows
from simsearch.embedding.batching import Batch, embed_batches
from simsearch.embedding.parts import embed_parts
from simsearch.images.windows import grid_windows
from simsearch.library.part_writer import PartWriter
from simsearch.library.parts import open_parts, read_record
from simsearch.library.user_key import signed

SCRIPT = """
import sys, tiny
import simsearch as ss
tiny.pause = float(sys.argv[1])
ss.embed_dataset("dataset", "outputs", tiny.tiny_backbone(), parts="grid", workers=1)
"""


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Forty pictures, seen from the folder above."""
    monkeypatch.chdir(tmp_path)
    return paint_forty()


@pytest.fixture
def library(dataset):
    return ss.embed_dataset(dataset, "outputs", tiny_backbone(), parts="grid", progress=False)


def rows_of(library, row):
    parts = open_parts(library)
    return parts.parts[parts.of(row)]


def expected_rows(path):
    image = ss.load_image(path)
    boxes = grid_windows(image.size, (2, 3)).round()
    return boxes, embed_windows(tiny_backbone(), image, boxes)


def check_all(library):
    """Hold every part against one that is embedded on its own."""
    assert open_parts(library).missing == 0
    for row, path in enumerate(library.paths.tolist()):
        boxes, rows = expected_rows(path)
        found = rows_of(library, row)
        np.testing.assert_array_equal(found["box"], boxes)
        np.testing.assert_allclose(found["row"], rows, atol=1e-3)


def count_embedded(monkeypatch):
    """Record how many parts are written from now on."""
    written, append = [], PartWriter.append

    def counted(self, key, size, parts, boxes=0):
        written.append(len(parts))
        append(self, key, size, parts, boxes)

    monkeypatch.setattr(PartWriter, "append", counted)
    return written


def test_each_part_is_what_its_window_alone_embeds_to(library):
    check_all(library)
    assert read_record(Path("outputs")).parts == 40 * 13


def test_nothing_is_made_for_who_does_not_ask(dataset):
    library = ss.embed_dataset(dataset, "outputs", tiny_backbone())
    assert not list(Path("outputs").glob("parts*"))
    with pytest.raises(ss.QueryError, match=r'no parts.*parts="grid"'):
        ss.search(library, 0, parts=True)


def test_parts_are_made_here_whoever_embeds_the_pictures(library, dataset):
    """By an executor of one's own, which embeds whole pictures alone."""
    used = []

    def elsewhere(sources, backbone, batch_size, workers, **options):
        used.append(len(sources))
        return embed_batches(sources, backbone, batch_size, workers, **options)

    other = ss.embed_dataset(
        dataset, "others", tiny_backbone(), engine=elsewhere, parts="grid", progress=False
    )
    assert used == [40]
    assert open_parts(other).parts.tobytes() == open_parts(library).parts.tobytes()


class Cluster:
    """An executor that embeds parts, too: two at a time, and the last one kills its process."""

    def __init__(self):
        self.asked = []

    def __call__(self, *given, **options):
        return embed_batches(*given, **options)

    def embed_parts(self, sources, backbone, embed, workers):
        self.asked += sources
        last = len(sources) - 1
        for start in range(0, last, 2):
            yield embed(sources[start : min(start + 2, last)], start, backbone)
        dead = ss.ImageError("its process dies")
        yield Batch([], np.empty((0, backbone.dim), np.float32), [(last, dead)])


def test_a_cluster_embeds_the_parts_that_it_can(library, dataset, caplog, monkeypatch):
    cluster = Cluster()
    plain = ss.embed_dataset(dataset, "others", tiny_backbone(), progress=False)
    head = ss.ProjectionHead([(np.eye(5, plain.dim), np.zeros(5))])
    plain.with_head(head).save("others")
    plain = ss.ImageLibrary.as_stored("others", backbone=tiny_backbone())
    known = {row: str(plain.paths[row]) for row in range(40)}
    os.utime(known[3], ns=(0, 1))  # changed since
    Path(known[5]).write_bytes(b"no picture")
    os.utime(known[5], ns=(plain.stats[5, 1],) * 2)
    monkeypatch.setattr(type(plain), "is_current", lambda _, row: row != 3)
    embed_parts(plain, "grid", None, cluster, progress=False)
    assert cluster.asked == [path for row, path in known.items() if row != 3]
    parts = open_parts(plain)
    assert [row for row in range(40) if parts.stored[row] < 0] == [3, 5, 39]
    assert "3 of 40 pictures have no parts" in caplog.text
    expected = head(rows_of(library, 7)["row"].astype(np.float32))
    np.testing.assert_allclose(parts.parts[parts.of(7)]["row"], expected, atol=2e-3)


def test_only_new_and_changed_pictures_are_embedded(library, dataset, monkeypatch):
    written = count_embedded(monkeypatch)
    ss.embed_dataset(dataset, "outputs", tiny_backbone())
    assert written == []
    paint(dataset / "a" / "new.png", 100)
    paint(dataset / "a" / "00.png", 101)
    (dataset / "b" / "01.png").rename(dataset / "c" / "moved.png")
    (dataset / "b" / "04.png").unlink()
    later = ss.embed_dataset(dataset, "outputs", tiny_backbone())  # parts follow unasked
    assert written == [13, 13]
    check_all(later)


def test_a_library_opened_before_keeps_its_parts(library, dataset):
    before = ss.search(library, 3, k=5, parts=True)
    paint(dataset / "a" / "new.png", 100)
    ss.embed_dataset(dataset, "outputs", tiny_backbone())
    assert ss.search(library, 3, k=5, parts=True) == before


def test_another_backbone_makes_all_parts_anew(library, dataset):
    other = tiny_backbone(seed=1)
    later = ss.embed_dataset(dataset, "outputs", other)
    image = ss.load_image(str(later.paths[0]))
    expected = embed_windows(other, image, grid_windows(image.size, (2, 3)).round())
    np.testing.assert_allclose(rows_of(later, 0)["row"], expected, atol=1e-3)
    assert open_parts(library) is None  # whose rows they are not any more
    assert len(list(Path("outputs").glob("parts-*"))) == 2


def test_parts_of_pictures_that_left_are_dropped_in_the_end(library, dataset):
    for path in sorted(dataset.rglob("*.png"))[:30]:
        path.unlink()
    later = ss.embed_dataset(dataset, "outputs", tiny_backbone(), allow_shrink=True)
    assert read_record(Path("outputs")).parts == 10 * 13
    check_all(later)
    assert len(list(Path("outputs").glob("parts-*"))) == 2


def start(pause):
    path = os.pathsep.join([str(Path(tiny.__file__).parent), str(Path(ss.__file__).parents[1])])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(pause)],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def test_a_killed_run_is_taken_up(dataset, monkeypatch):
    process, log = start(0.004), Path("outputs/parts-0.log")
    while process.poll() is None and not (log.exists() and log.stat().st_size > 400):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert log.stat().st_size > 400, "it ended before it could be killed"
    assert not Path("outputs/parts.json").exists()
    written = count_embedded(monkeypatch)
    library = ss.embed_dataset(dataset, "outputs", tiny_backbone(), parts="grid")
    assert 0 < len(written) < 40
    check_all(library)


@pytest.mark.parametrize("cut", ["rows", "log"])
@pytest.mark.parametrize("left", [0, 1, 5, 700])
def test_what_a_dying_machine_leaves_is_cut_to_what_is_whole(library, dataset, cut, left):
    """As if the last run had died while it appended: `parts.json` of before, torn files."""
    Path("outputs/parts.json").unlink()
    way = {"made_as": ["grid", 1, library.fingerprint, 16]}
    Path("outputs/parts-0.json").write_text(json.dumps(signed(way, "parts-0.json")))
    file = Path(f"outputs/parts-0.{cut}")
    with file.open("r+b") as stream:
        stream.truncate(left)
    check_all(ss.embed_dataset(dataset, "outputs", tiny_backbone(), parts="grid"))


@pytest.mark.parametrize("name", ["parts-0.rows", "parts-0.log", "parts.json"])
def test_damaged_parts_are_noticed_and_made_anew(library, dataset, name):
    file = Path("outputs") / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x55
    file.write_bytes(data)
    fresh = ss.ImageLibrary.load("outputs", backbone=tiny_backbone())
    if name == "parts-0.rows":  # whose bytes all count
        assert open_parts(fresh) is None
    check_all(ss.embed_dataset(dataset, "outputs", tiny_backbone(), parts="grid"))


def test_a_copied_library_has_its_parts(library, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in Path("outputs").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    check_all(ss.ImageLibrary.load(copy, backbone=tiny_backbone()))


def test_what_somebody_elses_run_left_is_not_taken_up(library, dataset, monkeypatch, tmp_path):
    Path("outputs/parts.json").unlink()
    way = {"made_as": ["grid", 1, library.fingerprint, 16]}
    Path("outputs/parts-0.json").write_text(json.dumps(signed(way, "parts-0.json")))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    written = count_embedded(monkeypatch)
    check_all(ss.embed_dataset(dataset, "outputs", tiny_backbone(), parts="grid"))
    assert len(written) == 40


def test_two_writers_do_not_mix(library):
    busy = pytest.raises(ss.LibraryBusyError, match="another process makes parts")
    with PartWriter(Path("outputs"), read_record(Path("outputs"))), busy:
        embed_parts(library, "grid")


def test_an_unknown_kind_is_named(dataset):
    with pytest.raises(ss.QueryError, match=r"parts='tiles': give grid or regions, or a table"):
        ss.embed_dataset(dataset, "outputs", tiny_backbone(), parts="tiles")


def test_a_picture_that_changed_since_has_no_parts_and_it_is_said(dataset, caplog):
    library = ss.embed_dataset(dataset, "outputs", tiny_backbone())
    paint(dataset / "a" / "00.png", 101)
    os.utime(dataset / "a" / "00.png", ns=(0, 1))
    embed_parts(library, "grid")
    assert "1 of 40 pictures have no parts" in caplog.text
    (note,) = ss.search(library, 5, parts=True).notes
    assert note.startswith("1 of 40 pictures have no parts")


def test_regions_need_a_network_with_a_map(dataset):
    with pytest.raises(ss.BackboneError, match='give parts="grid"'):
        ss.embed_dataset(dataset, "outputs", tiny_backbone(), parts="regions")


def test_nothing_of_a_long_picture_is_left_out(dataset):
    pixels = np.zeros((20, 600, 3), np.uint8)
    Image.fromarray(pixels).save("dataset/a/long.png")
    library = ss.embed_dataset(dataset, "outputs", tiny_backbone(), parts="grid")
    boxes = rows_of(library, library.find("dataset/a/long.png"))["box"]
    for level in (1, 2, 3):
        high = boxes[np.isclose(boxes[:, 3] - boxes[:, 1], 20 if level == 1 else 24 / level)]
        seen = np.zeros(600, bool)
        for left, _, right, _ in high:
            seen[left:right] = True
            assert right - left < 2 * 20 * (1.2 if level > 1 else 1.4)
        assert seen.all()


def test_the_command_line_makes_parts_and_searches_them(library, capsys, monkeypatch):
    from simsearch.cli import commands
    from simsearch.cli.parser import build_parser

    given = build_parser().parse_args(["embed", "dataset", "outputs", "--parts", "grid"])
    assert given.parts == "grid"
    monkeypatch.setattr(commands, "_load", lambda *_: library)
    options = vars(build_parser().parse_args(["search", "outputs", "3", "-k", "2", "--parts"]))
    options.pop("run")(**options)
    assert "2 matches for dataset/" in capsys.readouterr().out
