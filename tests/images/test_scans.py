"""JPEGs with so many scans that a small file would occupy a decoder."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scan_bombs import encode_jpeg, repeat_scans

import simsearch as ss
from simsearch.errors import ImageError
from simsearch.images.scans import MAX_JPEG_SCANS, count_scans


def test_scans_are_counted():
    plain = repeat_scans(0)
    assert count_scans(plain) == plain.count(b"\xff\xda") > 5
    assert count_scans(repeat_scans(500)) == count_scans(plain) + 500


def test_scans_in_metadata_and_trailing_data_are_not_counted():
    """Such as a preview in the header, or a video after the image."""
    scan = b"\xff\xda" * 500
    exif = Image.Exif()
    exif[0x010E] = "x"
    data = encode_jpeg(exif=exif.tobytes() + scan)
    assert count_scans(data + scan) == count_scans(encode_jpeg()) == 1


@given(st.binary())
def test_damage_is_counted_without_an_error(data):
    count_scans(data)
    count_scans(b"\xff\xd8" + data)


def one_scan_for_each_channel():
    """Make a sequential JPEG whose first scan holds its first channel alone, many times."""
    data = encode_jpeg()
    at = data.index(b"\xff\xda")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    head = b"\xff\xda" + bytes((0, 8, 1)) + data[at + 5 : at + 7] + b"\x00\x3f\x00"
    scan = head + data[at + 2 + length : -2]
    return data[:at] + scan * (MAX_JPEG_SCANS + 1) + data[-2:]


@pytest.mark.parametrize("data", [repeat_scans(200), one_scan_for_each_channel()])
def test_scan_bombs_are_refused_before_they_are_decoded(data, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="scans, over the limit of 100"):
        ss.load_image(data)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_ordinary_jpegs_are_read_as_by_pillow(mode, progressive, tmp_path):
    data = encode_jpeg(mode, progressive=progressive)
    (tmp_path / "a.jpg").write_bytes(data)
    expected = Image.open(io.BytesIO(data)).convert("RGB").tobytes()
    assert ss.load_image(data).tobytes() == expected
    assert ss.load_image(tmp_path / "a.jpg").tobytes() == expected


def test_scan_bomb_is_skipped_by_embed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/bomb.jpg").write_bytes(repeat_scans(200))
    (tmp_path / "dataset/good.jpg").write_bytes(repeat_scans(0))
    library = ss.embed_dataset("dataset", "outputs", "efficientnet_lite0", progress=False)
    assert library.names == ["good.jpg"]
    assert "scans" in next(iter(library.report.left_out))
