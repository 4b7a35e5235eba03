"""JSON that every reader takes: no Infinity, no NaN."""

import json
import math
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_cases import circle

from simsearch.cluster.milvus.changes import RowEncoder
from simsearch.cluster.milvus.schema import PAYLOAD
from simsearch.cluster.milvus.store import pack, unpack
from simsearch.plain_json import dumps, plain
from simsearch.retrieval.search import search
from simsearch.web import schemas
from simsearch.web.problems import Utf8JsonResponse


def refuse(token):
    raise AssertionError(f"{token} is no JSON")


def strictly(text):
    return json.loads(text, parse_constant=refuse)


SCALARS = (
    st.floats()
    | st.integers()
    | st.text()
    | st.booleans()
    | st.none()
    | st.floats(width=32).map(np.float32)
    | st.floats(width=16).map(np.float16)
    | st.integers(-(2**31), 2**31 - 1).map(np.int64)
    | st.booleans().map(np.bool_)
    | st.dates()
    | st.sampled_from([pd.NaT, pd.NA, np.datetime64("NaT"), np.datetime64("2024-01-01")])
    | st.lists(st.floats(), max_size=3).map(np.array)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.floats(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES, st.none() | st.just(2))
def test_any_value_becomes_strict_json(value, indent):
    strictly(dumps(value, indent))


@given(st.floats())
def test_a_number_is_itself_or_none(number):
    for kind in (float, np.float64):
        assert plain(kind(number)) == (number if math.isfinite(number) else None)
    assert strictly(dumps({"x": [number]})) == {"x": [number if math.isfinite(number) else None]}


def test_what_json_has_no_form_for_is_kept_and_written_as_text():
    day = date(2024, 2, 29)
    assert plain((day, np.int64(3), np.array([1, 2]), pd.NaT)) == [day, 3, [1, 2], None]
    assert dumps([day]) == '["2024-02-29"]'


TABLE = pd.DataFrame(
    {
        "path": ["0.jpg", "10.jpg", "20.jpg"],
        "price": [math.inf, 3.5, -math.inf],
        "made": pd.to_datetime(["2024-01-01", None, "2024-01-03"]),
    }
)


@pytest.fixture
def library():
    return circle(0, 10, 20).attach(TABLE)


def test_matches_carry_no_infinity(library):
    found = search(library, 1)
    read = strictly(found.to_json())["matches"]
    assert [row["metadata"]["price"] for row in read] == [None, None]
    assert found.to_dict()["matches"][0]["metadata"]["price"] is None
    assert search(library, 0)[0].metadata["price"] == 3.5
    alone = search(circle(0), 0, exclude_query=False)
    assert strictly(alone.to_json())["matches"][0]["percentile"] is None


def test_the_api_carries_no_infinity(library):
    answer = schemas.answer(library, "v", search(library, 1))
    read = strictly(Utf8JsonResponse(answer).body)
    assert ["price" in match["metadata"] for match in read["matches"]] == [False, False]
    assert strictly(Utf8JsonResponse(library.overview()._asdict()).body)["columns"]
    assert strictly(Utf8JsonResponse({"x": [math.nan, np.float32(1)]}).body) == {"x": [None, 1.0]}


def test_what_is_published_carries_no_infinity(library):
    strictly(json.dumps(unpack(pack([math.inf, {"x": math.nan}])), allow_nan=False))
    encoder = RowEncoder(library, progress=False)
    lines = [line for _, batch in encoder.batches() for line in batch]
    assert len(lines) == 3
    for line in lines:
        strictly(line[PAYLOAD])
