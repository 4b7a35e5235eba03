"""The command line: it calls the library, prints, and fails in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import simsearch as ss
from simsearch.cli.flags import read_conditions
from simsearch.cli.main import main

ROOT = Path(ss.__file__).parents[1]


@pytest.fixture(scope="module")
def project(sample, tmp_path_factory):
    """A folder with a small dataset and its library, made by the command itself."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("seg_train/coffee", "seg_train/grass", "seg_pred"):
        images = sorted((sample / name).iterdir())[:8]
        (folder / "dataset" / name).mkdir(parents=True)
        for image in images:
            shutil.copy2(image, folder / "dataset" / name)
    (folder / "dataset" / "bad.jpg").touch()
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["embed", "dataset", "outputs", "--backbone", "efficientnet_lite0"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def in_project(project, monkeypatch):
    monkeypatch.chdir(project)


def run(capsys, *arguments):
    """Run a command in this process; return exit code, standard output and standard error."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_search_prints_the_matches_of_the_library(capsys):
    query = "dataset/seg_train/coffee/0001.jpg"
    code, out, _ = run(capsys, "search", "outputs", query, "-k", 3)
    assert code == 0
    assert out.strip() == str(ss.search(ss.ImageLibrary.load("outputs"), query, k=3))


def test_search_prints_json_a_line_a_query(capsys):
    query = "dataset/seg_train/coffee/0001.jpg"
    code, out, _ = run(capsys, "search", "outputs", query, 3, "-k", 2, "--json")
    first, second = map(json.loads, out.splitlines())
    library = ss.ImageLibrary.load("outputs")
    assert code == 0
    assert first == ss.search(library, query, k=2).to_dict()
    assert second == ss.search(library, 3, k=2).to_dict()


def test_search_options_reach_the_library(capsys):
    query = "dataset/seg_train/grass/0001.jpg"
    _, out, _ = run(
        *(capsys, "search", "outputs", query, "--json", "--include-query", "--threshold", 0.999)
    )
    assert [match["path"] for match in json.loads(out)["matches"]] == [query]


@pytest.fixture
def metadata(tmp_path):
    """A table of the prices of all images, from 0 up in the order of the library."""
    names = ss.ImageLibrary.load("outputs").names
    lines = [
        f"{name},{price},{'even' if price % 2 == 0 else 'odd'}" for price, name in enumerate(names)
    ]
    file = tmp_path / "metadata.csv"
    file.write_text("\n".join(["path,price,kind", *lines]))
    return file


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--where", "seg_pred/*"], {"where": "seg_pred/*"}),
        (["--where", "price=..9"], {"where": {"price": (None, 9)}}),
        (["--where", "price=4..9", "kind=even"], {"where": {"price": (4, 9), "kind": "even"}}),
        (["--where", "price=1", "price=2"], {"where": {"price": [1, 2]}}),
        (["--unique", "--diversity", "0.5"], {"unique": True, "diversity": 0.5}),
        (["--unique", "0.8"], {"unique": 0.8}),
        (["--rerank", "k-reciprocal"], {"rerank": "k-reciprocal"}),
        (["--rerank", "background"], {"rerank": "background"}),
        (["--threshold", "auto"], {"threshold": "auto"}),
        (
            ["--threshold", "auto", "--false-match-rate", "0.2"],
            {"threshold": "auto", "false_match_rate": 0.2},
        ),
        (["--box", "0", "0", "0.5", "1"], {"box": [0, 0, 0.5, 1]}),
    ],
    ids=str,
)
def test_what_is_wished_for_reaches_the_library(capsys, metadata, arguments, options):
    _, out, _ = run(
        *(capsys, "search", "outputs", 3, "--json", "-k", 4, "--metadata", metadata), *arguments
    )
    library = ss.ImageLibrary.load("outputs").attach(metadata)
    assert json.loads(out) == ss.search(library, 3, k=4, **options).to_dict()


def test_flags_say_how_a_table_is_read(capsys, tmp_path):
    names = ss.ImageLibrary.load("outputs").names[:3]
    file = tmp_path / "m.csv"
    cells = zip(names, ["1,299", "15", "ask"], ["1/2/2024", "2/1/2024", "3/3/2024"], strict=True)
    file.write_text("\n".join(["path;price;day", *map(";".join, cells)]))
    command = ["search", "outputs", 5, "--json", "--metadata", file]
    code, _, err = run(capsys, *command, "--where", "price=..50")
    assert code == 1
    assert "'ask' (line 4) is no number: --missing ask counts it as empty\n" in err
    assert "..50 is no range for 'price'" in err
    for flags, found in (
        (["--decimal", ".", "--missing", "ask", "--where", "price=..50"], names[1:2]),
        (["--decimal", "price=,", "--missing", "ask", "--where", "price=..5"], names[:1]),
        (["--dates", "%d/%m/%Y", "--where", "day=2024-02..2024-02-29"], names[:1]),
        (["--dates", "day=%m/%d/%Y", "--where", "day=2024-02"], names[1:2]),
    ):
        code, out, err = run(capsys, *command, *flags)
        assert (code, [m["path"] for m in json.loads(out)["matches"]]) == (
            0,
            [f"dataset/{name}" for name in found],
        )


def test_flags_of_a_table_need_one(capsys, tmp_path):
    code, _, err = run(capsys, "search", "outputs", 3, "--decimal", ",")
    assert (code, err) == (1, "simsearch: --decimal belongs to a table: give --metadata, too\n")
    command = ["search", "outputs", 3, "--metadata", tmp_path / "m.csv"]
    code, _, err = run(capsys, *command, "--dates", "a=%Y", "%d")
    assert (code, "--dates %d: with several, each is COLUMN=%d" in err) == (1, True)


def test_command_says_what_of_a_table_met_nothing(project, tmp_path):
    name = ss.ImageLibrary.load("outputs").names[0]
    (tmp_path / "m.csv").write_text(f"path,price\n{name},5\ngone.jpg,7\n")
    command = Path(sys.executable).with_name("simsearch")
    arguments = ["search", "outputs", "3", "--json", "--metadata", tmp_path / "m.csv"]
    done = subprocess.run(
        [command, *arguments], capture_output=True, text=True, check=True, cwd=project
    )
    json.loads(done.stdout)
    assert "m.csv: 1 of 24 pictures have a line; 1 line without a picture: gone.jpg; 23 " in (
        done.stderr
    )


def test_several_queries_are_one_or_one_is_several(capsys, tmp_path):
    library = ss.ImageLibrary.load("outputs")
    _, out, _ = run(
        *(capsys, "search", "outputs", 0, 9, "--combine", "mean", "--weights", 1, 2, "--json")
    )
    expected = ss.search(library, [0, 9], combine="mean", weights=[1, 2])
    assert json.loads(out) == expected.to_dict()
    figure = tmp_path / "regions.png"
    _, out, _ = run(capsys, "search", "outputs", 0, "--regions", "--json", "--save", figure)
    assert [json.loads(line) for line in out.splitlines()] == [
        matches.to_dict() for matches in ss.search(library, 0, regions=True)
    ]
    assert figure.exists()


def test_recommend_is_that_of_the_library(capsys, tmp_path):
    figure = tmp_path / "taste.png"
    code, out, _ = run(
        *(capsys, "recommend", "outputs", "--liked", 0, 9, "--disliked", 12, "--json", "-k", 3),
        *("--exclude", 1, "--dislike", 0.1, "--save", figure),
    )
    library = ss.ImageLibrary.load("outputs")
    expected = ss.recommend(library, [0, 9], [12], k=3, exclude=[1], dislike=0.1)
    assert code == 0
    assert json.loads(out) == expected.to_dict()
    assert figure.exists()


def test_duplicates_go_to_a_table_and_a_figure(capsys, tmp_path):
    table, figure = tmp_path / "duplicates.csv", tmp_path / "duplicates.png"
    code, out, _ = run(
        *(capsys, "duplicates", "outputs", "--threshold", 0.8, "--level", "similar"),
        *("--csv", table, "--save", figure),
    )
    found = ss.duplicates(ss.ImageLibrary.load("outputs"), 0.8, level="similar")
    assert code == 0
    assert out.strip() == str(found)
    assert len(found) > 0
    assert table.read_text().count("\n") == 1 + sum(map(len, found))
    assert figure.exists()


def test_albums_go_to_a_table_and_a_figure(capsys, tmp_path):
    table, figure = tmp_path / "albums.csv", tmp_path / "albums.png"
    code, out, _ = run(
        capsys, "albums", "outputs", "--grain", "fine", "--csv", table, "--figure", figure
    )
    found = ss.albums(ss.ImageLibrary.load("outputs"))
    assert code == 0
    assert out.strip() == str(found.level("fine"))
    assert table.read_text().count("\n") == 1 + found.images
    assert figure.exists()
    assert run(capsys, "albums", "outputs")[1].strip() == str(found)
    code, _, err = run(capsys, "albums", "outputs", "--grain", "huge")
    assert code == 1
    assert "--grain huge" in err


def test_duplicates_are_confirmed_unless_another_level_is_given(capsys):
    library = ss.ImageLibrary.load("outputs")
    for flags, level in (((), "near"), (("--level", "identical"), "identical")):
        code, out, _ = run(capsys, "duplicates", "outputs", *flags)
        assert code == 0
        assert out.strip() == str(ss.duplicates(library, level=level))
        assert "compared on their pixels" in out
    code, _, err = run(capsys, "duplicates", "outputs", "--level", "exact")
    assert code == 1
    assert "--level exact" in err


def test_an_index_is_built_and_searched(capsys, project, tmp_path):
    shutil.copytree(project / "outputs", tmp_path / "outputs")
    code, _, err = run(capsys, "search", tmp_path / "outputs", 0, "--index")
    assert code == 1
    assert "make one with `simsearch index OUTPUTS`" in err
    code, out, _ = run(capsys, "index", tmp_path / "outputs", "--kind", "hnsw")
    assert code == 0
    assert "recall@10" in out
    _, out, _ = run(capsys, "search", tmp_path / "outputs", 0, "--index", "--json")
    assert json.loads(out)["exact"] is False
    exact = ss.search(ss.ImageLibrary.load("outputs"), 0).to_dict()
    assert json.loads(out)["matches"] == exact["matches"]


def test_a_threshold_that_is_none_is_said_in_one_line(capsys):
    code, _, err = run(capsys, "search", "outputs", 0, "--threshold", "high")
    assert code == 1
    assert err == 'simsearch: --threshold high: give a cosine, or "auto"\n'


def test_a_figure_may_explain(capsys, tmp_path):
    pictures = []
    for flags in ([], ["--explain"]):
        file = tmp_path / f"{len(flags)}.png"
        assert run(capsys, "search", "outputs", 0, "--save", file, *flags)[0] == 0
        pictures.append(file.read_bytes())
    assert pictures[0] != pictures[1]


def test_evaluate_takes_labels_from_tables(capsys, metadata, tmp_path):
    library = ss.ImageLibrary.load("outputs").attach(metadata)
    _, out, _ = run(
        *(capsys, "evaluate", "outputs", "--metadata", metadata, "--labels", "kind", "-k", 1),
        "--json",
    )
    assert json.loads(out) == ss.evaluate(library, "kind", k=1).to_dict()
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(f"{name},{i % 2}" for i, name in enumerate(library.names)))
    _, again, _ = run(capsys, "evaluate", "outputs", "--labels", labels, "-k", 1, "--json")
    first, second = (json.loads(text)["overall"]["mAP"] for text in (out, again))
    assert first == second


@pytest.mark.parametrize("queries", [[0], [0, 5]])
def test_search_saves_a_figure(capsys, tmp_path, queries):
    code, _, _ = run(capsys, "search", "outputs", *queries, "--save", tmp_path / "figure.png")
    assert code == 0
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > figure.height > 100


def test_search_in_a_dataset_that_moved(capsys, project, tmp_path):
    shutil.copytree(project / "dataset", tmp_path / "moved")
    root = (tmp_path / "moved").as_posix()
    _, out, _ = run(capsys, "search", "outputs", 0, "--json", "--root", root)
    assert all(match["path"].startswith(root) for match in json.loads(out)["matches"])


def test_evaluate_prints_the_table_of_the_library(capsys):
    code, out, _ = run(capsys, "evaluate", "outputs", "-k", 1, 3)
    assert code == 0
    assert out.strip() == str(ss.evaluate(ss.ImageLibrary.load("outputs"), k=(1, 3)))
    assert "16 queries, 16 images in the gallery; left out: 8 images without a label" in out


def test_evaluate_options_reach_the_library(capsys, tmp_path):
    code, out, _ = run(
        *(capsys, "evaluate", "outputs", "--queries", "*/coffee/000[123].jpg", "-k", 2, "--json"),
        *("--gallery", "seg_train/*", "--save", tmp_path / "curve.png"),
    )
    library = ss.ImageLibrary.load("outputs")
    expected = ss.evaluate(library, "folder", "*/coffee/000[123].jpg", "seg_train/*", k=2)
    assert code == 0
    assert json.loads(out) == expected.to_dict()
    with Image.open(tmp_path / "curve.png") as figure:
        assert figure.width > figure.height > 100


def test_info_says_what_there_is(capsys):
    code, out, _ = run(capsys, "info", "outputs")
    assert code == 0
    assert "24 images, 1280-d" in out
    assert "efficientnet_lite0" in out
    assert "8  seg_train/coffee" in out
    assert "1  skipped" in out


def test_embed_again_passes_every_option(capsys, tmp_path):
    code, out, _ = run(
        *(capsys, "embed", "dataset", tmp_path / "o", "--backbone", "efficientnet_lite0"),
        *("--batch-size", 4, "--workers", 1, "--device", "cpu", "--precision", "float32"),
    )
    assert code == 0
    assert "24 embedded" in out
    assert "1 skipped" in out


def test_sample(capsys, tmp_path):
    code, out, _ = run(capsys, "sample", tmp_path / "dataset")
    assert code == 0
    assert str(tmp_path / "dataset") in out
    assert len(ss.find_images(tmp_path / "dataset")[0]) > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "nowhere", "0"], "no library in 'nowhere'; make one with"),
        (["search", "outputs", "nowhere.jpg"], "cannot read nowhere.jpg: no such file"),
        (["search", "outputs", "9999"], "row 9999: the library has rows 0 to 23"),
        (["search", "outputs", "0", "-k", "0"], "-k 0"),
        (["search", "outputs", "0", "--save", "figure.nonsense"], "cannot save the figure"),
        (["search", "outputs", "0", "--save", "no/such/folder.png"], "cannot save the figure"),
        (["embed", "nowhere", "o"], "no such folder: 'nowhere'"),
        (["embed", "dataset", "o", "--backbone", "resnet51"], "no backbone 'resnet51'"),
        (["embed", "dataset", "o", "--backbone", "resnet50"], "cannot be fetched"),
        (["embed", "dataset", "o", "--weights", "no.pth"], "no such weights file"),
        (["embed", "dataset", "outputs", "--strict"], "cannot read dataset/bad.jpg: the file is"),
        (["evaluate", "nowhere"], "no library in 'nowhere'; make one with"),
        (["evaluate", "outputs", "--queries", "seg_test/*"], "'seg_test/*' chooses no image"),
        (["evaluate", "outputs", "-k", "99"], "-k 99: a query ranks 15 images"),
        (["evaluate", "outputs", "--save", "figure.nonsense"], "cannot save the figure"),
        (["info", "dataset"], "no library in 'dataset'"),
        (["sample", "dataset"], "dataset"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 1
    assert out == ""
    *progress, line = err.splitlines()
    assert line.startswith("simsearch: ")
    assert message in line
    assert all(text.startswith("Embedding: ") for text in filter(None, progress))


@pytest.mark.parametrize("command", [[], ["embed"], ["search"], ["evaluate"], ["info"], ["sample"]])
def test_every_command_has_help_with_examples(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert "example" in out
    assert f"simsearch {' '.join(command)}" in out.partition("example")[2]


@pytest.mark.parametrize("arguments", [[], ["dance"], ["search"], ["embed", "a"]])
def test_a_command_line_that_makes_no_sense_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: simsearch" in capsys.readouterr().err


def test_the_installed_command_stops_at_ctrl_c_and_goes_on(project, tmp_path):
    command = Path(sys.executable).with_name("simsearch")
    arguments = ["embed", "dataset", str(tmp_path), "--batch-size", "1", "--workers", "1"]
    process = subprocess.Popen(
        [command, *arguments, "--backbone", "efficientnet_lite0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    rows = tmp_path / "unfinished.f32"
    while process.poll() is None and not (rows.exists() and rows.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; what was done is kept" in err
    assert "Traceback" not in err


def test_train_saves_a_library_with_a_head(capsys, tmp_path):
    options = ["--epochs", 2, "--dim", 8, "--seed", 1, "--on", "seg_train/*"]
    code, out, _ = run(capsys, "train", "outputs", "--out", tmp_path / "head", *options)
    assert code == 0
    assert "images that training never saw" in out
    assert ss.ImageLibrary.load(tmp_path / "head").dim == 8


@pytest.mark.slow
def test_train_finetunes(capsys, tmp_path):
    options = ["--epochs", 1, "--batch-size", 8, "--dim", 8, "--checkpoint", tmp_path / "stopped"]
    command = ["train", "outputs", "--finetune", "--stage", "_conv_head", *options]
    code, out, _ = run(capsys, *command, "--out", tmp_path / "tuned")
    assert code == 0
    assert "images that training never saw" in out
    assert list((tmp_path / "stopped").glob("*.pt"))
    assert ss.ImageLibrary.load(tmp_path / "tuned").dim == 8
    code, _, err = run(capsys, *command[:3], "--checkpoint", tmp_path / "stopped")
    assert code == 1
    assert "is of another training" in err


def test_train_takes_labels_from_a_file(capsys, tmp_path):
    library = ss.ImageLibrary.load("outputs")
    lines = [f"{path},{'ab'[i % 2]}" for i, path in enumerate(library.names)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    options = ["--epochs", 1, "--labels", tmp_path / "labels.csv", "--leave-out", "c"]
    code, _, err = run(capsys, "train", "outputs", "--out", tmp_path / "head", *options)
    assert code == 1
    assert "--leave-out c is no class; the classes are a, b" in err
    (tmp_path / "labels.csv").write_text("one\n")
    code, _, err = run(capsys, "train", "outputs", "--labels", tmp_path / "labels.csv")
    assert code == 1
    assert "does not hold lines of path,label" in err


def test_a_reader_that_leaves_early_is_no_error(project):
    command = Path(sys.executable).with_name("simsearch")
    arguments = ["search", "outputs", *map(str, range(24)), "-k", "23", "--json"]
    process = subprocess.Popen(
        [command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 0


def test_terminal_without_the_character_gets_it_escaped(project, tmp_path):
    (tmp_path / "photos").mkdir()
    images = sorted((project / "dataset" / "seg_pred").iterdir())
    for name, image in zip(("😀.jpg", "b.jpg"), images, strict=False):
        shutil.copy(image, tmp_path / "photos" / name)
    program = [sys.executable, "-m", "simsearch.cli"]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    for command in (
        ["embed", "photos", "out", "--backbone", "efficientnet_lite0"],
        ["search", "out", "photos/b.jpg"],
    ):
        done = subprocess.run(
            [*program, *command], cwd=tmp_path, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert b"photos/\\U0001f600.jpg" in done.stdout


def test_rows_are_dropped_with_allow_shrink_alone(project, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(project / "dataset" / "seg_pred", "photos")
    embed = ("embed", "photos", "out", "--backbone", "efficientnet_lite0")
    run(capsys, *embed)
    for image in sorted(Path("photos").iterdir())[:6]:
        image.unlink()
    code, out, _ = run(capsys, *embed)
    assert (code, "kept: 6 gone, which are more than half" in out) == (0, True)
    code, out, _ = run(capsys, *embed, "--allow-shrink")
    assert (code, "6 removed" in out) == (0, True)


@pytest.mark.parametrize("condition", ["price<9", "price > 9", "my price<1.5"])
def test_a_comparison_by_another_sign_is_no_glob(capsys, metadata, condition):
    code, _, err = run(
        *(capsys, "search", "outputs", 3, "--metadata", metadata, "--where", condition)
    )
    assert (code, "=LOW..HIGH" in err) == (1, True)
    assert read_conditions([f"path={condition}", "a<b/*"]) == {"path": [condition, "a<b/*"]}
