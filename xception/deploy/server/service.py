"""From the body of a request to the answer: take apart, decode, compute together, put into words.

Only this order of steps runs in the event loop; each step runs in a thread.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from xception.data.images import ImageError
from xception.deploy.server.answers import Answerer, header_size
from xception.deploy.server.batcher import Batcher, Pace
from xception.deploy.server.bodies import Bodies, Photo, is_multipart, split_multipart
from xception.deploy.server.gate import Gate, Visit
from xception.deploy.server.limits import Limits
from xception.deploy.server.metrics import Metrics
from xception.deploy.server.refusal import Refusal, busy

T = TypeVar("T")


class Gone(Exception):
    """The caller went away before the answer."""


class Service:
    """A model behind a queue.

    Args:
        answerer: the model.
        limits: sizes, counts and times.
        metrics: where it is counted.
        pace: the batches to make, and how long one takes.
        wait_seconds: how long a photo may wait for others to be computed with.
        workers: batches computed at the same time.
        decoders: files decoded at the same time.
    """

    def __init__(
        self,
        answerer: Answerer,
        limits: Limits,
        metrics: Metrics,
        *,
        pace: Pace,
        wait_seconds: float,
        workers: int,
        decoders: int,
    ):
        self.limits = limits
        self.answerer = answerer
        self.bodies = Bodies(limits)
        self.gate = Gate(
            limits.queue,
            limits.patience_seconds,
            photo_seconds=pace.batch_seconds / pace.batch_size / workers,
        )
        self._metrics = metrics
        self._batcher = Batcher(
            answerer.compute,
            batch_size=pace.batch_size,
            wait_seconds=wait_seconds,
            workers=workers,
            observe=metrics.observe_batch,
        )
        self._decoders = ThreadPoolExecutor(decoders, "decode")
        # Decoded photos are large: no more of them than keep the workers and decoders busy. The
        # others wait as the files that they came as. One that is given up while a thread is at it
        # stays until the thread is done, beside these; what waits for a thread goes at once.
        self._decoded = asyncio.Semaphore(2 * workers * pace.batch_size + decoders)
        metrics.gauge("photos_inside", "Photos accepted, not yet answered.", self._inside)
        metrics.gauge("body_bytes", "Bodies in memory.", self._body_bytes)

    def healthy(self) -> bool:
        """Whether every worker is there."""
        return self._batcher.alive()

    def close(self) -> None:
        """Finish what was accepted, and end the threads."""
        self._batcher.close()
        self._decoders.shutdown()

    async def answer(self, request: Request, top: int) -> tuple[int, dict[str, Any]]:
        """Status and content of the answer to `POST /predict`.

        Raises `Refusal`, and `Gone` if the caller did not wait.
        """
        self.gate.check()  # before the body, which would be read for nothing
        async with self.bodies.take(request) as body:
            if not body:
                raise Refusal(400, "the body is empty; send a photo", "empty")
            with self.gate.visit() as visit:
                visit.bring(1)
                content_type = request.headers.get("content-type", "")
                work = self._answer(body, content_type, visit, top)
                answers = await while_waiting(request, self._in_time(work))
                visit.answered()
        readable = sum("error" not in answer for answer in answers)
        self._metrics.photos.labels("answered").inc(readable)
        self._metrics.photos.labels("unreadable").inc(len(answers) - readable)
        content: dict[str, Any] = {**self.answerer.about(), "answers": [*answers]}
        return (200 if readable else 422), content

    async def _in_time(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self.limits.answer_seconds):
                return await work
        except TimeoutError:
            raise busy(self.gate.wait_seconds()) from None

    async def _answer(
        self, body: bytes, content_type: str, visit: Visit, top: int
    ) -> list[dict[str, Any]]:
        photos = [Photo("", body)]
        if is_multipart(content_type):
            most = self.limits.photos
            photos = await _in_thread(None, split_multipart, body, content_type, most)
            if not photos:
                raise Refusal(400, "the body holds no file; send a photo", "empty")
            if len(photos) > 1:
                visit.bring(len(photos) - 1)
        return await _all(*(self._answer_one(photo, top) for photo in photos))

    async def _answer_one(self, photo: Photo, top: int) -> dict[str, Any]:
        answer: dict[str, Any] = {"name": photo.name} if photo.name else {}
        try:
            async with self._decoded:
                prepared = await _in_thread(self._decoders, self._prepare, photo.data)
                outcome = await asyncio.wrap_future(self._batcher.submit(prepared))
        except ImageError as error:
            return {**answer, "error": error.reason}
        shown = await _in_thread(self._decoders, self.answerer.present, outcome, top)
        return {**answer, **shown}

    def _prepare(self, data: bytes) -> Any:
        return self.answerer.prepare(data, header_size(data, self.limits.pixels))

    def _inside(self) -> float:
        return self.gate.inside

    def _body_bytes(self) -> float:
        return self.bodies.total_bytes


async def _in_thread(pool: ThreadPoolExecutor | None, work: Callable[..., T], *arguments: Any) -> T:
    """The result of `work`, in a thread of `pool`; None is the loop's own.

    A pool keeps what was given up until its turn comes, but no longer what it was about.
    """
    held = [arguments]
    try:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, lambda: work(*held.pop()))
    finally:
        held.clear()


async def _all(*work: Awaitable[T]) -> list[T]:
    """All results; when one fails, the others are given up and the error is passed on."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def while_waiting(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is given up when the caller goes away: then raises `Gone`."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        watch.cancel()
        task.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
