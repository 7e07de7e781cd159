from pathlib import PurePosixPath

import pytest

from xception.data.table import Row, looks_like_table, read_table
from xception.errors import UserError


def rows(text: str, folder: PurePosixPath | None = None) -> tuple[Row, ...]:
    return read_table(text.encode(), "photos.csv", folder)


def test_rows_in_order() -> None:
    assert rows("path,label\nb/2.jpg,hat\na 1.jpg,dress\n") == (
        Row("b/2.jpg", ("hat",), None),
        Row("a 1.jpg", ("dress",), None),
    )


def test_several_labels_and_none() -> None:
    found = rows("path,labels\n1.jpg,hat|dress\n2.jpg,\n3.jpg, hat | hat |\n")
    assert [row.labels for row in found] == [("hat", "dress"), (), ("hat",)]
    assert [row.several for row in found] == [True, False, True]


def test_one_mark_is_enough_for_a_table_of_several_labels() -> None:
    found = rows("path,label\n1.jpg,hat|\n2.jpg,\n3.jpg,dress\n")
    assert [row.labels for row in found] == [("hat",), (), ("dress",)]
    assert any(row.several for row in found)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpath,label,split\r\n1.jpg,hat,train\r\n",  # as Excel writes it
        "path;label;split\n1.jpg;hat;train\n",
        "path\tlabel\tsplit\n1.jpg\that\ttrain\n",
        '"Path","Label","Split"\n"1.jpg","hat","Train"\n\n',
        "split,id,label,path\ntraining,7,hat,.\\1.jpg\n",
    ],
)
def test_dialects(text: str) -> None:
    assert rows(text) == (Row("1.jpg", ("hat",), "train"),)


def test_quoted_commas_and_line_breaks_are_cells() -> None:
    found = rows('path,label\n"a,b.jpg","red\nhat"\n')
    assert found == (Row("a,b.jpg", ("red\nhat",), None),)


def test_splits_by_any_usual_name() -> None:
    names = ("train", "VAL", "valid", "validation", "test", "Testing")
    text = "path,label,split\n" + "".join(f"{i}.jpg,hat,{n}\n" for i, n in enumerate(names))
    assert [row.split for row in rows(text)] == ["train", *["validation"] * 3, *["test"] * 2]
    assert rows("path,label,split\n1.jpg,hat,\n")[0].split is None


def test_absolute_paths_within_the_folder() -> None:
    assert rows("path,label\n/photos/a/1.jpg,hat\n", PurePosixPath("/photos"))[0].path == "a/1.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line must name the columns"),
        ("1.jpg,hat\n", "without one column 'path'"),
        ("path,lable\n1.jpg,hat\n", "did you mean that by 'lable'"),
        ("path,label,label\n1.jpg,hat,hat\n", "without one column 'label'"),
        ("path,label\n", "has a header but no photos"),
        ("path,label\n1.jpg,hat,blue\n", "line 2: 3 cells where the header has 2"),
        ("path,label\n1.jpg,hat\n2.jpg\n", "line 3: 1 cells"),
        ("path,label\n,hat\n", "line 2: the path is empty"),
        ("path,label\n../1.jpg,hat\n", "line 2: ../1.jpg lies outside"),
        ("path,label\na/../../1.jpg,hat\n", "lies outside"),
        ("path,label\n/etc/1.jpg,hat\n", "lies outside"),
        ("path,label\nC:\\1.jpg,hat\n", "lies outside"),
        ("path,label\n1.jpg,hat\n2.jpg,hat\n./1.jpg,cap\n", "line 4: 1.jpg stands in line 2"),
        ("path,label,split\n1.jpg,hat,trian\n", "line 2: unknown split 'trian'"),
        ("path,label,split\n1.jpg,hat,train\n2.jpg,hat,\n", "line 3: no split"),
        ('path,label\n"1.jpg,hat\n', "line 2"),
        ("path,label\n1.jpg,hat\n2.jpg,\n3.jpg, \n", "line 3, 4: no label. Give each photo one;"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=r"^photos\.csv") as caught:
        rows(text, PurePosixPath("/photos"))
    assert message in str(caught.value)


def test_other_encodings_are_refused() -> None:
    for encoding in ("utf-16", "latin-1"):
        with pytest.raises(UserError, match=r"is not UTF-8"):
            read_table("path,label\ngröße.jpg,hat\n".encode(encoding), "photos.csv", None)


def test_looks_like_table() -> None:
    assert looks_like_table(b"\xef\xbb\xbfpath;label\n\xff")
    assert not looks_like_table(b"")
    assert not looks_like_table(b"name,price\n1,2\n")
