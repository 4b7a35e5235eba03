import itertools
import json
import os
import shutil

import numpy as np
import pytest
import torch
from networks import run_python
from safetensors.numpy import load_file, save_file
from tiny import tiny_backbone

import simsearch as ss
from simsearch import registry
from simsearch.backbones import heads
from simsearch.backbones.gated_head import GatedHead
from simsearch.backbones.heads import Head, HeadChain, ProjectionHead, chain, load_head, save_head
from simsearch.backbones.refine_head import RefineHead
from simsearch.embedding import batching
from simsearch.errors import BackboneError, LibraryError, QueryError
from simsearch.library.files import HEAD, MANIFEST


def random_head(dim_in=16, dim=5, source="", keep=0.25):
    rng = np.random.default_rng(dim_in + dim)
    widths = [dim_in, 7, dim]
    layers = [(rng.normal(size=(b, a)), rng.normal(size=b)) for a, b in itertools.pairwise(widths)]
    kept = (rng.normal(size=(3, dim_in)), rng.normal(size=3)) if keep else None
    return ProjectionHead(layers, source, kept, keep)


def rows(count, dim):
    return heads.unit(np.random.default_rng(count).normal(size=(count, dim)).astype(np.float32))


class Whole(Head):
    """Adds the library's mean to every row: a head that looks at the others."""

    kind = "test-whole"
    whole = True

    def __init__(self, dim, source=""):
        self.dim_in = self.dim = dim
        self.source = source

    def __call__(self, embeddings):
        return embeddings

    def rows(self, embeddings):
        yield heads.unit(embeddings + embeddings.mean(axis=0))

    def query(self, embeddings, gallery):
        return heads.unit(embeddings + gallery.mean(axis=0))

    def arrays(self):
        return {"dim": np.array([self.dim])}

    @classmethod
    def from_arrays(cls, arrays, source):
        return cls(int(arrays["dim"][0]), source)


class TestProjectionHead:
    def test_one_layer_by_hand(self):
        head = ProjectionHead([(np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([0.0, 1.0]))])
        # (0.6, 0.8) -> (1.8, 3.2 + 1) -> by its length, sqrt(1.8² + 4.2²) = sqrt(20.88)
        expected = np.array([[1.8, 4.2]]) / 20.88**0.5
        np.testing.assert_allclose(head(np.array([[0.6, 0.8]], np.float32)), expected, rtol=1e-6)

    def test_a_hidden_layer_by_hand(self):
        first = (np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), np.array([0.0, 0.0, -0.3]))
        second = (np.array([[1.0, 9.0, 0.0], [0.0, 9.0, 2.0]]), np.array([0.0, 0.0]))
        # (0.6, 0.8) -> (0.6, -0.6, 0.5) -> ReLU (0.6, 0, 0.5) -> (0.6, 1.0)
        given = ProjectionHead([first, second])(np.array([[0.6, 0.8]], np.float32))
        np.testing.assert_allclose(given, np.array([[0.6, 1.0]]) / 1.36**0.5, rtol=1e-6)

    def test_equals_torch(self):
        head = random_head(keep=0)
        layers = []
        for weight, bias in head.layers:
            linear = torch.nn.Linear(*weight.shape[::-1])
            linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
            layers += [linear, torch.nn.ReLU()]
        x = rows(20, 16)
        expected = torch.nn.functional.normalize(torch.nn.Sequential(*layers[:-1])(torch.tensor(x)))
        np.testing.assert_allclose(head(x), expected.detach(), atol=1e-6)

    def test_cosine_is_the_weighted_mean_of_both_parts(self):
        head = random_head(keep=0.25)
        learned, own = ProjectionHead(head.layers), ProjectionHead([head.kept])
        a, b = rows(2, 16)
        given = head(a[None]) @ head(b[None]).T
        parts = [part(a[None]) @ part(b[None]).T for part in (own, learned)]
        np.testing.assert_allclose(given, 0.25 * parts[0] + 0.75 * parts[1], atol=1e-6)
        kept = head.keeping(0.5)
        assert (kept.keep, kept.dim) == (0.5, head.dim)
        assert kept.fingerprint != head.fingerprint

    def test_rows_are_unit_float32_in_c_order(self):
        given = random_head()(rows(9, 16))
        assert (given.shape, given.dtype) == ((9, 8), np.float32)
        assert given.flags.c_contiguous
        np.testing.assert_allclose(np.linalg.norm(given, axis=1), 1, atol=1e-6)

    def test_blocks_equal_one_call(self, monkeypatch):
        monkeypatch.setattr(heads, "BLOCK_ROWS", 4)
        head, x = random_head(), rows(10, 16)
        blocks = list(head.rows(x))
        assert [len(block) for block in blocks] == [4, 4, 2]
        np.testing.assert_allclose(np.concatenate(blocks), head(x), atol=1e-6)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"layers": [(np.ones((2, 3)), np.ones(3))]},
            {"layers": [(np.ones((2, 3)), np.ones(2)), (np.ones((2, 3)), np.ones(2))]},
            {"layers": [(np.ones(3), np.ones(3))]},
            {"layers": [(np.ones((2, 3)), np.ones(2))], "keep": 0.5},
            {"layers": [(np.eye(2), np.ones(2))], "kept": (np.eye(3), np.ones(3)), "keep": 0.5},
            {"layers": [(np.eye(2), np.ones(2))], "kept": (np.eye(2), np.ones(2)), "keep": 1.0},
        ],
    )
    def test_layers_that_do_not_fit_are_rejected(self, arguments):
        with pytest.raises(ValueError, match=r"fit|shape|keep="):
            ProjectionHead(**arguments)

    def test_fingerprint_depends_on_every_part(self):
        one = random_head()
        others = [random_head(keep=0.5), random_head(source="x"), random_head(dim=6)]
        moved = random_head()
        moved.layers[0][1][0] += 1
        assert len({head.fingerprint for head in (one, moved, *others)}) == 5
        assert one.fingerprint == random_head().fingerprint


class TestFiles:
    @pytest.mark.parametrize("keep", [0, 0.25])
    def test_round_trip(self, tmp_path, keep):
        head = random_head(source="abc", keep=keep)
        save_head(head, tmp_path / "head.safetensors")
        loaded = load_head(tmp_path / "head.safetensors")
        assert type(loaded) is ProjectionHead
        assert (loaded.source, loaded.fingerprint) == ("abc", head.fingerprint)
        assert loaded(rows(5, 16)).tobytes() == head(rows(5, 16)).tobytes()

    def test_chain_round_trip(self, tmp_path):
        first = random_head(16, 5, "abc")
        both = chain(first, random_head(8, 4, first.fingerprint))
        three = chain(both, Whole(7, both.heads[-1].fingerprint))
        assert [type(head).__name__ for head in three.heads] == [
            *("ProjectionHead", "ProjectionHead", "Whole")
        ]
        save_head(three, tmp_path / "head.safetensors")
        loaded = load_head(tmp_path / "head.safetensors")
        assert isinstance(loaded, HeadChain)
        assert (loaded.fingerprint, loaded.whole, loaded.dim) == (three.fingerprint, True, 7)
        assert loaded(rows(5, 16)).tobytes() == three(rows(5, 16)).tobytes()

    @pytest.mark.parametrize("kind", registry.PATHS["head"])
    def test_every_kind_is_loaded_in_a_fresh_process_without_torch(self, tmp_path, kind):
        mean = rows(1, 16)[0]
        made = {
            "projection": random_head(source="abc"),
            "chain": chain(random_head(16, 13, "abc"), RefineHead(mean, 7, 2)),
            "refine": RefineHead(mean, 7, 2, "abc"),
            "gated": GatedHead.gated(random_head(source="abc"), (mean[None], np.zeros(1))),
        }[kind]
        save_head(made, tmp_path / "head.safetensors")
        code = (
            "import sys; from simsearch.backbones.heads import load_head; "
            f"head = load_head({os.fspath(tmp_path / 'head.safetensors')!r}); "
            "print(head.kind, head.source, head.fingerprint, 'torch' in sys.modules)"
        )
        assert run_python(code) == [f"{kind} abc {made.fingerprint} False"]

    def test_damaged_files_are_rejected(self, tmp_path):
        file = tmp_path / "head.safetensors"
        with pytest.raises(LibraryError, match="holds no head"):
            load_head(file)
        file.write_bytes(b"nothing of the kind")
        with pytest.raises(LibraryError, match="holds no head"):
            load_head(file)
        save_head(random_head(), file)
        content = bytearray(file.read_bytes())
        content[-1] ^= 64
        file.write_bytes(content)
        with pytest.raises(LibraryError, match="fingerprint"):
            load_head(file)
        file.write_bytes(content[:-9])
        with pytest.raises(LibraryError, match="holds no head"):
            load_head(file)

    def test_foreign_safetensors_files_are_rejected(self, tmp_path):
        file = tmp_path / "head.safetensors"
        save_file({"a": np.ones(3)}, file)
        with pytest.raises(LibraryError, match="holds no head"):
            load_head(file)
        meta = {"kind": "of the future", "source": "", "fingerprint": ""}
        save_file({"a": np.ones(3)}, file, {"simsearch": json.dumps(meta)})
        with pytest.raises(LibraryError, match="of the future"):
            load_head(file)

    def test_file_is_safetensors(self, tmp_path):
        save_head(random_head(), tmp_path / "head.safetensors")
        assert "weight0" in load_file(tmp_path / "head.safetensors")


@pytest.fixture
def library(sample, tmp_path):
    """A small real library, with the backbone that made it."""
    shutil.copytree(sample / "seg_test" / "cat", tmp_path / "dataset" / "cat")
    return ss.embed_dataset(
        tmp_path / "dataset", tmp_path / "outputs", tiny_backbone(), progress=False
    )


def no_images(*_, **__):
    raise AssertionError("an image was decoded")


class TestWithHead:
    def test_equals_applying_by_hand_and_decodes_nothing(self, library, monkeypatch):
        monkeypatch.setattr(batching, "load_image", no_images)
        head = random_head(source=library.fingerprint)
        derived = library.with_head(head)
        np.testing.assert_allclose(derived.embeddings, head(library.embeddings), atol=1e-6)
        assert (derived.dim, len(derived)) == (8, len(library))
        assert derived.paths is library.paths
        assert (library.head, derived.head) == (None, head)
        assert derived.fingerprint == head.fingerprint != library.fingerprint
        assert "ProjectionHead(16 -> 8" in repr(derived)
        assert "head  " in derived.describe()
        assert ss.search(derived, 0, k=3).paths  # no query to embed

    def test_random_pair_scores_are_of_the_new_rows(self, library):
        before = library.background
        assert not np.array_equal(library.with_head(random_head()).background, before)

    def test_a_new_query_goes_through_backbone_and_head(self, library, tmp_path):
        derived = library.with_head(random_head(source=library.fingerprint))
        copy = shutil.copy(str(library.paths[4]), tmp_path / "query.jpg")
        match = ss.search(derived, copy, k=1)[0]
        assert match.row == 4
        assert match.score == pytest.approx(1, abs=1e-5)

    def test_a_row_equals_its_path(self, library):
        derived = library.with_head(random_head())
        assert ss.search(derived, 3, k=4).rows == ss.search(derived, library.paths[3], k=4).rows

    def test_another_backbone(self, library):
        with pytest.raises(BackboneError, match=f"of somebody.*of {library.fingerprint}"):
            library.with_head(random_head(source="somebody"))
        with pytest.raises(BackboneError, match="takes 9-d"):
            library.with_head(random_head(9))

    def test_a_row_without_a_direction(self):
        library = ss.ImageLibrary([[1.0, 0.0], [0.0, 1.0]], ["a", "b"])
        with pytest.raises(LibraryError, match="row 1 "):
            library.with_head(ProjectionHead([(np.array([[1.0, 0.0]]), np.zeros(1))]))

    def test_a_second_head_comes_after_the_first(self, library, tmp_path):
        first = random_head(source=library.fingerprint)
        once = library.with_head(first)
        second = random_head(8, 4, once.fingerprint)
        twice = once.with_head(second)
        np.testing.assert_allclose(twice.embeddings, second(once.embeddings), atol=1e-6)
        copy = shutil.copy(str(library.paths[2]), tmp_path / "query.jpg")
        assert ss.search(twice, copy, k=1)[0].score == pytest.approx(1, abs=1e-5)

    def test_head_of_all_rows_comes_last(self, library, tmp_path):
        whole = library.with_head(Whole(16, library.fingerprint))
        expected = heads.unit(library.embeddings + library.embeddings.mean(axis=0))
        np.testing.assert_allclose(whole.embeddings, expected, atol=1e-6)
        with pytest.raises(LibraryError, match="apply that one last"):
            whole.with_head(random_head())
        copy = shutil.copy(str(library.paths[2]), tmp_path / "query.jpg")
        query = whole.head.query(library.embeddings[2:3], whole.embeddings)
        match = ss.search(whole, copy, k=1)[0]
        assert match.score == pytest.approx(float((whole.embeddings @ query[0]).max()), abs=1e-5)


class TestLibraryFiles:
    def test_save_and_load(self, library, tmp_path):
        derived = library.with_head(random_head(source=library.fingerprint))
        derived.save(tmp_path / "derived")
        loaded = ss.ImageLibrary.load(tmp_path / "derived", backbone=library.backbone)
        assert loaded.embeddings.tobytes() == derived.embeddings.tobytes()
        assert loaded.head.fingerprint == derived.head.fingerprint
        copy = shutil.copy(str(library.paths[4]), tmp_path / "query.jpg")
        assert ss.search(loaded, copy, k=3).rows == ss.search(derived, copy, k=3).rows
        library.save(tmp_path / "derived")
        assert ss.ImageLibrary.load(tmp_path / "derived").head is None
        assert not (tmp_path / "derived" / HEAD).exists()

    def test_damaged_or_foreign_head_is_rejected(self, library, tmp_path):
        folder = tmp_path / "derived"
        library.with_head(random_head(source=library.fingerprint)).save(folder)
        good = (folder / HEAD).read_bytes()
        (folder / HEAD).write_bytes(good[:-4] + b"\0\0\1\0")
        with pytest.raises(LibraryError, match="damaged"):
            ss.ImageLibrary.load(folder)
        (folder / HEAD).unlink()
        with pytest.raises(LibraryError, match="missing"):
            ss.ImageLibrary.load(folder)
        (folder / HEAD).write_bytes(good)
        assert ss.ImageLibrary.load(folder).head
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["head"] = "0" * 16
        (folder / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(LibraryError, match="is not the head"):
            ss.ImageLibrary.load(folder)

    def test_new_images_pass_through_the_head(self, library, tmp_path, sample):
        head = random_head(source=library.fingerprint)
        library.with_head(head).save(tmp_path / "derived")
        shutil.copytree(sample / "seg_test" / "coffee", tmp_path / "dataset" / "coffee")
        places = [tmp_path / name for name in ("outputs", "derived")]
        base, derived = (
            ss.embed_dataset(tmp_path / "dataset", place, library.backbone, progress=False)
            for place in places
        )
        assert len(base) == len(derived) > len(library)
        assert derived.head.fingerprint == head.fingerprint
        np.testing.assert_allclose(derived.embeddings, head(base.embeddings), atol=1e-5)

    def test_another_backbone_is_rejected(self, library, tmp_path):
        library.with_head(random_head(source=library.fingerprint)).save(tmp_path / "derived")
        with pytest.raises(BackboneError, match="choose another outputs folder"):
            ss.embed_dataset(
                tmp_path / "dataset", tmp_path / "derived", tiny_backbone(1), progress=False
            )
        assert ss.ImageLibrary.load(tmp_path / "derived").head

    def test_library_with_a_head_of_all_rows_cannot_grow(self, library, tmp_path):
        library.with_head(Whole(16, library.fingerprint)).save(tmp_path / "derived")
        with pytest.raises(LibraryError, match="derive it again"):
            ss.embed_dataset(
                tmp_path / "dataset", tmp_path / "derived", library.backbone, progress=False
            )


class TestLabelsAndRows:
    @pytest.fixture
    def library(self):
        names = ["d/train/cat/1.jpg", "d/train/dog/2.jpg", "d/test/cat/3.jpg", "d/pred/4.jpg"]
        library = ss.ImageLibrary(np.eye(4), names)
        library.root = "d"
        return library

    def test_folders(self, library):
        assert library.labels.tolist() == ["cat", "dog", "cat", ""]
        assert library.label_rows().tolist() == ["cat", "dog", "cat", ""]

    def test_sequence_and_mapping(self, library):
        labels = library.label_rows(["a", None, float("nan"), 7])
        assert labels.tolist() == ["a", "", "", "7"]
        labels = library.label_rows({"d/train/cat/1.jpg": "x", "pred/4.jpg": "y"})
        assert labels.tolist() == ["x", "", "", "y"]

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ("class", 'give "folder"'),
            (["a"], "1 labels for 4 images"),
            ({"elsewhere.jpg": "a"}, "no key of the labels"),
        ],
    )
    def test_labels_that_do_not_fit(self, library, labels, message):
        with pytest.raises(QueryError, match=message):
            library.label_rows(labels)

    def test_select(self, library):
        assert library.select().all()
        assert library.select("train/*").tolist() == [True, True, False, False]
        assert library.select([3, 0]).tolist() == [True, False, False, True]
        assert library.select([True, False, False, False]).tolist() == [True, False, False, False]

    @pytest.mark.parametrize(
        "rows", ["nothing/*", [4], [-1], [True, False], [0.5], np.zeros(4, bool)]
    )
    def test_rows_that_do_not_fit(self, library, rows):
        with pytest.raises(QueryError, match="chooses no"):
            library.select(rows)
