"""Libraries of one's own and of others: the mark, what it covers, and what is opened without it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.errors import BackboneError, ImageError, LibraryError
from simsearch.library import user_key as keys
from simsearch.library.foreign import LINK_OUT, confined
from simsearch.library.paths import in_folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a dataset and its library, and the current folder in it."""
    place = tmp_path / "project"
    (place / "dataset" / "sea").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"dataset/sea/{i}.png")
    monkeypatch.chdir(place)
    embed()
    return place


@pytest.fixture
def another_user(tmp_path, monkeypatch):
    """Return a function after which somebody else opens the library."""
    return lambda: monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))


def embed(root="dataset", outputs="outputs"):
    return ss.embed_dataset(root, outputs, tiny_backbone(), progress=False)


def manifest(outputs="outputs"):
    return json.loads(Path(outputs, "manifest.json").read_text())


def can_open(library, row=0):
    try:
        ss.load_image(str(library.paths[row]))
    except ImageError:
        return False
    return True


def is_own_or_refused():
    try:
        return ss.ImageLibrary.load("outputs").own
    except LibraryError:  # a digest does not fit
        return False


def rewrite(outputs, paths, **changes):
    """Write the paths and the root of a library as a stranger can."""
    library = ss.ImageLibrary(np.load(outputs / "embeddings.npy"), paths)
    library.root = changes.pop("root", None)
    shutil.rmtree(outputs)
    library.save(outputs)
    facts = manifest(outputs) | changes
    facts.pop("mac", None)
    (outputs / "manifest.json").write_text(json.dumps(facts))


def test_what_is_embedded_is_ones_own_also_when_it_has_moved(project, tmp_path):
    assert ss.ImageLibrary.load("outputs").own
    shutil.copytree(project, tmp_path / "moved")
    assert ss.ImageLibrary.load(tmp_path / "moved" / "outputs").own


def test_the_key_is_private_and_one_for_all_processes(tmp_path):
    state = tmp_path / "state"
    script = (
        "from simsearch.library.user_key import user_key;from pathlib import Path;"
        f"print(user_key(Path({str(state)!r})).hex())"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(4)
    ]
    made = {run.communicate()[0] for run in runs}
    assert len(made) == 1
    assert len(bytes.fromhex(made.pop().decode())) == keys.KEY_BYTES
    assert (state / "key").stat().st_mode & 0o777 == 0o600
    assert state.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.name == "nt", reason="no such modes")
@pytest.mark.parametrize("harm", ["readable", "short", "folder", "no folder"])
def test_without_a_key_of_ones_own_everything_is_foreign_and_that_is_said_once(
    project, tmp_path, monkeypatch, caplog, harm
):
    state = tmp_path / "harmed"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    keys.signed({}, "any")
    keys.user_key.cache_clear()
    if harm == "readable":
        (state / "simsearch/key").chmod(0o644)
    elif harm == "short":
        (state / "simsearch/key").write_bytes(b"short")
    elif harm == "folder":
        (state / "simsearch").chmod(0o777)
    else:
        shutil.rmtree(state)
        state.write_text("a file")
    shutil.rmtree("outputs")
    embed()
    assert "mac" not in manifest()
    library = ss.ImageLibrary.load("outputs")
    assert not library.own
    assert can_open(library)  # it lies in this project
    assert len([each for each in caplog.records if "No key can be kept" in each.message]) == 1
    with pytest.raises(LibraryError, match="XDG_STATE_HOME"):
        ss.trust_library("outputs")


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.update(root="elsewhere"),
        lambda facts: facts.update(absolute_root="/etc"),
        lambda facts: facts["files"]["image_paths.npy"].update(sha256="0" * 64),
        lambda facts: facts["source"].update(weights="/etc/passwd"),
        lambda facts: facts.update(paths="0" * 64),
        lambda facts: facts.pop("mac"),
        lambda facts: facts.update(mac=None),
        lambda facts: facts.update(mac="ü"),
    ],
)
def test_the_mark_covers_what_makes_reading_dangerous(project, change):
    facts = manifest()
    change(facts)
    Path("outputs/manifest.json").write_text(json.dumps(facts))
    assert not is_own_or_refused()


def test_paths_replaced_with_their_size_and_time_are_not_ones_own(project):
    file = Path("outputs/image_paths.npy")
    status, data = file.stat(), file.read_bytes()
    file.write_bytes(data[:-4] + bytes([data[-4] ^ 1]) + data[-3:])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not is_own_or_refused()


def test_a_foreign_library_opens_searches_and_shows_in_its_project(project, another_user):
    before = [match.path for match in ss.search(ss.ImageLibrary.load("outputs"), 0)]
    another_user()
    library = ss.ImageLibrary.load("outputs")
    assert not library.own
    assert [match.path for match in ss.search(library, "dataset/sea/0.png")] == before
    assert library.find("dataset/sea/3.png") == 3
    assert all(can_open(library, row) for row in range(len(library)))


def test_info_says_whose_a_library_is_and_what_to_type(project, another_user, capsys):
    from simsearch.cli.main import main

    Path("outputs").rename("my outputs")
    assert main(["info", "my outputs"]) == 0
    assert "mark" not in capsys.readouterr().out
    another_user()
    assert main(["info", "my outputs"]) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("mark")]
    assert line.endswith("type once: simsearch trust 'my outputs'")
    assert "an earlier version" in line
    assert main(shlex.split(line.partition("once: simsearch ")[2])) == 0
    capsys.readouterr()
    assert main(["info", "my outputs"]) == 0
    assert "mark" not in capsys.readouterr().out


def test_embedding_makes_a_library_ones_own_and_embeds_nothing_again(project, another_user):
    another_user()
    library = embed()
    assert (library.report.embedded, library.report.reused) == (0, 6)
    assert ss.ImageLibrary.load("outputs").own


@pytest.mark.parametrize("how", ["function", "command"])
def test_trust_makes_a_library_ones_own_and_says_what_it_may_open(
    project, another_user, how, capsys, tmp_path, monkeypatch
):
    from simsearch.cli.main import main

    another_user()
    if how == "function":
        report = ss.trust_library("outputs")
        assert (report.rows, report.root, report.derived) == (6, f"{project}/dataset", ())
        text = str(report)
    else:
        assert main(["trust", "outputs"]) == 0
        text = capsys.readouterr().out
    assert f"pictures in: {project}/dataset" in text
    assert "rows: 6" in text
    monkeypatch.chdir(tmp_path)
    library = ss.ImageLibrary.load(project / "outputs")
    assert library.own
    assert can_open(library)


def test_what_is_damaged_is_not_trusted(project):
    data = bytearray(Path("outputs/embeddings.npy").read_bytes())
    status = Path("outputs/embeddings.npy").stat()
    data[-4] ^= 1  # the last bit of a number
    Path("outputs/embeddings.npy").write_bytes(data)
    os.utime("outputs/embeddings.npy", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(LibraryError, match="damaged"):
        ss.trust_library("outputs")


SECRETS = ("/etc/passwd", "../../secret.png", "~root/x", "http://127.0.0.1/x.png", "file:///etc/x")


@pytest.mark.parametrize("path", SECRETS)
@pytest.mark.parametrize("root", [None, "dataset"])
def test_rows_of_a_foreign_library_name_nothing_outside(project, tmp_path, path, root):
    """Neither in the project nor below a root that is given; the recorded one does not count."""
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    rewrite(project / "outputs", [path] * 6, absolute_root=str(tmp_path))
    library = ss.ImageLibrary.load("outputs", root)
    inside = project if root is None else project / "dataset"
    for each in library.paths.tolist():
        assert Path(each).expanduser().resolve().is_relative_to(inside)
    assert not can_open(library)


def test_a_recorded_root_elsewhere_is_not_opened_until_it_is_given(project, tmp_path, caplog):
    Path("dataset").rename(tmp_path / "photos")
    rewrite(
        project / "outputs",
        [f"{tmp_path}/photos/sea/{i}.png" for i in range(6)],
        root=f"{tmp_path}/photos",
    )
    library = ss.ImageLibrary.load("outputs")
    assert not can_open(library)
    (warning,) = [each.getMessage() for each in caplog.records]
    assert "\n" not in warning
    assert warning.endswith(f"type once: simsearch trust {Path('outputs').resolve()}")
    assert can_open(ss.ImageLibrary.load("outputs", tmp_path / "photos"))
    ss.trust_library("outputs")
    assert can_open(ss.ImageLibrary.load("outputs"))


def test_links_take_no_row_of_a_foreign_library_out_of_the_root(project, another_user, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "secret.png")
    Path("dataset/sea/0.png").unlink()
    Path("dataset/sea/0.png").symlink_to(tmp_path / "secret.png")
    Path("dataset/sea/1.png").unlink()
    Path("dataset/sea/1.png").symlink_to("2.png")
    another_user()
    for root in (None, "dataset"):
        library = ss.ImageLibrary.load("outputs", root)
        assert [can_open(library, row) for row in range(3)] == [False, True, True]
        assert library.paths[0].endswith(LINK_OUT)


def test_weights_that_a_stranger_names_are_not_opened(project, another_user, tmp_path):
    weights = tmp_path / "weights.pth"
    facts = manifest()
    facts["source"]["weights"] = str(weights)
    Path("outputs/manifest.json").write_text(json.dumps(facts))
    weights.write_bytes(b"")
    another_user()
    library = ss.ImageLibrary.load("outputs")
    with pytest.raises(BackboneError, match="simsearch trust"):
        library.encode([np.zeros((9, 9, 3), np.uint8)])
    library.save("copy")
    assert manifest("copy")["source"]["weights"] == "weights.pth"


NAMES = st.one_of(
    st.sampled_from(SECRETS),
    st.text("ab./~:\\", max_size=12),
    st.lists(st.sampled_from(["..", ".", "", "a", "~", "http:"]), max_size=6).map("/".join),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(NAMES, max_size=5), st.sampled_from(["/data/set", "dataset", "s3://bucket/photos"]))
def test_confined_names_stay_below_any_root(names, root):
    for name in confined(names, root):
        path = in_folder(root, name)
        assert path.startswith(f"{root}/")
        assert os.path.normpath(path).startswith(os.path.normpath(root) + "/")
        assert "::" not in path or not root.startswith("s3:")


@pytest.mark.parametrize("name", ["a.png", "sea/a b.png", "2019/..a/~b.png"])
def test_ordinary_names_stay_as_they_are(name):
    assert confined([name], "dataset") == [name]
