"""Large WebP pictures: torchvision's pixels are Pillow's, and what it cannot read is Pillow's."""

import io

import numpy as np
import pytest
import torch  # noqa: F401 (without it, Pillow decodes)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

import simsearch as ss
from simsearch.errors import ImageError
from simsearch.images import decode, webp


@pytest.fixture(autouse=True)
def every_picture_is_large(monkeypatch):
    monkeypatch.setattr(decode, "LARGE_PIXELS", 0)


def picture(width=90, height=70, mode="RGB", seed=0):
    rng = np.random.default_rng(seed)
    squares = rng.integers(0, 256, (7, 9, len(mode)), np.uint8)
    return Image.fromarray(squares).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, **options):
    stream = io.BytesIO()
    image.save(stream, "WEBP", **options)
    return stream.getvalue()


def by_pillow(data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(webp, "load_webp", lambda *_: None)
        return np.asarray(ss.load_image(data))


@pytest.fixture
def taken(monkeypatch):
    """Whether torchvision has decoded, call by call."""
    calls, load = [], webp.load_webp

    def load_noted(*arguments):
        decoded = load(*arguments)
        calls.append(decoded is not None)
        return decoded

    monkeypatch.setattr(webp, "load_webp", load_noted)
    return calls


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 130),
    height=st.integers(1, 130),
    quality=st.integers(0, 100),
    lossless=st.booleans(),
    seed=st.integers(0, 99),
)
def test_pixels_are_those_of_pillow(width, height, quality, lossless, seed):
    data = encoded(picture(width, height, seed=seed), quality=quality, lossless=lossless)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
        decoded = webp.load_webp(image, data)
    assert decoded is not None
    assert np.array_equal(np.asarray(decoded), expected)


def test_files_and_bytes_are_read(taken, tmp_path, monkeypatch):
    data = encoded(picture())
    (tmp_path / "a.webp").write_bytes(data)
    expected = by_pillow(data, monkeypatch)
    for source in (data, tmp_path / "a.webp", str(tmp_path / "a.webp")):
        assert np.array_equal(np.asarray(ss.load_image(source)), expected)
    assert taken == [True] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_and_profile_are_applied(orientation, taken, monkeypatch):
    exif = Image.Exif()
    exif[274] = orientation
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(picture(), exif=exif, icc_profile=profile)
    expected = by_pillow(data, monkeypatch)
    assert np.array_equal(np.asarray(ss.load_image(data)), expected)
    assert expected.shape == ((70, 90, 3) if orientation < 5 else (90, 70, 3))
    assert taken == [True]


def test_pictures_with_alpha_are_left_to_pillow(taken, monkeypatch):
    data = encoded(picture(mode="RGBA"))
    assert np.array_equal(np.asarray(ss.load_image(data)), by_pillow(data, monkeypatch))
    assert taken == [False]


def test_animations_are_left_to_pillow(taken, monkeypatch):
    frames = [picture(seed=seed) for seed in range(3)]
    data = encoded(frames[0], save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(np.asarray(ss.load_image(data)), np.asarray(frames[0]))
    assert taken == [False]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_files_that_are_cut_end_as_with_pillow(share, monkeypatch):
    data = encoded(picture(300, 200))
    cut = data[: int(len(data) * share)]

    def outcome():
        try:
            return np.asarray(ss.load_image(cut)).tobytes()
        except ImageError as error:
            return error.reason

    ours = outcome()
    monkeypatch.setattr(webp, "load_webp", lambda *_: None)
    assert ours == outcome()


@pytest.mark.parametrize("error", [ImportError, DeprecationWarning])
def test_where_torchvision_has_no_decoder_pillow_decodes(error, taken, monkeypatch):
    def refuse(data):
        raise error("no decode_webp")

    data = encoded(picture())
    expected = by_pillow(data, monkeypatch)
    monkeypatch.setattr(webp, "_decode", refuse)
    assert np.array_equal(np.asarray(ss.load_image(data)), expected)
    assert taken == [False]


def test_without_pytorch_pillow_decodes(taken, monkeypatch):
    monkeypatch.delitem(webp.sys.modules, "torch")
    ss.load_image(encoded(picture()))
    assert taken == [False]


def test_an_image_that_the_caller_opened_is_left_to_pillow(taken, tmp_path):
    (tmp_path / "a.webp").write_bytes(encoded(picture()))
    with Image.open(tmp_path / "a.webp") as image:
        assert ss.load_image(image).size == (90, 70)
