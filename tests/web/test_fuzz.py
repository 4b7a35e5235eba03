"""Fuzzing of the API: random requests, from its own schema and by hand; always the same ones."""

import io
import json

import pytest
import schemathesis
import web_server
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

import simsearch as ss
from simsearch.errors import QueryError
from simsearch.web import schemas
from simsearch.web.app import create_app
from simsearch.web.settings import Settings
from simsearch.web.where import read_where

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


def picture():
    data = io.BytesIO()
    Image.new("RGB", (20, 20), "teal").save(data, "JPEG")
    return data.getvalue()


def fuzz_settings(examples):
    """Settings of a test with this number of examples, the same ones in each run."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return web_server.make_library(tmp_path_factory.mktemp("fuzzed"))


@pytest.fixture(scope="module")
def attached(library):
    return ss.ImageLibrary.load(library.outputs).attach(library.table)


@pytest.fixture(scope="module")
def app(library):
    table = str(library.table)
    return create_app(Settings(str(library.outputs), metadata=table, max_pixels=100_000))


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app, base_url="http://127.0.0.1") as found:
        yield found


@pytest.fixture(scope="module")
def described(app, client):
    """The API's schema; requests are made in this process."""
    return schemathesis.openapi.from_asgi("/api/openapi.json", app)


OPERATIONS = {
    "/api/health": "GET",
    "/api/images": "GET",
    "/api/images/{row}": "GET",
    "/api/images/{row}/facts": "GET",
    "/api/images/{row}/thumbnail": "GET",
    "/api/library": "GET",
    "/api/search": "POST",
    "/api/recommend": "POST",
    "/api/explain": "POST",
    "/api/suggest": "POST",
    "/api/map": "GET",
    "/api/duplicates": "GET",
    "/api/duplicates/search": "POST",
    "/api/duplicates/plan": "POST",
}
PICTURE = picture()
schemathesis.openapi.format(
    "binary", st.one_of(st.binary(max_size=50), st.just(PICTURE), st.just(PICTURE[:60]))
)


def test_every_path_of_the_schema_is_tried(described):
    paths = described.raw_schema["paths"].items()
    assert {path: "".join(each).upper() for path, each in paths} == OPERATIONS


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        (path, mode)
        for path in OPERATIONS
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        if mode is GenerationMode.POSITIVE or path not in {"/api/health", "/api/library"}
    ],  # these take no input
)
def test_responses_conform_to_the_schema(described, path, mode):
    operation = described[path][OPERATIONS[path]]

    @fuzz_settings(20)
    @given(operation.as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate(checks=CHECKS)

    check()


# Conditions and options that are almost valid.

TEXT = st.one_of(
    st.sampled_from(
        ["*", "red", "red/*", "[", "[!", "(a|b)*", "\\", "été", "", "1", "nan", "a" * 500]
    ),
    st.text(max_size=8),
    st.text(alphabet="*?[]!-^&|~#\\{}", max_size=12),
)
NUMBER = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.sampled_from([0, -7, 3, 2**53 - 1, 2**63, -(2**64), 1e300, 5e-324]),
)
PLAIN = st.one_of(TEXT, NUMBER, st.none())
JSON = st.recursive(
    PLAIN,
    lambda each: st.one_of(st.lists(each, max_size=3), st.dictionaries(TEXT, each, max_size=3)),
)
CONDITION = st.one_of(
    PLAIN,
    st.lists(PLAIN, max_size=4),
    st.fixed_dictionaries({}, optional={"min": PLAIN, "max": PLAIN}),
    JSON,
)
COLUMN = st.sampled_from(
    ["path", "folder", "price", "stock", "title", "tags", "day", "sold", "empty", "none"]
)
WHERE = st.one_of(TEXT, st.dictionaries(COLUMN, CONDITION, max_size=3), JSON)
ROW = st.integers(-1, 7).map(str)
FLOAT = st.one_of(st.floats(-1, 1), st.floats()).map(str)
NUMBERS = st.lists(FLOAT, max_size=5).map(",".join)
OPTIONS = {
    "k": st.one_of(st.integers(-1, 9), st.integers()).map(str),
    "threshold": st.one_of(FLOAT, st.just("auto"), TEXT),
    "false_match_rate": FLOAT,
    "where": st.one_of(WHERE.map(json.dumps), TEXT),
    "diversity": FLOAT,
    "rerank": st.sampled_from(["k-reciprocal", "background", "k"]),
    "unique": st.one_of(FLOAT, st.sampled_from(["true", "0", "on", "1"])),
}
SEARCH = OPTIONS | {
    "row": st.lists(ROW, max_size=4),
    "box": st.one_of(
        NUMBERS, st.sampled_from(["0,0,1,1", "0.5,0,1,0.5", "10,10,90,90", "0,0,1e-9,1"])
    ),
    "regions": st.sampled_from(["true", "false", ""]),
    "exclude_query": st.sampled_from(["true", "false"]),
    "combine": st.sampled_from(["mean", "max", "median"]),
    "weights": NUMBERS,
}
RECOMMEND = OPTIONS | {
    "liked": st.lists(ROW, max_size=4),
    "disliked": st.lists(ROW, max_size=4),
    "exclude": st.lists(ROW, max_size=4),
    "dislike": FLOAT,
}


def some(fields, always):
    """The query field, and up to two options."""
    return st.lists(st.sampled_from(sorted(fields)), max_size=2, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: fields[name] for name in {always, *names}})
    )


@fuzz_settings(400)
@given(where=WHERE)
def test_random_conditions_are_answered_or_rejected(attached, where):
    """A mask comes out, or a QueryError, whatever the column holds."""
    try:
        rows = attached.where(read_where(json.dumps(where)))
    except QueryError:
        event("refused")
    else:
        event(f"met by {rows.any()}")
        assert rows.shape == (len(attached),)
        assert rows.dtype == bool


def send_form(client, path, fields, uploads=0):
    files = [("image" if "search" in path else "liked_image", ("x.png", PICTURE))] * uploads
    answer = client.post(path, data=fields, files=files or None)
    if answer.status_code == 200:
        event("answered")
        return schemas.Answers.model_validate_json(answer.content)
    assert answer.status_code in {400, 422}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    return None


@fuzz_settings(150)
@given(fields=some(SEARCH, "row"), uploads=st.sampled_from([0, 0, 0, 1]))
def test_random_searches_are_answered_or_rejected(client, fields, uploads):
    found = send_form(client, "/api/search", fields, uploads)
    for answer in found.answers if found else ():
        scores = [match.score for match in answer.matches]
        assert all(-1.001 < score < 1.001 for score in scores)


@fuzz_settings(100)
@given(fields=some(RECOMMEND, "liked"), uploads=st.sampled_from([0, 0, 0, 1]))
def test_random_recommendations_are_answered_or_rejected(client, fields, uploads):
    send_form(client, "/api/recommend", fields, uploads)


@fuzz_settings(60)
@given(where=WHERE)
def test_random_pages_are_answered_or_rejected(client, where):
    answer = client.get("/api/images", params={"where": json.dumps(where)})
    if answer.status_code == 200:
        page = schemas.Page.model_validate_json(answer.content)
        assert len(page.images) == page.total
    else:
        assert answer.status_code == 422
        assert answer.json()["detail"]


@fuzz_settings(100)
@given(data=st.binary(max_size=300))
def test_random_bodies_are_rejected(client, data):
    for kind in ("multipart/form-data; boundary=B", "application/x-www-form-urlencoded"):
        body = b"--B\r\nContent-Disposition: form-data; name=" + data + b"\r\n--B--\r\n"
        answer = client.post("/api/search", content=body, headers={"content-type": kind})
        assert answer.status_code in {400, 422}


@fuzz_settings(60)
@given(at=st.integers(0, len(PICTURE)), change=st.binary(min_size=1, max_size=8))
def test_damaged_images_are_answered_or_rejected(client, at, change):
    damaged = PICTURE[:at] + change + PICTURE[at + len(change) :]
    answer = client.post("/api/search", files={"image": ("x.png", damaged)})
    assert answer.status_code in {200, 422}, answer.text
