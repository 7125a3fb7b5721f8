"""CSV files: what they hold, and for each way in which they can be bad the line and column."""

import csv
import gzip
import io
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpugrad.data import DataError, csv_columns, read_csv
from gpugrad.data.delimited import Delimited

GOOD = "a,b,label\n1,2,cat\n3.5,-4e2,dog\n 5 , 6,cat\n"


@pytest.fixture
def read(tmp_path):
    """Read text as a file."""

    def read(content, name="t.csv", **options):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_csv(path, **options)

    return read


@pytest.fixture
def refused(read, tmp_path):
    """The message for a bad file, behind the file's name."""

    def refused(content, name="t.csv", **options):
        with pytest.raises(DataError) as error:
            read(content, name, **options)
        text, path = str(error.value), str(tmp_path / name)
        assert "\n" not in text
        assert text.startswith(path), text
        return text[len(path) :]

    return refused


# ------------------------------------------------------------------------------------------------- good files


def test_classes_in_the_last_column(read):
    table = read(GOOD)
    assert table.columns == ["a", "b"]
    assert table.target == "label"
    assert table.classes == ["cat", "dog"]
    assert table.y.dtype == np.int64
    assert table.y.tolist() == [0, 1, 0]
    assert table.x.dtype == np.float64
    assert table.x.tolist() == table.values.tolist() == [[1, 2], [3.5, -400], [5, 6]]
    assert table.lines.tolist() == [2, 3, 4]
    assert len(table) == 3
    assert table.x.flags.c_contiguous


def test_the_target_by_name_or_place_or_none(read):
    numbers = "a,b,c\n1,2,3\n4,5,6\n"
    for target, columns, y in ((-1, ["a", "b"], [3, 6]), ("b", ["a", "c"], [2, 5]), (0, ["b", "c"], [1, 4]), (-3, ["b", "c"], [1, 4])):
        table = read(numbers, target=target)
        assert (table.columns, table.y.tolist(), table.classes) == (columns, y, [])
        assert table.y.dtype == np.float64
    table = read(numbers, target=None)
    assert (table.columns, table.y, table.target, table.values.tolist()) == (["a", "b", "c"], None, None, [[1, 2, 3], [4, 5, 6]])


def test_columns_to_ignore_may_hold_anything(read):
    table = read("id,a,when,y\nx1,1,,2\nx2,3,monday,4\n", ignore=["id", "when"])
    assert (table.columns, table.x.tolist(), table.y.tolist()) == (["a"], [[1], [3]], [2, 4])


def test_classes_are_sorted_whatever_comes_first(read):
    a, b = read("x,y\n1,b\n2,a\n3,c\n"), read("x,y\n3,c\n1,b\n2,a\n")
    assert a.classes == b.classes == ["a", "b", "c"]
    assert (a.y.tolist(), b.y.tolist()) == ([1, 0, 2], [2, 1, 0])
    numbers = read("x,y\n1,10\n2,9\n3,10\n", classes=True)
    assert (numbers.classes, numbers.y.tolist()) == (["9", "10"], [1, 0, 1])
    with_numbers = read("x,y\n1,3\n2,5more\n3,many\n4,few\n")
    assert with_numbers.classes == ["3", "5more", "few", "many"]


@pytest.mark.parametrize(
    ("text", "options", "columns"),
    [
        ("1,2\n3,4\n", {}, ["column 1", "column 2"]),
        ("x,y\n1,2\n3,4\n", {}, ["x", "y"]),
        ("1,2,cat\n3,4,dog\n", {}, ["column 1", "column 2", "column 3"]),
        ("label,0,1\n7,2,3\n", {}, ["label", "0", "1"]),
        ("0,1\n2,3\n", {"header": True}, ["0", "1"]),
        ("x,y\n1,2\n", {"header": False, "ignore": ["column 1", "column 2"], "target": None}, ["column 1", "column 2"]),
        ("x,\n1,2\n", {}, ["x", "column 2"]),
        ("# made by hand\n\nx,y\n# and this\n1,2\n", {}, ["x", "y"]),
        ('"x","a, ""b"""\n1,2\n', {}, ["x", 'a, "b"']),
        (" x , y \n1,2\n", {}, ["x", "y"]),
    ],
)
def test_headers(text, options, columns, read, tmp_path):
    read(text, **options)
    keep = {k: v for k, v in options.items() if k == "header"}
    assert csv_columns(tmp_path / "t.csv", **keep) == columns


@pytest.mark.parametrize("mark", [",", ";", "\t", "|", " "])
def test_delimiters(mark, read):
    text = GOOD.replace(" ", "").replace(",", mark)
    for options in ({}, {"delimiter": mark}):
        table = read(text, **options)
        assert (table.columns, table.classes, table.x.tolist()) == (["a", "b"], ["cat", "dog"], [[1, 2], [3.5, -400], [5, 6]])


def test_blanks_in_a_row_are_one_delimiter(read):
    assert read("  x   y\n 1     2\n  3  4 \n").x.tolist() == [[1], [3]]


def test_a_name_with_blanks_is_one_column(read):
    assert read("house price\n1\n2\n", target=None).columns == ["house price"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("zipped", [False, True])
def test_ends_of_lines_byte_order_marks_and_gzip(end, last, mark, zipped, read):
    content = (mark + (GOOD if last else GOOD.rstrip("\n")).replace("\n", end)).encode()
    table = read(gzip.compress(content) if zipped else content, "t.csv.gz" if zipped else "t.csv")
    assert (table.columns, table.y.tolist(), table.lines.tolist()) == (["a", "b"], [0, 1, 0], [2, 3, 4])


def test_quotes(read):
    table = read('"a","b","kind"\n"1",2,"big, ""old"" cat"\n3,"4","a\nb"\n5, "6", "dog"\n')
    assert table.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert table.classes == ["a\nb", 'big, "old" cat', "dog"]
    assert table.lines.tolist() == [2, 3, 5]
    assert read('x,kind\n1, "dog"\n2,"cat"\n').classes == ["cat", "dog"]


def test_what_a_comment_is(read):
    text = "colour,x\n#f00,1\n#0f0,2\n"
    assert read(text, target="colour", comments=None).classes == ["#0f0", "#f00"]
    assert read(text.replace("colour", "% colour\ncolour"), ignore=["colour"], comments="%", target=None).x.tolist() == [[1], [2]]
    with pytest.raises(DataError, match="nothing follows the header"):
        read(text)


def test_wide_files_are_quick(read):
    start = time.perf_counter()
    assert len(read(",".join(f"c{i}" for i in range(20_000)) + "\n" + ",".join("1" * 20_000) + "\n").columns) == 19_999
    assert time.perf_counter() - start < 5


def test_other_encodings(read):
    table = read("größe,art\n1,süß\n2,öde\n".encode("latin-1"), encoding="latin-1")
    assert (table.columns, table.classes) == (["größe"], ["süß", "öde"])
    assert read("x,y\n1,2\n".encode("utf-16"), encoding="utf-16").y.tolist() == [2]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_python_writes_is_read_exactly(tmp_path_factory, data):
    rows, columns = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    x = [[data.draw(finite) for _ in range(columns)] for _ in range(rows)]
    word = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"]), min_size=1, max_size=6).map(lambda s: "w" + s)
    labels = [data.draw(word) for _ in range(rows)]
    text = io.StringIO()
    writer = csv.writer(text, quoting=data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])))
    writer.writerows([[f"c{i}" for i in range(columns)] + ["label"], *([*map(repr, row), label] for row, label in zip(x, labels, strict=True))])
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    table = read_csv(path, delimiter=",")
    assert_array_equal(table.x, x)
    assert [table.classes[i] for i in table.y] == labels
    assert table.classes == sorted(set(labels))


def test_it_is_quick(read):
    x = np.random.default_rng(0).normal(size=(20_000, 20))
    text = "\n".join(",".join(f"{v:.6g}" for v in row) + ",a" for row in x)
    start = time.perf_counter()
    table = read(text)
    assert time.perf_counter() - start < 5  # 0.1 s where nothing else runs
    assert table.x.shape == (20_000, 20)
    np.testing.assert_allclose(table.x, x, rtol=1e-5)


# ------------------------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a,b\n1,2\n3\n", ", line 3, column 'b': 1 cells, expected 2 as in line 1"),
        ("a,b\n1,2\n3,4,5\n", ", line 3: 3 cells, expected 2 as in line 1"),
        ("# c\na,b,c\n\n1,2,3\n1,2\n", ", line 5, column 'c': 2 cells, expected 3 as in line 2"),
        ("a,b,c\n1,2,3\n1,x,3\n", ", line 3, column 'b': got 'x', expected a finite number"),
        ("a,b,c\n1,2,3\n1,,3\n", ", line 3, column 'b': got an empty cell, expected a finite number"),
        ("a,b,c\n1,2,3\n1,2,\n", ", line 3, column 'c': got an empty cell, expected a finite number"),
        ("a,c\n1,x\n1,y\n1, \n", ", line 4, column 'c': got an empty cell, expected the name of a class"),
        ("a,b\nnan,1\n2,3\n", ", line 2, column 'a': got 'nan', expected a finite number"),
        ("a,b\n1,1\n-inf,3\n", ", line 3, column 'a': got '-inf', expected a finite number"),
        ("a,b\n1,1\n2,Infinity\n", ", line 3, column 'b': got 'Infinity', expected a finite number"),
        ("a,b\n1,1e999\n", ", line 2, column 'b': got '1e999', expected a finite number"),
        ("a,b\n1,x\n2,nan\n3,y\n", ", line 3, column 'b': got 'nan', expected the name of a class"),
        ("a,b\n1,1\n2,2\n3,3x\n", ", line 4, column 'b': got '3x', expected a finite number (classes=True takes the column for classes)"),
        ("a,b\n1_000,1\n", ", line 2, column 'a': got '1_000', expected a finite number"),
        ("a;b\n1,5;2\n", ", line 2, column 'a': got '1,5' (is that a decimal comma?), expected a finite number"),
        ("a,b,a\n1,2,3\n", ", line 1, column 'a': this name comes 2 times"),
        ("", ": no data: the file is empty"),
        ("\n# nothing\n  \n", ": no data: the file is empty, but for blank lines and comments"),
        ("a,b\n", ": no data: nothing follows the header"),
        ("a,b\n# nothing\n", ": no data: nothing follows the header"),
        ('a,b\n1,"2\n3,4\n', ", line 2: unexpected end of data"),
        ('a,b\n1,2\n3,"4\n', ", line 3: unexpected end of data"),
        ('a,b\n1,2\n3,"4"5\n', ", line 3: ',' expected after '\"'"),
        ("a,b\n1,2\n3,4\0\n", ", line 3: a zero byte, which text does not have"),
        ("a,b\n" + "1" * 100 + "x,2\n", ", line 2, column 'a': got '" + "1" * 37 + "...', expected a finite number"),
        ("a,b\n1,2\n" + '"' + "9" * 200_000 + '",2\nx,3\n', ", line 3: field larger than field limit (131072)"),
        ('a,b\n"1\n",2\nx,3\n', ", line 4, column 'a': got 'x', expected a finite number"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_place_of_what_is_wrong(text, what, end, refused):
    assert refused(text.replace("\n", end)) == what


def test_unknown_columns(refused):
    assert refused(GOOD, target="c") == ": no column 'c': there are 'a', 'b', 'label'"
    assert refused(GOOD, target=3) == ": no column 3: there are 3"
    assert refused(GOOD, target=-4) == ": no column -4: there are 3"
    assert refused(GOOD, ignore=["d"]) == ": no column 'd': there are 'a', 'b', 'label'"
    assert refused(GOOD, target="a", ignore=["a"]) == ": column 'a' is the target and cannot be ignored"
    assert refused(GOOD, target=None) == ", line 2, column 'label': got 'cat', expected a finite number"
    assert refused(GOOD, classes=False) == ", line 2, column 'label': got 'cat', expected a finite number (classes=True takes the column for classes)"


def test_ragged_rows_show_among_ignored_columns_too(refused):
    assert refused("a,b,c\n1,2,3\n4,5\n", ignore=["c"], target=None) == ", line 3, column 'c': 2 cells, expected 3 as in line 1"


def test_bytes_that_are_not_text(refused):
    assert refused("a,b\n1,2\nü,3\n".encode("latin-1")).startswith(", line 3: not utf-8 text ('utf-8' codec can't decode byte 0xfc")
    assert refused("a,b\n1,2\n".encode("utf-16")).endswith("encoding='utf-16' may be right")
    assert refused(gzip.compress(GOOD.encode())[:-9], "t.csv.gz").startswith(": a damaged gzip file: ")


def test_arguments(read, tmp_path):
    with pytest.raises(ValueError, match="delimiter must be one character or 'auto', got ', '"):
        read(GOOD, delimiter=", ")
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        read_csv(tmp_path / "missing.csv")


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab1.,;\t \"'\n\r#-e\ufeff\x0b\u2028"), max_size=30), st.sampled_from([None, -1]))
def test_any_text_is_read_or_refused_on_one_line(tmp_path_factory, text, target):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        table = read_csv(path, target)
    except DataError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(str(path))
    else:
        assert np.isfinite(table.x).all()
        assert table.x.shape == (len(table.lines), len(table.columns))


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("12a.,;\t \n\r#-e+_\x0b\x0c\x1c\x85\xa0\u2028\u0661"), max_size=30), st.sampled_from([None, -1, 0]))
def test_the_quick_parser_takes_nothing_that_the_exact_one_does_not(text, target):
    try:
        reader = Delimited("t.csv", text)
    except DataError:
        return
    quick_cells, exact_cells = {}, {}
    quick = reader.quickly(target if target is None else target % len(reader.names), set(), quick_cells)
    if quick is None:
        return
    exact = reader.exactly(target if target is None else target % len(reader.names), set(), exact_cells)
    assert quick_cells == exact_cells
    assert_array_equal(quick[0], exact[0])
    assert_array_equal(quick[1], exact[1])
