"""Conditions on tables of text, put to a Milvus Lite file and to the library itself."""

import re

import numpy as np
import pandas as pd
import pytest
from milvus_cases import clustered

import simsearch as ss
from simsearch.cluster.milvus.filters import describe_columns, filter_expression, filter_mask

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

COUNT = 40
COLUMNS = {
    "id": [str(1234567890123456789 + i) for i in range(COUNT)],
    "price": [f"€{1000 + 13 * i:,}.50" for i in range(COUNT)],
    "asked": [str(i) if i % 7 else "on request" for i in range(COUNT)],
    "unclear": [f"{i + 1},{100 + i}" for i in range(COUNT)],
    "sizes": [f"{30 + i},{40 + i}" for i in range(COUNT)],
    "day": [f"2024-01-{i % 28 + 1:02}T12:30" for i in range(COUNT)],
    "slashed": [f"{i % 28 + 1}/02/2024" for i in range(COUNT)],
    "country": ["NA", "DE", "red; blue", "null"] * (COUNT // 4),
    "new": ["True", "false"] * (COUNT // 2),
}
CONDITIONS = [
    {"id": 1234567890123456790},
    {"id": "1234567890123456790"},
    {"id": ("1234567890123456795", None)},
    {"price": (1100, 1200.5)},
    {"price": "€1,013.50"},
    {"price": ["1026.50", 1039.5]},
    {"price": "€1,0*"},
    {"asked": 8},
    {"asked": "on request"},
    {"unclear": "3,102"},
    {"sizes": (32.42, 34)},
    {"day": "2024-01-05"},
    {"day": (None, "2024-01-03")},
    {"slashed": ("2024-02-27", None)},
    {"slashed": ["27/02/2024", "2024-02-01"]},
    {"country": "na"},
    {"country": ["blue", "null"]},
    {"new": True},
    {"mixed": 5},
    {"mixed": "5"},
]
REFUSED = [
    {"asked": (1, 5)},
    {"unclear": (1, 5)},
    {"unclear": 5},
    {"unclear": "5"},
    {"sizes": 32},
    {"price": "$5"},
    {"price": "cheap"},
    {"id": "00123"},
    {"day": "soon"},
    {"country": (None, "M")},
    {"mixed": (1, 5)},
]


@pytest.fixture(scope="module")
def library():
    library = ss.ImageLibrary(clustered(COUNT, 8), [f"{i:02}.jpg" for i in range(COUNT)])
    frame = pd.DataFrame({"path": library.paths, **COLUMNS})
    frame["mixed"] = [i if i % 2 else f"about {i}" for i in range(COUNT)]
    library.attach(frame.drop(index=[3, 4]))
    return library


@pytest.fixture(scope="module")
def remote(library, tmp_path_factory):
    file = tmp_path_factory.mktemp("milvus") / "images.db"
    ss.publish(library, file, "shop", progress=False)
    with ss.RemoteLibrary(file, "shop") as opened:
        yield opened


@pytest.mark.parametrize("where", CONDITIONS, ids=str)
def test_text_is_compared_as_the_library_compares_it(library, remote, where):
    assert remote.page(0, COUNT, where) == library.page(0, COUNT, where) != []


@pytest.mark.parametrize("where", REFUSED, ids=str)
def test_conditions_are_refused_as_the_library_refuses_them(library, remote, where):
    with pytest.raises(ss.QueryError) as there:
        library.where(where)
    with pytest.raises(ss.QueryError) as here:
        remote.page(0, COUNT, where)
    assert str(here.value) == str(there.value)


def test_numbers_in_text_reach_the_engine(library):
    columns = describe_columns(library.metadata)
    assert re.fullmatch(
        r"\(number_1 >= 1100.0 and number_1 <= 1200.5\)",
        filter_expression({"price": (1100, "€1,200.50")}, columns),
    )


def test_options_alone_make_a_new_version(library, tmp_path):
    paths = library.paths[:2]
    small = ss.ImageLibrary(np.eye(2), paths)
    table = pd.DataFrame({"path": paths, "day": ["1/2/2024", "2/1/2024"]})
    ss.publish(small.attach(table), tmp_path / "x.db", "x", progress=False)
    done = ss.publish(small.attach(table, dates="%d/%m/%Y"), tmp_path / "x.db", "x", progress=False)
    assert (done.version, done.changed) == (2, 0)
    with ss.RemoteLibrary(tmp_path / "x.db", "x") as remote:
        assert remote.page(0, 2, {"day": "2024-02"}) == [0]


def test_columns_of_an_earlier_version_are_read_by_their_types(library):
    """Without a word of how text is read, a range over it is refused."""
    earlier = [
        {"name": "n", "dtype": "Int64", "number": 0, "example": 5},
        {"name": "t", "dtype": "string", "number": None, "example": "5"},
    ]
    assert filter_expression({"n": (1, 7), "t": "a"}, earlier).startswith("(number_0 >= 1.0 and")
    facts = [{"n": 5, "t": "a"}, {"n": 9, "t": "a"}]
    where = {"n": (1, 7), "t": "a"}
    assert filter_mask(where, ["1", "2"], facts, None, earlier).tolist() == [True, False]
    with pytest.raises(ss.QueryError, match=r"no range for 't', .*publish it again"):
        filter_mask({"t": (1, 7)}, ["1", "2"], facts, None, earlier)
