"""Several libraries that a server searches as one."""

import pytest
from api_cases import post_query
from dataset_cases import paint
from fastapi.testclient import TestClient

import simsearch as ss
from simsearch.web.app import create_app
from simsearch.web.server import serve
from simsearch.web.settings import Settings


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Make two libraries of five pictures, each with a folder of its own."""
    base = tmp_path_factory.mktemp("together")
    for number, name in enumerate(("coffee", "cat")):
        for i in range(5):
            paint(base / name / f"{i}.png", 5 * number + i)
        embed(base, name)
    return base


def embed(base, name):
    ss.embed_dataset(base / name, base / f"outputs_{name}", "efficientnet_lite0", progress=False)


@pytest.fixture
def client(folders, tmp_path):
    settings = Settings(
        str(folders / "outputs_coffee"),
        others=[str(folders / "outputs_cat")],
        cache=str(tmp_path / "cache"),
    )
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client


def test_page_searches_all_libraries_as_one(client, folders):
    libraries = [ss.ImageLibrary.load(folders / f"outputs_{name}") for name in ("coffee", "cat")]
    listed = client.get("/api/images").json()["images"]
    assert len(listed) == 10
    assert not any(str(folders) in image["path"] for image in listed)
    found = post_query(client, row="7", k=9)[0]["matches"]
    expected = ss.search(libraries, 7, 9)
    assert [match["row"] for match in found] == [match.row for match in expected]
    assert {match["row"] < 5 for match in found} == {True, False}
    for image in found:
        assert client.get(image["thumbnail"]).headers["content-type"] == "image/jpeg"
    picture = ("image", ("x.png", (folders / "cat" / "2.png").read_bytes()))
    assert post_query(client, files=[picture])[0]["matches"][0]["row"] == 7


def test_change_of_one_library_makes_another_version(client, folders):
    before = client.get("/api/library").json()
    assert before["images"] == 10
    paint(folders / "cat" / "new.png", 100)
    embed(folders, "cat")
    client.app.state.service.manager.refresh()
    after = client.get("/api/library").json()
    assert after["images"] == 11
    assert after["version"] != before["version"]


def test_what_belongs_to_one_library_is_refused(folders):
    outputs = [str(folders / f"outputs_{name}") for name in ("coffee", "cat")]
    for option, value in (("root", "x"), ("metadata", "x.csv"), ("index", True)):
        with pytest.raises(ss.QueryError, match=f"{option}=.* belongs to one library"):
            serve(outputs, together=True, **{option: value})
    named = [f"a={outputs[0]}", "b=nowhere"]  # names do no harm
    with pytest.raises(ss.LibraryError, match="no library in 'nowhere'"):
        serve(named, together=True)
