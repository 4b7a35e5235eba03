"""Folders that a stranger has made: links are not followed, crafted files are one typed error."""

import hashlib
import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.errors import LibraryError, SimsearchError

MADE = (
    *("embeddings.npy", "image_paths.npy", "file_stats.npy", "file_digests.npy", "manifest.json"),
    *("skipped.csv", "unfinished.f32", "unfinished.jsonl", ".lock", ".sketch.lock"),
    *("sketch.npy", "sketch.json", "signatures.npy", "signatures.json", ".signatures.lock"),
    *("index.faiss", "index.json", "not_duplicates.csv"),
)
LINKS = (*MADE, *(f"{name}.part" for name in MADE), *(f".next/{name}" for name in MADE), ".next")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A library of six pictures, beside its dataset."""
    place = tmp_path_factory.mktemp("strange")
    rng = np.random.default_rng(0)
    (place / "dataset").mkdir()
    for i in range(6):
        pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"dataset/{i}.png")
    embed(place)
    return place / "outputs"


def embed(place):
    backbone = tiny_backbone()
    return ss.embed_dataset(place / "dataset", place / "outputs", backbone, progress=False)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("target", ["file", "folder", "nothing"])
def test_no_link_in_a_library_is_followed(outputs, tmp_path, name, target):
    """Whatever links a stranger puts in: embedding more and searching write nothing elsewhere."""
    shutil.copytree(outputs.parent, tmp_path / "work")
    work, theirs = tmp_path / "work", tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "letter.txt").write_text("dear")
    (theirs / "manifest.json").write_text("{}")
    before = contents(theirs)
    link = work / "outputs" / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to({"file": theirs / "letter.txt", "folder": theirs}.get(target, theirs / "new"))
    shutil.copy(work / "dataset/0.png", work / "dataset/copy.png")
    for act in (
        lambda: embed(work),
        lambda: ss.duplicates(ss.ImageLibrary.load(work / "outputs"), progress=False),
        lambda: ss.search(ss.ImageLibrary.load(work / "outputs"), 0),
    ):
        with suppress(SimsearchError):
            act()
    assert contents(theirs) == before
    assert [path.name for path in sorted(theirs.iterdir())] == ["letter.txt", "manifest.json"]


def seal(folder):
    """Write a manifest whose digests fit the files, as a stranger can."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, record in manifest["files"].items():
        data = (folder / name).read_bytes()
        record |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "mtime_ns": 0}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def use(folder):
    library = ss.ImageLibrary.load(folder)
    matches = ss.search(library, 0, k=3)
    assert all(np.isfinite(match.score) for match in matches)


@contextmanager
def may_be_unusable():
    """No error at all, or the one that says what is wrong with the files."""
    try:
        yield
    except LibraryError as error:
        if "the library in" not in str(error) or "cannot be used" not in str(error):
            raise


HEADER = 128  # bytes of an .npy file


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["embeddings.npy", "image_paths.npy", "file_stats.npy"]),
    edits=st.lists(
        st.tuples(st.integers(0, HEADER - 1), st.integers(0, 255)), min_size=1, max_size=4
    ),
)
def test_crafted_arrays_are_one_typed_error(outputs, tmp_path_factory, name, edits):
    folder = Path(shutil.copytree(outputs, tmp_path_factory.mktemp("crafted") / "outputs"))
    data = bytearray((folder / name).read_bytes())
    for place, value in edits:
        data[place] = value
    (folder / name).write_bytes(data)
    seal(folder)
    with may_be_unusable():
        use(folder)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(deadline=None, max_examples=200, suppress_health_check=[*HealthCheck])
@given(data=st.data(), value=VALUES)
def test_crafted_manifests_are_one_typed_error(outputs, tmp_path_factory, data, value):
    folder = Path(shutil.copytree(outputs, tmp_path_factory.mktemp("crafted") / "outputs"))
    manifest = json.loads((folder / "manifest.json").read_text())
    node, keys = manifest, []
    while isinstance(node, dict) and node and (not keys or data.draw(st.booleans())):
        keys.append(data.draw(st.sampled_from(sorted(node))))
        parent, node = node, node[keys[-1]]
    if data.draw(st.booleans()):
        parent[keys[-1]] = value
    else:
        del parent[keys[-1]]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with may_be_unusable():
        use(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "[]", '"x"', "\ud800", "{}", "NaN"])
def test_manifests_that_are_none(outputs, tmp_path, text):
    shutil.copytree(outputs, tmp_path / "outputs")
    (tmp_path / "outputs/manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(LibraryError, match="cannot be used"):
        ss.ImageLibrary.load(tmp_path / "outputs")


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1e30])
def test_rows_that_are_no_unit_vectors_are_not_ranked_in_silence(outputs, tmp_path, value):
    shutil.copytree(outputs, tmp_path / "outputs")
    rows = np.load(tmp_path / "outputs/embeddings.npy")
    rows[2] = value
    np.save(tmp_path / "outputs/embeddings.npy", rows)
    seal(tmp_path / "outputs")
    with pytest.raises(LibraryError, match=r"embeddings.npy"):
        use(tmp_path / "outputs")


DEVICES = ("manifest.json", "embeddings.npy", "image_paths.npy", "skipped.csv")
DEVICES += ("not_duplicates.csv", "signatures.json", "sketch.json", "index.json")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such devices")
@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("kind", ["endless", "pipe"])
def test_nothing_but_files_is_read(outputs, tmp_path, name, kind):
    """Neither memory nor time without end, whatever stands in for a file."""
    folder = Path(shutil.copytree(outputs, tmp_path / "outputs"))
    (folder / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    with suppress(LibraryError):
        library = ss.ImageLibrary.load(folder)
        assert str(library.report)
        ss.duplicates(library, progress=False)
