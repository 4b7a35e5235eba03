"""Images of every mode, size, orientation and format, made at random, against a plain oracle."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import STORED, encoded, pixels
from PIL import ExifTags, Image

from simsearch.images import decode, large
from simsearch.images.decode import load_image

# Lossless formats, and the modes that Pillow writes into them as they are.
WRITES = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F"],
    "WEBP": ["L", "RGB", "RGBA"],
    "BMP": ["1", "L", "P", "RGB"],
    "GIF": ["L", "P"],
}
CHANNELS = {"L": 1, "P": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "LAB": 3}


@st.composite
def images(draw, kind):
    """An image of a mode that a format holds, of any pixels."""
    mode = draw(st.sampled_from(WRITES[kind]))
    width, height = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if mode in {"I;16", "I", "F"}:
        width = max(width, 2)  # one value alone has no range of its own
        top = draw(st.sampled_from([255, 1023, 4095, 65535]))
        values = rng.integers(0, top + 1, (height, width))
        values[0, 0], values[-1, -1] = 0, top
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(values.astype(dtype)), top
    if mode == "1":
        return Image.fromarray(rng.integers(0, 2, (height, width)).astype(bool)), None
    size = (height, width, CHANNELS[mode])
    image = Image.frombytes(mode, (width, height), rng.integers(0, 256, size, np.uint8).tobytes())
    if mode == "P":
        image.putpalette(rng.integers(0, 256, 768, np.uint8).tobytes())
    return image, None


def expected(image, top):
    """Pixels by hand: (H, W, 3) of 0 to 255."""
    if top is not None:
        return np.repeat((np.asarray(image) * (255.0 / top))[..., None], 3, axis=2)
    if image.mode in {"LA", "RGBA"}:
        values = np.asarray(image.convert("RGBA")).astype(float)
        return values[..., :3] * values[..., 3:] / 255 + 255 - values[..., 3:]
    return np.asarray(image.convert("RGB")).astype(float)


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("strips", [False, True])
@settings(max_examples=60, deadline=None)
@given(data=st.data(), orientation=st.sampled_from(sorted(STORED)))
def test_any_image_becomes_what_it_shows(kind, strips, data, orientation):
    image, top = data.draw(images(kind))
    if image.mode == "LAB" or (kind == "TIFF" and image.mode == "P"):
        orientation = 1  # its colours are compared by test_depth, or Pillow does not write it
    turned = orientation != 1 and kind in {"PNG", "TIFF", "WEBP"}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"exif": exif.tobytes()} if turned else {}
    file = encoded(image, kind, lossless=True, exact=True, **options)
    with pytest.MonkeyPatch.context() as patch:
        if strips:
            patch.setattr(decode, "LARGE_PIXELS", 0)
            patch.setattr(large, "STRIP_PIXELS", 40)
            patch.setattr(large, "_sampled", lambda whole: whole)
        loaded = load_image(file)
    assert loaded.mode == "RGB"
    with Image.open(io.BytesIO(file)) as stored:
        if stored.mode != image.mode and top is None:
            stored.load()
            image = stored.copy()
    if image.mode == "LAB":
        assert loaded.size == image.size
        return
    wanted = expected(image, top)
    if turned:
        wanted = UPRIGHT[orientation](wanted)
    shown = pixels(loaded)
    assert shown.shape == wanted.shape
    if image.mode in {"LA", "RGBA"} and np.abs(255 - wanted).mean() < 20:
        return  # so nearly white that the ground may be black: see test_alpha
    assert np.abs(shown - wanted).max() <= 1


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
