"""The OpenAPI schema: what is said of each call is what the server does."""

import io
import logging
import re

import anyio
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import simsearch as ss
from simsearch.web.app import create_app
from simsearch.web.settings import Settings

TOKEN = "a-token-of-twenty-or-so"
JSON = {"content-type": "application/json"}
MULTIPART = {"content-type": "multipart/form-data"}


@pytest.fixture
def start(tmp_path, caplog):
    """Serve two embeddings without images or backbone, with any settings."""
    caplog.set_level(logging.ERROR)
    ss.ImageLibrary(np.eye(2, dtype=np.float32), ["a.jpg", "b.jpg"]).save(tmp_path)

    def start(**settings):
        app = create_app(Settings(str(tmp_path), **settings))

        async def served(scope, receive, send):
            async def late():
                await anyio.sleep(0)  # uploads arrive some time later
                return await receive()

            await app(scope, late, send)

        return app.openapi(), TestClient(served)

    return start


def picture():
    stream = io.BytesIO()
    Image.new("RGB", (9, 9)).save(stream, "PNG")
    return stream.getvalue()


# What brings a problem about, by kind of call: settings, path, and what is sent.
CAUSES = {
    ("post", 400): ({}, "/api/search", {"headers": MULTIPART, "content": b"--"}),
    ("get", 401): ({"token": TOKEN}, "/api/library", {}),
    ("get", 403): ({}, "/api/library", {"headers": {"sec-fetch-site": "cross-site"}}),
    ("get", 404): ({}, "/api/images/9000", {}),
    ("post", 408): ({"seconds": 0}, "/api/search", {"data": {"row": 0}}),
    ("get", 409): ({}, "/api/images/0?v=x", {}),
    ("post", 413): ({}, "/api/search", {"headers": {"content-length": "99999999"}}),
    ("get", 421): (
        {"hosts": frozenset({"localhost"})},
        "/api/library",
        {"headers": {"host": "photos.example"}},
    ),
    ("list", 422): ({}, "/api/images?limit=0", {}),
    ("get", 422): ({}, "/api/images/x/facts", {}),
    ("post", 422): ({}, "/api/search", {"data": {"row": 0, "k": 0}}),
    ("copies", 400): ({}, "/api/duplicates/plan", {"headers": JSON, "content": b"\xff"}),
    ("copies", 422): ({}, "/api/duplicates/plan", {"json": {}}),
    ("post", 501): ({}, "/api/search", {"files": {"image": picture()}}),
    ("get", 503): ({"max_connections": 1}, "/api/library", {}),
    ("post", 503): ({"max_waiting_bytes": -1}, "/api/search", {"data": {"row": 0}}),
}


def kind_of(path, method):
    """Return the kind of a call whose input is invalid."""
    if path in {"/api/images", "/api/duplicates", "/api/map"}:
        return "list"
    return "copies" if path.startswith("/api/duplicates") else method


def examples(schema):
    """Return the examples of problems, each with its kind of call and its status."""
    return [
        (
            kind_of(path, method) if status in {"400", "422"} else method,
            int(status),
            answer["content"]["application/problem+json"]["example"],
        )
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
        for status, answer in operation["responses"].items()
        if status != "200"
    ]


@pytest.mark.parametrize(("kind", "status"), CAUSES)
def test_example_of_a_problem_is_what_the_server_answers(start, kind, status):
    settings, path, sent = CAUSES[kind, status]
    schema, client = start(**settings)
    answer = client.request("post" if kind in {"post", "copies"} else "get", path, **sent)
    shown = [each for *cause, each in examples(schema) if cause == [kind, status]]
    if status == 408:
        shown = [
            each | {"detail": each["detail"].replace("20 seconds", "0 seconds")} for each in shown
        ]
    assert answer.status_code == status
    assert shown == [answer.json()] * len(shown) != []


def test_every_status_has_an_example_that_a_test_brings_about(start):
    schema, _ = start()
    found = examples(schema)
    assert {status for _, status, _ in found} == {status for _, status in CAUSES}
    assert all(each["status"] == status for _, status, each in found)


def test_health_alone_needs_no_token(start):
    schema, client = start(token=TOKEN)
    assert schema["security"] == [{"token": []}, {}]
    calls = {path: each for path, calls in schema["paths"].items() for each in calls.values()}
    assert {path for path, each in calls.items() if "security" in each} == {"/api/health"}
    assert {path for path, each in calls.items() if "401" not in each["responses"]} == {
        "/api/health"
    }
    assert calls["/api/health"]["security"] == []
    assert client.get("/api/health").status_code == 200


def test_summaries_say_what_calls_do(start):
    schema, _ = start()
    library = schema["paths"]["/api/library"]["get"]
    assert library["summary"] == "Describe the served library and the limits of requests."
    calls = [each for calls in schema["paths"].values() for each in calls.values()]
    assert all(re.fullmatch(r"[A-Z].*\w \w.*\.", each["summary"]) for each in calls)
    assert not any(each["summary"] in each["description"] for each in calls)
