import contextlib
import json

import pytest

from xception.data.class_file import ClassSpec, named, read_classes
from xception.errors import UserError


def classes(text: str, name: str = "classes.txt") -> list[ClassSpec]:
    return list(read_classes(text.encode(), name))


def test_names_count_from_0() -> None:
    assert classes("# two\nsky\n\n  traffic light \n") == [
        ClassSpec("sky", 0),
        ClassSpec("traffic light", 1),
    ]


def test_values() -> None:
    assert classes("7: road\n11= a: b\n") == [ClassSpec("road", 7), ClassSpec("a: b", 11)]


@pytest.mark.parametrize(
    "line",
    [
        "lane 2 128 64 1",
        "lane 2,128,64,1",
        "lane 2 #804001",
        "128 64 1 lane 2",
        "128,64,1,lane 2",
        "128 64 1\tlane 2",
        "lane 2; 128; 64; 1",
        "lane 2:128,64,1::",
        "lane 2:128,64,1:a,b:c",
    ],
)
def test_colours_in_every_form(line: str) -> None:
    assert classes(f"{line}\n") == [ClassSpec("lane 2", 0, (128, 64, 1))]


def test_value_and_colour() -> None:
    assert classes("7: road 1 2 3\n8: sky #040506") == [
        ClassSpec("road", 7, (1, 2, 3)),
        ClassSpec("sky", 8, (4, 5, 6)),
    ]


NUMBERED = [ClassSpec("road", 1), ClassSpec("sky", 0), ClassSpec("tree", 2)]


@pytest.mark.parametrize(
    "text",
    [
        "1 road\n0 sky\n2 tree\n",
        "1,road\n0,sky\n2,tree\n",
        "1\troad\n0\tsky\n2\ttree\n",
        "id,name\n1,road\n0,sky\n2,tree\n",
        "# a comment\nID Name\n1 road\n\n0 sky\n2 tree\n",
        "Nummer;Klasse\n1;road\n0;sky\n2;tree\n",
        '"id","name"\r\n"1","road"\r\n"0","sky"\r\n"2","tree"\r\n',
        "road 1\nsky 0\ntree 2\n",
        "road, 1\nsky, 0\ntree, 2\n",
        "name;value\nroad;1\nsky;0\ntree;2\n",
    ],
)
def test_a_number_on_every_line_is_the_value(text: str) -> None:
    assert classes(text) == NUMBERED


def test_a_number_in_front_of_name_and_colour_is_the_value() -> None:
    expected = [ClassSpec("lane 2", 7, (128, 64, 1)), ClassSpec("void", 3, (0, 0, 0), ignored=True)]
    assert classes("7 lane 2 128 64 1\n3 void 0 0 0\n") == expected
    assert classes("id,name,r,g,b\n7,lane 2,128,64,1\n3,void,0,0,0\n") == expected
    assert classes("7;128;64;1;lane 2\n3;0;0;0;void\n") == expected
    assert classes("7 lane 2 #804001\n3 void #000000\n") == expected


@pytest.mark.parametrize(
    "names",
    [
        ["zone 1", "zone 2", "zone 3"],
        ["2 lanes", "3 lanes"],
        ["sky", "lane 2"],
        ["lane 2", "sky", "route 66"],
        ["road, wet", "sky, 2 suns"],
        ["road, wet", "lane 2, dry"],
        ["traffic light", "lane 2"],
        ["lane 2", "street 2"],
        ["route 2024", "exit 1999"],
        ["class", "label"],
        ["class name", "other"],
    ],
)
def test_numbers_that_are_parts_of_names_stay_so(names: list[str]) -> None:
    assert classes("\n".join(names)) == [ClassSpec(name, i) for i, name in enumerate(names)]


def test_colours_in_front_are_no_values() -> None:
    expected = [ClassSpec("lane 2", 0, (128, 64, 1)), ClassSpec("lane 3", 1, (0, 0, 255))]
    assert classes("128 64 1 lane 2\n0 0 255 lane 3\n") == expected
    assert classes("lane 2 128 64 1\nlane 3 0 0 255\n") == expected


def test_a_number_that_no_mask_can_hold_is_said() -> None:
    with pytest.raises(UserError, match="line 2: 300 is no mask value"):
        classes("0 sky\n300 road\n")


@pytest.mark.parametrize(
    "heading",
    [
        "name,r,g,b",
        "name, red, green, blue",
        "Class;Red;Green;Blue",
        '"name","r","g","b"',
        "Klasse,Rot,Grün,Blau",
    ],
)
def test_headings_of_tables_of_colours(heading: str) -> None:
    mark = ";" if ";" in heading else ","
    lines = [
        heading,
        f'"road"{mark}"128"{mark}"64"{mark}"128"',
        mark.join(["sky", "0", "0", "255"]),
    ]
    assert classes("\n".join(lines), "class_dict.csv") == [
        ClassSpec("road", 0, (128, 64, 128)),
        ClassSpec("sky", 1, (0, 0, 255)),
    ]


def test_a_table_of_colours_with_its_heading() -> None:
    assert classes("name,r,g,b\nAnimal,64,128,64\nVoid,0,0,0\n", "class_dict.csv") == [
        ClassSpec("Animal", 0, (64, 128, 64)),
        ClassSpec("Void", 1, (0, 0, 0), ignored=True),
    ]


def test_what_is_no_class() -> None:
    assert classes("sky\nvoid\nroad\n") == [
        ClassSpec("sky", 0),
        ClassSpec("void", 1, ignored=True),
        ClassSpec("road", 2),
    ]
    # labelme's class_names.txt: the first line stands for no value at all
    assert classes("__ignore__\n_background_\ncat\n") == [
        ClassSpec("_background_", 0),
        ClassSpec("cat", 1),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (["sky", "road"], [ClassSpec("sky", 0), ClassSpec("road", 1)]),
        ({"0": "sky", "7": "road"}, [ClassSpec("sky", 0), ClassSpec("road", 7)]),
        (
            [
                {"name": "road", "value": 7, "colour": [1, 2, 3]},
                {"name": "sky", "value": 8, "color": "#040506"},
                {"name": "sea", "value": 9, "ignored": True},
            ],
            [
                ClassSpec("road", 7, (1, 2, 3)),
                ClassSpec("sky", 8, (4, 5, 6)),
                ClassSpec("sea", 9, None, ignored=True),
            ],
        ),
    ],
)
def test_json(content: object, expected: list[ClassSpec]) -> None:
    assert classes(json.dumps(content), "classes.json") == expected


def test_json_may_keep_a_class_called_void() -> None:
    (spec,) = classes('[{"name": "void", "ignored": false}]', "classes.json")
    assert not spec.ignored


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no class"),
        ("void\n", "names no class"),
        ("sky\nsky\n", "sky stands twice"),
        ("1: a\n1: b\n", "the value 1 stands twice"),
        ("a 1 2 3\nb 1 2 3\n", r"the colour \(1, 2, 3\) stands twice"),
        ("a 1 2 3\nvoid 1 2 3\n", r"the colour \(1, 2, 3\) stands twice"),
        ("a 1 2 3\nb\n", "b has no colour; give every class one, or none"),
        ("1: a\nb\n", "b has no value; give every class one, or none"),
        ("a\nb 1 2 300\n", r"line 2: \[1, 2, 300\] is no colour"),
        ("256: a\n", "line 1: 256 is no mask value"),
        ("\n".join(f"c{i}" for i in range(256)), "256 classes, at most 255"),
        ("\n".join(f"c{i}" for i in range(257)), "257 names, but masks hold"),
        ("x" * 201, "is no name; 1 to 200 letters"),
        ("x" * 1001, "line 1: longer than 1000 letters"),
        ("x" * 2**21, "more than the 1,048,576 bytes"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        classes(text)
    assert str(caught.value).startswith("classes.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("3", "holds no list"),
        ("[3]", "entry 1: is neither a name nor"),
        ('[{"label": "a"}]', "entry 1: is neither a name nor"),
        ('["a", {"name": "b", "size": 3}]', "entry 2: is neither a name nor"),
        ('[{"name": "a", "value": true}]', "True is no mask value"),
        ('[{"name": "a", "value": 1.5}]', "1.5 is no mask value"),
        ('{"x": "a"}', "'x' is no mask value"),
        ('[{"name": "a", "colour": [1, 2]}]', r"\[1, 2\] is no colour"),
        ('[{"name": "a", "colour": "red"}]', "red is no colour"),
        ('[{"name": "a", "ignored": 1}]', "ignored is 1; true or false"),
        ('[""]', "entry 1: has no name"),
    ],
)
def test_what_is_wrong_with_json_is_said(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        classes(text, "classes.json")


def test_other_encodings_are_refused() -> None:
    with pytest.raises(UserError, match=r"^classes.txt: is not UTF-8$"):
        read_classes("größe".encode("latin-1"), "classes.txt")
    assert read_classes("\ufeffGröße".encode(), "classes.txt")[0].name == "Größe"


@pytest.mark.parametrize("line", [" " * 999, "1 " * 499 + "x", "a" + " ," * 499, "9" * 999 + ":x"])
def test_odd_lines_take_no_time(line: str) -> None:
    # Each is a class or an error; what counts is that a bad expression would take minutes.
    text = (line + "\n") * 20 + "end"
    with contextlib.suppress(UserError):
        assert classes(text)


def test_named() -> None:
    assert named(["sky", "void"]) == (ClassSpec("sky", 0), ClassSpec("void", 1, ignored=True))
    with pytest.raises(UserError, match="classes: sky stands twice"):
        named(["sky", "sky"])
