import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simsearch as ss
from simsearch.library.filters import matching

PATHS = ["shoes/1.jpg", "shoes/2.jpg", "hats/3.jpg", "hats/4.jpg"]


@pytest.fixture
def library():
    library = ss.ImageLibrary(np.eye(4) + 0.1, [f"data/{path}" for path in PATHS])
    library.root = "data"
    return library


@pytest.fixture
def table():
    """In no order, without a line for hats/4.jpg, and with one of an image that is not there."""
    return pd.DataFrame(
        {
            "path": ["hats/3.jpg", "gone.jpg", "shoes/2.jpg", "data/shoes/1.jpg"],
            "title": ["Straw hat", "Gone", "Red shoe", "blue Shoe"],
            "price": [30, 99, 20, 10],
            "tags": ["summer; Sale", "", "red|leather", "blue, sale"],
            "new": [True, True, False, None],
            "since": ["2024-05-01", "2020-01-01", "2024-01-31", "2023-12-31"],
        }
    )


def test_lines_find_their_images(library, table):
    assert library.attach(table) is library
    assert library.metadata["price"].tolist()[:3] == [10, 20, 30]
    assert library.metadata["price"].isna().tolist() == [False, False, False, True]
    assert library.facts(1) == {
        "title": "Red shoe",
        "price": 20,
        "tags": "red|leather",
        "new": False,
        "since": "2024-01-31",
    }
    assert "new" not in library.facts(0)
    assert library.facts(3) == {}
    assert [library.caption(row) for row in range(4)] == [
        "blue Shoe · 10",
        "Red shoe · 20",
        "Straw hat · 30",
        "",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_file_answers_as_a_frame_does(library, table, tmp_path, suffix):
    """Though its cells stay text."""
    file = tmp_path / f"metadata{suffix}"
    table.to_csv(file, index=False, sep="\t" if suffix == ".tsv" else ",")
    for where in ({"price": (None, 20)}, {"price": [10, "30"]}, {"new": True}, {"tags": "sale"}):
        from_file = library.attach(file).where(where).tolist()
        assert from_file == library.attach(table).where(where).tolist()
        assert from_file == library.attach(table.set_index("path")).where(where).tolist()
    assert library.attach(table).facts(1)["price"] == 20
    assert library.attach(file).facts(1)["price"] == "20"
    assert library.overview().columns[1]["max"] == 30


def test_a_derived_library_keeps_its_metadata(library, table):
    head = ss.ProjectionHead([(np.eye(4), np.zeros(4))])
    assert library.attach(table).with_head(head).where({"price": 20}).tolist() == [0, 1, 0, 0]


def test_captions_are_chosen(library, table):
    assert library.attach(table, caption="tags").caption(1) == "red|leather"
    assert library.attach(table, caption=["price", "new"]).caption(0) == "10"
    assert library.attach(table, caption=[]).caption(0) == ""


@pytest.mark.parametrize(
    ("conditions", "rows"),
    [
        ({}, [0, 1, 2, 3]),
        ({"price": 20}, [1]),
        ({"price": "20"}, [1]),
        ({"price": (None, 20)}, [0, 1]),
        ({"price": (20, None)}, [1, 2]),
        ({"price": ("15", "25.5")}, [1]),
        ({"price": (None, None)}, [0, 1, 2]),
        ({"price": [10, 30, 31]}, [0, 2]),
        ({"price": []}, []),
        ({"price": (1000, None)}, []),
        ({"title": "red shoe"}, [1]),
        ({"title": "*SHOE"}, [0, 1]),
        ({"title": "shoe"}, []),
        ({"tags": "sale"}, [0, 2]),
        ({"tags": ["leather", "summer"]}, [1, 2]),
        ({"tags": "s*"}, [0, 2]),
        ({"new": True}, [2]),
        ({"new": "false"}, [1]),
        ({"since": ("2024", "2024-04")}, [1]),
        ({"since": "2024-*", "tags": "sale"}, [2]),
        ({"path": "shoes/*"}, [0, 1]),
        ({"path": ["shoes/1.jpg", "hats/4.jpg"]}, [0, 3]),
        ({"folder": "hats"}, [2, 3]),
        ({"folder": ["hats", "shoes"], "price": (None, 10)}, [0]),
    ],
    ids=str,
)
def test_conditions_by_hand(library, table, conditions, rows):
    chosen = library.attach(table).where(conditions)
    assert np.flatnonzero(chosen).tolist() == rows


def test_path_and_folder_need_no_table(library):
    assert library.where({"path": "shoes/*"}).tolist() == [True, True, False, False]
    with pytest.raises(ss.QueryError, match=r"no column 'price'.*library.attach\(table\) adds"):
        library.where({"price": 20})


def test_dates_and_lists_of_tags(library):
    days = [dt.datetime(2024, month, 1) for month in (1, 2, 3, 4)]
    tags = [["red", "Blue"], [], ["red"], None]
    library.attach(pd.DataFrame({"path": PATHS, "day": days, "tags": tags}))
    assert library.where({"day": (days[1], days[2])}).tolist() == [False, True, True, False]
    assert library.where({"tags": "RED"}).tolist() == [True, False, True, False]


def test_a_column_may_be_the_labels(library, table):
    library.attach(table)
    assert library.label_rows("title").tolist() == ["blue Shoe", "Red shoe", "Straw hat", ""]
    assert library.label_rows("price").tolist() == ["10", "20", "30", ""]
    with pytest.raises(ss.QueryError, match=r"labels='class': give .*a column of the attached"):
        library.label_rows("class")


@settings(max_examples=100, deadline=None)
@given(
    cells=st.lists(st.none() | st.integers(-5, 5), min_size=1, max_size=20),
    low=st.none() | st.integers(-5, 5),
    high=st.none() | st.integers(-5, 5),
)
def test_ranges_are_what_python_says(cells, low, high):
    column = pd.Series(cells, name="n", dtype=object).convert_dtypes()
    expected = [
        cell is not None and (low is None or low <= cell) and (high is None or cell <= high)
        for cell in cells
    ]
    assert matching(column, (low, high)).tolist() == expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"colour": 1}, "no column 'colour'; there are path, folder, title, price"),
        ({"Prise": 1}, r"no column 'Prise'; did you mean 'price'\?"),
        ({"price": (1, 2, 3)}, r"\(1, 2, 3\) is no range for 'price': give \(low, high\)"),
        ({"title": (1, 2)}, r"\(1, 2\) is no range for 'title', which holds such as 'blue Shoe'"),
        ({"price": "cheap"}, "'price' holds numbers, and 'cheap' is none"),
        ({"price": None}, "None is no condition for 'price': give a value, a list of them, or a"),
        ({"title": {"min": 1}}, "is no condition for 'title'"),
    ],
    ids=str,
)
def test_conditions_that_make_no_sense(library, table, condition, message):
    with pytest.raises(ss.QueryError, match=message):
        library.attach(table).where(condition)


def test_tables_that_make_no_sense(library, table, tmp_path):
    with pytest.raises(ss.QueryError, match=r"gone.csv cannot be read as a table: .*No such file"):
        library.attach(tmp_path / "gone.csv")
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(ss.QueryError, match=r"empty.csv cannot be read"):
        library.attach(empty)
    with pytest.raises(ss.QueryError, match="has no 'path' column, only title, price"):
        library.attach(table[["title", "price"]])
    with pytest.raises(ss.QueryError, match=r"two lines for 'gone.jpg'; keep one"):
        library.attach(pd.concat([table, table.iloc[1:2]]))
    with pytest.raises(ss.QueryError, match=r"no line .* such as 'gone.jpg', and the library 'sho"):
        library.attach(table.iloc[1:2])
    with pytest.raises(ss.QueryError, match="no column 'colour' for the caption; there are title"):
        library.attach(table, caption="colour")
    assert library.metadata is None


def test_a_page_is_in_the_order_of_paths(library, table):
    library.attach(table)
    assert library.page() == [2, 3, 0, 1]  # hats before shoes
    assert library.page(1, 2) == [3, 0]
    assert library.page(0, 9, "shoes/*") == [0, 1]
    assert library.page(1, 9, {"price": (None, 25)}) == [1]
    assert library.page(9) == []
    assert (library.count(), library.count("shoes/*")) == (4, 2)


def test_an_overview_sums_up_folders_and_columns(library, table):
    assert library.overview() == ([("hats", 2), ("shoes", 2)], [])
    folders, columns = library.attach(table[["path", "price", "tags"]]).overview()
    assert folders == [("hats", 2), ("shoes", 2)]
    assert columns[0] == {"name": "price", "kind": "number", "min": 10, "max": 30}
    assert {name: columns[1][name] for name in ("name", "kind")} == {"name": "tags", "kind": "text"}
    assert sorted(columns[1]["values"]) == ["Sale", "blue", "leather", "red", "sale", "summer"]


@pytest.mark.parametrize("images", [30, 66, 1500])
def test_titles_are_no_tags_though_some_have_commas(images):
    names = [f"{i}.jpg" for i in range(images)]
    titles = [f"Print {i}" for i in range(images)]
    titles[:3] = ["House, Garden", "House, Lake", "Garden; Lake"]
    colours = ["red, blue" if i % 2 else "red" for i in range(images)]
    library = ss.ImageLibrary(np.eye(images, 2) + 1, names)
    table = pd.DataFrame({"path": names, "title": titles, "colour": colours})
    title, colour = library.attach(table).overview().columns
    assert title == {"name": "title", "kind": "text", "values": [], "counts": []}
    assert (colour["values"], colour["counts"]) == (["red", "blue"], [images, images // 2])


@pytest.mark.parametrize("sizes", [["S", "M"], [f"size {i}" for i in range(20)]])
def test_a_short_menu_is_offered_though_each_value_has_one_image(sizes):
    names = [f"{i}.jpg" for i in range(len(sizes))]
    library = ss.ImageLibrary(np.eye(len(sizes), 2) + 1, names)
    attached = library.attach(pd.DataFrame({"path": names, "size": sizes}))
    assert sorted(attached.overview().columns[0]["values"]) == sorted(sizes)


def test_infinite_cells_of_a_frame_are_left_out_of_a_columns_range(library):
    prices = [np.inf, *range(1, len(library))]
    library.attach(pd.DataFrame({"path": library.names, "price": prices}))
    assert library.overview().columns == [
        {"name": "price", "kind": "number", "min": 1, "max": len(library) - 1}
    ]
