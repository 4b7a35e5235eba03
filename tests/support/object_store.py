"""An S3 server of `moto` on this machine, which can be made to refuse requests."""

import sys
import threading
import urllib.request

import pytest

BUCKET = "shop"


class ObjectStore:
    """A server with one bucket. The next requests for an object can be refused."""

    def __init__(self):
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Silent(WSGIRequestHandler):
            def log(self, *_, **__):
                pass

        self.app = DomainDispatcherApplication(create_backend_app)
        self.server = make_server(
            "127.0.0.1", 0, self.answer, threaded=True, request_handler=Silent
        )
        self.address = f"http://127.0.0.1:{self.server.port}"
        self.refusals, self.refused, self.status = 0, 0, "503 Slow Down"
        self.code = "SlowDown"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, environ, start_response):
        """Refuse a request for an object, if some are to be refused; otherwise let moto answer."""
        reads = environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].count("/") > 1
        if reads and self.refusals:
            self.refusals, self.refused = self.refusals - 1, self.refused + 1
            start_response(self.status, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{self.code}</Code><Message>no</Message></Error>".encode()]
        return self.app(environ, start_response)

    def refuse(self, times, status="503 Slow Down", code="SlowDown"):
        self.refusals, self.refused, self.status, self.code = times, 0, status, code

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def forget_package(monkeypatch, scheme, module):
    """Let a package of fsspec seem missing, whether or not it was loaded before."""
    from fsspec.registry import _registry

    monkeypatch.delitem(_registry, scheme, raising=False)
    monkeypatch.setitem(sys.modules, module, None)


@pytest.fixture
def object_store(monkeypatch):
    """Run a server with an empty bucket, and point s3fs at it."""
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    store = ObjectStore()
    settings = {
        "AWS_ENDPOINT_URL": store.address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(f"{store.address}/moto-api/reset", data=b"").close()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    system = fsspec.filesystem("s3")
    system.mkdir(BUCKET)
    yield store
    system.clear_instance_cache()
    store.close()
