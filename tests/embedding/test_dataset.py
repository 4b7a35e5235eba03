"""The pipeline: right rows, only the work that is needed, and nothing lost when it is stopped."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from dataset_cases import LOG, contents, counts, names, paint, paint_forty, stored, wait_for_rows
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.library.skipped import read_skipped

TINY = Path(tiny.__file__)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Forty pictures, seen from the folder above."""
    monkeypatch.chdir(tmp_path)
    return paint_forty()


# What is embedded


def test_rows_are_sorted_paths_and_their_embeddings(dataset):
    backbone = tiny_backbone()
    library = ss.embed_dataset(dataset, "outputs", backbone)
    assert library.paths.tolist() == sorted(path.as_posix() for path in dataset.rglob("*.png"))
    one_by_one = [
        backbone.embed(backbone.prepare(ss.load_image(p))[None])[0] for p in library.paths
    ]
    np.testing.assert_allclose(library.embeddings, one_by_one, atol=1e-6)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (7, 1), (7, 3), (64, 2), (3, 8)])
def test_batches_and_workers_change_nothing(dataset, batch_size, workers):
    backbone = tiny_backbone()
    library = ss.embed_dataset(dataset, "outputs", backbone, batch_size, workers)
    expected = ss.embed_images(list(library.paths), backbone, batch_size=40, workers=1)
    np.testing.assert_allclose(library.embeddings, expected, atol=1e-6)


def test_a_pretrained_backbone_by_name(sample, tmp_path):
    shutil.copytree(sample / "seg_test" / "coffee", tmp_path / "dataset")
    library = ss.embed_dataset(tmp_path / "dataset", tmp_path / "outputs", "efficientnet_lite0")
    assert library.dim == 1280
    assert library.source.backbone == "efficientnet_lite0"
    np.testing.assert_allclose(
        ss.embed_images(library.paths[3], "efficientnet_lite0")[0], library.embeddings[3], atol=1e-5
    )


def test_embed_images_takes_every_kind_in_order():
    image = Image.new("RGB", (9, 7), "red")
    backbone = tiny_backbone()
    both = ss.embed_images([image, np.zeros((5, 5), np.uint8)], backbone)
    assert both.shape == (2, 16)
    assert both.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(both[0], ss.embed_images(image, backbone)[0], atol=1e-6)


def test_embed_images_raises_for_an_unreadable_one(dataset):
    with pytest.raises(ss.ImageError, match=r"cannot read nowhere\.png"):
        ss.embed_images([next(dataset.rglob("*.png")), "nowhere.png"], tiny_backbone())


def test_pytorch_keeps_its_own_threads(dataset):
    before = torch.get_num_threads()
    ss.embed_dataset(dataset, "outputs", tiny_backbone(), workers=2)
    assert torch.get_num_threads() == before


# Only what is needed


def test_an_unchanged_dataset_is_left_alone(dataset, capsys):
    backbone = tiny_backbone()
    ss.embed_dataset(dataset, "outputs", backbone)
    before = {path: path.stat().st_mtime_ns for path in Path("outputs").glob("*.npy")}
    ss.embed_dataset(dataset, "outputs", backbone)
    assert counts(capsys) == (0, 40, 0, 0)
    assert before == {path: path.stat().st_mtime_ns for path in Path("outputs").glob("*.npy")}


def test_new_changed_and_removed_files(dataset, capsys):
    backbone = tiny_backbone()
    ss.embed_dataset(dataset, "outputs", backbone)
    paint(dataset / "a" / "new.png", 100)
    paint(dataset / "a" / "00.png", 101)
    os.utime(dataset / "a" / "00.png", ns=(0, 1))
    (dataset / "b" / "01.png").unlink()
    library = ss.embed_dataset(dataset, "outputs", backbone)
    assert counts(capsys) == (2, 38, 1, 0)
    fresh = ss.embed_dataset(dataset, "fresh", backbone)
    np.testing.assert_array_equal(library.paths, fresh.paths)
    np.testing.assert_allclose(library.embeddings, fresh.embeddings, atol=1e-6)


def test_another_backbone_embeds_all_again_and_says_so(dataset, capsys, caplog):
    ss.embed_dataset(dataset, "outputs", tiny_backbone(seed=0))
    library = ss.embed_dataset(dataset, "outputs", tiny_backbone(seed=1))
    assert counts(capsys) == (40, 0, 0, 0)
    assert "Embedding every image again: the library was made by Sequential" in caplog.text
    np.testing.assert_allclose(
        library.embeddings, ss.embed_images(list(library.paths), tiny_backbone(seed=1)), atol=1e-6
    )


def test_auto_stays_with_the_backbone_of_the_library(dataset, capsys, monkeypatch):
    ss.embed_dataset(dataset, "outputs", "efficientnet_lite0")
    monkeypatch.setattr(
        "simsearch.backbones.weights_download.auto_backbone_name",
        lambda: pytest.fail("asked the network"),
    )
    library = ss.embed_dataset(dataset, "outputs")
    assert counts(capsys) == (0, 40, 0, 0)
    assert library.source.backbone == "efficientnet_lite0"


def test_a_moved_dataset_is_not_embedded_again(dataset, capsys):
    backbone = tiny_backbone()
    ss.embed_dataset(dataset, "outputs", backbone)
    dataset.rename("pictures")
    library = ss.embed_dataset("pictures", "outputs", backbone)
    assert counts(capsys) == (0, 40, 0, 0)
    assert library.paths[0] == "pictures/a/00.png"


def test_a_damaged_library_is_made_anew(dataset, caplog, capsys):
    backbone = tiny_backbone()
    ss.embed_dataset(dataset, "outputs", backbone)
    whole = contents("outputs")
    with Path("outputs/embeddings.npy").open("r+b") as file:
        file.truncate(1000)
    ss.embed_dataset(dataset, "outputs", backbone)
    assert "embeddings.npy is damaged" in caplog.text
    assert counts(capsys) == (40, 0, 0, 0)
    assert contents("outputs") == whole


def test_outputs_inside_the_dataset_are_no_images_of_it(dataset, monkeypatch):
    monkeypatch.chdir(dataset)
    paint(Path("outputs/figure.png"), 7)
    library = ss.embed_dataset(".", "outputs", tiny_backbone())
    assert len(library) == 40
    assert library.paths[0] == "a/00.png"


def test_outputs_may_be_the_folder_of_the_dataset_itself(dataset):
    for embedded in (40, 0):
        library = ss.embed_dataset(dataset, dataset, tiny_backbone(), progress=False)
        assert (len(library), library.report.embedded) == (40, embedded)


# Bad input


@pytest.fixture
def bad_files(dataset):
    """Files that are no good, by the reason that skipped.csv shall give."""
    good = (dataset / "a" / "00.png").read_bytes()
    jpeg = dataset / "whole.jpg"
    Image.effect_noise((64, 64), 50).save(jpeg)
    huge = bytearray(good)
    huge[16:24] = (100_000).to_bytes(4, "big") * 2  # the size in the header: 10 gigapixels
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    files = {
        "empty.jpg": (b"", "the file is empty"),
        "truncated.jpg": (jpeg.read_bytes()[:700], "truncated"),
        "text.jpg": (b"these are words, not pixels", "not a supported image format"),
        "bomb.png": (bytes(huge), "pixels"),
        "new\nline.jpg": (b"", "the file is empty"),
        "größe-象.png": (b"", "the file is empty"),
    }
    for name, (data, _) in files.items():
        (dataset / name).write_bytes(data)
    (dataset / "broken_link.jpg").symlink_to("nowhere")
    reasons = {f"dataset/{name}": reason for name, (_, reason) in files.items()}
    return reasons | {"dataset/broken_link.jpg": "no such file"}


@pytest.fixture
def odd_files(dataset):
    """Files that look bad and are not."""
    Image.new("RGB", (1, 1)).save(dataset / "dot.png")
    Image.new("RGB", (30_000, 1), "blue").save(dataset / "line.png")
    Image.new("RGB", (9, 9)).save(dataset / "png_inside.jpg", format="PNG")
    Image.new("RGB", (9, 9)).save(dataset / "exif.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    return {f"dataset/{name}" for name in ("dot.png", "line.png", "png_inside.jpg", "exif.jpg")}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # pytest has undone simsearch's own filter
def test_bad_files_are_survived_and_reported(dataset, bad_files, odd_files, capsys):
    library = ss.embed_dataset(dataset, "outputs", "efficientnet_lite0")
    assert odd_files <= set(library.paths.tolist())
    assert len(library) == 41 + len(odd_files)
    skipped = dict(read_skipped("outputs"))
    assert skipped.keys() == bad_files.keys()
    for path, reason in bad_files.items():
        assert reason in skipped[path].lower(), path
    assert counts(capsys) == (len(library), 0, 0, len(bad_files))


def test_a_mended_file_joins_the_library(dataset, bad_files, capsys):
    backbone = tiny_backbone()
    ss.embed_dataset(dataset, "outputs", backbone)
    paint(dataset / "bomb.png", 5)
    library = ss.embed_dataset(dataset, "outputs", backbone)
    assert counts(capsys) == (1, 41, 0, len(bad_files) - 1)
    assert "dataset/bomb.png" in library.paths


def test_strict_raises_at_a_bad_file(dataset, bad_files):
    with pytest.raises(ss.ImageError, match="cannot read dataset/"):
        ss.embed_dataset(dataset, "outputs", tiny_backbone(), strict=True)


def test_an_unreadable_folder_is_reported(dataset, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("b/"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    library = ss.embed_dataset(dataset, "outputs", tiny_backbone())
    assert set(library.folders) == {"a", "c"}
    assert read_skipped("outputs") == [("dataset/b/", "unreadable folder: Permission denied")]


def test_images_without_a_finite_embedding_are_skipped(dataset):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 16))
    torch.nn.init.constant_(module[1].bias, torch.nan)
    backbone = ss.load_backbone(
        module, transform=lambda image: torch.zeros(3, 8, 8), device="cpu", precision="float32"
    )
    with pytest.raises(ss.DatasetError, match="none of the 40 images"):
        ss.embed_dataset(dataset, "outputs", backbone)
    assert len(read_skipped("outputs")) == 40


@pytest.mark.parametrize("options", [{"batch_size": -1}, {"workers": -2}])
def test_options_out_of_range(dataset, options):
    with pytest.raises(ss.DatasetError, match="must be at least 1"):
        ss.embed_dataset(dataset, "outputs", tiny_backbone(), **options)


def test_nothing_to_embed_leaves_the_library(dataset):
    ss.embed_dataset(dataset, "outputs", tiny_backbone())
    shutil.rmtree(dataset)
    with pytest.raises(ss.DatasetError, match="no such folder: 'dataset'"):
        ss.embed_dataset(dataset, "outputs", tiny_backbone())
    dataset.mkdir()
    with pytest.raises(ss.DatasetError, match="no images below 'dataset'"):
        ss.embed_dataset(dataset, "outputs", tiny_backbone())
    assert len(ss.ImageLibrary.load("outputs")) == 40


# Stopped


def start(dataset, outputs, seconds=0.02):
    return subprocess.Popen(
        [sys.executable, TINY, str(dataset), str(outputs), str(seconds)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_killed_at_random_it_resumes_and_ends_with_the_same_files(dataset, capsys):
    backbone = tiny_backbone()
    for i in range(40, 160):
        paint(dataset / "abc"[i % 3] / f"{i}.png", i)
    ss.embed_dataset(dataset, "whole", backbone)
    rng = random.Random(0)
    first = ss.embed_dataset(dataset / "a", "outputs", backbone)  # an older library, to be kept
    left = 0
    for _ in range(4):
        process = start(dataset, "outputs")
        wait_for_rows(process, "outputs", left + rng.randrange(1, 30))
        time.sleep(rng.random() * 0.03)
        process.kill()
        process.wait()
        assert stored("outputs") > left  # what the last run stored is still there, and more
        left = stored("outputs")
        np.testing.assert_array_equal(ss.ImageLibrary.load("outputs").paths, first.paths)
    capsys.readouterr()
    ss.embed_dataset(dataset, "outputs", backbone)
    embedded, reused, *_ = counts(capsys)
    assert (embedded, reused) == (160 - left, left)
    assert contents("outputs") == contents("whole")
    assert names("outputs") == names("whole")


@pytest.mark.parametrize("tail", [b'["a/00.png", 1', b"\0" * 20, b'["x.png", 1, 2, 3]\n'])
def test_a_log_that_was_cut_is_used_up_to_the_cut(dataset, capsys, tail):
    process = start(dataset, "outputs")
    wait_for_rows(process, "outputs", 9)
    process.kill()
    process.wait()
    left = stored("outputs")
    with Path("outputs", LOG).open("ab") as file:
        file.write(tail)
    with Path("outputs/unfinished.f32").open("ab") as file:
        file.write(b"half a row")
    backbone = tiny_backbone()
    ss.embed_dataset(dataset, "outputs", backbone)
    assert counts(capsys)[:2] == (40 - left, left)
    ss.embed_dataset(dataset, "whole", backbone)
    assert contents("outputs") == contents("whole")


def test_ctrl_c_stops_within_a_batch_and_keeps_the_work(dataset, capsys):
    process = start(dataset, "outputs", seconds=0.1)
    wait_for_rows(process, "outputs", 1)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=20)
    assert process.returncode != 0
    left = stored("outputs")
    assert 0 < left < 40
    ss.embed_dataset(dataset, "outputs", tiny_backbone())
    assert counts(capsys)[:2] == (40 - left, left)


def test_a_log_of_another_backbone_is_not_used(dataset, capsys):
    process = start(dataset, "outputs")
    wait_for_rows(process, "outputs", 9)
    process.kill()
    process.wait()
    ss.embed_dataset(dataset, "outputs", tiny_backbone(seed=1))
    assert counts(capsys)[:2] == (40, 0)


def test_a_full_disk_is_said_and_loses_nothing(dataset, capsys):
    """A limit on the size of a file stands in for the disk; the kernel enforces both alike."""
    first = ss.embed_dataset(dataset / "a", "outputs", tiny_backbone())

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from tiny import *\n"
        "try: ss.embed_dataset('dataset', 'outputs', tiny_backbone())\n"
        "except ss.LibraryError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(TINY.parent)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot write 'outputs': File too large" in done.stdout
    assert "make room and run again" in done.stdout
    np.testing.assert_array_equal(ss.ImageLibrary.load("outputs").paths, first.paths)
    capsys.readouterr()
    ss.embed_dataset(dataset, "outputs", tiny_backbone())
    embedded, reused, *_ = counts(capsys)
    assert embedded + reused == 40
    assert reused > len(first) / 2
