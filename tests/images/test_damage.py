"""Files with damage, or extras, that do not matter; and files with damage that does."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import SWAPPED, difference, encoded, oriented, photo, pixels, smooth
from PIL import Image

from simsearch.errors import ImageError
from simsearch.images import repair
from simsearch.images.decode import load_image
from simsearch.images.header import read_header

PICTURE = smooth(192, 128)


def chunk(kind, body, *, damage=0):
    return (
        struct.pack(">I", len(body))
        + kind
        + body
        + struct.pack(">I", zlib.crc32(kind + body) ^ damage)
    )


def png_with(*chunks, at_the_end=False, **options):
    """A PNG with chunks after its header, or before its end."""
    raw = encoded(Image.fromarray(PICTURE), "PNG", **options)
    cut = len(raw) - 12 if at_the_end else 33
    return raw[:cut] + b"".join(chunks) + raw[cut:]


LONG = b'{"nodes": 1}' * 200_000
EXTRAS = {
    "zTXt": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(LONG)),
    "iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(LONG)),
    "tEXt": chunk(b"tEXt", b"workflow\0" + LONG),
    "many zTXt": b"".join(
        chunk(b"zTXt", b"w%d\0\0" % i + zlib.compress(b"x" * 900_000)) for i in range(80)
    ),
    "iCCP of zeros": chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(3_000_000))),
    "iCCP of rubbish": chunk(b"iCCP", b"p\0\0rubbish"),
    "damaged comment": chunk(b"tEXt", b"Comment\0hello", damage=1),
    "damaged time": chunk(b"tIME", b"\7\xe8\1\1\0\0\0", damage=1),
    "damaged profile": chunk(b"iCCP", b"p\0\0" + zlib.compress(SWAPPED[:200]), damage=1),
    "cut text": chunk(b"zTXt", b"w\0\0" + zlib.compress(LONG)[:50]),
}


@pytest.mark.parametrize("name", EXTRAS)
@pytest.mark.parametrize("at_the_end", [False, True])
def test_extras_of_a_png_do_not_keep_it_out(name, at_the_end, tmp_path):
    data = png_with(EXTRAS[name], at_the_end=at_the_end)
    path = tmp_path / "1.png"
    path.write_bytes(data)
    for source in (data, path):
        assert difference(load_image(source), PICTURE) == 0
        assert read_header(source) == ("PNG", 192, 128)


def test_a_large_profile_of_a_png_still_counts():
    profile = bytearray(SWAPPED + bytes(2_000_000))
    profile[:4] = len(profile).to_bytes(4, "big")
    data = png_with(chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(profile))))
    with pytest.raises(ValueError, match="too large"):
        Image.open(io.BytesIO(data))
    assert difference(load_image(data), PICTURE[..., ::-1]) < 2


def test_orientation_and_transparency_survive_the_repair():
    exif = Image.Exif()
    exif[274] = 6
    data = png_with(EXTRAS["zTXt"], exif=exif.tobytes(), transparency=tuple(PICTURE[0, 0].tolist()))
    image = pixels(load_image(data))
    assert image.shape == (192, 128, 3)
    assert (image[0, -1] == 255).all()


def test_damaged_pixels_of_a_png_stay_an_error():
    raw = bytearray(photo("PNG"))
    raw[len(raw) // 2] ^= 1
    for damaged in (bytes(raw), photo("PNG")[:2000]):
        with pytest.raises(ImageError):
            load_image(damaged[:33] + EXTRAS["zTXt"] + damaged[33:])
    header = bytearray(png_with())
    header[30] ^= 1  # checksum of the header itself
    with pytest.raises(ImageError, match=r"not a supported image format"):
        load_image(bytes(header))


# JPEG without its last bytes


def jpeg(array=PICTURE, **options):
    return encoded(Image.fromarray(array), "JPEG", **{"quality": 90, **options})


NOISE = np.random.default_rng(0).integers(0, 256, (256, 192, 3), np.uint8)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}]
)
@pytest.mark.parametrize("cut", [1, 2, 3, 20])
def test_a_jpeg_without_its_last_bytes_is_read_and_said(options, cut, tmp_path, caplog):
    path = tmp_path / "1.jpg"
    path.write_bytes(jpeg(NOISE, **options)[:-cut])
    with caplog.at_level(logging.WARNING):
        image = load_image(path)
    assert image.size == (192, 256)
    whole = pixels(load_image(jpeg(NOISE, **options)))
    assert np.abs(pixels(image) - whole)[:224].mean() < 2
    if cut > 2:  # without the end marker alone, Pillow misses nothing
        assert f"{path}: the end of the file is missing" in caplog.text


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_cut_shorter_is_an_error(share, progressive, caplog):
    data = jpeg(NOISE, progressive=progressive)
    if progressive:
        scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
        share = min(share, (scans[4] - 1) / len(data))
    with pytest.raises(ImageError, match="truncated"):
        load_image(data[: int(share * len(data))])
    assert caplog.text == ""


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.02, 1), orientation=st.sampled_from([1, 6]))
def test_what_is_accepted_of_a_cut_jpeg_has_nearly_all_rows(share, orientation):
    data = oriented(NOISE, orientation, "JPEG")
    part = data[: int(share * len(data))]
    try:
        image = load_image(part)
    except ImageError:
        assert share < 0.97
        return
    good = np.abs(pixels(image) - pixels(load_image(data))).mean(axis=2) < 20
    assert good.mean() > repair.MIN_ROWS - 0.1  # a block's row is lost as a whole
    assert share > 0.8


def test_a_cut_file_is_embedded_with_the_others(tmp_path, caplog):
    import simsearch as ss

    (tmp_path / "1.jpg").write_bytes(jpeg(NOISE)[:-30])
    (tmp_path / "2.jpg").write_bytes(jpeg(NOISE)[:2000])
    (tmp_path / "3.jpg").write_bytes(photo("JPEG"))
    library = ss.embed_dataset(
        tmp_path, tmp_path / "o", "efficientnet_lite0", workers=1, progress=False
    )
    assert library.names == ["1.jpg", "3.jpg"]
    assert "1.jpg: the end of the file is missing" in caplog.text
