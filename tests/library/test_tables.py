"""Tables as files: separators, encodings, lines, names; and what met nothing."""

import codecs
import csv
import io
import logging
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simsearch as ss
from simsearch.library.delimited import read_delimited, read_pairs

NAMES = ["shoes/1.jpg", "shoes/2.jpg", "hats/3.jpg"]


def make_library(names=NAMES, root="data"):
    prefix = f"{root}/" if root else ""
    library = ss.ImageLibrary(np.ones((len(names), 2)), [prefix + name for name in names])
    library.root = root
    return library


def attach(tmp_path, content, library=None, **options):
    """Attach a file of these bytes, or of this text in UTF-8."""
    file = tmp_path / "table.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return (library or make_library()).attach(file, **options)


# What is written is what is read

words = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"), max_size=8
)
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(words, words), min_size=3, max_size=3),
    st.sampled_from(",;\t|"),
    st.sampled_from(sorted(ENCODINGS)),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.permutations(["path", "a", "b;,"]),
)
def test_cells_are_the_text_of_the_file(
    tmp_path_factory, cells, separator, encoding, end, quoting, header
):
    file = tmp_path_factory.mktemp("table") / "table.txt"
    if quoting == csv.QUOTE_MINIMAL:  # whose writer leaves a carriage return without quotes
        cells = [[cell.replace("\r", "") for cell in line] for line in cells]
    lines = [
        dict(zip(["path", "a", "b;,"], (n, *c), strict=True))
        for n, c in zip(NAMES, cells, strict=True)
    ]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerow(header)
    for line in lines:
        writer.writerow([line[name] for name in header])
        stream.write(end)  # a blank line
    file.write_bytes(ENCODINGS[encoding] + stream.getvalue().encode(encoding))
    library = make_library().attach(file)
    for row, line in enumerate(lines):
        known = {name: line[name] for name in ("a", "b;,") if line[name].strip()}
        assert library.facts(row) == known


def test_ids_and_words_stay_as_they_are(tmp_path):
    text = "path,id,sku,code,country\nshoes/1.jpg,1234567890123456789,00123,1e5,NA\n"
    library = attach(tmp_path, text)
    assert library.facts(0) == {
        "id": "1234567890123456789",
        "sku": "00123",
        "code": "1e5",
        "country": "NA",
    }
    assert library.where({"country": "NA"}).tolist() == [True, False, False]
    assert library.where({"id": 1234567890123456789}).tolist() == [True, False, False]
    assert library.caption(0) == "1234567890123456789 · 00123"


@pytest.mark.parametrize(
    "text",
    [
        "path;price\nshoes/1.jpg;1,5\nhats/3.jpg;2\n",
        "sep=;\r\npath;price\r\nshoes/1.jpg;1,5\r\nhats/3.jpg;2\r\n",
        "price|path\n1,5|shoes/1.jpg\n2|hats/3.jpg\n",
        "\n\npath\tprice\n\nshoes/1.jpg\t1,5\n\t\nhats/3.jpg\t2",
        "path;price;\nshoes/1.jpg;1,5;\nhats/3.jpg;2;\n",
        "path;price\nshoes/1.jpg;1,5;\nhats/3.jpg;2; ;\n",
        " Path ;price\nshoes/1.jpg;1,5\nhats/3.jpg;2\n",
        '"path";"price"\n"shoes/1.jpg";"1,5"\n"hats/3.jpg";"2"\n',
        "path ; price\nshoes/1.jpg ; 1,5\nhats/3.jpg;2\n",
        "path;price\rshoes/1.jpg;1,5\rhats/3.jpg;2\r",
    ],
)
def test_separators_and_blank_lines(tmp_path, text):
    library = attach(tmp_path, text)
    assert library.where({"price": (1.2, 1.8)}).tolist() == [True, False, False]
    assert library.metadata.columns.tolist() == ["price"]
    assert library.table_report.lines == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("title;price\na;1\n", "has no 'path' column, only title, price; rename"),
        ("path,a,b,a\n1.jpg,1,2,3\n", "has two columns 'a', the 2. and the 4.; rename or remove"),
        ("path,path\n1.jpg,2\n", "has two columns 'path'"),
        ("path,a\n1.jpg,1\n2.jpg,1,5\n", "line 3 has 3 cells, and the header 2"),
        ("path,a\n\n1.jpg\n", "line 3 has 1 cell, and the header 2"),
        ("path,,b\n1.jpg,1,2\n", "column 2 has no name"),
        ('path,a\n1.jpg,"b\n2.jpg,c\n', "line 3: unexpected end of data; a cell in quotes"),
        ('path,a\n1.jpg,"b" c\n', "line 2: ',' expected after"),
        ("path,a\nä.jpg,1\n".encode("latin-1"), "byte 0xe4 on line 2 is not in UTF-8; save it"),
        ("path,a\n1.jpg,1\n".encode("utf-16-le"), "null characters, as UTF-16 without a mark"),
        (codecs.BOM_UTF16_LE + b"p", "not in UTF-16"),
        (b"", "cannot be read as a table: it is empty"),
        (b"\xef\xbb\xbf\n \n", "it is empty"),
        (
            "path,a\nshoes/1.jpg,1\nhats/3.jpg,2\nshoes/1.jpg,1\n",
            r"two lines for 'shoes/1.jpg'; keep one line per image \(lines 2 and 4\)",
        ),
        (
            "path,a\nshoes/1.jpg,1\ndata/shoes/1.jpg,2\n",
            "two lines for 'data/shoes/1.jpg'; .*lines 2 and 3",
        ),
        ("path,a\n.\\shoes\\1.jpg,1\n./shoes/1.jpg,2\n", "two lines for './shoes/1.jpg'"),
        ("path,a\n", "has no lines below its header"),
        ("Path,PATH,a\nshoes/1.jpg,shoes/1.jpg,1\n", "has no 'path' column, only Path, PATH, a"),
        ("path,a\nshoes/1.jpg,1,,2\n", "line 2 has 4 cells, and the header 2"),
    ],
)
def test_tables_that_are_refused_say_where(tmp_path, content, message):
    library = make_library()
    with pytest.raises(ss.QueryError, match=message):
        attach(tmp_path, content, library)
    assert library.metadata is None


def test_a_frame_with_a_column_twice_is_refused():
    frame = pd.DataFrame([["shoes/1.jpg", 1, 2]], columns=["path", "a", "a"])
    with pytest.raises(ss.QueryError, match="the table has two columns 'a'; rename"):
        make_library().attach(frame)
    with pytest.raises(ss.QueryError, match="two columns 'path'"):
        make_library().attach(frame.set_axis(["path", "a", "path"], axis=1))
    with pytest.raises(ss.QueryError, match="two columns '1'"):
        make_library().attach(frame.set_axis(["path", 1, "1"], axis=1))


def test_separators_are_proven_by_the_header(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("path;a,b|c\n1.jpg;2,5|x\n")
    assert read_delimited(file, "path").header == ["path", "a,b|c"]


# Names

name_parts = st.text("aeuéü\u0301\u0308 .-", min_size=1, max_size=4).map(str.strip)
file_names = st.builds(
    lambda folder, name: f"{folder or 'x'}/{name or 'y'}.jpg", name_parts, name_parts
).filter(lambda name: "/." not in name and not name.startswith("."))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        file_names, min_size=1, max_size=5, unique_by=lambda n: unicodedata.normalize("NFC", n)
    ),
    st.sampled_from(["NFC", "NFD"]),
    st.sampled_from(["{}", "./{}", " {}", "data/{}", "\\{}"]),
    st.booleans(),
)
def test_names_in_other_spellings_find_their_pictures(names, form, spelling, backslashes):
    written = [spelling.format(unicodedata.normalize(form, name)) for name in names]
    written = [name.lstrip("\\") for name in written]
    if backslashes:
        written = [name.replace("/", "\\") for name in written]
    library = make_library(names)
    library.attach(pd.DataFrame({"path": written, "i": range(len(names))}))
    assert library.metadata["i"].tolist() == list(range(len(names)))
    assert not library.table_report


def test_absolute_paths_find_their_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for library in (make_library(), make_library(root=None)):
        base = tmp_path / "data" if library.root else tmp_path
        library.attach(pd.DataFrame({"path": [str(base / name) for name in NAMES], "i": range(3)}))
        assert library.metadata["i"].tolist() == [0, 1, 2]


def test_twins_in_unicode_keep_their_own_lines():
    composed, apart = "caf\u00e9.jpg", "cafe\u0301.jpg"
    library = make_library([composed, apart])
    frame = pd.DataFrame({"path": [composed], "i": [1]})
    assert library.attach(frame).metadata["i"].isna().tolist() == [False, True]
    with pytest.raises(ss.QueryError, match=r"may be .* or .*write its path as the library has it"):
        library.attach(pd.DataFrame({"path": [f"./{composed}"], "i": [1]}))


def test_a_line_that_is_two_pictures_is_refused_or_settled():
    """A dataset "data" with a folder "data" in it: one path is whole, and relative to the root."""
    library = make_library(["a.jpg", "data/a.jpg", "b.jpg"])
    frame = pd.DataFrame({"path": ["a.jpg", "data/a.jpg"], "i": [1, 2]})
    assert library.attach(frame).metadata["i"].fillna(0).tolist() == [1, 2, 0]
    frame = pd.DataFrame({"path": ["data/b.jpg", "data/a.jpg"], "i": [1, 2]})
    assert library.attach(frame).metadata["i"].fillna(0).tolist() == [2, 0, 1]
    frame = pd.DataFrame({"path": ["data/b.jpg", "data/a.jpg", "a.jpg"], "i": [1, 2, 3]})
    with pytest.raises(ss.QueryError, match=r"is the whole path of .* write all paths whole, or n"):
        library.attach(frame)


# What met nothing


def test_what_met_nothing_is_reported(tmp_path, caplog):
    text = "path,a\nshoes/1.jpg,1\ngone.jpg,2\n,3\n"
    with caplog.at_level(logging.WARNING, "simsearch"):
        report = attach(tmp_path, text).table_report
    assert (report.lines, report.pictures) == (3, 3)
    assert report.lines_without_picture == ("gone.jpg", "line 4, which has no path")
    assert report.pictures_without_line == ("shoes/2.jpg", "hats/3.jpg")
    assert str(report) in caplog.text
    assert str(report).endswith(
        "table.csv: 1 of 3 pictures have a line; 2 lines without a picture: gone.jpg, line 4, "
        "which has no path; 2 pictures without a line: shoes/2.jpg, hats/3.jpg"
    )


def test_nothing_is_said_where_all_is_met(caplog):
    library = make_library()
    assert library.table_report is None
    library.attach(pd.DataFrame({"path": NAMES, "a": [1, 2, 3]}))
    assert not library.table_report
    assert library.label_rows(dict.fromkeys(NAMES, "x")).tolist() == ["x"] * 3
    assert not library.label_report
    assert caplog.text == ""


def test_labels_say_what_met_nothing(caplog):
    library = make_library()
    labels = library.label_rows({"shoes\\1.jpg": "shoe", "data/hats/3.jpg": "hat", "gone.jpg": "x"})
    assert labels.tolist() == ["shoe", "", "hat"]
    assert library.label_report.lines_without_picture == ("gone.jpg",)
    assert library.label_report.pictures_without_line == ("shoes/2.jpg",)
    assert "the labels: 2 of 3 pictures have a label; 1 line without a picture: gone" in caplog.text
    with pytest.raises(ss.QueryError, match="no key of the labels is an image such as 'shoes/1"):
        library.label_rows({"gone.jpg": "x"})


def test_labels_of_a_column_say_which_pictures_have_none(tmp_path, caplog):
    library = attach(tmp_path, "path,kind\nshoes/1.jpg,007\nshoes/2.jpg,\nhats/3.jpg,NA\n")
    assert library.label_rows("kind").tolist() == ["007", "", "NA"]
    assert library.label_report.pictures_without_line == ("shoes/2.jpg",)
    assert "column 'kind': 2 of 3 pictures have a label; 1 picture without a label" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.jpg,x\nb.jpg,y\n", {"a.jpg": "x", "b.jpg": "y"}),
        ("path;label\na,1.jpg;007\n\nb.jpg;NA\n", {"a,1.jpg": "007", "b.jpg": "NA"}),
        ("\ufeffpath\tlabel\na.jpg\tx\n", {"a.jpg": "x"}),
        ("a.jpg,x\na.jpg,x\n", {"a.jpg": "x"}),
        ("price;Label;Path\n5;x;a.jpg\n", {"a.jpg": "x"}),
        ("label,path\nx,a.jpg\n", {"a.jpg": "x"}),
        ("path,kind,\na.jpg,x,\n", {"a.jpg": "x"}),
    ],
)
def test_pairs_of_path_and_label(tmp_path, text, expected):
    file = tmp_path / "labels.csv"
    file.write_text(text, encoding="utf-8")
    assert read_pairs(file, "path", "label") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,x\na.jpg,y\n", "has two labels for 'a.jpg', the second on line 2"),
        ("a.jpg\n", "does not hold lines of path,label: it has no separator"),
        ("a.jpg,x\nb.jpg\n", "line 2 has one"),
        ("path,price,kind\na.jpg,5,x\n", "3 columns: name the one with paths 'path' and the one"),
        ("a.jpg,5,x\n", "has 3 columns"),
        ("a,b.jpg;x\nc,d.jpg;y\n", "it has several separators"),
    ],
)
def test_pairs_that_are_refused(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ss.QueryError, match=message):
        read_pairs(tmp_path / "labels.csv", "path", "label")


@pytest.mark.parametrize("name", ["Path", "PATH", " path "])
def test_the_column_of_paths_may_be_written_otherwise(name):
    frame = pd.DataFrame({name: NAMES[:1], "Price": [1]})
    assert make_library().attach(frame).facts(0) == {"Price": 1}
    both = pd.DataFrame({name: ["x"], "path": NAMES[:1]})
    assert make_library().attach(both).facts(0) == {name: "x"}


@pytest.mark.parametrize(
    "table", [None, 5, b"table.csv", {"path": NAMES}, [{"path": "1"}], np.eye(2), pd.Series(NAMES)]
)
def test_a_table_of_another_type_is_refused(table):
    with pytest.raises(ss.QueryError, match="is not read: give a CSV file or a pandas frame"):
        make_library().attach(table)


def test_a_column_called_folder_takes_the_place_of_the_librarys_own(tmp_path):
    library = attach(tmp_path, "path,folder\nshoes/1.jpg,Red\nshoes/2.jpg,blue\n")
    assert library.where({"folder": "red"}).tolist() == [True, False, False]
    assert library.where({"folder": "shoes"}).tolist() == [False] * 3
