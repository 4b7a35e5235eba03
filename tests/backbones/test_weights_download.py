"""Downloads of weights from a real web server on this machine, and `auto`."""

import contextlib
import hashlib
import io
import logging
import math
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler

import huggingface_hub.constants
import numpy as np
import pytest
from local_server import serve
from networks import (
    SMALL,
)

from simsearch.backbones import stream, weights_download
from simsearch.backbones.backbone import load_backbone
from simsearch.backbones.weights_download import fetch_weights
from simsearch.errors import WeightsError

# Downloads


CONTENT = np.random.default_rng(0).bytes(300_000)
ASKED = Counter()  # requests, by page
PREFIX = hashlib.sha256(CONTENT).hexdigest()[:8]


class Site(BaseHTTPRequestHandler):
    """Each page is a method; the name of the file asked for is up to the test."""

    def do_GET(self):
        page = self.path.split("/")[1]
        ASKED[page] += 1
        with contextlib.suppress(OSError):  # the client may have left
            getattr(self, page, partial(self.send_error, 404))()

    def start(self, size=None):
        self.send_response(200)
        if size is not None:
            self.send_header("Content-Length", str(size))
        self.end_headers()

    def whole(self):
        self.start(len(CONTENT))
        self.wfile.write(CONTENT)

    def unsized(self):
        self.start()
        self.wfile.write(CONTENT)

    def half(self):
        self.start(len(CONTENT))
        self.wfile.write(CONTENT[:100_000])

    def rubbish(self):
        self.wfile.write(b"this is no HTTP\r\n\r\n")

    def no_answer(self):
        time.sleep(10)

    def silence(self):
        self.start(len(CONTENT))
        self.wfile.write(CONTENT[:1000])
        time.sleep(10)

    def drip(self):
        self.start(len(CONTENT))
        self.trickle()

    def unsized_drip(self):
        self.start()
        self.trickle()

    def trickle(self):
        for _ in range(200):
            self.wfile.write(b"x" * 1000)
            time.sleep(0.05)

    def steps(self):
        self.start(len(CONTENT))
        for start in range(0, len(CONTENT), 50_000):
            self.wfile.write(CONTENT[start : start + 50_000])
            time.sleep(0.05)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    with serve(Site) as address:
        yield address


@pytest.fixture
def checkpoints(tmp_path):
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize("name", [f"tiny-{PREFIX}.pth", "no_digest.pth"])
@pytest.mark.parametrize("page", ["whole", "unsized"])
def test_download_is_cached(site, page, name, checkpoints):
    ASKED.clear()
    for _ in range(2):
        file = fetch_weights(f"{site}/{page}/{name}")
        assert file == checkpoints / name
        assert file.read_bytes() == CONTENT
    assert dict(ASKED) == {page: 1}
    assert [*checkpoints.iterdir()] == [file]


QUICK, PATIENT = 0.5, 20  # seconds; the machine that runs the tests may be slow itself


@pytest.mark.parametrize(
    ("page", "stall_seconds", "reason"),
    [
        ("nowhere", PATIENT, "Not Found"),
        ("half", PATIENT, "the connection broke after 100,000 of 300,000 bytes"),
        ("rubbish", PATIENT, "this is no HTTP"),
        ("no_answer", QUICK, "timed out|no answer within"),
        ("silence", QUICK, "timed out"),
        ("drip", QUICK, "the connection is slow: .* kB/s|timed out"),
        ("unsized_drip", QUICK, "the connection is slow: .* kB/s|timed out"),
    ],
)
def test_download_that_fails_leaves_nothing(site, page, stall_seconds, reason, checkpoints):
    start = time.monotonic()
    with pytest.raises(WeightsError, match=reason):
        fetch_weights(f"{site}/{page}/tiny-{PREFIX}.pth", stall_seconds, max_seconds=1)
    assert time.monotonic() - start < 8
    assert [*checkpoints.iterdir()] == []


def test_steady_download_may_take_longer_than_the_stall_limit():
    response, file = io.BytesIO(CONTENT), io.BytesIO()
    response.headers = {"Content-Length": len(CONTENT)}
    digest = stream.copy_stream(response, file, "tiny.pth", 0, math.inf)
    assert file.getvalue() == CONTENT
    assert digest.startswith(PREFIX)


def test_damaged_download_is_refused(site, checkpoints):
    with pytest.raises(WeightsError, match="the file arrived damaged"):
        fetch_weights(f"{site}/whole/tiny-0badf00d.pth")
    assert [*checkpoints.iterdir()] == []


def test_download_without_a_progress_bar(site, monkeypatch):
    monkeypatch.setattr(stream, "tqdm", partial(stream.tqdm, disable=True))
    file = fetch_weights(f"{site}/whole/tiny-{PREFIX}.pth", max_seconds=60)
    assert file.read_bytes() == CONTENT


def test_download_by_several_threads(site):
    with ThreadPoolExecutor(4) as pool:
        files = pool.map(fetch_weights, [f"{site}/steps/tiny-{PREFIX}.pth"] * 4)
    assert {file.read_bytes() for file in files} == {CONTENT}


def test_cache_that_cannot_be_written(site, tmp_path):
    (tmp_path / "torch").write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match=r"cannot be fetched.*weights="):
        fetch_weights(f"{site}/whole/tiny-{PREFIX}.pth")


@pytest.mark.parametrize("name", ["resnet50", SMALL, "timm:test_resnet"])
def test_failed_download_names_three_ways_to_mend_it(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # it would try 10 times
    with pytest.raises(WeightsError, match="cannot be fetched") as error:
        load_backbone(name)
    for way_out in ("connect and try again", "weights=", 'backbone="efficientnet_lite0"'):
        assert way_out in str(error.value)


def test_a_reason_of_several_lines_is_told_in_one():
    reason = "401; no access\n\n  Request-ID: 12\n" + "more " * 100
    said = weights_download.offline_advice("x", reason)
    assert said.startswith("the weights of x cannot be fetched (401; no access Request-ID: 12 more")
    assert "\n" not in said
    assert len(said) < 450


# auto


def load_auto_with_one_message(caplog):
    """Load twice; say once what was chosen and why."""
    with caplog.at_level(logging.INFO, "simsearch"):
        start = time.monotonic()
        assert load_backbone("auto").name == load_backbone().name == "efficientnet_lite0"
        seconds = time.monotonic() - start
    (message,) = caplog.messages
    assert message.startswith("Using efficientnet_lite0, which needs no download: the weights of")
    return message, seconds


def test_auto_offline_takes_the_bundled_network(caplog):
    message, seconds = load_auto_with_one_message(caplog)
    assert "Name or service not known" in message
    assert seconds < 10


def test_auto_times_out_on_a_name_server(caplog, monkeypatch):
    assert weights_download.AUTO_STALL_SECONDS < 10
    monkeypatch.setattr(weights_download, "AUTO_STALL_SECONDS", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: time.sleep(20))
    message, seconds = load_auto_with_one_message(caplog)
    assert "no answer within" in message
    assert seconds < 10


def test_auto_takes_resnet50_where_it_is_cached(saved, checkpoints, caplog):
    _, file = saved("resnet50")
    checkpoints.mkdir(parents=True)
    (checkpoints / "resnet50-0676ba61.pth").symlink_to(file)
    backbone = load_backbone("auto", precision="float32")
    assert (backbone.name, backbone.weights) == ("resnet50", "IMAGENET1K_V1")
    assert load_backbone("resnet50", precision="float32") is backbone
    assert not caplog.messages


def test_auto_with_weights_is_resnet50(saved):
    with pytest.raises(WeightsError, match="does not hold weights for ResNet"):
        load_backbone("auto", saved(SMALL)[1])
