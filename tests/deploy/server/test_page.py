"""The page in a real browser, as people use it: mouse, keyboard, clipboard, telephone."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Page, chromium
from live_server import ColourModel, Live, live, photo
from PIL import Image

from xception.deploy.server.keys import Keys
from xception.deploy.server.shield import Doors

KEY = "correct-horse-battery-staple"
READY = "document.querySelector('#about').innerText.trim() !== ''"
SAID = "document.querySelector('#status').innerText"
ERROR = "document.querySelector('#error').innerText"

# Of every element with text of its own: its colour against what lies behind it, by WCAG 2.
CONTRAST = """
(() => {
  const light = ([r, g, b]) => {
    const linear = [r, g, b].map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter((one) => one.checkVisibility() && [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((one) => {
      const [a, b] = [light(numbers(getComputedStyle(one).color)), light(behind(one))];
      return [one.tagName + "#" + one.id, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
})()
"""  # noqa: E501


class MaskModel(ColourModel):
    """The left half of a photo is `wall`, the right one `sky`; the third class is nowhere."""

    def prepare(self, data: bytes, size: tuple[int, int]) -> np.ndarray:
        mask = np.zeros((size[1], size[0]), np.uint8)
        mask[:, size[0] // 2 :] = 2
        return mask

    def present(self, outcome: Any, top: int) -> dict[str, Any]:
        image = Image.fromarray(outcome)
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        file = io.BytesIO()
        image.save(file, "PNG")
        return {
            "size": [image.width, image.height],
            "mask": base64.b64encode(file.getvalue()).decode(),
            "coverage": {"wall": 0.5, "sky": 0.5},
        }

    def about(self) -> dict[str, Any]:
        return {
            "task": "segmentation",
            "classes": ["wall", "floor", "sky"],
            "colours": ["#0a141e", "#28323c", "#46505a"],
        }


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(autouse=True)
def no_complaints(page: Page) -> Iterator[None]:
    page.complaints.clear()
    page.requests.clear()
    page.screen(1200, 900)
    yield
    assert page.complaints == []
    addresses = {url.split("/")[2].split(":")[0] for url in page.requests if url[:4] == "http"}
    assert addresses == {"127.0.0.1"}  # nothing from elsewhere


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with live(ColourModel(), doors=Doors(local_only=True)) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / f"{name}.png" for name in ("red", "green", "blue", "broken")}
    found["red"].write_bytes(photo((200, 50, 0), size=(80, 60)))
    found["green"].write_bytes(photo((50, 200, 0), size=(80, 60)))
    found["blue"].write_bytes(photo((0, 50, 200), size=(80, 60)))
    found["broken"].write_bytes(photo(size=(80, 60))[:-30])
    return found


def visit(page: Page, server: Live) -> None:
    page.open(f"http://127.0.0.1:{server.port}/")
    page.until(READY)


def test_pick_drop_and_paste(page: Page, server: Live, files: dict[str, Path]):
    visit(page, server)
    assert page.text("#about") == "colours · 3 classes"

    page.choose("#file", files["red"])
    page.until(f"{SAID} === 'red, 80.0 %'")
    assert page.text("#bars").split() == [
        "red",
        "80.0",
        "%",
        "green",
        "20.0",
        "%",
        "blue",
        "0.0",
        "%",
    ]
    widths = page.run("[...document.querySelectorAll('.fill')].map((one) => one.offsetWidth)")
    track = page.run("document.querySelector('.track').offsetWidth")
    assert widths == pytest.approx([0.8 * track, 0.2 * track, 0], abs=1)
    assert page.run("document.querySelector('#photo').naturalWidth") == 80

    page.drop(files["green"], 600, 300)
    page.until(f"{SAID} === 'green, 80.0 %'")
    assert page.run("location.pathname") == "/"  # the browser did not open the file itself

    page.call(
        "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]
    )
    page.call("Page.bringToFront")
    encoded = base64.b64encode(files["blue"].read_bytes()).decode()
    page.run(
        f"""(async () => {{
          const bytes = Uint8Array.from(atob("{encoded}"), (c) => c.charCodeAt(0));
          const blob = new Blob([bytes], {{ type: "image/png" }});
          await navigator.clipboard.write([new ClipboardItem({{ "image/png": blob }})]);
        }})()"""
    )
    page.press("v", code=86, modifiers=2, command="paste")
    page.until(f"{SAID} === 'blue, 80.0 %'")


def test_a_file_that_is_no_photo_is_named(page: Page, server: Live, files: dict[str, Path]):
    visit(page, server)
    page.choose("#file", files["broken"])
    page.until(f"{ERROR} !== ''")
    assert "This file cannot be used: truncated or damaged PNG" in page.text("#error")
    assert page.run("document.querySelector('#answer').hidden")
    assert page.run("document.querySelector('#error').getAttribute('role')") == "alert"
    page.choose("#file", files["red"])  # and it goes on
    page.until(f"{SAID} === 'red, 80.0 %' && {ERROR} === ''")
    # The browser itself writes each answer of 4xx to its console.
    page.complaints[:] = [text for text in page.complaints if "status of 422" not in text]


def test_a_telephone(page: Page, server: Live, files: dict[str, Path]):
    page.screen(360, 740)
    visit(page, server)
    page.choose("#file", files["red"])
    page.until(f"{SAID} === 'red, 80.0 %'")
    assert page.run("document.documentElement.scrollWidth") == 360
    cut = """[...document.querySelectorAll("main *")].filter((one) => one.checkVisibility() && one.id !== "file")
      .filter((one) => one.getBoundingClientRect().right > 360 || one.getBoundingClientRect().left < 0)
      .map((one) => one.outerHTML.slice(0, 80))"""  # noqa: E501
    assert page.run(cut) == []
    small = """[...document.querySelectorAll("button, .drop, input[type=range], .legend label")]
      .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 44)
      .map((one) => one.outerHTML)"""
    assert page.run(small) == []


@pytest.mark.parametrize("dark", [False, True])
def test_everything_can_be_read_and_has_a_name(
    page: Page, server: Live, files: dict[str, Path], dark: bool
):
    page.screen(1200, 900, dark=dark)
    visit(page, server)
    page.choose("#file", files["red"])
    page.until(f"{SAID} === 'red, 80.0 %'")
    found = page.run(CONTRAST)
    assert len(found) > 8
    assert [one for one in found if one[1] < 4.5] == []
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(23, 22, 20)" if dark else "rgb(251, 250, 247)")
    assert page.run("document.documentElement.lang") == "en"
    assert page.names("heading") == ["What is in this photo?"]
    assert page.run("document.title") == "What is in this photo?"
    assert all(page.names("image"))
    ids = page.run("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(set(ids)) == len(ids)


def test_the_keyboard_reaches_everything_and_shows_where_it_is(page: Page):
    with live(MaskModel(), doors=Doors(Keys([KEY]))) as server:
        page.open(f"http://127.0.0.1:{server.port}/")
        page.until("!document.querySelector('#key-row').hidden")
        assert page.text("#error") == "This server wants a key."
        assert page.run("document.activeElement.id") == "key"
        for letter in KEY:
            page.press(letter, code=0)
        page.press("Enter", code=13)
        page.run("document.querySelector('#ask').requestSubmit()")
        page.until(READY)
        assert page.text("#about") == "colours · 3 classes"
        page.run("document.activeElement.blur()")
        seen = []
        for _ in range(6):
            page.press("Tab", code=9)
            seen.append(page.run("document.activeElement.id || document.activeElement.tagName"))
            ring = """(() => {
              const one = document.activeElement.closest(".drop") ?? document.activeElement;
              return getComputedStyle(one).outlineStyle;
            })()"""
            if seen[-1] != "BODY":
                assert page.run(ring) == "solid"
        assert {"key", "BUTTON", "file"} <= set(seen)
        for role in ("textbox", "button"):
            assert all(page.names(role))
    page.complaints[:] = [text for text in page.complaints if "status of 401" not in text]


def test_a_mask_lies_over_the_photo(page: Page, files: dict[str, Path]):
    pixels = """(() => {
      const canvas = document.querySelector("#mask");
      const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return [[...all.data.slice(0, 4)], [...all.data.slice(-4)]];
    })()"""
    with live(MaskModel()) as server:
        page.screen(360, 740)
        visit(page, server)
        page.choose("#file", files["red"])
        page.until(f"{SAID} === 'wall covers 50.0 %'")
        assert page.text("#legend").split() == ["wall", "50.0", "%", "sky", "50.0", "%"]
        assert page.run("document.documentElement.scrollWidth") == 360
        left, right = page.run(pixels)
        assert (left[3], right[3]) == (153, 153)  # 60 %
        assert left[:3] == pytest.approx([10, 20, 30], abs=1)
        assert right[:3] == pytest.approx([70, 80, 90], abs=1)
        boxes = page.run(
            """["#photo", "#mask"].map((id) => {
              const box = document.querySelector(id).getBoundingClientRect();
              return [box.left, box.top, box.width, box.height];
            })"""
        )
        assert boxes[0] == pytest.approx(boxes[1], abs=0.6)
        assert boxes[0][2] > 200

        page.run("document.querySelector('#opacity').focus()")
        page.press("ArrowRight", code=39)
        assert page.text("#opacity-value") == "65 %"
        page.run("document.querySelector('#legend input').focus()")
        page.press(" ", code=32)
        left, right = page.run(pixels)
        assert (left[3], right[3]) == (0, 166)  # the wall is hidden
        assert page.names("slider") == ["Opacity of the mask"]
        assert [name.split()[0] for name in page.names("checkbox")] == ["wall", "sky"]
        assert [one for one in page.run(CONTRAST) if one[1] < 4.5] == []
