"""`serve`, in this process: what it prints, what it serves, and what it refuses."""

import gc
import re
import socket
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from web_server import send, wait_until

import simsearch as ss
from simsearch.errors import MissingExtraError, QueryError
from simsearch.web import server

TOKEN = "a-token-of-twenty-or-so"


@pytest.fixture
def outputs(tmp_path):
    ss.ImageLibrary(np.eye(3), ["a.jpg", "b.jpg", "c.jpg"]).save(tmp_path / "outputs")
    return str(tmp_path / "outputs")


@pytest.fixture
def process():
    """Undo what a server sets in its process."""
    seconds = sys.getswitchinterval()
    yield
    sys.setswitchinterval(seconds)
    gc.unfreeze()


@pytest.fixture
def serving(monkeypatch, capsys, process):
    """Serve on a thread; yield the ports, and what was printed."""
    made = []

    make = server.make_server
    monkeypatch.setattr(server, "make_server", lambda *a: made.append(make(*a)) or made[0])

    @contextmanager
    def start(*given, **options):
        arguments = {"port": 0, **options}
        thread = threading.Thread(target=server.serve, args=given, kwargs=arguments, daemon=True)
        thread.start()
        wait_until(lambda: made and made[0].started, 60)
        printed = capsys.readouterr().out
        ports = [SimpleNamespace(port=int(n)) for n in re.findall(r"(?::|port )(\d+)", printed)]
        try:
            yield SimpleNamespace(printed=printed, ports=ports)
        finally:
            made[0].should_exit = True
            thread.join(10)
        assert not thread.is_alive()

    return start


def test_a_library_is_served_where_it_says(serving, outputs):
    with serving(outputs) as one:
        assert re.fullmatch(
            r"simsearch is at  http://127\.0\.0\.1:\d+/\nCtrl-C stops it\.\n", one.printed
        )
        assert b'"images":3' in send(one.ports[0], "GET", "/api/health").body
        assert send(one.ports[0], "GET", "/api/health", host="evil.example").status == 421
        assert gc.get_freeze_count() > 0
        assert sys.getswitchinterval() == pytest.approx(server.SWITCH_SECONDS)


def test_a_token_is_made_for_others_and_told(serving, outputs):
    with serving(outputs, host="0.0.0.0") as one:
        (token,) = re.findall(r"/\?token=(\S+)", one.printed)
        assert f"Authorization: Bearer {token}" in one.printed
        assert send(one.ports[0], "GET", "/api/library").status == 401
        answer = send(one.ports[0], "GET", "/api/library", authorization=f"Bearer {token}")
        assert answer.status == 200


def test_a_token_that_is_given_is_not_printed(serving, outputs):
    with serving(outputs, token=TOKEN, root_path="/photos") as one:
        assert TOKEN not in one.printed
        assert "behind the proxy  at /photos/" in one.printed
        assert send(one.ports[0], "GET", "/api/library").status == 401
        answer = send(one.ports[0], "GET", "/api/library", authorization=f"Bearer {TOKEN}")
        assert answer.status == 200


@pytest.mark.skipif(sys.platform == "win32", reason="needs descriptors of POSIX")
def test_several_libraries_and_their_health(serving, outputs):
    with serving([f"one={outputs}", f"two={outputs}"], health_port=0) as several:
        main, health = several.ports
        told = send(main, "GET", "/api/health").body
        assert told == b'{"status":"ok","libraries":["one","two"]}'
        wait_until(lambda: send(health, "GET", "/").body == told)
        assert b'"name":"two"' in send(main, "GET", "/two/api/library").body


@pytest.mark.parametrize("option", ["root", "metadata"])
def test_an_option_of_one_library_is_refused_for_several(process, outputs, option):
    with pytest.raises(QueryError, match=f"{option}='x' belongs to one library"):
        server.serve([f"one={outputs}", f"two={outputs}"], port=0, **{option: "x"})


def test_packages_that_are_missing_are_named(monkeypatch, outputs):
    monkeypatch.setitem(sys.modules, "simsearch.web.protocol", None)
    with pytest.raises(MissingExtraError, match=r"simsearch\[web\]"):
        server.serve(outputs, port=0)


def test_a_system_without_descriptors_serves_without_a_process_in_front(
    serving, outputs, monkeypatch
):
    monkeypatch.setattr(server, "HAS_FRONT", False)
    with pytest.raises(QueryError, match="needs Linux or macOS"):
        server.listen_for_health("127.0.0.1", 0)
    with serving(outputs) as one:
        assert b'"images":3' in send(one.ports[0], "GET", "/api/health").body


def test_files_are_allowed_for_all_connections(process):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        server.tune_process(100)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert (soft, hard) == (2 * 100 + server.SPARE_FILES, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_address_is_that_of_the_machine_or_in_brackets():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        told = server._start_message(listening, "::1", None, None)
        assert told.startswith(f"simsearch is at  http://[::1]:{port}/\n")
        told = server._start_message(listening, "0.0.0.0", TOKEN, None)
        assert f"http://{socket.gethostname()}:{port}/\n" in told
        assert "it asks for the token that the server was given" in told
