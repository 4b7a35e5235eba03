"""The package as its users meet it: its names, its docs, its notebook."""

import ast
import copy
import doctest
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from notebook_claims import CLAIMS, NO_CLAIMS
from PIL import Image

import simsearch as ss
from simsearch.cli.parser import build_parser

ROOT = Path(__file__).parents[1]
EXAMPLE = "dataset/seg_pred/0001.jpg"  # the query_image of the notebooks
NOTEBOOKS = ["image_similarity.ipynb", "recipes.ipynb", "training.ipynb"]
MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted((ROOT / "simsearch").rglob("*.py"))
    if not file.name.startswith("__")
]


def test_the_public_names_are_those_listed():
    assert set(ss.__all__) <= set(dir(ss))
    assert all(getattr(ss, name) is not None for name in ss.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        ss.no_such_name  # noqa: B018


@pytest.mark.parametrize("module", MODULES)
def test_no_module_hides_a_public_function(module):
    """Importing `simsearch.search`, say, would put a module where users have a function."""
    assert module.split(".")[1] not in ss.__all__


def test_the_stubs_name_what_the_modules_define():
    for name in ss.__all__:
        defined = getattr(ss, name)
        if hasattr(defined, "__module__"):
            assert defined.__module__.startswith("simsearch.")
            assert getattr(importlib.import_module(defined.__module__), name) is defined


@pytest.mark.parametrize("name", [name for name in ss.__all__ if not name.endswith("Error")])
def test_every_public_name_is_documented(name):
    assert getattr(ss, name).__doc__


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_the_import_brings_no_heavy_package():
    heavy = {"torch", "torchvision", "matplotlib", "sklearn", "pandas", "pi_heif", "faiss"}
    heavy |= {"fastapi", "uvicorn", "ray", "pymilvus"}
    code = f"import simsearch, sys; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


README = (ROOT / "README.md").read_text("utf-8")


def test_the_names_in_the_readme_exist():
    assert {"embed_dataset", "search", "show_matches"} <= set(re.findall(r"ss\.(\w+)", README))
    assert set(re.findall(r"ss\.(\w+)", README)) <= set(ss.__all__)


@pytest.mark.parametrize(
    "line",
    re.findall(r"^simsearch (?:embed|search|info|evaluate|train|serve).*", README, re.MULTILINE),
)
def test_the_commands_in_the_readme_parse(line):
    build_parser().parse_args(shlex.split(line, comments=True)[1:])


def test_the_make_commands_in_the_readme_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE)) <= targets


def read_notebook(name):
    return nbformat.read(ROOT / name, as_version=4)


@pytest.fixture(scope="module")
def notebook():
    return read_notebook("image_similarity.ipynb")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_tells_a_story_and_defines_nothing(name):
    notebook = read_notebook(name)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert 10 <= len(code) <= 15
    assert not any(re.search(r"^\s*(def|class) ", source, re.MULTILINE) for source in code)
    assert max(len(source.splitlines()) for source in code) <= 10
    assert all(not cell.get("outputs") for cell in notebook.cells)  # committed without outputs


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_sentence_of_a_notebook_is_checked_or_excused(name):
    texts = [cell.source for cell in read_notebook(name).cells if cell.cell_type == "markdown"]
    assert [words for words in CLAIMS[name] if not any(words in text for text in texts)] == []
    checked = [text for text in texts if any(words in text for words in CLAIMS[name])]
    left = [text for text in texts if text not in checked]
    assert [text for text in left if not text.startswith(tuple(NO_CLAIMS))] == []


def with_claims(notebook, name):
    """Add a cell that evaluates what the notebook says, and one that logs a note."""
    checks = ", ".join(f"{words!r}: bool({code})" for words, code in CLAIMS[name].items())
    for source in (f"print('CLAIMS', {{{checks}}})", "logging.getLogger('simsearch').warning('-')"):
        notebook.cells.append(nbformat.v4.new_code_cell(source))
    return notebook


def check_claims(notebook):
    """Look at what such a cell has printed, and at what every figure and note is."""
    line = next(line for line in printed(notebook).splitlines() if line.startswith("CLAIMS "))
    assert [words for words, holds in ast.literal_eval(line[7:]).items() if not holds] == []
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    streams = [output for output in shown if output.output_type == "stream"]
    assert [output.text for output in streams if output.name == "stderr"] == []
    for output in shown:
        if "image/png" in output.get("data", {}):
            assert output.metadata["image/png"]["alt"].startswith("Figure: ")
        for picture in re.findall(r"<img [^>]*", output.get("data", {}).get("text/html", "")):
            assert re.match(r'<img alt="[^"]', picture)


@pytest.mark.parametrize("name", ["image_similarity.ipynb", "recipes.ipynb"])
@pytest.mark.parametrize(
    ("settings", "query"),
    [
        ("", "dataset/mine.png"),
        ("query_image = np.eye(9)", np.eye(9)),
        ("query_image = 'dataset/typo.png'", "dataset/typo.png"),
    ],
)
def test_only_the_example_gives_way_to_images_of_your_own(
    name, settings, query, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("dataset").mkdir()
    Image.new("RGB", (40, 30), "green").save("dataset/mine.png")
    names = {"ss": ss, "Path": Path, "np": np}
    cells = [cell.source for cell in read_notebook(name).cells if cell.cell_type == "code"]
    setting, sample, embed = (
        next(cell for cell in cells if words in cell)
        for words in ("TOP_K = 5", "make_sample", "embed_dataset(DATASET, OUTPUTS")
    )
    exec("\n".join([setting, settings, sample, embed]), names)
    assert np.array_equal(names["query_image"], query)
    assert ("query_image: dataset/mine.png" in capsys.readouterr().out) == (not settings)


def test_an_error_in_a_notebook_is_one_line(tmp_path):
    code = "import simsearch as ss\nlibrary = ss.ImageLibrary([[1, 0]], ['a.jpg'])\n"
    cell = nbformat.v4.new_code_cell(code + 'ss.search(library, "dataset/nowhere.jpg")')
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(notebook, timeout=120, allow_errors=True).execute()
    (error,) = notebook.cells[0].outputs
    assert error.traceback == [
        "ImageError: cannot read dataset/nowhere.jpg: no such file or directory"
    ]


def run_notebook(notebook, folder):
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()


@pytest.fixture(scope="module")
def executed(notebook, sample, tmp_path_factory):
    """Run the notebook over a part of the sample, then again with another query."""
    folder = tmp_path_factory.mktemp("notebook")
    for name in ("seg_train/coffee", "seg_train/cat", "seg_test/coffee", "seg_pred"):
        shutil.copytree(sample / name, folder / "dataset" / name)
    runs = []
    for query in (EXAMPLE, "dataset/seg_test/coffee/0001.jpg"):
        run = copy.deepcopy(notebook)
        for cell in run.cells:
            cell.source = cell.source.replace(
                f'query_image = "{EXAMPLE}"', f'query_image = "{query}"'
            )
            cell.source = cell.source.replace(
                'BACKBONE = "auto"', 'BACKBONE = "efficientnet_lite0"'
            )
        run_notebook(with_claims(run, "image_similarity.ipynb") if not runs else run, folder)
        runs.append(run)
    return folder, runs


def outputs(notebook, kind):
    return [
        output.data[kind]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if kind in output.get("data", {})
    ]


def printed(notebook):
    return "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    )


def test_the_notebook_runs_and_shows_its_figures(executed):
    _, (first, second) = executed
    check_claims(first)
    assert len(outputs(first, "image/png")) == 5  # matches, contact sheet, queries, two maps
    assert any("<img" in table for table in outputs(first, "text/html"))
    assert "reused" in printed(second)
    assert " 0 embedded" in printed(second)
    assert outputs(first, "image/png")[0] != outputs(second, "image/png")[0]


def test_the_recipes_run_on_the_same_library(executed):
    folder, _ = executed
    recipes = with_claims(read_notebook("recipes.ipynb"), "recipes.ipynb")
    run_notebook(recipes, folder)
    check_claims(recipes)
    # Words, words and a picture, a part, regions, looks, a taste, a filter, near-duplicates, why.
    assert len(outputs(recipes, "image/png")) == 9
    words = printed(recipes)
    assert 'no concept near words "inflation"; the nearest classes are' in words
    assert "auto: cosine >= 0." in words
    assert "recall@10" in words
    assert any("<img" in table for table in outputs(recipes, "text/html"))
    assert (folder / "outputs/duplicates.csv").exists()


def test_the_training_runs_on_the_same_library(executed, tmp_path):
    folder = tmp_path / "notebook"  # of its own, as it gets another class
    shutil.copytree(executed[0], folder)
    for name in ("seg_train", "seg_test"):  # two classes with queries and a gallery each
        shutil.copytree(folder / "dataset/seg_train/cat", folder / "dataset" / name / "tabby")
    training = with_claims(read_notebook("training.ipynb"), "training.ipynb")
    run_notebook(training, folder)
    check_claims(training)
    assert len(outputs(training, "image/png")) == 5  # confusion, worst, history, curves, matches
    tables = "".join(outputs(training, "text/plain"))
    assert "triplet loss" in tables
    assert tables.count("queries,") >= 2  # measured plainly, and refined


def test_other_notebooks_can_load_the_two_files(executed):
    folder, _ = executed
    embeddings = np.load(folder / "outputs/embeddings.npy", mmap_mode="r", allow_pickle=False)
    paths = np.load(folder / "outputs/image_paths.npy", allow_pickle=False)
    assert embeddings.dtype == np.float32
    assert len(embeddings) == len(paths)
    assert all((folder / path).is_file() for path in paths)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
