"""Large images: limits, reduced scales, strips, and a budget of memory that all workers share."""

import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import SWAPPED, difference, encoded, oriented, pixels, smooth
from PIL import Image

from simsearch.errors import ImageError
from simsearch.images import budget, decode, large
from simsearch.images.budget import MemoryBudget, decoding_budget, memory_bytes
from simsearch.images.decode import load_image
from simsearch.images.header import read_header

ROOT = Path(__file__).parents[2]


def grey_jpeg(width, height, **options):
    """A JPEG of very many pixels and few bytes."""
    data = io.BytesIO()
    Image.new("L", (width, height), 90).save(data, "JPEG", quality=5, **options)
    return data.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(16384, 12288), (20000, 20000)])
def test_a_jpeg_of_200_megapixels_is_read_at_a_reduced_scale(size):
    """Beyond the limit, and beyond twice the limit, where Pillow itself refuses."""
    data = grey_jpeg(*size)
    assert read_header(data) == ("JPEG", *size)
    image = load_image(data, 256)
    assert image.size == (size[0] // 8, size[1] // 8)
    assert abs(image.getpixel((5, 5))[0] - 90) < 5
    image = load_image(data)
    assert image.size == (-(-size[0] // 2), -(-size[1] // 2))


def test_the_scale_of_a_jpeg_fits_the_limit(monkeypatch):
    data = encoded(Image.fromarray(smooth(800, 600)), "JPEG", quality=95)
    for limit, side in [(800 * 600, 600), (800 * 600 - 1, 300), (40_000, 150), (7_500, 75)]:
        monkeypatch.setattr(decode, "MAX_PIXELS", limit)
        for min_side in (None, 500):
            image = load_image(data, min_side)
            assert min(image.size) == side
            assert difference(image.resize((80, 60)), smooth(80, 60)) < 2
    monkeypatch.setattr(decode, "MAX_PIXELS", 7_499)
    with pytest.raises(ImageError, match="800×600 pixels, over the limit of 7,499"):
        load_image(data)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_others_beyond_the_limit_are_refused_with_the_reason(kind, monkeypatch):
    data = encoded(Image.fromarray(smooth()), kind)
    monkeypatch.setattr(decode, "MAX_PIXELS", 6_143)
    with pytest.raises(ImageError, match="96×64 pixels, over the limit of 6,143"):
        load_image(data, 20)


def test_a_huge_progressive_jpeg_is_refused(monkeypatch):
    data = encoded(Image.fromarray(smooth(800, 600)), "JPEG", progressive=True)
    monkeypatch.setattr(decode, "LARGE_PIXELS", 1)
    assert load_image(data, 75).size == (100, 75)
    monkeypatch.setattr(large, "MAX_PROGRESSIVE_PIXELS", 479_999)
    with pytest.raises(ImageError, match="over the limit of 479,999 of a progressive JPEG"):
        load_image(data, 75)


# Strips, compared with the same image decoded at once


DEEP = (smooth(160, 120).mean(axis=2) / 255 * 1023).astype(np.uint16)


def deep_tiff(**options):
    data = io.BytesIO()
    tifffile.imwrite(data, DEEP, **options)
    return data.getvalue()


SOURCES = {
    "RGB": encoded(Image.fromarray(smooth(160, 120)), "PNG"),
    "profile": encoded(Image.fromarray(smooth(160, 120)), "PNG", icc_profile=SWAPPED),
    "palette": encoded(Image.fromarray(smooth(160, 120)).quantize(16), "PNG", transparency=3),
    "CMYK": encoded(Image.fromarray(smooth(160, 120)).convert("CMYK"), "TIFF"),
    "turned": oriented(smooth(160, 120), 6, "PNG"),
    "turned TIFF": oriented(smooth(160, 120), 8, "TIFF"),
    "turned WebP": oriented(smooth(160, 120), 5, "WEBP"),
    "1 bit": encoded(Image.fromarray(smooth(160, 120)).convert("1"), "PNG"),
    "10 bits": deep_tiff(),
    "inverted": deep_tiff(photometric="miniswhite"),
    "array": smooth(160, 120),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("strip", [1, 160 * 7, 10**6])
def test_strips_change_nothing(name, strip, monkeypatch):
    whole = load_image(SOURCES[name])
    monkeypatch.setattr(decode, "LARGE_PIXELS", 1)
    monkeypatch.setattr(large, "STRIP_PIXELS", strip)
    monkeypatch.setattr(large, "_sampled", lambda image: image)
    image = load_image(SOURCES[name])
    assert np.array_equal(pixels(image), pixels(whole))
    assert image.info == {}


@pytest.mark.parametrize("name", SOURCES)
def test_a_reduced_image_looks_like_the_whole_one(name, monkeypatch):
    whole = load_image(SOURCES[name])
    monkeypatch.setattr(decode, "LARGE_PIXELS", 1)
    monkeypatch.setattr(large, "REDUCED_PIXELS", 1)
    monkeypatch.setattr(large, "STRIP_PIXELS", 160 * 11)
    image = load_image(SOURCES[name], 20)
    assert image.size == tuple(side // 3 + (side % 3 > 0) for side in whole.size)
    assert difference(image, pixels(whole.reduce(3))) < 3


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 900))
def test_no_side_falls_under_what_is_asked_for(width, height, min_side, strip):
    image = Image.fromarray(smooth(width, height))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "LARGE_PIXELS", 1)
        patch.setattr(large, "REDUCED_PIXELS", 1)
        patch.setattr(large, "STRIP_PIXELS", strip)
        reduced = load_image(encoded(image, "PNG"), min_side)
    assert min(reduced.size) >= min(min_side, width, height)
    factor = max(1, min(width, height) // (2 * min_side))
    assert reduced.size == (-(-width // factor), -(-height // factor))
    assert difference(reduced, pixels(image.reduce(factor))) == 0


# The budget


def test_the_budget_is_a_share_of_the_memory(monkeypatch, tmp_path):
    assert 2**28 < memory_bytes() < 2**50
    limit = tmp_path / "memory.max"
    for text, wanted in [("1073741824", 2**30), ("max", None), ("", None)]:
        limit.write_text(text)
        monkeypatch.setattr(budget, "CGROUP_LIMITS", (str(limit), str(tmp_path / "absent")))
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert memory_bytes() == min(wanted or machine, machine)
    assert decoding_budget() is decoding_budget()


def test_what_is_held_together_never_exceeds_the_budget():
    shared, held, most = MemoryBudget(100), [0], [0]
    guard = threading.Lock()

    def work(size):
        with shared.reserve(size):
            with guard:
                held[0] += min(size, 100)
                most[0] = max(most[0], held[0])
            time.sleep(0.001)
            with guard:
                held[0] -= min(size, 100)

    sizes = np.random.default_rng(0).integers(1, 140, 60).tolist()
    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert 100 >= most[0] > 50
    assert held == [0]


def test_an_error_gives_back_what_was_held():
    shared = MemoryBudget(10)
    with pytest.raises(ValueError, match="bad"), shared.reserve(10):
        raise ValueError("bad")
    with shared.reserve(10):
        pass


def test_large_images_are_not_decoded_together(monkeypatch):
    """Two workers, and a budget for one such image."""
    data = encoded(Image.fromarray(smooth(400, 300)), "PNG")
    monkeypatch.setattr(decode, "LARGE_PIXELS", 1)
    shared = MemoryBudget(400 * 300 * 8 + 1)
    monkeypatch.setattr(large, "decoding_budget", lambda: shared)
    inside, most, load = [0], [0], large._load

    def slow(image, source):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        inside[0] -= 1
        return load(image, source)

    monkeypatch.setattr(large, "_load", slow)
    threads = [threading.Thread(target=load_image, args=(data,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == [1]


PEAK = """
import re, sys
from simsearch.images.decode import load_image
load_image(sys.argv[1], 256)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="no list of what is mapped")
def test_a_large_scan_takes_little_more_than_its_pixels(tmp_path):
    Image.new("RGBA", (8000, 8000), (200, 30, 30, 128)).save(tmp_path / "1.png", compress_level=1)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, tmp_path / "1.png"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < (8000 * 8000 * 4 >> 10) + 150_000


def test_a_large_reservation_is_not_starved_by_small_ones():
    shared, order = MemoryBudget(10), []

    def take(size):
        with shared.reserve(size):
            order.append(size)

    with shared.reserve(5):
        threads = [threading.Thread(target=take, args=(size,)) for size in (10, 1, 2)]
        for count, thread in enumerate(threads, 1):
            thread.start()
            while len(shared._waiting) < count:
                time.sleep(0.001)
        assert order == []  # though there is room for the small ones
    for thread in threads:
        thread.join()
    assert order[0] == 10


def test_who_gives_up_waiting_lets_the_next_one_in():
    def give_up():
        raise KeyError

    shared = MemoryBudget(10)
    with shared.reserve(10), pytest.raises(KeyError), shared.reserve(1, give_up):
        pass
    with shared.reserve(10):
        assert not shared._waiting
