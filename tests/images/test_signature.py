"""Pixel signatures, candidates by hash, and confirmation of copies on whole pictures."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps
from scenes import scene, textured

from simsearch.errors import QueryError
from simsearch.images.alignment import Alignment, alignments
from simsearch.images.confirm import EDITS, confirm, oriented
from simsearch.images.decode import load_image
from simsearch.images.signature import (
    MAX_DISTANCE,
    SIGNATURE,
    candidates,
    is_blank,
    orient,
    oriented_hashes,
    signature,
)


def jpeg(image, quality=85):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return load_image(file.getvalue())


def watermark(image):
    layer = Image.new("RGBA", image.size)
    ImageDraw.Draw(layer).text((20, 120), "SAMPLE PHOTO", fill=(255, 255, 255, 150), font_size=44)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def screenshot(image):
    screen = Image.new("RGB", (image.width + 200, image.height + 130), (240, 240, 244))
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, screen.width, 30), fill=(50, 60, 70))
    draw.text((10, 6), "Viewer   File   Edit   Help", fill="white", font_size=16)
    screen.paste(image, (150, 70))
    return screen


def tint(image):
    return Image.fromarray((np.asarray(image) * [1.1, 1.0, 0.8]).clip(0, 255).astype(np.uint8))


COPIES = {
    "resized": lambda image: image.resize((image.width // 2, image.height // 2)),
    "recompressed": lambda image: jpeg(image, 40),
    "crop": lambda image: image.crop((60, 30, image.width - 20, image.height - 40)),
    "border": lambda image: ImageOps.expand(image, 30, (30, 60, 120)),
    "mirror": ImageOps.mirror,
    "turn": lambda image: image.rotate(90, expand=True),
    "tint": tint,
    "grey": lambda image: image.convert("L").convert("RGB"),
    "watermark": watermark,
    "rotated": lambda image: image.rotate(3, Image.Resampling.BICUBIC),
    "screenshot": screenshot,
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_edit_is_confirmed_and_told_by_name(kind, seed):
    photo = scene(seed)
    copy = jpeg(COPIES[kind](photo))
    edit = confirm(photo, copy)
    assert edit is not None
    assert edit.kind == kind
    assert edit.kind == edit.edits[0]
    assert edit.level == "near"
    assert edit.derived == (1 if kind in {"border", "screenshot", "crop"} else None)
    turned = None if edit.derived is None else 1 - edit.derived
    assert confirm(copy, photo) == replace(edit, derived=turned)


def test_equal_pixels_are_identical():
    photo = scene()
    assert confirm(photo, photo.copy()).level == "identical"
    changed = photo.copy()
    changed.putpixel((200, 150), (0, 255, 0))
    assert confirm(photo, changed).level == "near"


@pytest.mark.parametrize("orientation", range(1, 8))
def test_confirm_finds_all_turns_and_mirrors(orientation):
    photo = scene(4)
    edit = confirm(photo, jpeg(oriented(photo, orientation)))
    assert edit.kind == ("mirror" if orientation >= 4 else "turn")


def test_two_edits_at_once_are_both_told():
    photo = scene(5)
    edit = confirm(photo, jpeg(ImageOps.mirror(photo).convert("L").convert("RGB")))
    assert edit.edits == ("mirror", "grey")


def burst(photo, thing, share):
    """Two shots of one background: the thing is in two places, of so much of the area."""
    side = round((share * photo.width * photo.height) ** 0.5)
    small, mask = thing.resize((side, side)), Image.new("L", (side, side))
    ImageDraw.Draw(mask).ellipse((0, 0, side, side), fill=255)
    shots = photo.copy(), photo.copy()
    for shot, place in zip(shots, ((50, 60), (250, 150)), strict=True):
        shot.paste(small, place, mask)
    return shots


@pytest.mark.parametrize("share", [0.003, 0.01, 0.05, 0.1])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_next_shot_of_a_burst_is_no_copy(share, seed):
    first, second = burst(scene(seed), scene(seed + 10), share)
    assert confirm(first, jpeg(second)) is None


@pytest.mark.parametrize("color", ["white", "black", (200, 30, 30)])
def test_a_patch_that_hides_a_part_is_no_watermark(color):
    photo = scene(6)
    hidden = photo.copy()
    ImageDraw.Draw(hidden).rectangle((100, 100, 160, 160), fill=color)
    assert confirm(photo, hidden) is None


def page(seed, size=(620, 877)):
    image = Image.new("RGB", size, "white")
    draw, rng = ImageDraw.Draw(image), np.random.default_rng(seed)
    for y in range(50, size[1] - 50, 18):
        words = [
            "".join(rng.choice(list("abcdefghmnorstuvw"), rng.integers(2, 9))) for _ in range(9)
        ]
        draw.text((50, y), " ".join(words), fill="black", font_size=12)
    return image


def code(seed):
    modules = np.random.default_rng(seed).random((33, 33)) > 0.5
    for y, x in ((0, 0), (0, 26), (26, 0)):
        modules[y : y + 7, x : x + 7] = False
        modules[y + 2 : y + 5, x + 2 : x + 5] = True
    return Image.fromarray((modules * 255).astype(np.uint8)).resize((330, 330), 0).convert("RGB")


def sky(seed):
    rng = np.random.default_rng(seed)
    levels = rng.normal(8, 2, (300, 400)) + np.linspace(0, 15, 300)[:, None]
    levels[rng.integers(0, 300, 90), rng.integers(0, 400, 90)] += rng.uniform(60, 240, 90)
    image = Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
    ImageDraw.Draw(image).ellipse((200, 40, 250, 90), fill=(230, 230, 220))  # the same moon
    return image


def digit(seed):
    image = Image.new("L", (28, 28))
    ImageDraw.Draw(image).text((7, 1), str(seed), fill=255, font_size=22)
    return image.convert("RGB")


@pytest.mark.parametrize("make", [page, code, sky, digit])
def test_pictures_of_one_kind_are_no_copies(make):
    pictures = [make(seed) for seed in range(5)]
    found = [(i, j) for j in range(5) for i in range(j) if confirm(pictures[i], pictures[j])]
    assert found == []


@pytest.mark.parametrize("make", [page, code, sky])
def test_copies_of_such_pictures_are_still_found(make):
    picture = make(1)
    assert confirm(picture, jpeg(picture)).level == "near"


def test_a_page_with_another_number_is_another_page():
    pages = page(1), page(1)
    for each, amount in zip(pages, ("1,250.00", "7,430.00"), strict=True):
        ImageDraw.Draw(each).rectangle((300, 400, 420, 430), fill="white")
        ImageDraw.Draw(each).text((310, 405), amount, fill="black", font_size=16)
    assert confirm(*pages) is None


def test_a_form_that_was_filled_in_is_no_watermarked_form():
    form, filled = page(1), page(1)
    ImageDraw.Draw(form).rectangle((50, 300, 500, 420), fill="white")
    filled.paste(form)
    ImageDraw.Draw(filled).text((60, 320), "Jane Doe", fill=(20, 20, 120), font_size=40)
    assert confirm(form, filled) is None


def test_panoramas_with_a_common_centre_are_no_copies():
    pictures = []
    for seed in (1, 2):
        wide = Image.new("RGB", (1200, 400))
        wide.paste(scene(seed + 20, (800, 400)), (0, 0))
        wide.paste(scene(seed + 30, (400, 400)), (800, 0))
        wide.paste(scene(9, (400, 400)), (400, 0))
        pictures.append(wide)
    assert confirm(*pictures) is None
    assert confirm(pictures[0], scene(9, (400, 400))).kind == "crop"


@pytest.mark.parametrize(("side", "kind"), [(75, None), (140, "crop")])
def test_a_part_of_few_pixels_proves_nothing(side, kind):
    """The whole shows 44% of its side in the part: 33 pixels, and 62."""
    whole = textured(3).resize((240, 240), Image.Resampling.BOX)
    part = whole.crop((75, 112, 180, 217))
    small = whole.resize((side, side), Image.Resampling.BOX)
    position = Alignment(0.6, 0, swapped=False, box=(75 / 240, 112 / 240, 180 / 240, 217 / 240))
    edit = confirm(part, small, positions=[position])
    assert (edit and edit.kind) == kind


def test_blank_pictures_are_no_copies_of_each_other():
    blanks = [Image.new("RGB", (90, 60), color) for color in ("white", "white", (254, 255, 255))]
    rows = np.array([signature(each) for each in blanks], SIGNATURE)
    assert is_blank(rows).all()
    assert len(candidates(rows)) == 0
    assert confirm(blanks[0], blanks[1]) is None


def test_a_signature_needs_rgb():
    with pytest.raises(QueryError, match="RGB image, not L: use load_image"):
        signature(Image.new("L", (9, 9)))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2), (64, 64), (2000, 31)])
def test_every_size_has_a_signature_and_can_be_compared(size):
    image = scene(1, size)
    row = signature(image)
    assert (row["width"], row["height"]) == size
    assert row.dtype == SIGNATURE
    confirm(image, scene(2, size))  # no error, whatever it says


def test_a_jpeg_decoded_at_a_part_of_its_size_has_nearly_the_same_signature(tmp_path):
    scene(1, (1600, 1200)).save(tmp_path / "large.jpg")
    whole, part = (load_image(tmp_path / "large.jpg", side) for side in (None, 200))
    assert part.width < whole.width
    rows = signature(whole), signature(part, whole.size)
    assert [int(row["width"]) for row in rows] == [1600, 1600]
    assert int(rows[0]["hash"] ^ rows[1]["hash"]).bit_count() <= 1
    assert np.abs(rows[0]["luma"].astype(int) - rows[1]["luma"]).mean() < 1.5
    assert confirm(whole, part, rows).kind == "recompressed"  # the files have one size


def test_signatures_are_saved_without_pickle(tmp_path):
    rows = np.array([signature(scene(seed)) for seed in range(3)], SIGNATURE)
    np.save(tmp_path / "signatures.npy", rows)
    assert np.array_equal(np.load(tmp_path / "signatures.npy", allow_pickle=False), rows)
    assert SIGNATURE.itemsize <= 1200


@given(st.integers(0, 1000), st.integers(0, 7))
@settings(max_examples=30, deadline=None)
def test_hash_of_an_oriented_picture_is_the_oriented_hash(seed, orientation):
    image = scene(seed, (128, 128))
    turned = Image.fromarray(np.ascontiguousarray(orient(np.asarray(image), orientation)))
    assert turned.tobytes() == oriented(image, orientation).tobytes()
    expected = oriented_hashes(np.array([signature(image)["hash"]]))[0, orientation]
    assert int(signature(turned)["hash"] ^ expected).bit_count() <= 1  # rounding, near zero


@given(st.integers(0, 2**32), st.integers(0, MAX_DISTANCE))
@settings(max_examples=40, deadline=None)
def test_candidates_are_all_pairs_within_the_distance(seed, distance):
    """Against every pair compared in every orientation."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(40, SIGNATURE)
    rows["detail"] = np.where(rng.random(40) < 0.9, 5, 0)
    rows["hash"] = rng.integers(0, 2**64, 40, np.uint64) & ~np.uint64(0x80)
    for i in range(20, 40):  # near to an earlier one, in some orientation
        near = int(oriented_hashes(rows["hash"][i - 20 : i - 19])[0, rng.integers(8)])
        for bit in rng.choice([*range(7), *range(8, 64)], rng.integers(0, 10), replace=False):
            near ^= 1 << int(bit)
        rows["hash"][i] = near
    rows["inner_hash"] = np.where(rng.random(40) < 0.5, rows["hash"], rows["hash"][::-1])
    variants = {name: oriented_hashes(rows[name]) for name in ("hash", "inner_hash")}
    expected = [
        (i, j)
        for i in range(40)
        for j in range(i + 1, 40)
        if not is_blank(rows[[i, j]]).any()
        and any(
            int(each ^ rows[name][i]).bit_count() <= distance
            for name in variants
            for other in variants.values()
            for each in other[j]
        )
    ]
    assert [tuple(pair) for pair in candidates(rows, distance).tolist()] == expected


def test_candidates_reject_a_distance_that_is_not_searched():
    with pytest.raises(QueryError, match="max_distance=8 is not between 0 and 7"):
        candidates(np.zeros(2, SIGNATURE), 8)


def test_candidates_find_what_embeddings_see_badly():
    photo = scene(8)
    kinds = ["mirror", "turn", "grey", "border", "watermark", "recompressed"]
    pictures = [photo, *(jpeg(COPIES[kind](photo)) for kind in kinds), scene(9)]
    rows = np.array([signature(each) for each in pictures], SIGNATURE)
    pairs = candidates(rows).tolist()
    assert [[0, i + 1] for i in range(len(kinds)) if [0, i + 1] not in pairs] == []
    assert not any(len(pictures) - 1 in pair for pair in pairs)


def test_alignment_says_where_one_picture_lies_in_the_other():
    photo = scene(2)
    part = photo.crop((100, 60, 350, 260))
    best = alignments(signature(photo), signature(part))[0]
    assert best.swapped
    assert np.allclose(best.box, (0.25, 0.2, 0.875, 0.867), atol=0.05)


def test_every_name_of_an_edit_is_documented():
    assert set(COPIES) | {"identical"} == set(EDITS)
