import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xception.data import spread as spreading
from xception.data.audit import Audit, audit
from xception.data.findings import Finding
from xception.data.folders import PhotoSet, open_photos
from xception.data.scan import scan
from xception.data.store import FolderStore
from xception.errors import UserError


def encoded(seed: int, format: str = "PNG", side: int = 64, quality: int = 90) -> bytes:
    """A picture unlike those of other seeds, but like itself at any size and quality."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    image.save(buffer, format, quality=quality)
    return buffer.getvalue()


def photo_set(folder: Path, files: dict[str, bytes]) -> PhotoSet:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return open_photos(folder)


def sound(train: int = 12, others: int = 2) -> dict[str, bytes]:
    """Two classes in three splits, nothing wrong."""
    files = {}
    for number, label in enumerate(("a", "b")):
        for split, count in (("train", train), ("val", others), ("test", others)):
            for i in range(count):
                seed = 1000 * number + 100 * len(split) + i
                files[f"{split}/{label}/{i}.png"] = encoded(seed)
    return files


def kinds(found: Audit) -> dict[str, Finding]:
    assert len({finding.kind for finding in found.findings}) == len(found.findings)
    return {finding.kind: finding for finding in found.findings}


def test_nothing_is_wrong_with_sound_photos(tmp_path: Path) -> None:
    found = audit(photo_set(tmp_path, sound()), 64)
    assert found.findings == ()
    assert found.refusal is None
    assert found.photos == 32
    assert found.counts == {
        "train": {"a": 12, "b": 12},
        "validation": {"a": 2, "b": 2},
        "test": {"a": 2, "b": 2},
    }
    assert Audit.model_validate_json(found.model_dump_json()) == found


def test_everything_that_can_be_wrong_at_once(tmp_path: Path) -> None:
    files = sound(train=40) | {
        "train/a/torn.png": encoded(1)[:-30],
        "train/a/no image.jpg": b"hello",
        "train/b/copy.png": encoded(501),  # of train/a/1.png
        "val/a/leak.png": encoded(1502),  # of train/b/2.png
        "train/a/twice.png": encoded(503),
        "train/a/again.jpg": encoded(504, "JPEG", 200, 80),  # near train/a/4.png
        "test/b/again.jpg": encoded(1505, "JPEG", 50, 80),  # near train/b/5.png, and small
        "train/b/almost.jpg": encoded(506, "JPEG", 100, 80),  # near train/a/6.png
        "train/rare/1.png": encoded(70),
        "train/rare/2.jpg": encoded(71, "WEBP"),
        "notes.txt": b"hello",
    }
    found = audit(photo_set(tmp_path, files), 64)
    seen = kinds(found)
    assert found.refusal is None
    assert set(found.unreadable) == {"train/a/torn.png", "train/a/no image.jpg"}
    assert "truncated" in found.unreadable["train/a/torn.png"]
    assert seen["unreadable"].severity == "warning"
    assert set(seen["unreadable"].files) == set(found.unreadable)
    assert found.photos == 98
    assert found.counts["train"] == {"a": 42, "b": 42, "rare": 2}
    groups = {kind: {frozenset(group) for group in f.groups} for kind, f in seen.items()}
    assert groups["label_conflict"] == {
        frozenset({"train/a/1.png", "train/b/copy.png"}),
        frozenset({"train/b/2.png", "val/a/leak.png"}),  # bad in both ways
    }
    assert groups["leak"] == {frozenset({"train/b/2.png", "val/a/leak.png"})}
    assert groups["duplicates"] == {frozenset({"train/a/3.png", "train/a/twice.png"})}
    assert groups["near_duplicates"] == {frozenset({"train/a/4.png", "train/a/again.jpg"})}
    assert groups["near_leak"] == {frozenset({"train/b/5.png", "test/b/again.jpg"})}
    assert groups["near_label_conflict"] == {frozenset({"train/a/6.png", "train/b/almost.jpg"})}
    assert "rare (2)" in seen["tiny_class"].message
    assert "rare (2)" in seen["outnumbered_class"].message
    assert "no validation photos of rare and no test photos of rare" in (
        seen["missing_from_split"].message
    )
    assert seen["wrong_ending"].files == ("train/rare/2.jpg",)
    assert "WEBP" in seen["wrong_ending"].message
    assert seen["small_images"].files == ("test/b/again.jpg",)
    assert "50" in seen["small_images"].message
    assert seen["ignored"].files == ("notes.txt",)
    severities = [finding.severity for finding in found.findings]
    assert severities == sorted(severities, reverse=True)  # warnings before notes


@pytest.mark.parametrize(("torn", "refused"), [(1, False), (2, True)])
def test_more_than_five_in_a_hundred_unreadable_is_too_many(
    tmp_path: Path, torn: int, refused: bool
) -> None:
    files = sound(train=12, others=4)  # 40 photos: 5 % are 2
    files |= {f"train/a/{i}.png": b"torn" for i in range(torn + 1)}
    found = audit(photo_set(tmp_path, files), 32)
    assert len(found.unreadable) == torn + 1
    assert (found.refusal is not None) == refused
    assert kinds(found)["unreadable"].severity == ("error" if refused else "warning")
    if refused:
        assert "3 of 40 photos cannot be read" in str(found.refusal)


def test_a_class_without_training_photos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train/empty").mkdir(parents=True)
    found = audit(photo_set(tmp_path, sound() | {"test/only here/1.png": encoded(9)}), 32)
    assert found.refusal == (
        "No readable training photo of empty, only here. Add some, or remove the class."
    )


def test_one_class_is_refused(tmp_path: Path) -> None:
    files = {name: data for name, data in sound().items() if not name.startswith("train/b")}
    found = audit(photo_set(tmp_path, files), 32)
    assert "Only 1 of the classes a, b has training photos" in str(found.refusal)
    assert found.findings[0].kind == "one_class"


def test_no_validation_is_refused_and_no_test_is_noted(tmp_path: Path) -> None:
    # By their content these few all happen to go to train.
    files = {"a/1.png": encoded(3), "b/2.png": encoded(0)}
    photos = photo_set(tmp_path, files)
    assert {photo.split for photo in photos.photos} == {"train"}
    found = audit(photos, 32)
    assert "no validation photos" in str(found.refusal)
    assert {"no_validation", "no_test", "split_made", "tiny_class"} == set(kinds(found))
    assert "train 2, validation 0, test 0" in kinds(found)["split_made"].message


def test_photos_without_a_label(tmp_path: Path) -> None:
    rows = "path,label,split\n"
    for i in range(24):
        (tmp_path / f"{i}.png").write_bytes(encoded(i))
        rows += f"{i}.png,{['x', 'x|y', ''][i % 3]},{['train', 'train', 'val'][i // 8]}\n"
    (tmp_path / "t.csv").write_text(rows)
    found = audit(open_photos(tmp_path), 32)
    assert len(kinds(found)["unlabelled"].files) == 8
    # Of the 16 training photos 6 are x, 5 are x and y, 5 neither.
    assert found.counts["train"] == {"x": 11, "y": 5}


def test_other_processes_see_the_same(tmp_path: Path) -> None:
    photos = photo_set(tmp_path, sound(train=110) | {"train/a/torn.png": b"\xff\xd8\xff"})
    done: list[int] = []
    together = audit(photos, 64, workers=2, progress=done.append)
    assert together == audit(photos, 64, workers=1)
    assert done == [100, 200, 229]


def test_a_dying_process_is_said(tmp_path: Path) -> None:
    photos = photo_set(tmp_path, sound())
    with pytest.raises(UserError, match="a process died"):
        scan(_Deadly(photos.store.path), [photo.name for photo in photos.photos], workers=2)


class _Deadly(FolderStore):
    """Ends the process that unpickles it, as the system does when memory runs out."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return _die, (1,)


def _die(status: int) -> None:
    os._exit(status)


def test_the_number_of_processes_follows_the_number_of_photos(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        spreading, "_chunks", lambda look, items, workers: asked.append(workers) or []
    )
    monkeypatch.setattr(spreading.os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    for photos in (0, 1999, 2000, 60_000):
        scan(FolderStore(tmp_path), ["x"] * photos)
    assert asked == [1, 1, 2, 4]
