"""The quick form of trials/hostile_pictures.py, and proof that it can fail."""

import random
import sys
from pathlib import Path

import pytest

TRIALS = Path(__file__).parents[1] / "trials"
sys.path.insert(0, str(TRIALS))

import crafted_files  # noqa: E402
import hostile_pictures  # noqa: E402
from hostile_mutator import mutate  # noqa: E402
from picture_files import encode, ihdr, ordinary, picture, png  # noqa: E402
from PIL import Image  # noqa: E402

from simsearch.errors import ImageError  # noqa: E402
from simsearch.images.decode import load_image  # noqa: E402
from simsearch.web.decoder_pool import DecoderPool  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of processes are Linux's")
FAMILIES = ["avif", "bmp", "gif", "heic", "ico", "jpeg", "png", "ppm", "tiff", "webp", "other"]


@pytest.fixture(scope="module")
def files():
    """All but pictures of many megapixels, which take seconds."""
    return ordinary() | crafted_files.crafted(large=False)


def test_whatever_the_bytes_the_outcome_is_a_picture_or_one_typed_error(files):
    assert {crafted_files.family_of(name) for name in files} == set(FAMILIES)
    found = hostile_pictures.run_family("png", files, 400, seed=0)
    assert found["faults"] == {}
    assert set(found["outcomes"]) == {"read", "refused"}
    assert sum(found["outcomes"].values()) == found["files"] + found["mutants"]
    assert found["files"] > 400
    assert found["mutants"] == 400
    assert min(found["outcomes"].values()) > 150


def test_no_file_ends_a_servers_decoder_or_holds_it_up(files):
    pool = DecoderPool(1, 10**8)
    reasons = set()
    try:
        for data in [data for name, data in files.items() if "cut at" not in name]:
            try:
                assert pool.thumbnail(data, 128, 80, b"").startswith(b"\xff\xd8")
            except ImageError as error:
                reasons.add(error.reason)
    finally:
        pool.close()
    assert len(reasons) > 20
    ended = ("the decoder failed", "no decoder can", "decoding it took", "it takes too much memory")
    assert not [each for each in reasons if each.startswith(ended)]


def test_what_programs_write_is_read_and_what_is_no_picture_is_refused():
    for name, data in ordinary().items():
        outcome, fault = hostile_pictures.outcome_of(load_image, data)
        is_read = name.partition(" ")[0] not in {"other", "ico", "ppm"}
        assert (outcome.startswith("read"), fault) == (is_read, ""), (name, outcome)


@pytest.mark.parametrize(
    ("way", "fault"),
    [
        (lambda data: {}[data], "KeyError"),
        (lambda data: Image.new("L", (3, 3)), "a picture of mode L"),
        (lambda data: sys.exit(3), "SystemExit"),
    ],
)
def test_another_outcome_is_a_fault(way, fault):
    assert fault in hostile_pictures.outcome_of(way, b"x")[1]


def test_a_file_that_takes_too_long_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(hostile_pictures, "SECONDS", -1.0)
    judge = hostile_pictures.Judge(tmp_path, "png")
    judge.read(encode(picture(), "PNG"))
    ((fault, name),) = judge.faults.items()
    assert fault.startswith("slow")
    assert (tmp_path / name).read_bytes() == encode(picture(), "PNG")


def test_a_process_that_ends_is_a_fault_and_another_one_goes_on(monkeypatch):
    begun = []

    def work(folder, given):
        begun.append(given[: given.index("--seed")])
        judge = hostile_pictures.Judge(folder, "png")
        for data in sorted((folder / "corpus").iterdir()):
            judge.read(data.read_bytes())
            judge.store()
            if len(begun) == 1:
                return -11
        return 0

    monkeypatch.setattr(hostile_pictures, "work_apart", work)
    files = {f"png {n}": png(ihdr(n, n)) for n in range(1, 4)}
    found = hostile_pictures.in_processes("png", files, 3, 0, whole=True)
    assert found["faults"] == {"the process ended: -11": files["png 1"]}
    assert begun == [["--mutants", "3"], ["--mutants", "1"]]


def test_mutants_are_the_same_for_a_seed_and_differ_from_the_file():
    data = encode(picture(), "PNG")
    others = [encode(picture("L"), "GIF"), encode(picture(), "JPEG")]
    made = [mutate(data, random.Random(i), others) for i in range(200)]
    assert made == [mutate(data, random.Random(i), others) for i in range(200)]
    assert len(set(made)) > 180
    assert sum(each == data for each in made) < 10
