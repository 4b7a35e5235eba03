"""Links in a dataset: inside it they are followed, out of it only to folders that are named."""

import os

import pytest
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.cli.main import main
from simsearch.images.find import list_dataset
from simsearch.images.links import LINK_OUT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


@pytest.fixture
def place(tmp_path):
    """A dataset with links to a file and a folder of its own, and to ones elsewhere."""
    dataset, other = tmp_path / "dataset", tmp_path / "other"
    for folder in (dataset / "real", other / "sub"):
        folder.mkdir(parents=True)
    for i, name in enumerate(["dataset/real/a.png", "other/b.png", "other/sub/c.png"]):
        Image.new("RGB", (40, 40), (50 * i, 90, 9)).save(tmp_path / name)
    (dataset / "inner.png").symlink_to("real/a.png")
    (dataset / "outer.png").symlink_to(other / "b.png")
    (dataset / "folder").symlink_to(other / "sub")
    (dataset / "broken.png").symlink_to(tmp_path / "nowhere.png")
    return tmp_path


def names(place, **options):
    return [file.name for file in list_dataset(place / "dataset", **options).files]


def test_links_out_of_the_dataset_are_counted_and_said_once(place, caplog):
    listing = list_dataset(place / "dataset")
    assert [file.name for file in listing.files] == ["broken.png", "inner.png", "real/a.png"]
    assert listing.left_out[LINK_OUT] == 2
    (record,) = caplog.records
    assert "follow=" in record.message


def test_folders_that_are_named_are_followed(place):
    inside = ["broken.png", "inner.png", "real/a.png"]
    assert names(place, follow=place / "other") == sorted([*inside, "outer.png", "folder/c.png"])
    assert names(place, follow=[str(place / "other/sub")]) == sorted([*inside, "folder/c.png"])
    assert names(place, follow=()) == inside
    assert [file.name for file in ss.find_images(place / "dataset", follow=place)[0]] == sorted(
        [*inside, "outer.png", "folder/c.png"]
    )


def test_a_folder_of_a_similar_name_is_another(place):
    (place / "dataset2").mkdir()
    Image.new("RGB", (40, 40)).save(place / "dataset2/x.png")
    (place / "dataset/x.png").symlink_to(place / "dataset2/x.png")
    assert "x.png" not in names(place)


def test_the_dataset_itself_may_be_a_link(place):
    (place / "link").symlink_to(place / "dataset")
    assert [f.name for f in list_dataset(place / "link").files] == names(place)


def test_a_link_through_a_link_is_looked_through(place):
    (place / "dataset/real/way").symlink_to(place / "dataset/folder")
    (place / "dataset/through.png").symlink_to("outer.png")
    assert names(place) == ["broken.png", "inner.png", "real/a.png"]


def test_a_folder_to_follow_must_be_there(place):
    with pytest.raises(ss.DatasetError, match=r"follow=.*no such folder"):
        names(place, follow=place / "gone")


def embed(place, **options):
    outputs = place / "outputs"
    return ss.embed_dataset(place / "dataset", outputs, tiny_backbone(), progress=False, **options)


def test_rows_behind_links_are_kept_once_they_were_embedded(place, monkeypatch):
    """As of an earlier version, which followed every link; unless somebody else made the rows."""
    assert len(embed(place, follow=place / "other")) == 4
    library = embed(place)
    assert len(library) == 4
    (reason,) = library.report.kept_reasons
    assert "behind links out of the dataset" in reason
    assert "2 link out of the dataset" in str(library.report)
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "another user"))
    assert len(embed(place)) == 2
    assert len(embed(place, follow=place / "other")) == 4
    assert len(embed(place, allow_shrink=True)) == 2


def test_the_command_takes_folders_to_follow(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    command = ["embed", "dataset", "outputs", "--backbone", "efficientnet_lite0"]
    assert main([*command, "--follow", "other"]) == 0
    assert len(ss.ImageLibrary.load("outputs")) == 4
