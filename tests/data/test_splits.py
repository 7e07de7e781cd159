import hashlib
import math

from xception.data.splits import split_all, split_named, split_of


def test_thresholds_by_hand() -> None:
    # The first eight digits of each SHA-256, as a share of 16^8, against 0.15 and 0.30.
    for text in ("a", "b", "c", "photo 1", "photo 2", "photo 3", "photo 4", "photo 5"):
        data = text.encode()
        share = int(hashlib.sha256(data).hexdigest()[:8], 16) / 16**8
        with_test = "validation" if share < 0.15 else "test" if share < 0.30 else "train"
        assert split_of(data, test=True) == with_test
        assert split_of(data, test=False) == ("validation" if share < 0.15 else "train")


def test_shares_come_out_as_promised() -> None:
    contents = [str(i).encode() for i in range(10_000)]
    for test, expected in (
        (True, {"validation": 0.15, "test": 0.15}),
        (False, {"validation": 0.15}),
    ):
        splits = [split_of(data, test=test) for data in contents]
        for split, share in expected.items():
            deviation = math.sqrt(10_000 * share * (1 - share))
            assert abs(splits.count(split) - 10_000 * share) < 4 * deviation


def test_many_at_once_in_order_and_the_unreadable_to_train() -> None:
    contents = {str(i): str(i % 300).encode() for i in range(1000)}
    names = [*contents, "torn"]
    splits = split_all(names, contents.get, test=True)
    assert splits == [split_of(data, test=True) for data in contents.values()] + ["train"]
    assert splits[0] == splits[300] == splits[600]  # identical photos on one side


def test_names() -> None:
    assert split_named(" Val ") == "validation"
    assert split_named("TRAINING") == "train"
    assert split_named("tests") is None
