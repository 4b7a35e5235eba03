"""JSON bodies, and errors that name the field and the value: the form and JSON are one API."""

import base64
import io
import json

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simsearch.analysis.suggested_parts import suggest_parts
from simsearch.web import schemas
from simsearch.web.api_examples import ANSWERS, REQUESTS
from simsearch.web.app import create_app
from simsearch.web.field_errors import suggest
from simsearch.web.settings import Settings

RESPONSES = {
    "/api/library": schemas.Library,
    "/api/images": schemas.Page,
    "/api/images/{row}/facts": schemas.Image,
    "/api/search": schemas.Answers,
    "/api/recommend": schemas.Answers,
    "/api/health": schemas.Health,
    "/api/suggest": schemas.Parts,
    "/api/map": schemas.Map,
}


def rows(answer):
    assert answer.status_code == 200, answer.text
    return [[match["row"] for match in each["matches"]] for each in answer.json()["answers"]]


@pytest.mark.parametrize(
    ("path", "form", "body"),
    [
        ("search", {"row": 3, "k": 4}, {"row": 3, "k": 4}),
        ("search", {"row": [3, 5], "combine": "mean"}, {"row": [3, 5], "combine": "mean"}),
        (
            "search",
            {"row": [3, 5], "combine": "mean", "weights": "1,0.5"},
            {"row": [3, 5], "combine": "mean", "weights": [1, 0.5]},
        ),
        ("search", {"row": 3, "box": "0.1,0,0.9,1"}, {"row": 3, "box": [0.1, 0, 0.9, 1]}),
        ("search", {"row": 3, "where": "seg_train/*"}, {"row": 3, "where": "seg_train/*"}),
        (
            "search",
            {"row": 3, "where": '{"price": {"max": 9}}'},
            {"row": 3, "where": {"price": {"max": 9}}},
        ),
        ("search", {"row": 3, "unique": "true"}, {"row": 3, "unique": True, "threshold": None}),
        (
            "recommend",
            {"liked": [3, 4], "disliked": 5, "k": 6},
            {"liked": [3, 4], "disliked": 5, "k": 6},
        ),
    ],
)
def test_json_and_form_give_the_same_answer(client, path, form, body):
    assert rows(client.post(f"/api/{path}", json=body)) == rows(
        client.post(f"/api/{path}", data=form)
    )


@pytest.mark.parametrize(
    ("path", "fields"), [("search", {"text": "a cat"}), ("recommend", {"liked_text": "a cat"})]
)
def test_words_of_json_need_no_list_around_them(client, path, fields):
    address, listed = f"/api/{path}", {name: [text] for name, text in fields.items()}
    found = rows(client.post(address, data=fields))
    assert rows(client.post(address, json=fields)) == found
    assert rows(client.post(address, json=listed)) == found


@pytest.mark.parametrize("flag", ["TRUE", "t", "0", "maybe", ""])
def test_flags_of_the_address_mean_the_same_for_both_bodies(client, flag):
    told = []
    for sent in ({"data": {"row": 1}}, {"json": {"row": 1}}):
        answer = client.post("/api/search", params={"shapes": flag}, **sent)
        content = answer.json()
        shown = content["answers"][0]["matches"] if answer.status_code == 200 else content
        told.append((answer.status_code, shown))
    assert told[0] == told[1]


@pytest.mark.parametrize("head", ["", "data:image/png;base64,"])
def test_image_in_base64_is_searched_with(client, head):
    stream = io.BytesIO()
    Image.effect_noise((90, 70), 80).convert("RGB").save(stream, "PNG")
    text = base64.b64encode(stream.getvalue()).decode()
    sent = client.post("/api/search", json={"image": head + text, "k": 3})
    form = client.post("/api/search", data={"k": 3}, files={"image": stream.getvalue()})
    assert rows(sent) == rows(form)


def test_heat_map_is_asked_for_in_json(client):
    answer = client.post("/api/explain", json={"row": 3, "match": 4})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"row": 3, "treshold": 0.5}, "there is no field 'treshold'; did you mean 'threshold'?"),
        ({"row": 3, "zzz": 1}, "there is no field 'zzz'"),
        ({"row": "x"}, "row: 'x' is not a whole number"),
        ({"row": 3, "k": "many"}, "k: 'many' is not a whole number"),
        ({"row": 3, "k": 2.5}, "k: 2.5 is not a whole number"),
        ({"row": 3, "combine": "meen"}, "did you mean 'mean'?"),
        ({"image": "not base64!"}, "base64"),
        ({"image": 5}, "base64"),
        ({"row": 3, "where": {"price": {"over": 3}}}, "price"),
        ([3], "object"),
    ],
)
def test_what_is_wrong_with_a_body_is_said_in_plain_words(client, body, says):
    answer = client.post("/api/search", json=body)
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert says in detail
    for word in ("Input should be", "Extra inputs", "parsing", "literal["):
        assert word not in detail


def test_body_that_is_no_json_is_refused(client):
    headers = {"content-type": "application/json"}
    answer = client.post("/api/search", content=b"{row: 3}", headers=headers)
    assert answer.status_code == 422
    assert "not JSON" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("/api/images?limit=0", "limit: '0' is too small: give at least 1"),
        ("/api/images?limit=many", "limit: 'many' is not a whole number"),
        ("/api/images/x/facts", "row: 'x' is not a whole number"),
        ("/api/images/1/thumbnail?size=7", "size: 7 is none of 128, 256 or 512"),
    ],
)
def test_what_is_wrong_with_an_address_is_said_in_plain_words(client, address, says):
    assert client.get(address).json()["detail"] == says


@settings(deadline=None, max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["row", "k", "where", "box", "image", "x"]), inner)
        ),
        max_leaves=6,
    )
)
def test_any_json_is_answered_or_refused(library_client, body):
    answer = library_client.post(
        "/api/search", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert answer.status_code in {200, 404, 422}, answer.text


@pytest.fixture(scope="module")
def library_client(outputs):
    with TestClient(create_app(Settings(str(outputs)))) as client:
        yield client


def test_every_field_of_the_schema_is_described(client):
    schema = client.get("/api/openapi.json").json()
    undescribed = [
        f"{name}.{field}"
        for name, model in schema["components"]["schemas"].items()
        for field, value in model.get("properties", {}).items()
        if not value.get("description") and "$ref" not in value
    ]
    assert undescribed == []


def test_sample_answers_are_what_the_models_say(client):
    schema = client.get("/api/openapi.json").json()
    for path, model in RESPONSES.items():
        assert set(ANSWERS[path]) == set(model.model_fields)
        model.model_validate(ANSWERS[path])
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            content = operation["responses"]["200"]["content"]
            if "application/json" in content:
                assert content["application/json"]["example"] == ANSWERS[path]


@pytest.mark.parametrize("name", ["search", "recommend", "explain"])
def test_sample_bodies_are_answered(client, name):
    schema = client.get("/api/openapi.json").json()
    content = schema["paths"][f"/api/{name}"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}
    body = content["application/json"]["example"]
    assert body in REQUESTS.values()
    body = {key: value for key, value in body.items() if key != "where"}
    small = {"row": 1, "match": 2, "liked": [1, 2], "disliked": [3]}
    answer = client.post(f"/api/{name}", json={k: small.get(k, v) for k, v in body.items()})
    assert answer.status_code == 200, answer.text


def test_shapes_are_told_if_asked_for(client, dataset):
    listed = client.get("/api/images", params={"shapes": True, "limit": 500}).json()["images"]
    for image in listed:
        with Image.open(dataset / image["path"]) as picture:
            assert (image["width"], image["height"]) == picture.size
    plain = client.get("/api/images").json()["images"]
    assert {image["width"] for image in plain} == {None}
    found = client.post("/api/search?shapes=true", json={"row": 1}).json()["answers"][0]["matches"]
    assert all(match["width"] and match["height"] for match in found)


def test_map_places_every_image_in_its_square(client, library):
    drawn = client.get("/api/map").json()
    assert drawn["rows"] == list(range(len(library)))
    assert (drawn["total"], drawn["method"]) == (len(library), "pca")
    for side in ("x", "y"):
        assert len(drawn[side]) == len(library)
        assert (min(drawn[side]), max(drawn[side])) == (0, drawn["size"])
    labels = library.label_rows("folder")
    for row, group in enumerate(drawn["group"]):
        assert group < 0 or drawn["groups"][group] == labels[row]
    neighbours = client.get("/api/map", params={"method": "tsne"}).json()
    assert neighbours["method"] == "tsne"
    assert neighbours["x"] != drawn["x"]
    assert "did you mean 'tsne'?" in client.get("/api/map?method=t-sne").json()["detail"]


def test_parts_are_suggested_for_a_row_and_for_an_image(client, library):
    by_row = client.post("/api/suggest", json={"row": 3}).json()
    schemas.Parts.model_validate(by_row)
    assert by_row["parts"] == [
        list(part) for part in suggest_parts(library.backbone, str(library.paths[3]))
    ]
    assert by_row["parts"]
    with open(library.paths[3], "rb") as file:  # noqa: PTH123
        assert client.post("/api/suggest", files={"image": file}).json() == by_row
    for part in by_row["parts"]:
        answer = client.post("/api/search", json={"row": 3, "box": part, "k": 2})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 422, "0 pictures"),
        ({"row": [1, 2]}, 422, "2 pictures"),
        ({"row": 10_000}, 404, "no row 10000"),
        ({"row": 1, "version": "older"}, 409, "has changed"),
        ({"imge": "x"}, 422, "did you mean 'image'?"),
    ],
)
def test_parts_are_suggested_for_one_picture_that_is_there(client, body, status, says):
    answer = client.post("/api/suggest", json=body)
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_suggestions_are_close_words_alone():
    assert suggest("box", ["box", "k"]) == "; did you mean 'box'?"
    assert suggest("entirely", ["box", "k"]) == ""
