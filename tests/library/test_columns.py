"""What the text of a column proves, against values that were written in known ways."""

import datetime as dt
import re
from contextlib import suppress
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simsearch as ss

PRICES = ["1299", "15", "300", "60"]


def with_column(cells, **options):
    """Attach a table of text with one column, `x`, one line per picture."""
    paths = [f"{i}.jpg" for i in range(len(cells))]
    table = pd.DataFrame({"path": paths, "x": pd.Series(cells, dtype=object)})
    return ss.ImageLibrary(np.ones((len(cells), 1)), paths).attach(table, **options)


def rows(library, condition):
    return np.flatnonzero(library.where({"x": condition})).tolist()


def within(values, low, high):
    return [i for i, value in enumerate(values) if low <= value <= high]


# Numbers

CONVENTIONS = [
    (".", ""),
    (",", ""),
    (".", ","),
    (",", "."),
    (".", " "),
    (",", "\u202f"),
    (".", "\u2019"),
]
CURRENCIES = ["{}", "€{}", "{} €", "$ {}", "{} EUR", "CHF {}", "US${}", "{} kr"]
amounts = st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places),
    st.integers(-(10**21), 10**21) | st.integers(-2000, 2000),
    st.integers(0, 4),
)


def written(value, decimal, thousands):
    """Write a number; the test's own way, by Python's."""
    text = f"{value:,f}".replace(",", "T").replace(".", decimal)
    return text.replace("T", thousands)


def may_part_thousands(cells):
    """Tell whether there is one sign alone, which may part thousands in every cell that has it."""
    signs = {"."} & set("".join(cells)) | {","} & set("".join(cells))
    if len(signs) != 1:
        return False
    (sign,) = signs
    digits = [re.sub("[^0-9.,]", "", cell).strip(".,").split(sign) for cell in cells]
    return all(len(part) == 3 for parts in digits for part in parts[1:])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(amounts, min_size=1, max_size=6),
    st.sampled_from(CONVENTIONS),
    st.sampled_from(CURRENCIES),
    amounts,
    amounts,
)
def test_ranges_over_numbers_are_right_or_refused(values, convention, currency, low, high):
    decimal, thousands = convention
    cells = [currency.format(written(value, decimal, thousands)) for value in values]
    expected = within(values, low, high)
    assert rows(with_column(cells, decimal=decimal), (low, high)) == expected
    library = with_column(cells)
    if not may_part_thousands(cells):
        assert rows(library, (low, high)) == expected
        return
    with suppress(ss.QueryError):
        assert rows(library, (low, high)) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(10**20), 10**20), min_size=1, max_size=5), st.data())
def test_whole_numbers_are_compared_exactly(values, data):
    value = data.draw(st.sampled_from(values))
    library = with_column([str(each) for each in values])
    same = [i for i, each in enumerate(values) if each == value]
    assert rows(library, value) == rows(library, str(value)) == same
    assert rows(library, (value, value)) == same
    assert rows(library, (value + 1, None)) == [i for i, v in enumerate(values) if v > value]


@pytest.mark.parametrize(
    ("cells", "condition", "expected"),
    [
        (["0.1", "0.2", "0.30"], 0.1, [0]),
        (["0.1", "0.2", "0.30"], (0.1, "0.3"), [0, 1, 2]),
        (["0.1", "0.2", "0.30"], (np.float32(0.2), None), [1, 2]),
        (["1234567890123456789", "1234567890123456788"], 1234567890123456789, [0]),
        (["1234567890123456789", "1234567890123456788"], (None, "1234567890123456788"), [1]),
        (["20", "20.00", "2"], 20, [0, 1]),
        (["20", "20.00", "2"], "20", [0, 1]),
        (["20", "20.00", "2"], [2, Decimal("20.0")], [0, 1, 2]),
        (["1.299,00", "15", "2.500"], (None, 1300), [0, 1]),
        (["1.299,00", "15", "2.500"], ("1.299,00", None), [0, 2]),
        (["1,299.00", "15"], ("1,000", None), [0]),
        (["€5", "€12,50", "€1.000"], ("€6", 2000), [1, 2]),
        (["1e-05", "0.5", "1E+02"], (None, 0.5), [0, 1]),
        (["-5", "\u22127", "+3"], (-6, 4), [0, 2]),
        (["5", "7"], (None, float("inf")), [0, 1]),
        (["5", "7"], (float("-inf"), 5), [0]),
        (["5", "7"], (float("nan"), None), []),
        (["5", " ", ""], (None, None), [0]),
        (["5", "70"], "7*", [1]),
    ],
    ids=str,
)
def test_numbers_by_hand(cells, condition, expected):
    assert rows(with_column(cells), condition) == expected


@pytest.mark.parametrize(
    ("cells", "condition", "message"),
    [
        ([*PRICES, "on request"], (None, "50"), r"'on request' \(line 5\) is no number: missing="),
        (
            ["1,299", "15"],
            (None, 50),
            r"'1,299' \(line 1\) may be 1.299 or 1299: decimal=',' or decimal='.' decides",
        ),
        (["1.299", "2.500"], 1299, "may be 1.299 or 1299"),
        (["1.299", "2.500"], "1299", "may be 1.299 or 1299"),
        (["1.5", "2,5"], (1, 2), r"'2,5' \(line 2\) is no number with a decimal point and '1.5' "),
        (["€5", "$5"], (1, 2), r"'€5' \(line 1\) and '\$5' \(line 2\) have not the same currency"),
        (["5 €", "5"], (1, 2), "have not the same currency in the same place"),
        (["00123", "45"], (1, 2), r"'00123' \(line 1\) has the look of a code.*decimal=\{'x': '.'"),
        (["1e5", "2"], (1, 2), "'1e5' .*look of a code"),
        (["5", "7"], (None, "cheap"), "'x' holds numbers, and 'cheap' is none"),
        (["5", "7"], "007", "holds numbers, and '007' is none"),
        (["5,5", "7"], (None, "1.299"), "'1.299' may be 1.299 or 1299; write it"),
        (["5 €", "7 €"], (None, "$6"), "holds numbers with €, and '\\$6' has \\$"),
        (["38,39", "40"], "39", r"'38,39' \(line 1\) may be one number or two tags"),
        (["38,39", "40"], 40, "may be one number or two tags: decimal=',' or decimal='.' decides"),
        (["a", "b"], ("a", "b"), r"'a' \(line 1\) is neither a number nor an ISO date, so only"),
        (["007", "008"], ("007", None), r"'007' \(line 1\) has the look of a code.*--decimal"),
        (["1,299", "ask"], 1299, "cannot be compared with 1299: '1,299' .*may be 1.299 or 1299"),
    ],
    ids=str,
)
def test_what_is_not_proven_is_refused(cells, condition, message):
    with pytest.raises(ss.QueryError, match=message):
        rows(with_column(cells), condition)


@pytest.mark.parametrize(
    ("cells", "options", "condition", "expected"),
    [
        ([*PRICES, "on request"], {"missing": ["on request"]}, (None, "50"), [1]),
        (["1,299", "15"], {"decimal": "."}, (None, 50), [1]),
        (["1,299", "15"], {"decimal": ","}, (None, 5), [0]),
        (["1,299", "15"], {"decimal": {"x": ","}}, "1,299", [0]),
        (["007", "10"], {"decimal": {"x": "."}}, (5, 8), [0]),
        (["38,39", "40"], {"decimal": ","}, 40, [1]),
        (["38,39", "40"], {"decimal": "."}, "39", [0]),
        (["1/2/2024", "2/1/2024"], {"dates": "%d/%m/%Y"}, ("2024-02-01", None), [0]),
        (["1/2/2024", "2/1/2024"], {"dates": {"x": "%m/%d/%Y"}}, ("2024-02-01", None), [1]),
        (["20240201", "20240103"], {"dates": "%Y%m%d"}, (None, "2024-01"), [1]),
    ],
    ids=str,
)
def test_options_decide(cells, options, condition, expected):
    assert rows(with_column(cells, **options), condition) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decimal": ";"}, "decimal=';': give '.' or ','"),
        ({"decimal": {"x": "comma"}}, "decimal='comma'"),
        ({"decimal": {"y": ","}}, "no column 'y' for decimal or dates; there are x"),
        ({"dates": {"y": "%Y"}}, "no column 'y'"),
        ({"decimal": 1}, "decimal=1: give '.' or ','"),
        ({"decimal": [","]}, "decimal="),
        ({"dates": "dd/mm/yyyy"}, "dates='dd/mm/yyyy': give a format of strptime"),
        ({"dates": {"x": "%Q"}}, "dates='%Q': give a format of strptime"),
        ({"dates": 5}, "dates=5: give a format"),
        ({"missing": None}, "missing=None: give a list of text"),
        ({"missing": [15]}, r"missing=\[15\]: give a list of text"),
        ({"missing": {"x": ["1"]}}, "missing=.*: give a list of text"),
        ({"caption": 5}, "caption=5: give a column"),
    ],
    ids=str,
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ss.QueryError, match=message):
        with_column(["1"], **options)


# Codes and words stay text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("0123456789eENA.,-", min_size=1, max_size=6), min_size=1, max_size=5))
def test_a_cell_is_found_by_its_own_text(cells):
    library = with_column(cells)
    for i, cell in enumerate(cells):
        assert library.facts(i) == {"x": cell}
        with suppress(ss.QueryError):  # of two readings, or a code among numbers
            assert i in rows(library, cell)


@pytest.mark.parametrize("word", ["NA", "N/A", "None", "null", "nan", "NaN", "#N/A", "-", "True"])
def test_words_that_mean_nothing_elsewhere_stay(word):
    library = with_column([word, "", "5"])
    assert (library.facts(0), library.facts(1)) == ({"x": word}, {})
    assert rows(library, word) == [0]
    with pytest.raises(ss.QueryError, match="is no number: missing="):
        rows(library, (1, 9))
    assert with_column([word, "", "5"], missing=[word]).facts(0) == {}


def test_a_number_is_looked_for_among_cells_and_tags():
    library = with_column(["38; 39", "39.0", "size 39", "390", "39a"])
    assert rows(library, 39) == [0, 1]
    assert rows(with_column(["true", "TRUE", "no"]), True) == [0, 1]


# Dates

days = st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31)) | st.dates(
    dt.date(2024, 1, 1), dt.date(2024, 3, 31)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(days, min_size=1, max_size=5), days, days)
def test_ranges_over_iso_dates(values, low, high):
    library = with_column([day.isoformat() for day in values])
    for limits in ((low, high), (low.isoformat(), high.isoformat())):
        assert rows(library, limits) == within(values, low, high)
    assert rows(library, values[0]) == within(values, values[0], values[0])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(days, min_size=1, max_size=4),
    st.sampled_from(
        ["{d:02}/{m:02}/{y:04}", "{m}/{d}/{y:04}", "{d}.{m}.{y:04}", "{m:02}-{d:02}-{y:04}"]
    ),
    days,
)
def test_ranges_over_dates_with_slashes_are_right_or_refused(values, form, low):
    cells = [form.format(d=day.day, m=day.month, y=day.year) for day in values]
    unclear = all(day.day <= 12 for day in values) and any(day.day != day.month for day in values)
    library = with_column(cells)
    if unclear:
        with pytest.raises(ss.QueryError, match=r"has the day first or the month first: dates="):
            rows(library, (low, None))
    else:
        assert rows(library, (low, None)) == within(values, low, dt.date.max)
        assert rows(library, (cells[0], cells[0])) == within(values, values[0], values[0])


moments = st.datetimes(dt.datetime(1000, 1, 1), dt.datetime(9998, 1, 1))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(moments, min_size=1, max_size=4),
    moments,
    st.sampled_from([None, "utc", "own"]),
    st.data(),
)
def test_ranges_over_times(values, low, zone, data):
    offsets = st.integers(-720, 720).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
    if zone:
        zones = st.just(dt.UTC) if zone == "utc" else offsets
        values = [value.replace(tzinfo=data.draw(zones)) for value in values]
        low = low.replace(tzinfo=data.draw(offsets))
    library = with_column([value.isoformat() for value in values])
    expected = [i for i, value in enumerate(values) if value >= low]
    assert rows(library, (low, None)) == expected
    assert rows(library, (low.isoformat(), None)) == expected


@pytest.mark.parametrize(
    ("cells", "condition", "expected"),
    [
        (["15/01/2023", "01/02/2024"], ("01/01/2024", "31/12/2024"), [1]),
        (["15/01/2023", "01/02/2024"], ("2024", "2024"), [1]),
        (["2024-05-01", "2024-01-31", "2023-12-31"], ("2024", "2024-04"), [1]),
        (["2024-05-01T23:59", "2024-05-02 00:00"], (None, "2024-05-01"), [0]),
        (["2024-05-01T23:59", "2024-05-02 00:00"], "2024-05-01", [0]),
        (["2024-05-01T10:00Z", "2024-05-01T10:00+02:00"], ("2024-05-01T09:00Z", None), [0]),
        (["2024-05-01T10:00Z", "2024-05-03T10:00Z"], ("2024-05-02", None), [1]),
        (["2024-01-01 00:00:00.000000001", "2024-01-01"], (None, "2024-01-01T00:00:00"), [1]),
        (["2024-05", "2024-06"], (None, "2024-05-31"), [0]),
        (["2024-05-01", "2024-06-01"], "2024-05*", [0]),
        (["2024-05-01T23:59", "2024-05-02"], np.datetime64("2024-05-01"), [0]),
        (["2024-05-01T23:59", "2024-05-02"], (np.datetime64("2024-06"), None), []),
        (["2024-05-01T23:59", "2024-05-02"], np.datetime64("2024"), [0, 1]),
        (["2024-05-01", "2024-05-02"], np.datetime64("2024-05-02T00:00"), [1]),
    ],
    ids=str,
)
def test_dates_by_hand(cells, condition, expected):
    assert rows(with_column(cells), condition) == expected


@pytest.mark.parametrize(
    ("cells", "condition", "message"),
    [
        (["2024-05-01", "soon"], ("2024", None), r"'soon' \(line 2\) is no date: missing="),
        (["15/01/2023", "01/15/2023"], ("2024", None), "is no ISO date such as"),
        (["2024/05/01"], ("2024", None), r"is no ISO date .*dates='%d/%m/%Y' decides"),
        (["2024-02-30"], ("2024", None), "'2024-02-30' .*is no ISO date"),
        (["2024-05-01T10:00", "2024-05-01T10:00Z"], ("2024", None), "has no zone, and"),
        (["2024-05-01T10:00"], ("2024-05-01T10:00Z", None), "without a zone, and"),
        (["2024-05-01T10:00Z", "2024-05-01T10:00+02:00"], ("2024", None), "dates with a zone"),
        (["2024-05-01"], (5, None), "holds dates such as '2024-05-01', and 5 is none"),
        (["2024-05-01"], ("may", None), "and 'may' is none"),
    ],
    ids=str,
)
def test_dates_that_are_not_proven_are_refused(cells, condition, message):
    with pytest.raises(ss.QueryError, match=message):
        rows(with_column(cells), condition)


# Frames keep their own types


@pytest.mark.parametrize(
    ("cells", "condition", "expected"),
    [
        (np.array([2**63 - 1, 2**63 - 2]), 2**63 - 1, [0]),
        (np.array([2**53, 2**53 + 1]), (2**53 + 1, None), [1]),
        (np.array([2**53, 2**53 + 1]), str(2**53 + 1), [1]),
        (np.array([1, 2]), ("0.5", 1.5), [0]),
        (np.array([1, 2]), (None, 10**30), [0, 1]),
        (np.array([2**64 - 1, 1], np.uint64), 2**64 - 1, [0]),
        ([0.1, np.nan, float("inf")], 0.1, [0]),
        ([0.1, np.nan, float("inf")], (0.05, None), [0, 2]),
        (np.array([0.1, 0.7], np.float32), ("0.1", 0.5), [0]),
        ([2.0**53, 1.5], (2**53 + 1, None), []),
        ([10**30, 10**30 + 1], 10**30 + 1, [1]),
        ([Decimal("0.1"), Decimal("0.2")], (0.2, None), [1]),
        ([dt.date(2024, 5, 1), None], ("2024", "2024-05"), [0]),
        (pd.to_datetime(["2024-05-01 10:00", None]), (None, "2024-05-01"), [0]),
        (pd.to_datetime(["2024-05-01 10:00"]).tz_localize("Europe/Paris"), "2024-05-01", [0]),
        (pd.Categorical(["5", "12"]), (6, None), [1]),
        ([True, None, False], True, [0]),
        ([np.array(["a", "b"]), None, np.array(["c"])], "B", [0]),
        (pd.to_timedelta(["1h", "3h"]), (pd.Timedelta("2h"), None), [1]),
    ],
    ids=str,
)
def test_types_of_a_frame_are_compared_as_such(cells, condition, expected):
    paths = [f"{i}.jpg" for i in range(len(cells))]
    frame = pd.DataFrame({"path": paths, "x": cells})
    library = ss.ImageLibrary(np.ones((len(cells), 1)), paths).attach(frame)
    assert rows(library, condition) == expected


def test_a_column_of_several_types_has_no_range():
    library = with_column([1299, 15, "on request"])
    assert rows(library, 15) == rows(library, "15") == [1]
    with pytest.raises(ss.QueryError, match=r"no range for 'x', .*several types"):
        rows(library, (None, 50))


def test_the_menu_gives_the_limits_of_numbers_and_money():
    assert with_column(["€5", "€1.299,50"]).overview().columns == [
        {"name": "x", "kind": "number", "min": 5, "max": 1299.5}
    ]
    assert with_column(["5", "on request"]).overview().columns[0]["kind"] == "text"


def test_an_array_of_no_dimension_is_its_value():
    library = with_column(["1", "2"])
    assert rows(library, np.array(2)) == [1]
    assert rows(library, np.array("2")) == [1]


def test_arrays_in_a_frame_are_lists_of_tags():
    library = with_column([np.array([1, 2]), np.array([3]), None])
    assert [library.facts(row) for row in range(3)] == [{"x": [1, 2]}, {"x": [3]}, {}]
    assert rows(library, "2") == [0]
