"""Any tree of files, changed at random between two runs: what the library holds is what an oracle
that looks at contents alone says, and no content that is known is embedded again."""

import os
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.embedding.batching import embed_batches

BACKBONE = tiny_backbone()
# Any bytes that a name may hold; a dot in front would hide it.
PARTS = st.binary(min_size=1, max_size=12).filter(
    lambda part: not set(part) & set(b"/\0") and not part.startswith(b".")
)
NAMES = st.lists(PARTS, min_size=1, max_size=3).map(lambda parts: b"/".join(parts) + b".bmp")
TIMES = st.integers(-(2**62), 2**64)  # ns; from the 19th century to the 26th
CHANGES = st.sampled_from(["keep", "touch", "rename", "delete", "replace", "link", "refuse"])
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def picture(colour):
    """Return the bytes of a small picture, all of one size."""
    pixels = np.random.default_rng(colour).integers(0, 256, (4, 4, 3), np.uint8)
    with tempfile.SpooledTemporaryFile() as file:
        Image.fromarray(pixels).save(file, "BMP")
        file.seek(0)
        return file.read()


class Tree:
    """Files below a folder, by name; a name that cannot be made beside others is left out."""

    def __init__(self, root):
        self.root, self.files = root, {}

    def path(self, name):
        return Path(self.root, os.fsdecode(name))

    def write(self, name, data, time):
        try:
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            self.path(name).write_bytes(data)
        except OSError:  # a file is where a folder should be
            return
        self.set_time(name, time)
        self.files[name] = data

    def set_time(self, name, time):
        try:
            os.utime(self.path(name), ns=(time, time))
        except (OSError, OverflowError):  # this file system cannot hold it
            os.utime(self.path(name))


def embed(tree, outputs, refused=(), **options):
    """Run with an executor that counts and a storage that refuses folders for once."""
    read, scandir = [], os.scandir

    def counting(sources, *args):
        read.extend(Path(source).read_bytes() for source in sources)
        return embed_batches(sources, *args)

    def scan(path):
        if Path(path) in refused:
            raise OSError(5, "Input/output error")
        return scandir(path)

    os.scandir = scan
    try:
        library = ss.embed_dataset(
            tree.root,
            outputs,
            BACKBONE,
            engine=counting,
            progress=False,
            follow=[tree.root.parent],
            **options,
        )
    finally:
        os.scandir = scandir
    return library, read


def expected_row(data):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "x.bmp")
        file.write_bytes(data)
        return ss.embed_images(str(file), BACKBONE)[0]


@SETTINGS
@given(
    st.dictionaries(NAMES, st.tuples(st.integers(0, 1000), TIMES, CHANGES), min_size=1, max_size=8),
    st.lists(NAMES, min_size=8, max_size=8),
)
def test_library_holds_what_the_tree_holds(files, new_names):
    with tempfile.TemporaryDirectory() as top:
        tree, outputs = Tree(Path(top, "data")), Path(top, "out")
        tree.write(b"always.bmp", picture(5000), 0)
        for name, (colour, time, _) in files.items():
            tree.write(name, picture(colour), time)
        before = dict(tree.files)
        library, read = embed(tree, outputs)
        assert {os.fsencode(name) for name in library.names} == set(before)
        assert len(read) == len(before)

        refused = set()
        for (name, (colour, _, change)), new in zip(files.items(), new_names, strict=False):
            if name in tree.files:
                apply(tree, name, change, new, colour, refused)
        library, read = embed(tree, outputs, refused, allow_shrink=True)
        check(tree, before, library, read, refused)


def apply(tree, name, change, new, colour, refused):
    """Change one file of a tree."""
    path = tree.path(name)
    if change == "touch":
        tree.set_time(name, 10**18 + colour)
    elif change == "rename" and not os.path.lexists(tree.path(new)):
        data = tree.files.pop(name)
        path.unlink()
        tree.write(new, data, 10**17)
    elif change == "delete":
        tree.files.pop(name)
        path.unlink()
    elif change == "replace":
        tree.write(name, picture(2000 + colour), 10**18 + 7)
    elif change == "link":
        target = Path(tree.root.parent, f"target{colour}.bmp")
        target.write_bytes(tree.files[name])
        path.unlink()
        path.symlink_to(target)  # to a folder that the run names
    elif change == "refuse" and path.parent != tree.root:
        refused.add(path.parent)


def check(tree, before, library, read, refused):
    """Compare with what lies there; below refused folders, with what was there."""
    hidden = {n for n in {*before, *tree.files} if any(r in tree.path(n).parents for r in refused)}
    shown = {name: data for name, data in tree.files.items() if name not in hidden}
    moved_out = set(shown.values()) - {before.get(name) for name in shown}
    kept = {n: d for n, d in before.items() if n in hidden and d not in moved_out}
    names = {os.fsencode(name): row for row, name in enumerate(library.names)}
    assert set(names) == {*shown, *kept}
    for name, data in {**kept, **shown}.items():
        np.testing.assert_allclose(library.embeddings[names[name]], expected_row(data), atol=1e-6)
    for data in read:  # what is read again is new, or a copy of what is still in its place
        assert all(shown.get(name) == data for name, known in before.items() if known == data)
