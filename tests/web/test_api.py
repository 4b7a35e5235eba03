"""The REST API: its answers equal the library's; schema, thumbnails, metrics."""

import io
import shutil
from dataclasses import fields

import numpy as np
import pytest
from api_cases import BACKBONE, assert_same_matches, post_query
from PIL import Image

import simsearch as ss
from simsearch.retrieval.options import RankingOptions, SearchOptions
from simsearch.web import schemas
from simsearch.web.thumbnails import Thumbnails


@pytest.fixture(scope="module")
def photo(sample):
    """An image that is not in the library."""
    return (sorted((sample / "seg_pred").iterdir())[-1]).read_bytes()


# Options as form fields, and as `search` takes them.
OPTIONS = [
    ({}, {}),
    ({"k": 3}, {"k": 3}),
    ({"threshold": "auto"}, {"threshold": "auto"}),
    ({"threshold": "0.5", "k": 40}, {"threshold": 0.5, "k": 40}),
    (
        {"threshold": "auto", "false_match_rate": 0.1},
        {"threshold": "auto", "false_match_rate": 0.1},
    ),
    ({"where": '"seg_train/*"'}, {"where": "seg_train/*"}),
    ({"where": "seg_train/*"}, {"where": "seg_train/*"}),
    ({"where": "[rs]eg_train/*"}, {"where": "[rs]eg_train/*"}),
    ({"where": '{"price": {"max": 9}}', "k": 40}, {"where": {"price": (None, 9)}, "k": 40}),
    ({"where": '{"price": {"min": 3, "max": 9}}'}, {"where": {"price": (3, 9)}}),
    ({"where": '{"tags": ["blue", "grey"]}'}, {"where": {"tags": ["blue", "grey"]}}),
    (
        {"where": '{"folder": "seg_pred", "tags": "green"}'},
        {"where": {"folder": "seg_pred", "tags": "green"}},
    ),
    ({"box": "0,0,0.5,1"}, {"box": (0, 0, 0.5, 1)}),
    ({"box": "3,4,90,80"}, {"box": (3, 4, 90, 80)}),
    ({"diversity": 0.5}, {"diversity": 0.5}),
    ({"unique": "true", "k": 40}, {"unique": True, "k": 40}),
    ({"rerank": "k-reciprocal", "k": 40}, {"rerank": "k-reciprocal", "k": 40}),
    ({"rerank": "background", "k": 40}, {"rerank": "background", "k": 40}),
    ({"unique": "0.8", "k": 40}, {"unique": 0.8, "k": 40}),
    ({"exclude_query": "false"}, {"exclude_query": False}),
]


@pytest.mark.parametrize(("fields", "options"), OPTIONS)
def test_search_by_row_equals_the_librarys_search(client, library, fields, options):
    row = library.names.index("seg_pred/copy.jpg")
    (answer,) = post_query(client, row=row, **fields)
    assert_same_matches(answer, ss.search(library, row, **options), library)
    assert answer["query"] == "seg_pred/copy.jpg" + (
        "" if "box" not in fields else ", box " + " ".join(fields["box"].split(","))
    )


@pytest.mark.parametrize(("fields", "options"), OPTIONS)
def test_search_by_upload_equals_the_librarys_search(client, library, photo, fields, options):
    (answer,) = post_query(client, files=[("image", ("photo.jpg", photo))], **fields)
    assert_same_matches(answer, ss.search(library, photo, **options), library)


def test_several_queries_get_one_answer_each(client, library, photo):
    files = [("image", ("photo.jpg", photo))]
    answers = post_query(client, files=files, row=[3, 7], k=4)
    expected = ss.search(library, [3, 7, photo], k=4)
    for answer, matches in zip(answers, expected, strict=True):
        assert_same_matches(answer, matches, library)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"combine": "mean"}, {"combine": "mean"}),
        ({"combine": "max"}, {"combine": "max"}),
        ({"combine": "mean", "weights": "1,-0.5,2"}, {"combine": "mean", "weights": [1, -0.5, 2]}),
    ],
)
def test_combined_queries_get_one_answer(client, library, photo, fields, options):
    files = [("image", ("photo.jpg", photo))]
    (answer,) = post_query(client, files=files, row=[3, 7], **fields)
    assert_same_matches(answer, ss.search(library, [3, 7, photo], **options), library)


def test_regions_get_one_answer_each(client, library):
    answers = post_query(client, row=5, regions="true", k=2)
    for answer, matches in zip(answers, ss.search(library, 5, regions=True, k=2), strict=True):
        assert_same_matches(answer, matches, library)
        assert answer["box"] == list(matches.box)


def test_recommendation_equals_the_librarys(client, library, photo):
    files = [("liked_image", ("photo.jpg", photo)), ("disliked_image", ("photo.jpg", photo[::1]))]
    fields = {"liked": [3, 9], "disliked": [20], "exclude": [4, 5], "k": 7}
    (answer,) = post_query(client, "/api/recommend", **fields)
    expected = ss.recommend(library, [3, 9], [20], k=7, exclude=[4, 5])
    assert_same_matches(answer, expected, library)
    (answer,) = post_query(
        client, "/api/recommend", files[:1], dislike=0.4, unique="true", **fields
    )
    expected = ss.recommend(
        library, [3, 9, photo], [20], k=7, exclude=[4, 5], dislike=0.4, unique=True
    )
    assert_same_matches(answer, expected, library)
    (answer,) = post_query(client, "/api/recommend", files[1:], **fields)
    assert_same_matches(answer, ss.recommend(library, [3, 9], [20, photo], 7, [4, 5]), library)


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("search", {}, "no query"),
        ("search", {"row": 9999}, "row 9999"),
        ("search", {"row": "../../etc/passwd"}, "row"),
        ("search", {"row": 1, "k": 0}, "k=0"),
        ("search", {"row": 1, "k": 201}, "200"),
        ("search", {"row": 1, "colour": "red"}, "colour"),
        ("search", {"row": 1, "threshold": 2}, "threshold=2"),
        ("search", {"row": 1, "box": "1,2"}, "box"),
        ("search", {"row": 1, "box": "left"}, "box='left'"),
        ("search", {"row": 1, "where": "{sea"}, "JSON"),
        ("search", {"row": 1, "where": "[1]"}, "glob"),
        ("search", {"row": 1, "where": '{"size": 3}'}, "size"),
        ("search", {"row": 1, "where": '{"pirce": 3}'}, "did you mean 'price'?"),
        ("search", {"row": 1, "where": '{"price": {"over": 3}}'}, "price"),
        ("search", {"row": 1, "where": '{"price": [null]}'}, "price"),
        ("search", {"row": 1, "url": "http://example.org/a.jpg"}, "fetches no URLs"),
        ("search", {"row": list(range(33))}, "33 queries"),
        ("recommend", {}, "nothing is liked"),
        ("recommend", {"liked": 3, "disliked": 3, "dislike": 1}, "cancel"),
        ("explain", {"row": 1}, "match"),
        ("explain", {"row": [1, 2], "match": 3}, "one"),
        ("explain", {"row": [1, 2], "match": 3, "combine": "max"}, "one"),
    ],
)  # fmt: skip
def test_invalid_request_is_a_problem_with_its_reason(client, path, fields, words):
    response = client.post(f"/api/{path}", data=fields)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == 422
    assert words in problem["detail"]


def test_library_is_described(client, library):
    described = client.get("/api/library").json()
    schemas.Library.model_validate(described)
    assert described["images"] == len(library)
    assert described["backbone"] == BACKBONE
    assert {each["name"]: each["images"] for each in described["folders"]} == {
        name: int((library.folders == name).sum()) for name in set(library.folders.tolist())
    }
    columns = {each["name"]: each for each in described["columns"]}
    prices = library.metadata["price"].dropna().astype(float)  # text, in the file
    assert (columns["price"]["min"], columns["price"]["max"]) == (prices.min(), prices.max())
    assert columns["tags"]["kind"] == "text"
    assert described["auto_threshold"] == library.threshold()


def test_images_are_listed_by_page(client, library):
    pages = [client.get("/api/images", params={"offset": i, "limit": 9}).json() for i in (0, 9, 36)]
    for page in pages:
        schemas.Page.model_validate(page)
        assert page["total"] == len(library)
    paths = [image["path"] for page in pages for image in page["images"]]
    assert paths == [*library.names[:18], *library.names[36:45]]
    some = client.get("/api/images", params={"where": '{"tags": "red"}', "limit": 500}).json()
    expected = np.flatnonzero(library.where({"tags": "red"}))
    assert [image["row"] for image in some["images"]] == expected.tolist()
    assert some["images"][0]["metadata"] == library.facts(int(expected[0]))
    assert client.get("/api/images", params={"offset": 10**6}).json()["images"] == []


def test_original_is_sent_unchanged(client, dataset, library):
    row = library.names.index("seg_pred/copy.jpg")
    response = client.get(f"/api/images/{row}")
    assert response.content == (dataset / "seg_pred/copy.jpg").read_bytes()
    assert response.headers["content-type"] == "image/jpeg"


def test_image_that_browsers_cannot_show_is_sent_as_jpeg(client, dataset, library):
    row = library.names.index("seg_pred/scan.tiff")
    response = client.get(f"/api/images/{row}")
    assert response.headers["content-type"] == "image/jpeg"
    sent = np.asarray(Image.open(io.BytesIO(response.content)), float)
    kept = np.asarray(ss.load_image(dataset / "seg_pred/scan.tiff"), float)
    assert np.abs(sent - kept).mean() < 4


@pytest.mark.parametrize("size", [128, 256, 512])
def test_thumbnail_keeps_the_aspect_ratio(client, library, size):
    image = ss.load_image(library.paths[3])
    thumbnail = Image.open(io.BytesIO(client.get(f"/api/images/3/thumbnail?size={size}").content))
    assert max(thumbnail.size) == min(size, max(image.size))
    assert thumbnail.width / thumbnail.height == pytest.approx(image.width / image.height, 0.02)


def test_images_are_cached_by_the_browser(client):
    for path in ("/api/images/3", "/api/images/3/thumbnail"):
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(path, headers={"If-None-Match": '"else"'}).status_code == 200
    version = client.get("/api/health").json()["version"]
    assert "immutable" in client.get(f"/api/images/3?v={version}").headers["cache-control"]
    assert client.get("/api/images/3").headers["cache-control"] == "no-cache"


def test_unknown_rows_and_versions_are_problems(client):
    for path in ("/api/images/9999", "/api/images/-1/thumbnail", "/api/images/9999/facts"):
        assert client.get(path).status_code == 404
    assert client.get("/api/images/3?v=0000").status_code == 409
    assert client.post("/api/search", data={"row": 3, "version": "0000"}).status_code == 409
    assert client.get("/api/images/3/thumbnail?size=100").status_code == 422


def test_thumbnails_are_cached_until_the_image_changes(tmp_path):
    file = tmp_path / "a.jpg"
    Image.new("RGB", (900, 300), "red").save(file)
    thumbnails = Thumbnails(tmp_path / "cache")
    first = thumbnails.get(str(file), 256)
    assert Image.open(io.BytesIO(first.data)).size == (256, 85)
    (kept,) = (tmp_path / "cache").rglob("*.jpg")
    kept_at = kept.stat().st_ino
    assert thumbnails.get(str(file), 256) == first
    assert kept.stat().st_ino == kept_at  # read, not made again
    Image.new("RGB", (900, 300), "blue").save(file)
    second = thumbnails.get(str(file), 256)
    assert second.etag != first.etag
    assert Image.open(io.BytesIO(second.data)).getpixel((9, 9))[2] > 200
    assert len(list((tmp_path / "cache").rglob("*.*"))) == 1  # in the place of the first


@pytest.mark.parametrize("head", ["", "file://"])
def test_no_thumbnail_outlives_its_image(tmp_path, head):
    file = tmp_path / "a.jpg"
    Image.new("RGB", (90, 30), "red").save(file)
    thumbnails = Thumbnails(tmp_path / "cache")
    assert thumbnails.get(f"{head}{file}", 128).data
    file.unlink()
    with pytest.raises(ss.ImageError):
        thumbnails.get(f"{head}{file}", 128)
    assert not list((tmp_path / "cache").rglob("*.jpg"))


def test_thumbnail_that_cannot_be_stored_is_still_sent(tmp_path, dataset):
    thumbnails = Thumbnails(tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file where the folder was")
    image = next((dataset / "seg_pred").iterdir())
    assert thumbnails.get(str(image), 128).data


def test_heat_map_fits_the_thumbnail(client, library, photo):
    files = [("image", ("photo.jpg", photo))]
    response = client.post("/api/explain", data={"match": 3}, files=files)
    assert response.headers["content-type"] == "image/png"
    heat = np.asarray(Image.open(io.BytesIO(response.content)))
    image = ss.load_image(library.paths[3])
    image.thumbnail((512, 512))
    assert heat.shape == (image.height, image.width, 4)
    found = ss.search(library, photo)
    expected = ss.heat_map(library, image, found.embedding)
    hottest = heat[..., 3] > 0.8 * heat[..., 3].max()
    assert expected[hottest].mean() > expected[~hottest].mean() + 0.1
    liked = client.post("/api/explain", data={"match": 3, "liked": [8], "disliked": [20]})
    assert liked.content != response.content


def test_openapi_schema_lists_paths_and_problems(client):
    schema = client.get("/api/openapi.json").json()
    assert {"/api/search", "/api/recommend", "/api/library", "/api/images/{row}"} <= set(
        schema["paths"]
    )
    fields = schema["components"]["schemas"]["SearchForm"]["properties"]
    assert all("description" in field for field in fields.values())
    assert fields["where"]["examples"]
    answers = schema["paths"]["/api/search"]["post"]["responses"]
    assert {"200", "401", "413", "422", "503"} <= set(answers)
    assert "application/problem+json" in answers["422"]["content"]


def test_metrics_count_requests_by_route(client):
    client.get("/api/images/3/facts")
    client.get("/nowhere/at/all")
    text = client.get("/metrics").text
    assert 'simsearch_requests_total{route="/api/images/{row}/facts",status="200"}' in text
    assert 'status="404"' in text
    assert "nowhere" not in text
    assert "simsearch_request_seconds_bucket" in text
    assert "simsearch_batch_images_count" in text


@pytest.mark.parametrize(
    ("form", "options"),
    [
        (schemas.SearchForm, SearchOptions),
        (schemas.RecommendForm, RankingOptions),
        (schemas.ExplainForm, SearchOptions),
    ],
)
def test_forms_have_every_search_option_without_a_default(form, options):
    names = {field.name for field in fields(options)} - {"index"}
    queries = {"version", "row", "image", "url", "match", "exclude", "dislike"}
    queries |= {"liked", "liked_image", "disliked", "disliked_image"}
    queries |= {"text", "liked_text", "disliked_text"}
    assert form.model_fields.keys() - queries == names
    assert {form.model_fields[name].default for name in names} == {None}  # the library's
    assert all(form.model_fields[name].description for name in names)


def test_words_are_a_query_as_in_python(client, library):
    (answer,) = post_query(client, text="a cup of coffee", k=6)
    found = ss.search(library, text="a cup of coffee", k=6)
    assert_same_matches(answer, found, library)
    assert answer["query"] == found.query
    two = post_query(client, row=3, text=["a cat", "coffee"], k=4)
    expected = ss.search(library, [3, ss.Words("a cat"), ss.Words("coffee")], k=4)
    for each, wanted in zip(two, expected, strict=True):
        assert_same_matches(each, wanted, library)
    (answer,) = post_query(
        client, "/api/recommend", liked=3, liked_text="a cat", disliked_text="coffee", k=4
    )
    expected = ss.recommend(library, [3, ss.Words("a cat")], [ss.Words("coffee")], k=4)
    assert_same_matches(answer, expected, library)
    assert client.get("/api/library").json()["words"] is True


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "no words"), ("\x00\x1b", "no words"), ("a" * 10_000, "10,000 characters")],
)
def test_texts_without_words_are_a_problem_with_its_reason(client, text, reason):
    for path, field in (("search", "text"), ("recommend", "liked_text")):
        response = client.post(f"/api/{path}", data={field: text})
        assert response.status_code == 422
        assert reason in response.json()["detail"]


@pytest.mark.parametrize(
    "text", ["🎉🎉", "日本語", "<script>", "../../etc/passwd", "%s {} \x1b[31m"]
)
def test_hostile_words_get_an_answer(client, text):
    assert len(post_query(client, text=text, k=3)[0]["matches"]) == 3
