"""Names for the files that belong to photos."""

import random
from pathlib import Path

from xception.cli.picture_names import PictureNames


def test_each_photo_gets_the_first_name_that_is_free():
    """The same names as a plain search from the beginning finds for each of them."""
    draw = random.Random(0)
    earlier = {"a", "a-3", "b-2"}
    names, given = PictureNames(earlier.__contains__), set(earlier)
    for place in range(300):
        stem = draw.choice(["a", "b", "a-2", "b-2", "c", "c-7"])
        expected, number = stem, 1
        while expected in given:
            number += 1
            expected = f"{stem}-{number}"
        given.add(expected)
        assert names.of(Path(f"{place}/{stem}.jpg")) == expected


def test_many_photos_of_one_name_are_not_searched_through_each_time():
    """An earlier run gave 200 names away; each of them is asked about once, and each new one."""
    earlier = {"front", *(f"front-{n}" for n in range(2, 201))}
    asked: list[str] = []

    def taken(name: str) -> bool:
        asked.append(name)
        return name in earlier

    names = PictureNames(taken)
    found = [names.of(Path(f"{place}/front.jpg")) for place in range(200)]
    assert found == [f"front-{n}" for n in range(201, 401)]
    assert len(asked) == 400
