"""Pictures in buckets of Google Cloud Storage and Azure, by their emulators.

They are no part of the development environment. To run this:
`pip install gcsfs adlfs gcp-storage-emulator` and `npm install azurite`, the latter on the path.
"""

import io
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
from dataset_cases import counts
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.images.remote import refusal
from simsearch.library.skipped import read_skipped

NAMES = [
    *("a b.png", "x#1.png", "q?.png", "ü/ñ.png", "100%.png", "a+b.png", "star*.png", "[x].png"),
    *("%20.png", "~t.png", "😀.png", " lead.png", "a=b/c@d!.png"),
]
# The account that Azurite has for everybody, by its documentation
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def png(seed):
    noise = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "PNG")
    return data.getvalue()


def wait_for(port):
    for _ in range(600):
        with closing(socket.socket()) as tried:
            if not tried.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    pytest.fail("the emulator has not started")


@pytest.fixture(params=["gs", "az"])
def bucket(request, tmp_path, monkeypatch):
    """Start an emulator with a bucket of pictures; return its scheme and file system."""
    fsspec = pytest.importorskip("fsspec")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    if request.param == "gs":
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # read at the import
        pytest.importorskip("gcsfs")
        pytest.importorskip("gcp_storage_emulator")
        start = "from gcp_storage_emulator.__main__ import main; main()"
        words = ["start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]
        command = [sys.executable, "-c", start, *words]
        settings = {
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
            "GOOGLE_CLOUD_PROJECT": "project",
        }
    else:
        pytest.importorskip("adlfs")
        program = shutil.which("azurite-blob")
        if not program:
            pytest.skip("no azurite on the path")
        command = [program, "--inMemoryPersistence", "--skipApiVersionCheck", "--silent"]
        command += ["--disableTelemetry", "--blobPort", str(port)]
        place = f"http://127.0.0.1:{port}/devstoreaccount1"
        account = f"AccountName=devstoreaccount1;AccountKey={KEY};BlobEndpoint={place};"
        settings = {"AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;{account}"}
    for name, value in (settings | {"NO_PROXY": "127.0.0.1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        fsspec.get_filesystem_class(request.param).clear_instance_cache()
        system = fsspec.filesystem(request.param)
        system.mkdir("shop")
        for seed, name in enumerate(NAMES):
            system.pipe_file(f"shop/photos/{name}", png(seed))
        system.pipe_file("shop/photos/bad.png", b"these are words, not pixels")
        yield request.param, system
    finally:
        process.kill()
        process.wait()


def test_pictures_are_listed_embedded_resumed_and_the_bad_one_reported(bucket, capsys):
    scheme, system = bucket
    root, backbone = f"{scheme}://shop/photos", tiny_backbone()
    library = ss.embed_dataset(root, "outputs", backbone)
    assert counts(capsys) == (len(NAMES), 0, 0, 1)
    assert library.names == sorted(NAMES)
    assert read_skipped("outputs") == [(f"{root}/bad.png", "not a supported image format")]
    for seed, name in enumerate(NAMES):
        expected = ss.embed_images(Image.open(io.BytesIO(png(seed))), backbone)[0]
        np.testing.assert_allclose(
            library.embeddings[library.find(f"{root}/{name}")], expected, atol=1e-6
        )
    system.pipe_file("shop/photos/a b.png", png(99))
    system.rm_file("shop/photos/q?.png")
    ss.embed_dataset(root, "outputs", backbone)
    assert counts(capsys) == (1, len(NAMES) - 2, 1, 1)
    written = ss.embed_dataset(root, f"{scheme}://shop/outputs", backbone)
    again = ss.ImageLibrary.load(f"{scheme}://shop/outputs", backbone=backbone)
    np.testing.assert_array_equal(again.embeddings, written.embeddings)
    with pytest.raises(ss.DatasetError, match=r"no such (bucket or )?folder"):
        ss.find_images(f"{scheme}://nowhere/x")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://shop/x", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("gs://shop/x", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("abfs://shop/x", "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_missing_credentials_name_the_variables_of_their_storage(uri, name):
    told = refusal(ValueError("Must provide credentials\nand more"), uri)
    assert told.startswith("Must provide credentials; set them ")
    assert name in told
    assert refusal(FileNotFoundError("b/shop/o"), uri) == "no such bucket or folder (b/shop/o)"
    assert refusal(ValueError("something else"), uri) == "something else"
