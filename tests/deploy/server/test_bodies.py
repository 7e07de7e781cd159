import asyncio

import pytest
from starlette.requests import Request

from xception.deploy.server.bodies import Bodies, Photo, is_multipart, split_multipart
from xception.deploy.server.limits import Limits
from xception.deploy.server.refusal import Refusal

KIND = "multipart/form-data; boundary=edge"


def part(content: bytes, disposition: str = 'form-data; name="photo"; filename="a.jpg"') -> bytes:
    head = f"Content-Disposition: {disposition}\r\nContent-Type: image/jpeg\r\n\r\n"
    return b"--edge\r\n" + head.encode() + content + b"\r\n"


END = b"--edge--\r\n"


def test_the_files_of_a_body():
    awkward = b"\r\n--edg\r\n--edgy\r\n\r\n--\x00\xff" * 50
    body = part(b"first") + part(awkward, 'form-data; name="x"; filename="b.png"') + END
    photos = split_multipart(body, KIND, 5)
    assert photos[0] == Photo("a.jpg", b"first")
    assert photos[1].data == awkward


def test_names_are_given_back_as_text_of_some_length():
    names = ['form-data; filename="grün 中.png"', f'form-data; filename="{"x" * 500}"']
    photos = split_multipart(part(b"1", names[0]) + part(b"2", names[1]) + END, KIND, 5)
    assert [photo.name for photo in photos] == ["grün 中.png", "x" * 200]
    (photo,) = split_multipart(part(b"1").replace(b"a.jpg", b"\xff\xfe") + END, KIND, 5)  # no UTF-8
    assert photo.name == "\ufffd\ufffd"


def test_an_empty_body_of_parts():
    assert split_multipart(END, KIND, 5) == []


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (part(b"x") + END, "multipart/form-data", 400),
        (part(b"x") + END, "multipart/form-data; boundary=", 400),
        (part(b"x") + END, "multipart/form-data; boundary=" + "x" * 300, 400),
        (part(b"x") + END, "multipart/form-data; boundary=other", 400),
        (part(b"x"), KIND, 400),  # no end
        (part(b"x")[:-9], KIND, 400),
        (b"", KIND, 400),
        (b"nonsense", KIND, 400),
        (part(b"x", 'form-data; name="top"') + END, KIND, 400),  # a field, no file
        (b"--edge\r\nNo colon\r\n\r\nx\r\n" + END, KIND, 400),
        (b"--edge\r\n" + b"A: b\r\n" * 100 + b"\r\nx\r\n" + END, KIND, 400),
        (b"--edge\r\nA: " + b"b" * 10_000 + b"\r\n\r\nx\r\n" + END, KIND, 400),
        (part(b"x") * 6 + END, KIND, 413),
    ],
)
def test_bodies_that_are_refused(body: bytes, kind: str, status: int):
    with pytest.raises(Refusal) as refusal:
        split_multipart(body, kind, 5)
    assert refusal.value.status == status
    assert len(refusal.value.message) < 400


def test_who_was_told_to_end_and_goes_on_is_refused():
    """Its next bytes may be read in the same turn of the loop as it is told."""
    bodies = Bodies(Limits(body_bytes=100, bodies_bytes=100))
    told = asyncio.Event()

    async def take(*sizes: int, after: asyncio.Event | None = None) -> None:
        async def receive() -> dict[str, object]:
            size = left.pop(0)
            if after is not None and len(left) < len(sizes) - 1:
                await after.wait()
            elif after is None and not left:
                told.set()
            return {"type": "http.request", "body": bytes(size), "more_body": bool(left)}

        left = [*sizes]
        request = Request({"type": "http", "headers": []}, receive)
        async with bodies.take(request):
            await asyncio.sleep(0)

    async def both() -> list[BaseException | None]:
        slow = asyncio.ensure_future(take(60, 60, 1, after=told))
        await asyncio.sleep(0)
        quick = asyncio.ensure_future(take(90))
        return list(await asyncio.gather(slow, quick, return_exceptions=True))

    slow, quick = asyncio.run(both())
    assert quick is None
    assert isinstance(slow, Refusal)
    assert slow.status in (408, 503)
    assert bodies.total_bytes == 0


def test_what_is_multipart():
    assert is_multipart(KIND)
    assert is_multipart("Multipart/Form-Data ; boundary=x")
    assert not is_multipart("image/jpeg")
    assert not is_multipart("application/x-www-form-urlencoded")  # what curl says of any file
    assert not is_multipart("")
