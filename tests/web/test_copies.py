"""The review of copies by the API: searched for in the background, chosen, planned, not applied."""

import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from scenes import scene

import simsearch as ss
from simsearch.images import decode, sources
from simsearch.web import copy_review, copy_schemas, copy_search
from simsearch.web.app import create_app
from simsearch.web.settings import Settings


@pytest.fixture
def project(tmp_path):
    """Three pictures, each with a smaller copy; of the last one, a part too."""
    folder = tmp_path / "dataset"
    (folder / "new").mkdir(parents=True)
    for seed in range(3):
        scene(seed).save(folder / f"{seed}.png")
        scene(seed).resize((200, 150)).save(folder / f"new/{seed}.png")
    scene(2).crop((60, 45, 340, 255)).save(folder / "new/part 2.png")
    save(tmp_path)
    return tmp_path


def save(project):
    paths = sorted(str(path) for path in (project / "dataset").rglob("*.png"))
    rows = np.eye(3)[[int(Path(path).stem[-1]) for path in paths]]
    ss.ImageLibrary(rows, paths).save(project / "outputs")


@pytest.fixture
def client(project):
    app = create_app(Settings(str(project / "outputs")))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def wait(client, state="ready"):
    deadline = time.monotonic() + 60
    while (found := client.get("/api/duplicates").json())["state"] != state:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    copy_schemas.Copies.model_validate(found)
    return found


def find(client):
    assert client.post("/api/duplicates/search").status_code == 200
    return wait(client)


def plan(client, **request):
    answer = client.post("/api/duplicates/plan", json=request)
    assert answer.status_code == 200, answer.text
    copy_schemas.Plan.model_validate(answer.json())
    return answer.json()


def names(group):
    return [image["path"] for image in group["images"]]


def apply(project, text):
    (project / "exported.csv").write_text(text)
    root = project / "dataset"
    return ss.apply_cleanup(ss.read_plan(project / "exported.csv", root), root, progress=False)


def pictures(project):
    found = (project / "dataset").rglob("*.png")
    return sorted(str(path) for path in found if ".simsearch-removed" not in path.parts)


def test_groups_are_found_planned_and_applied_at_the_command_line_alone(project, client):
    assert client.get("/api/duplicates").json()["state"] == "none"
    found = find(client)
    assert (found["groups"], found["copies"]) == (3, 4)
    assert sorted(map(sorted, map(names, found["listed"]))) == [
        ["0.png", "new/0.png"],
        ["1.png", "new/1.png"],
        ["2.png", "new/2.png", "new/part 2.png"],
    ]
    first = found["listed"][0]["images"]
    assert first[0]["path"] == "2.png"
    assert [image["goes"] for image in first] == [False, True, True]
    assert {image["edit"] for image in first} == {"", "resized", "crop"}
    assert (first[0]["width"], first[0]["height"]) == (400, 300)
    before = pictures(project)
    answer = plan(client)
    assert answer["copies"] == 4
    assert str(project) not in answer["csv"]
    assert pictures(project) == before
    assert len(apply(project, answer["csv"]).moved) == 4


def test_chosen_picture_stays_if_its_pixels_allow(project, client):
    listed = find(client)["listed"]
    rows = {image["path"]: image["row"] for group in listed for image in group["images"]}
    numbers = {name: group["group"] for group in listed for name in names(group)}
    small = {"group": numbers["0.png"], "keep": rows["new/0.png"], "extras": [rows["0.png"]]}
    alone = {"group": numbers["1.png"], "keep": rows["1.png"], "extras": []}
    part = {"group": numbers["2.png"], "keep": rows["new/part 2.png"], "extras": [rows["2.png"]]}
    answer = plan(client, choices=[small, alone, part])
    assert answer["copies"] == 1
    left = {each["reason"]: each["images"] for each in answer["left"]}
    assert left == {
        "left where it is": 2,
        "of which the picture that stays is a part, or was made": 1,
    }
    result = apply(project, answer["csv"])
    assert [Path(path).name for path in result.moved] == ["0.png"]
    assert "/new/" not in result.moved[0]


@pytest.mark.parametrize(
    ("request_body", "detail"),
    [
        ({"choices": [{"group": 9, "keep": 0, "extras": []}]}, "there is no group 9"),
        ({"choices": [{"group": 1, "keep": 99, "extras": []}]}, "row 99 is not in group 1"),
        ({"choices": [{"group": 1, "keep": 2, "extras": [2]}]}, "cannot stay and go"),
        ({"not_duplicates": [[0, 1]]}, "no pair of one group"),
        ({"not_duplicates": [[0, 0]]}, "no pair of one group"),
    ],
)
def test_choice_of_what_is_not_there_is_refused(client, request_body, detail):
    find(client)
    answer = client.post("/api/duplicates/plan", json=request_body)
    assert answer.status_code == 422
    assert detail in answer.json()["detail"]


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_no_picture_is_opened_in_the_servers_process(client, monkeypatch):
    """Of a search for copies, its list, and a plan that compares two that were not compared yet."""

    def refuse(*_):
        raise OSError("opened here")

    monkeypatch.setattr(decode, "open_file", refuse)
    monkeypatch.setattr(sources, "open_file", refuse)
    found = find(client)
    assert (found["groups"], found["copies"], found["notes"]) == (3, 4, [])
    group = found["listed"][0]
    assert (group["images"][0]["width"], group["images"][0]["height"]) == (400, 300)
    small = next(each for each in group["images"] if each["edit"] == "resized")
    choice = {"group": group["group"], "keep": small["row"], "extras": [group["images"][0]["row"]]}
    answer = plan(client, choices=[choice])
    assert answer["copies"] == 3
    assert answer["left"] == [{"reason": copy_review.UNCHOSEN, "images": 1}]


def test_pair_that_is_no_duplicate_is_remembered(project, client):
    listed = find(client)["listed"]
    group = next(each for each in listed if "0.png" in names(each))
    pair = [image["row"] for image in group["images"]]
    answer = plan(client, not_duplicates=[pair])
    assert (answer["remembered"], answer["copies"]) == (1, 3)
    assert "0.png" not in answer["csv"]
    assert wait(client)["groups"] == 2
    assert len(ss.duplicates(ss.ImageLibrary.load(project / "outputs"), progress=False)) == 2


def test_pair_that_cannot_be_remembered_is_said_and_left_out(client, monkeypatch):
    def refuse(*_):
        raise ss.LibraryError("read-only")

    monkeypatch.setattr(copy_search, "mark_not_duplicates", refuse)
    listed = find(client)["listed"]
    answer = plan(client, not_duplicates=[[each["row"] for each in listed[1]["images"]]])
    assert (answer["remembered"], answer["copies"]) == (0, 3)
    assert "cannot be remembered" in answer["notes"][0]


def test_one_search_runs_at_a_time_and_others_are_answered_meanwhile(client, monkeypatch):
    release, runs = threading.Event(), []
    original = copy_search.find_copies

    def slow(library, listener):
        runs.append(library)
        listener("Reading pictures", 3, 7)
        release.wait(30)
        return original(library, listener)

    monkeypatch.setattr(copy_search, "find_copies", slow)
    for _ in range(3):
        client.post("/api/duplicates/search")
    found = wait(client, "running")
    assert (found["step"], found["done"], found["total"]) == ("Reading pictures", 3, 7)
    assert client.post("/api/duplicates/plan", json={}).status_code == 422
    assert client.post("/api/search", data={"row": 0}).status_code == 200
    release.set()
    wait(client)
    client.post("/api/duplicates/search")
    assert len(runs) == 1


def test_search_that_fails_says_so_and_can_be_tried_again(client, monkeypatch):
    def fail(*_):
        raise RuntimeError("a secret path")

    with monkeypatch.context() as patch:
        patch.setattr(copy_search, "find_copies", fail)
        client.post("/api/duplicates/search")
        found = wait(client, "failed")
    assert "something went wrong" in found["error"]
    assert find(client)["groups"] == 3


def test_new_version_of_the_library_is_searched_anew(project, client):
    version = find(client)["version"]
    shutil.rmtree(project / "dataset/new")
    save(project)
    deadline = time.monotonic() + 30
    while client.get("/api/health").json()["version"] == version:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.get("/api/duplicates").json()["state"] == "none"
    assert client.post("/api/duplicates/plan", json={"version": version}).status_code == 409
    assert find(client)["groups"] == 0


def test_picture_behind_a_link_stays(project):
    shutil.move(project / "dataset/new", project / "elsewhere")
    (project / "dataset/new").symlink_to(project / "elsewhere")
    with TestClient(create_app(Settings(str(project / "outputs")))) as client:
        found = find(client)
    assert found["copies"] == 0
    reasons = {each["reason"] for group in found["listed"] for each in group["images"][1:]}
    assert reasons == {"not below the dataset's folder, or behind a link"}
