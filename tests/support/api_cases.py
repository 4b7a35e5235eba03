"""Fixtures and helpers of the API tests: a dataset, its library, a client."""

import shutil

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import simsearch as ss
from simsearch.web import schemas
from simsearch.web.app import create_app
from simsearch.web.settings import Settings

BACKBONE = "efficientnet_lite0"
FOLDERS = ("seg_train/coffee", "seg_train/cat", "seg_test/coffee", "seg_test/cat", "seg_pred")


@pytest.fixture(scope="module")
def dataset(sample, tmp_path_factory):
    """Some folders of the sample, a copy of one image, and a TIFF, which browsers do not show."""
    folder = tmp_path_factory.mktemp("web") / "dataset"
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
        for file in sorted((sample / name).iterdir())[:8]:
            shutil.copy(file, folder / name)
    first = sorted((folder / "seg_pred").iterdir())[0]
    shutil.copy(first, folder / "seg_pred/copy.jpg")
    Image.open(first).save(folder / "seg_pred/scan.tiff")
    return folder


@pytest.fixture(scope="module")
def outputs(dataset):
    folder = dataset.parent / "outputs"
    ss.embed_dataset(dataset, folder, BACKBONE, progress=False)
    return folder


@pytest.fixture(scope="module")
def table(dataset):
    names = [file.relative_to(dataset).as_posix() for file in sorted(dataset.rglob("*.jpg"))]
    rows = {
        "path": names,
        "title": [f"picture {i}" for i in range(len(names))],
        "price": [float(i) if i % 3 else None for i in range(len(names))],
        "tags": ["red; blue" if i % 2 else "green" for i in range(len(names))],
        "day": pd.date_range("2026-01-01", periods=len(names)),
    }
    file = dataset.parent / "metadata.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def library(outputs, table):
    return ss.ImageLibrary.load(outputs).attach(table)


@pytest.fixture(scope="module")
def client(outputs, table):
    app = create_app(Settings(str(outputs), metadata=str(table)))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def post_query(client, path="/api/search", files=(), **fields):
    """Send a search or recommendation; return its answers, checked against the schema."""
    response = client.post(path, data=fields, files=[*files] or None)
    assert response.status_code == 200, response.text
    answers = response.json()
    schemas.Answers.model_validate(answers)
    return answers["answers"]


def assert_same_matches(answer, matches, library):
    """Check that an answer holds the matches that the library finds."""
    assert [match["row"] for match in answer["matches"]] == [match.row for match in matches]
    scores = [match["score"] for match in answer["matches"]]
    np.testing.assert_allclose(scores, matches.scores, atol=1e-6)
    for sent, match in zip(answer["matches"], matches, strict=True):
        assert sent["path"] == library.names[match.row]
        assert sent["caption"] == match.caption
        assert sent["rank"] == match.rank
        assert sent["percentile"] == pytest.approx(match.percentile, abs=0.2)  # a pair or two
        assert [each["path"] for each in sent["duplicates"]] == [
            library.names[library.find(path)] for path in match.duplicates
        ]
    assert answer["exact"] == matches.exact
