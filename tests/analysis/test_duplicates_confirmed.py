"""Near-duplicates confirmed on the pixels: levels, edits, what is kept, links, what is not read."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from scenes import scene

import simsearch as ss
from simsearch.analysis import candidates, confirmation
from simsearch.errors import ImageError, QueryError
from simsearch.images import compare
from simsearch.images.confirm import Edit


def library_of(folder, rows=None):
    """Pictures whose embeddings say nothing: each at right angles to all others."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return ss.ImageLibrary(np.eye(len(paths)) if rows is None else rows, paths)


def names(paths):
    return [Path(path).name for path in paths]


def groups(found):
    return [names(group.paths) for group in found]


def find(folder, rows=None, **options):
    return ss.duplicates(library_of(folder, rows), progress=False, **options)


def tint(image):
    return Image.fromarray((np.asarray(image) * [1.1, 1.0, 0.8]).clip(0, 255).astype(np.uint8))


def watermark(image):
    layer = Image.new("RGBA", image.size)
    ImageDraw.Draw(layer).text((20, 120), "SAMPLE PHOTO", fill=(255, 255, 255, 150), font_size=44)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


EDITS = {
    "crop": lambda image: image.crop((60, 30, image.width - 20, image.height - 40)),
    "grey": lambda image: image.convert("L"),
    "mirror": ImageOps.mirror,
    "recompressed": lambda image: image,
    "resized": lambda image: image.resize((image.width // 2, image.height // 2)),
    "rotated": lambda image: image.rotate(3, Image.Resampling.BICUBIC),
    "tint": tint,
    "turn": lambda image: image.rotate(90, expand=True),
    "watermark": watermark,
}


class TestConfirmed:
    def test_each_edit_is_found_and_named_with_the_original(self, tmp_path):
        for seed in (1, 2):
            scene(seed).save(tmp_path / f"{seed} original.png")
            for name, edit in EDITS.items():
                edit(scene(seed)).save(tmp_path / f"{seed} {name}.jpg", quality=85)
        rows = np.ones((20, 8)) + np.random.default_rng(0).normal(size=(20, 8)) / 3
        found = find(tmp_path, rows)
        assert found.level == "near"
        assert [group.paths[0][-14:] for group in found] == ["1 original.png", "2 original.png"]
        for seed, group in enumerate(found, 1):
            told = dict(zip(names(group.paths), group.edits, strict=True))
            assert told == {f"{seed} original.png": ""} | {f"{seed} {x}.jpg": x for x in EDITS}
            assert group.levels[1:] == ("near",) * len(EDITS)

    def test_turned_and_grey_copies_are_candidates_by_hash_alone(self, tmp_path):
        for name in ("mirror", "turn", "grey"):
            EDITS[name](scene(3)).save(tmp_path / f"{name}.png")
        scene(3).save(tmp_path / "a.png")
        scene(4).save(tmp_path / "b.png")
        assert {len(group) for group in find(tmp_path)} == {4}

    @pytest.mark.parametrize("threshold", [None, 0.9, 1.0])
    def test_equal_embeddings_of_unlike_pictures_are_no_duplicates(self, tmp_path, threshold):
        for seed in range(4):  # panoramas with a common centre, which is what a network sees
            wide = Image.new("RGB", (1200, 400))
            wide.paste(scene(seed + 20, (800, 400)), (0, 0))
            wide.paste(scene(seed + 30, (400, 400)), (800, 0))
            wide.paste(scene(9, (400, 400)), (400, 0))
            wide.save(tmp_path / f"{seed}.png")
        rows = np.ones((4, 2))
        assert groups(find(tmp_path, rows, threshold=threshold)) == []
        assert len(find(tmp_path, rows, threshold=threshold, level="similar")[0]) == 4

    def test_a_threshold_that_is_given_is_that_of_the_candidates(self, tmp_path):
        scene(1).save(tmp_path / "a.png")
        EDITS["crop"](scene(1)).crop((0, 0, 200, 200)).save(tmp_path / "b.png")  # by embedding only
        rows = [[1, 0], [0.8, 0.6]]
        assert groups(find(tmp_path, rows)) == [["a.png", "b.png"]]
        assert groups(find(tmp_path, rows, threshold=0.79)) == [["a.png", "b.png"]]
        assert groups(find(tmp_path, rows, threshold=0.81)) == []

    def test_an_extra_is_always_confirmed_with_what_is_kept(self, tmp_path, monkeypatch):
        count = 7
        for i in range(count):  # the larger, the better to keep
            scene(1, (400 - 4 * i, 300 - 3 * i)).save(tmp_path / f"{i}.png")

        def only_neighbours(a, b, signatures, positions):
            sizes = sorted(abs(int(each["width"]) - 400) // 4 for each in signatures)
            return Edit("crop", ("crop",), "near") if sizes[1] - sizes[0] == 1 else None

        monkeypatch.setattr(compare, "confirm", only_neighbours)
        found = groups(find(tmp_path, np.ones((count, 2))))
        assert found == [["0.png", "1.png"], ["2.png", "3.png"], ["4.png", "5.png"]]

    @pytest.mark.parametrize("edit", ["border", "screenshot"])
    def test_a_framed_copy_is_never_kept_for_what_it_contains(self, tmp_path, edit):
        original = scene(3)
        original.save(tmp_path / "original.jpg", quality=80)
        framed = ImageOps.expand(original, 20, "navy")
        if edit == "screenshot":
            framed = Image.new("RGB", (600, 450), (235, 235, 240))
            ImageDraw.Draw(framed).rectangle((0, 0, 600, 30), fill=(50, 60, 70))
            framed.paste(original, (140, 90))
        framed.save(tmp_path / "framed.png")  # more pixels, and more bytes
        original.resize((200, 150)).save(tmp_path / "small.png")
        found = groups(find(tmp_path, np.ones((3, 2))))
        assert [group[0] for group in found] == ["original.jpg"]
        assert sorted(found[0]) == ["framed.png", "original.jpg", "small.png"]

    def test_more_copies_than_neighbours_are_one_group(self, tmp_path, monkeypatch):
        monkeypatch.setattr(candidates, "NEIGHBOURS", 2)
        monkeypatch.setattr(candidates, "candidates", lambda *_: np.empty((0, 2), np.int64))
        for i in range(12):
            scene(1, (200 + i, 150)).save(tmp_path / f"{i:02}.png")
        angles = np.arange(12) * 0.05
        found = find(tmp_path, np.stack([np.cos(angles), np.sin(angles)], axis=1))
        assert [len(group) for group in found] == [12]

    def test_no_such_level(self, tmp_path):
        scene(1).save(tmp_path / "a.png")
        with pytest.raises(QueryError, match="level='exact': give one of 'identical', 'near', 's"):
            find(tmp_path, level="exact")


class TestKept:
    def test_pixels_come_before_bytes(self, tmp_path):
        photo = scene(1, (800, 600))
        photo.save(tmp_path / "b.jpg", quality=60)
        photo.resize((600, 450)).save(tmp_path / "a.png")
        assert (tmp_path / "a.png").stat().st_size > (tmp_path / "b.jpg").stat().st_size
        assert groups(find(tmp_path)) == [["b.jpg", "a.png"]]
        assert groups(find(tmp_path, np.ones((2, 2)), level="similar")) == [["b.jpg", "a.png"]]

    def test_bytes_come_before_age(self, tmp_path):
        for name, quality, time in (("a", 60, 1), ("b", 95, 2)):
            scene(1).save(tmp_path / f"{name}.jpg", quality=quality)
            os.utime(tmp_path / f"{name}.jpg", (time, time))
        assert groups(find(tmp_path)) == [["b.jpg", "a.jpg"]]

    def test_the_oldest_of_equal_files_is_kept(self, tmp_path):
        scene(1).save(tmp_path / "a.jpg")
        for name, time in (("b", 1), ("c", 2), ("a", 3)):
            if name != "a":
                shutil.copy(tmp_path / "a.jpg", tmp_path / f"{name}.jpg")
            os.utime(tmp_path / f"{name}.jpg", (time, time))
        (group,) = find(tmp_path)
        assert names(group.paths) == ["b.jpg", "a.jpg", "c.jpg"]
        assert group.levels == ("", "identical", "identical")


class TestSameFile:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "z").mkdir()
        scene(1).save(tmp_path / "z/photo.jpg")
        scene(2).save(tmp_path / "z/other.jpg")
        return tmp_path

    @pytest.mark.parametrize("level", ["identical", "near", "similar"])
    @pytest.mark.parametrize("kind", ["link", "hard link", "linked folder"])
    def test_a_link_is_no_extra_and_is_not_kept(self, folder, kind, level):
        if kind == "link":
            (folder / "a.jpg").symlink_to(folder / "z/photo.jpg")
        elif kind == "hard link":
            os.link(folder / "z/photo.jpg", folder / "a.jpg")
        else:
            (folder / "a").symlink_to(folder / "z")
        paths = sorted(folder.glob("*.jpg")) + sorted(folder.glob("*/*.jpg"))
        rows = np.array([[float("other" in str(p)), float("other" not in str(p))] for p in paths])
        found = ss.duplicates(ss.ImageLibrary(rows, paths), level=level, progress=False)
        assert found.extras == []
        assert {edit for group in found for edit in group.edits[1:]} == {"same file"}
        if kind != "hard link":
            assert not any(Path(group.paths[0]).is_symlink() for group in found)
            assert all("/z/" in group.paths[0] for group in found)

    @pytest.mark.parametrize("level", ["identical", "near"])
    def test_deleting_all_extras_loses_no_picture(self, folder, level):
        (folder / "a.jpg").symlink_to(folder / "z/photo.jpg")
        shutil.copy(folder / "z/photo.jpg", folder / "copy.jpg")
        (folder / "b.jpg").symlink_to(folder / "copy.jpg")
        found = find(folder, level=level)
        assert len(found.extras) == 1
        for path in found.extras:
            Path(path).unlink()
        left = [ss.load_image(path) for path in found[0].paths if Path(path).exists()]
        assert any(image.size == (400, 300) for image in left)
        assert not Path(found[0].paths[0]).is_symlink()


class TestIdentical:
    def test_equal_bytes_and_equal_pixels_are_told_from_edits(self, tmp_path):
        photo = scene(1)
        for name in ("a.png", "b.bmp"):
            photo.save(tmp_path / name)
        shutil.copy(tmp_path / "a.png", tmp_path / "c.png")
        photo.save(tmp_path / "d.jpg")
        assert {*groups(find(tmp_path, level="identical"))[0]} == {"a.png", "b.bmp", "c.png"}
        (group,) = find(tmp_path)
        told = dict(zip(names(group.paths), group.levels, strict=True))
        assert told == {"b.bmp": "", "a.png": "identical", "c.png": "identical", "d.jpg": "near"}

    def test_one_pixel_elsewhere_is_not_identical(self, tmp_path):
        photo = scene(1)
        photo.save(tmp_path / "a.png")
        photo.putpixel((7, 9), tuple(255 - x for x in photo.getpixel((7, 9))))
        photo.save(tmp_path / "b.png")
        assert groups(find(tmp_path, level="identical")) == []

    def test_hidden_colours_and_deeper_pixels_are_not_identical(self, tmp_path):
        photo = scene(1).convert("RGBA")
        photo.putalpha(Image.new("L", photo.size, 255))
        photo.save(tmp_path / "a.png")
        photo.convert("RGB").save(tmp_path / "b.png")
        assert groups(find(tmp_path, level="identical")) == []
        assert find(tmp_path)[0].levels == ("", "near")
        for each in tmp_path.iterdir():
            each.unlink()
        deep = np.asarray(scene(1).convert("L")).astype(np.uint16) * 257
        for name, change in (("a", 0), ("b", 1)):
            levels = deep - (change * (deep > 300)).astype(np.uint16)
            Image.fromarray(levels).save(tmp_path / f"{name}.png")
        assert groups(find(tmp_path, level="identical")) == []

    def test_digests_of_the_library_are_only_used_while_the_file_is_unchanged(self, tmp_path):
        for name, seed in (("a", 1), ("b", 2)):
            scene(seed).save(tmp_path / f"{name}.bmp")
        library = library_of(tmp_path)
        library.digests = np.ones((2, 16), np.uint8)
        library.stats = np.array([(path.stat().st_size, 5) for path in tmp_path.iterdir()])
        assert not ss.duplicates(library, level="identical", progress=False)
        os.utime(tmp_path / "a.bmp", ns=(5, 5))
        os.utime(tmp_path / "b.bmp", ns=(5, 5))
        assert len(ss.duplicates(library, level="identical", progress=False)) == 1


class TestUncompared:
    def test_pictures_that_show_nothing_are_compared_by_their_bytes(self, tmp_path):
        for name, side in (("a", 50), ("b", 60), ("c", 70)):
            Image.new("RGB", (side, 50), "white").save(tmp_path / f"{name}.png")
        shutil.copy(tmp_path / "c.png", tmp_path / "d.png")
        found = find(tmp_path, np.ones((4, 2)))
        assert [sorted(group) for group in groups(found)] == [["c.png", "d.png"]]
        assert "4 that show nothing, compared by their bytes alone" in str(found)

    @pytest.mark.parametrize("suffix", ["gif", "tif", "webp"])
    def test_animations_are_not_judged_by_their_first_frame(self, tmp_path, suffix):
        first = scene(1, (120, 90))
        for name, seed in (("a", 2), ("b", 3)):
            frames = [scene(seed, first.size)]
            first.save(tmp_path / f"{name}.{suffix}", save_all=True, append_images=frames)
        first.save(tmp_path / "still.png")
        rows = np.ones((3, 2))
        found = find(tmp_path, rows)
        assert groups(found) == []
        assert "2 of several frames or pages, compared by their bytes alone" in str(found)
        shutil.copy(tmp_path / f"a.{suffix}", tmp_path / f"c.{suffix}")
        (group,) = find(tmp_path)
        assert sorted(names(group.paths)) == [f"a.{suffix}", f"c.{suffix}"]

    def test_files_that_are_gone_or_damaged_are_counted(self, tmp_path):
        for name in "abcd":
            scene(1).save(tmp_path / f"{name}.jpg", quality=70 + ord(name) - ord("a"))
        library = library_of(tmp_path, np.ones((4, 2)))
        (tmp_path / "a.jpg").unlink()
        (tmp_path / "b.jpg").write_bytes(b"no picture")
        found = ss.duplicates(library, progress=False)
        assert [sorted(group) for group in groups(found)] == [["c.jpg", "d.jpg"]]
        assert "1 not compared: the file is not there" in str(found).splitlines()
        assert "1 not compared: the file cannot be read" in str(found).splitlines()

    def test_a_file_that_goes_while_pictures_are_compared_is_counted(self, tmp_path, monkeypatch):
        for name in "ab":
            EDITS["tint" if name == "a" else "grey"](scene(1)).save(tmp_path / f"{name}.png")

        def gone(path, side=None):
            raise ImageError("no such file or directory", path)

        monkeypatch.setattr(confirmation, "load_image", gone)
        found = find(tmp_path, np.ones((2, 2)))
        assert not found
        assert re.search("[12] not compared: the file cannot be read", str(found))

    @pytest.mark.parametrize("level", ["near", "identical"])
    def test_where_nothing_can_be_read_the_answer_is_said_to_be_unconfirmed(self, level):
        library = ss.ImageLibrary(np.ones((2, 2)), ["no/a.jpg", "no/b.jpg"])
        found = ss.duplicates(library, level=level, progress=False)
        assert found.level == "similar"
        assert found[0].levels == ("", "similar")
        assert "no picture of this library can be read" in str(found)
        assert "not confirmed" in str(found)
