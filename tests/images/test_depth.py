"""Values of more than 8 bits are scaled by what they declare, or by the range that they use."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pictures import difference, encoded, pixels, png, smooth
from PIL import Image

import simsearch as ss
from simsearch.errors import ImageError
from simsearch.images.decode import load_image
from simsearch.images.depth import find_levels, scale

GREY = smooth().mean(axis=2).astype(np.float64)  # (64, 96), of 0 to 255
GREY = (GREY - GREY.min()) / (GREY.max() - GREY.min())


def tiff(values, **options):
    data = io.BytesIO()
    tifffile.imwrite(data, values, **options)
    return data.getvalue()


def grey_of(source):
    image = pixels(load_image(source))
    assert np.ptp(image, axis=2).max() == 0
    return image[..., 0]


def png_16(values):
    """A PNG of 16 bits a channel, which Pillow cannot write in colour."""
    height, width, channels = values.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return png((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_grey_of_so_many_bits_in_16_looks_like_its_8_bit_version(bits):
    values = (GREY * (2**bits - 1)).astype(np.uint16)
    for source in (tiff(values), values, encoded(Image.fromarray(values), "PNG")):
        assert np.abs(grey_of(source) - GREY * 255).max() <= 1


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_so_many_bits_in_16_look_like_their_8_bit_version(bits, channels):
    colours = smooth().astype(np.float64) / 255
    colours *= 1 / colours.max()
    if channels == 2:
        colours = np.repeat(GREY[..., None], 3, axis=2)
    values = (colours * (2**bits - 1)).astype(np.uint16)
    opaque = np.full((*GREY.shape, 1), 65535, np.uint16)
    files = []
    if channels == 2:
        files.append(png_16(np.concatenate([values[..., :1], opaque], axis=2)))
    elif channels == 3:
        files += [png_16(values), tiff(values, photometric="rgb"), encoded_big_endian(values)]
    else:
        files.append(png_16(np.concatenate([values, opaque], axis=2)))
    for file in files:
        assert np.abs(pixels(load_image(file)) - colours * 255).max() <= 1.5


def encoded_big_endian(values):
    return tiff(values, photometric="rgb", byteorder=">")


def test_ten_bits_find_their_scene(tmp_path):
    rng = np.random.default_rng(0)
    scenes = [Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)) for _ in range(6)]
    scenes = [np.asarray(scene.resize((90, 90))) for scene in scenes]
    for i, scene in enumerate(scenes):
        tifffile.imwrite(tmp_path / f"{i}.tif", scene.astype(np.uint16) * 4)
    library = ss.embed_dataset(
        tmp_path, tmp_path / "o", "efficientnet_lite0", workers=1, progress=False
    )
    for i, scene in enumerate(scenes):
        (match,) = ss.search(library, Image.fromarray(scene), k=1)
        assert match.path.endswith(f"{i}.tif")
        assert match.score > 0.99


def test_a_plain_16_bit_photo_keeps_its_exposure():
    values = (GREY * 40_000).round().astype(np.uint16)
    assert np.abs(grey_of(tiff(values)) - values / 257).max() <= 0.5


def test_signed_values_are_scaled_by_their_own_range():
    values = (GREY * 3000 - 1000).astype(np.int16)
    assert np.abs(grey_of(tiff(values)) - GREY * 255).max() <= 1
    padded = values.copy()
    padded[:5] = -32768  # what scanners write outside of the body
    image = grey_of(tiff(padded))
    low, high = padded[5:].min(), padded[5:].max()
    assert not image[:5].any()
    assert np.abs(image[5:] - (padded[5:] - low) * 255.0 / (high - low)).max() <= 0.5


@pytest.mark.parametrize("low", [0, 20_000, 29_000])
def test_a_small_part_of_the_range_is_stretched(low):
    values = (low + GREY * 2000 * (low > 0) + GREY * 1000 * (low == 0)).astype(np.uint16)
    if not low:
        values[0, 0] = 65535  # one hot pixel
    assert (
        np.abs(np.sort(grey_of(tiff(values)).ravel()[1:]) - np.sort(GREY.ravel()[1:] * 255)).mean()
        < 2
    )


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("top", [1, 200, 60_000, 3_000_000])
def test_wide_types_show_the_scene(dtype, top):
    if np.dtype(dtype).kind in "iu":
        top = max(top, 200)  # fewer whole numbers show little
    values = (GREY * top).astype(dtype)
    image = grey_of(tiff(values))
    assert np.corrcoef(image.ravel(), GREY.ravel())[0, 1] > 0.99
    assert image.max() >= 127


def test_unsigned_32_bits_beyond_the_signed_range():
    values = (GREY * (2**32 - 1)).astype(np.uint32)
    assert np.abs(grey_of(tiff(values)) - GREY * 255).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_min_is_white_is_turned_round(dtype):
    values = (GREY * (1 if dtype == np.float32 else np.iinfo(dtype).max)).astype(dtype)
    file = tiff(values, photometric="miniswhite")
    assert np.abs(grey_of(file) - (255 - GREY * 255)).max() <= 1


@pytest.mark.parametrize("tags", [(280, 281), (340, 341)])
def test_a_declared_range_is_taken(tags):
    values = (500 + GREY * 200).astype(np.uint16)
    extra = [(tag, "H", 1, value, True) for tag, value in zip(tags, (400, 1400), strict=True)]
    image = grey_of(tiff(values, extratags=extra))
    assert np.abs(image - (values - 400.0) * 255 / 1000).max() <= 0.5


@pytest.mark.parametrize(("low", "high"), [(0, 65535), (550, 600), (9, 9)])
def test_a_declared_range_that_says_nothing_is_ignored(low, high):
    values = (500 + GREY * 500).astype(np.uint16)
    extra = [(280, "H", 1, low, True), (281, "H", 1, high, True)]
    assert np.array_equal(grey_of(tiff(values, extratags=extra)), grey_of(tiff(values)))


def test_missing_values_are_black_and_do_not_count():
    values = (GREY * 0.9).astype(np.float32)
    values[:4], values[4:6], values[6:8] = np.nan, np.inf, -np.inf
    image = grey_of(tiff(values))
    assert not image[:4].any()
    assert (image[4:6] == 255).all()
    assert np.abs(image[8:] - values[8:] * 255).max() <= 0.5
    values = (GREY * 3000 - 200).astype(np.float32)
    values[:4] = -9999
    file = tiff(values, extratags=[(42113, "s", 0, "-9999", True)])
    assert not grey_of(file)[:4].any()
    assert grey_of(file)[4:].min() < 40
    assert grey_of(file)[4:].max() > 250


@pytest.mark.parametrize("channels", [2, 4, 5, 8])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_many_channels_show_the_first_three(channels, dtype, planar):
    layers = [np.roll(GREY, 7 * i, axis=1) for i in range(channels)]
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    values = (np.stack(layers, axis=2 if planar == "contig" else 0) * top).astype(dtype)
    extra = ["unspecified"] * (channels - 1)
    file = tiff(values, photometric="minisblack", planarconfig=planar, extrasamples=extra)
    shown = layers[:3] if channels >= 3 else [layers[0]] * 3
    assert np.abs(pixels(load_image(file)) - 255 * np.stack(shown, axis=2)).max() <= 1.5


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_bilevel(photometric):
    bits = GREY > 0.5
    wanted = bits if photometric == "minisblack" else ~bits
    assert np.array_equal(grey_of(tiff(bits, photometric=photometric)), 255 * wanted)


def test_12_bits_packed():
    """Two values in three bytes, as microscopes write them; the tag says 12 bits."""
    values = (GREY * 1000).astype(np.uint16).ravel()
    first, second = values[::2].astype(int), values[1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
    data = packed.astype(np.uint8).tobytes()
    tags = [(256, 96), (257, 64), (258, 12), (259, 1), (262, 1), (273, 200), (277, 1)]
    tags += [(278, 64), (279, len(data))]
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    head += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    file = head.ljust(200, b"\0") + data
    image = grey_of(file)
    assert np.abs(image - values.reshape(64, 96) * 255.0 / 4095).max() <= 0.5


def test_cie_lab_becomes_srgb():
    lab = np.zeros((8, 8, 3), np.uint8)
    lab[..., 0] = np.linspace(0, 255, 8).round()
    picture = Image.frombytes("LAB", (8, 8), lab.tobytes())
    image = pixels(load_image(picture))
    assert image[0, 0].max() <= 2
    assert image[0, 7].min() >= 250
    assert np.ptp(image, axis=2).max() <= 3
    assert (
        difference(
            load_image(encoded(Image.frombytes("LAB", (8, 8), lab.tobytes()), "TIFF")), image
        )
        < 1
    )


def test_a_damaged_tiff_of_a_rare_kind_is_an_image_error():
    file = tiff(np.zeros((8, 8, 5), np.float32), photometric="minisblack", planarconfig="contig")
    for cut in (9, 100, len(file) - 300):
        with pytest.raises(ImageError, match=r"bytes: \w"):
            load_image(file[:cut])


# Any values


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from(["u2", "i2", "u4", "i4", "f4", "f8"]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    )
)
def test_any_values_give_an_order_that_agrees_with_theirs(values):
    image = scale(values, find_levels(values))
    assert image.dtype == np.uint8
    assert image.shape == values.shape
    there = np.isfinite(values)
    if values.dtype.kind in "if":
        limits = np.iinfo(values.dtype) if values.dtype.kind == "i" else np.finfo(values.dtype)
        there &= values != limits.min
    order = np.argsort(values[there], kind="stable")
    assert (np.diff(image[there][order].astype(int)) >= 0).all()
    if there.any() and np.ptp(values[there].astype(float)) > 0:
        assert image[there].max() > image[there].min() or values[there].max() < 3


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
)
def test_every_order_of_bytes_and_planes_shows_the_scene(dtype, byteorder, compression, planes):
    kind, top = np.dtype(dtype).kind, 1.0
    if kind != "f":
        top = float(np.iinfo(dtype).max)
    colours = smooth() / 255
    for photometric, channels in (("minisblack", 1), ("minisblack", 2), ("rgb", 3), ("rgb", 4)):
        shown = colours if channels > 2 else np.repeat(GREY[..., None], 3, axis=2)
        opaque = np.ones((*GREY.shape, 1))
        values = np.concatenate([shown[..., : channels - (channels % 2 == 0)], opaque], axis=2)
        signed = values * 2 - 1 if kind == "i" else values
        values = (signed[..., :channels] * top).astype(dtype)
        if channels == 1:
            values = values[..., 0]
        elif planes == "separate":
            values = np.moveaxis(values, -1, 0)
        options = {"planarconfig": planes} if channels > 1 else {}
        if channels % 2 == 0:
            options["extrasamples"] = ["unassalpha"]
        options |= {"photometric": photometric, "compression": compression}
        file = tiff(values, byteorder=byteorder, **options)
        image = pixels(load_image(file)).astype(float)
        assert np.corrcoef(image.ravel(), shown.ravel())[0, 1] > 0.99, (photometric, channels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32"])
def test_inks_of_any_type_are_subtracted(dtype):
    colours = smooth() / 255
    inks = np.concatenate([1 - colours, np.zeros((*GREY.shape, 1))], axis=2)
    top = 1.0 if dtype == "float32" else float(np.iinfo(dtype).max)
    image = pixels(load_image(tiff((inks * top).astype(dtype), photometric="separated")))
    assert np.corrcoef(image.ravel(), colours.ravel())[0, 1] > 0.99
