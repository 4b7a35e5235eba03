"""No answer reveals or reads other files of the server."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import web_server
from security_cases import encode_image, problem_detail
from web_server import LOCAL, post, run_server, send, send_raw

import simsearch as ss
from simsearch.files import user_folder
from simsearch.web import app
from simsearch.web.settings import Settings

SECRET = "root:x:0:0:a secret of the server"

ADDRESSES = [
    "/etc/passwd",
    "/../etc/passwd",
    "/../../../../../../../../etc/passwd",
    "/static/../../../../../../../../etc/passwd",
    "/static/%2e%2e/%2e%2e/settings.py",
    "/static/..%2f..%2fsettings.py",
    "/static/..%252fsettings.py",
    "/static/..%5csettings.py",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/../settings.py",
    "/static/../static/../settings.py",
    "/static/x%00.html",
    "/static/" + "x" * 5000,
    "/static/" + "%c0%ae%c0%ae/" * 3 + "settings.py",
    "/static/%ff%fe",
    "/static/.",
    "/static/",
    "/static/con",
    "/api/images/..%2f..%2fetc%2fpasswd",
    "/api/images/../../etc/passwd",
    "/api/images/0/../../../etc/passwd",
    "/api/images/%00",
    "/api/images/0%00",
    "/api/images/file:%2f%2f%2fetc%2fpasswd",
    "/api/images/0/thumbnail?size=..%2f..%2fx",
    "/api/images/0/thumbnail?size=1024",
    "/api/images/0/thumbnail?size=" + "9" * 5000,
    "/api/images/0?v=..%2f..%2fetc%2fpasswd",
]


@pytest.mark.parametrize("path", ADDRESSES)
def test_path_traversal_reads_no_other_file(open_server, path):
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head, _, body = send_raw(open_server, request.encode()).partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.1 4(00|04|09|22) ", head), head
    assert b"root:" not in body
    assert b"class Settings" not in body


def test_symbolic_links_in_the_static_folder_are_not_followed(library, tmp_path, monkeypatch):
    static = shutil.copytree(app.STATIC, tmp_path / "static")
    (tmp_path / "secret.txt").write_text(SECRET)
    (static / "link.txt").symlink_to(tmp_path / "secret.txt")
    (static / "folder").symlink_to(tmp_path)
    monkeypatch.setattr(app, "STATIC", static)
    with run_server(Settings(str(library.outputs))) as server:
        assert send(server, "GET", "/static/login.html").status == 200
        for path in ("/static/link.txt", "/static/folder/secret.txt", "/static/folder"):
            assert send(server, "GET", path).status == 404


PATHS = [
    "../../etc/passwd",
    "/etc/passwd",
    "~/.ssh/id_rsa",
    "file:///etc/passwd",
    "0\x00",
    "0.png",
    "red/0.png",
    "\\\\host\\share",
    "0 or 1=1",
    "1e3",
    "0x1",
    "true",
    "[0]",
    "٣" * 4301,
]


@pytest.mark.parametrize("text", PATHS)
def test_row_that_is_not_a_number_is_rejected(open_server, text):
    for path, name in (("search", "row"), ("recommend", "liked"), ("explain", "match")):
        answer = post(open_server, f"/api/{path}", (name, text), ("row", "0"))
        assert answer.status == 422, answer.body


def test_text_in_file_fields_is_rejected(open_server):
    for path, name in (("search", "image"), ("recommend", "liked_image"), ("search", "url")):
        assert post(open_server, f"/api/{path}", (name, "/etc/passwd")).status == 422
    answer = post(open_server, "/api/search", ("url", "http://127.0.0.1/"))
    assert "fetches no URLs" in problem_detail(answer)


def test_file_name_of_an_upload_is_ignored(open_server, tmp_path):
    plain = post(open_server, "/api/search", ("image", "x.png", encode_image()))
    expected = json.loads(plain.body)["answers"]
    for name in (
        "../../../etc/passwd",
        "/etc/passwd",
        "red/0.png",
        "a\x00b",
        "",
        "x" * 3000,
        "-rf",
    ):
        answer = post(open_server, "/api/search", ("image", name, encode_image()))
        if answer.status != 422:  # without a name it is text
            assert json.loads(answer.body)["answers"] == expected
        assert name == "" or answer.status == 200


SEND_ALL = """
import json, os, sys, sysconfig, tempfile, threading
sys.path[:0] = sys.argv[3:]
import security_cases, test_disclosure, web_server
from simsearch.web import app
from simsearch.web.settings import Settings

outputs, dataset = sys.argv[1:3]
opened = []
def send_all(server):
    for path in test_disclosure.ADDRESSES:
        request = f"GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n"
        web_server.send_raw(server, request.encode())
    for text in test_disclosure.PATHS:
        for name in ("row", "image", "url", "where", "box"):
            web_server.post(server, "/api/search", (name, text), ("row", "1"))
        web_server.post(server, "/api/search", ("where", json.dumps(text)), ("row", "1"))
        web_server.post(server, "/api/search", ("image", text, security_cases.encode_image()))
        web_server.post(server, "/api/search", ("image", text, text.encode()))
        web_server.post(server, "/api/recommend", ("exclude", text), ("liked", "1"))
    for row in range(-1, 7):
        for rest in ("", "/thumbnail", "/thumbnail?size=512", "/facts"):
            web_server.send(server, "GET", f"/api/images/{row}{rest}")
        web_server.post(server, "/api/explain", ("row", "0"), ("match", row))

with web_server.run_server(Settings(outputs, urls=True)) as server:
    send_all(server)  # warm-up: what is imported at first use
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    send_all(server)
    print(json.dumps(sorted(set(opened))))
    sys.stdout.flush()
"""


def test_requests_open_no_files_outside_library_and_dataset(library, tmp_path):
    """As the interpreter's audit events tell, for Pillow and numpy, too."""
    env = os.environ | {"TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", SEND_ALL, str(library.outputs), str(library.dataset)]
    command += [str(Path(file).parent) for file in (__file__, web_server.__file__)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout.splitlines()[-1])
    assert {str(file) for file in library.dataset.rglob("*.png")} <= set(files)
    assert sum(Path(file).suffix == ".jpg" for file in files) == 12  # thumbnails
    key = user_folder("state") / "key"
    inside = [library.outputs, library.dataset, app.STATIC, tmp_path, key]
    outside = [file for file in files if not any(Path(file).is_relative_to(x) for x in inside)]
    # A number is a descriptor of a file that is open already.
    assert [file for file in outside if not file.isdecimal()] == []
    assert {file.name for file in library.outputs.iterdir()} == {
        ".lock",
        "embeddings.npy",
        "file_digests.npy",
        "file_stats.npy",
        "image_paths.npy",
        "manifest.json",
        "skipped.csv",
    } & {file.name for file in library.outputs.iterdir()}


@pytest.fixture
def copied(library, tmp_path):
    """A copy of the library, whose images may be changed."""
    dataset = shutil.copytree(library.dataset, tmp_path / "dataset")
    outputs = shutil.copytree(library.outputs, tmp_path / "outputs")
    return Settings(str(outputs), root=str(dataset), hosts=LOCAL), dataset


@pytest.mark.parametrize("change", ["gone", "html", "svg", "cut", "folder"])
def test_errors_of_damaged_images_do_not_reveal_paths(copied, change):
    settings, dataset = copied
    file = dataset / "red" / "0.png"
    content = file.read_bytes()
    row = 2
    with run_server(settings) as server:
        file.unlink()
        script = b"<html><script>alert(1)</script></html>"
        if change == "folder":
            file.mkdir()
        elif change != "gone":
            svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>'
            file.write_bytes({"html": script, "svg": svg, "cut": content[:60]}[change])
        answers = [
            send(server, "GET", f"/api/images/{row}"),
            send(server, "GET", f"/api/images/{row}/thumbnail"),
            post(server, "/api/search", ("row", row), ("box", "0,0,0.5,1")),
            post(server, "/api/search", ("row", row), ("regions", "1")),
            post(server, "/api/explain", ("row", "0"), ("match", row)),
        ]
        assert (
            json.loads(send(server, "GET", f"/api/images/{row}/facts").body)["path"] == "red/0.png"
        )
        for i, answer in enumerate(answers):
            assert answer.headers["content-type"] in {"application/problem+json", "image/png"}
            assert str(dataset.parent).encode() not in answer.body
            assert answer.status == 422 or (change == "cut" and i == 0)
            assert b"script" not in answer.body
        assert post(server, "/api/search", ("row", row)).status == 200  # by its embedding


@pytest.mark.parametrize("fields", [[("box", "0,0,0.5,1")], [("regions", "1")], [], [("row", "1")]])
def test_query_is_named_by_its_path_in_the_dataset(open_server, library, fields):
    answer = post(open_server, "/api/search", ("row", "2"), *fields)
    assert str(library.dataset.parent).encode() not in answer.body
    assert json.loads(answer.body)["answers"][0]["query"].startswith("red/0.png")


def test_library_without_root_does_not_reveal_paths(library, tmp_path):
    loaded = ss.ImageLibrary.load(library.outputs)
    ss.ImageLibrary(loaded.embeddings, loaded.paths).save(tmp_path / "outputs")
    with run_server(Settings(str(tmp_path / "outputs"))) as server:
        page = send(server, "GET", "/api/images")
        assert [each["path"] for each in json.loads(page.body)["images"]] == loaded.names
        answers = [page, send(server, "GET", "/api/library")]
        answers.append(post(server, "/api/search", ("row", "0")))
        answers.append(post(server, "/api/search", ("image", "x", encode_image())))  # no backbone
        answers.append(post(server, "/api/explain", ("row", "0"), ("match", "1")))
        assert [answer.status for answer in answers] == [200, 200, 200, 501, 501]
        for answer in answers:
            assert str(library.dataset.parent).encode() not in answer.body
            assert str(tmp_path).encode() not in answer.body


def test_file_name_that_is_not_utf8_is_served(library, tmp_path):
    name = b"red/\xff\xe9.png".decode("utf-8", "surrogateescape")
    file = tmp_path / name
    file.parent.mkdir()
    file.write_bytes(encode_image())
    ss.ImageLibrary([[1.0, 0.0], [0.6, 0.8]], [file, file]).save(tmp_path / "outputs")
    with run_server(Settings(str(tmp_path / "outputs"))) as server:
        listed = json.loads(send(server, "GET", "/api/images").body)["images"]
        assert [each["path"] for each in listed] == ["??.png"] * 2
        for path in ("/api/library", "/api/images/0", "/api/images/0/thumbnail"):
            assert send(server, "GET", path).status == 200
        assert post(server, "/api/search", ("row", "0")).status == 200
