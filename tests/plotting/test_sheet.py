"""Contact sheets."""

from collections import Counter

import numpy as np
import pytest
from figures import assert_not_clipped, texts
from matplotlib import pyplot as plt
from PIL import Image

import simsearch as ss
from simsearch.errors import QueryError
from simsearch.plotting import sheet
from simsearch.plotting.sheet import show_images


class TestShowImages:
    def test_anything_that_is_an_image(self, library):
        path = str(library.paths[0])
        sources = [path, Image.new("RGB", (8, 6)), np.zeros((5, 9, 3), np.uint8), b"broken"]
        fig, axes = show_images(sources, columns=3)
        assert axes.shape == (2, 3)
        captions = [texts(ax)[-1] if ax.texts else None for ax in axes.flat]
        assert captions == [
            "/".join(path.split("/")[-2:]),
            "PIL image 8×6",
            "array (5, 9, 3)",
            "6 bytes",
            None,
            None,
        ]
        assert texts(axes[1, 0])[0] == "not a supported\nimage format"
        assert not fig.texts
        assert_not_clipped(fig)

    def test_captions_and_title_are_as_given(self, library):
        fig, axes = show_images(library.paths[:2], ["one $", "two 森"], title="My $x$ " + "y" * 400)
        assert [texts(ax) for ax in axes.flat] == [["one $"], ["two ?"]]
        assert fig.texts[0].get_text().startswith("My $x$ y")
        assert_not_clipped(fig)

    def test_says_what_the_limit_left_out(self, library):
        fig, axes = show_images(library.paths, limit=4)
        assert axes.shape == (1, 4)
        assert [text.get_text() for text in fig.texts] == [f"4 of {len(library)} images"]

    def test_the_folders_of_a_library_take_turns(self, library):
        fig, axes = show_images(library, limit=16)
        captions = [texts(ax)[0] for ax in axes.flat if ax.texts]
        counts = Counter(captions)
        assert set(counts) == set(library.folders)
        assert set(counts.values()) == {2, 3}
        assert captions == sorted(captions)
        assert fig.texts[0].get_text() == f"16 of {len(library)} images"

    def test_a_small_folder_gives_its_turns_to_the_others(self):
        turns = sheet.round_robin(np.array(["a"] * 50 + ["b"] * 2 + ["c"] * 9))
        assert sorted(turns) == [*range(61)]
        assert Counter("a" if row < 50 else "b" if row < 52 else "c" for row in turns[:8]) == {
            "a": 3,
            "b": 2,
            "c": 3,
        }

    def test_captions_belong_to_their_images(self, library):
        _, axes = show_images(library, captions=library.paths, limit=5, size=2)
        names = [texts(ax)[0] for ax in axes.flat]
        pixels = [np.asarray(ax.images[0].get_array()) for ax in axes.flat]
        for name, shown in zip(names, pixels, strict=True):
            (path,) = [path for path in library.paths if path.endswith(name.split("…")[-1][-20:])]
            np.testing.assert_array_equal(shown, np.asarray(ss.load_image(path)))

    @pytest.mark.parametrize(
        ("images", "captions", "message"),
        [
            ([], None, "no images"),
            ("a.jpg", None, r"give \['a.jpg'\]"),
            (["a.jpg"], [], "0 captions for 1 images"),
        ],
    )
    def test_refuses(self, images, captions, message):
        with pytest.raises(QueryError, match=message):
            show_images(images, captions)
        assert not plt.get_fignums()

    @pytest.mark.parametrize("argument", [{"columns": 0}, {"limit": 0}, {"size": -1}])
    def test_sizes_must_be_positive(self, argument):
        with pytest.raises(QueryError, match="above 0"):
            show_images(["a.jpg"], **argument)
