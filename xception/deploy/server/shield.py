"""What stands around every request: who may ask, how long it may take, and what is written down."""

import asyncio
import ipaddress
import secrets
import time
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xception.deploy.server.keys import Keys
from xception.deploy.server.limits import Limits
from xception.deploy.server.logs import log, log_fault
from xception.deploy.server.metrics import Metrics
from xception.deploy.server.refusal import Refusal, busy

#: Paths that tell nothing of the model and need no key.
OPEN = frozenset({"/", "/page.css", "/page.js", "/icon.svg", "/health", "/ready", "/openapi.json"})
#: All paths; the metrics know no others, or a caller could fill the memory with them.
PATHS = OPEN | {"/predict", "/card", "/metrics"}

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
CALLER_LEFT = 499  # for log and metrics, as nginx has it
ANSWER = "xception.answer"  # where the scope of a request has its `Answer`


@dataclass(frozen=True)
class Doors:
    """Who may ask."""

    keys: Keys | None = None
    """One of them is needed for all that is not `OPEN`; None asks for none."""
    local_only: bool = False
    """Answer only to the names of this machine. A web page elsewhere whose name was made to mean
    127.0.0.1 after it was loaded ("DNS rebinding") is then refused."""

    def check(self, method: str, path: str, headers: Headers) -> None:
        """Raises `Refusal`: 401 no key, 403 another site's page, 421 another host's name."""
        if path in OPEN:
            return
        if self.local_only and not is_local(headers.get("host", "")):
            raise Refusal(421, "this server answers to localhost only", "host")
        if self._foreign(method, headers):
            raise Refusal(403, "pages of other sites may not use this server", "origin")
        if self.keys is not None and not self.keys.open_for(headers.get("authorization")):
            raise Refusal(401, "send a key: Authorization: Bearer KEY", "key")

    def _foreign(self, method: str, headers: Headers) -> bool:
        """Whether a browser says that a page of another site asks."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is not None:
            return site in ("cross-site", "same-site")
        # To plain http on another machine browsers do not send that, but `Origin` with every POST.
        # No page can send a key, so where keys are asked for a proxy may rename the host.
        if self.keys is not None or method != "POST" or origin is None:
            return False
        return not same_host(origin, headers.get("host", ""))


class Shield:
    """The outermost part of the app: nothing but bytes of HTTP passes it.

    Args:
        app: what answers.
        limits: the bounds of time.
        doors: who may ask.
        metrics: where it is counted.
    """

    def __init__(self, app: ASGIApp, limits: Limits, doors: Doors, metrics: Metrics):
        self._app = app
        self._limits = limits
        self._doors = doors
        self._metrics = metrics
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass on the news of start and stop."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = Answer(send, self)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                await self._serve(scope, receive, answer)
        except TimeoutError:
            await answer.refuse(busy(1.0), scope, receive)
        except Exception as error:
            log_fault("fault", error, id=answer.id)
            await answer.refuse(answer.fault(), scope, receive)
        finally:
            self._note(scope, answer, time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, answer: "Answer") -> None:
        headers = Headers(scope=scope)
        try:
            if "transfer-encoding" in headers:  # see `Connection._begun`
                raise Refusal(411, "send the length of the body (Content-Length)", "length")
            self._doors.check(scope["method"], scope["path"], headers)
            scope[ANSWER] = answer
            await self._app(scope, receive, answer.send)
        except Refusal as refusal:
            await answer.refuse(refusal, scope, receive)
        except ClientDisconnect:
            answer.status = answer.status or CALLER_LEFT

    def _note(self, scope: Scope, answer: "Answer", seconds: float) -> None:
        path = scope["path"] if scope["path"] in PATHS else "other"
        status = answer.status or CALLER_LEFT
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        for reason in answer.refused:
            self._metrics.refusals.labels(reason).inc()
        client = scope.get("client")
        log(
            "request",
            id=answer.id,
            method=scope["method"][:10],
            path=path,
            status=status,
            ms=round(1000 * seconds, 1),
            client=client[0] if client else None,
            refused=answer.refused[0] if answer.refused else None,
        )


class Answer:
    """The answer on its way out: gets its headers, and is noticed."""

    def __init__(self, send: Send, shield: Shield):
        self.id = secrets.token_hex(8)
        self.status: int | None = None
        self.refused: list[str] = []
        self._send = send
        self._shield = shield

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
            headers["X-Request-Id"] = self.id
            # An early refusal leaves a body on its way: closing at once would drop the answer too.
            if self._shield.draining and message["status"] < 400:
                headers["Connection"] = "close"
        await self._send(message)

    async def refuse(self, refusal: Refusal, scope: Scope, receive: Receive) -> None:
        """Say no, unless an answer has already begun."""
        if self.status is None:
            await self.written(refusal)(scope, receive, self.send)

    def written(self, refusal: Refusal) -> Response:
        """The response of a refusal, its reason noted."""
        self.refused.append(refusal.reason)
        return refusal.response()

    def fault(self) -> Refusal:
        """What to say where we failed."""
        return Refusal(500, f"a fault of the server, written down as {self.id}", "fault")


def same_host(origin: str, host: str) -> bool:
    """Whether an Origin header names the host and port of a Host header.

    Which of http and https it was is not compared: a proxy may speak the one to callers and the
    other to the server.
    """
    scheme, _, place = origin.lower().partition("://")
    usual = {"http": ":80", "https": ":443"}.get(scheme, "")
    return bool(place) and place.removesuffix(usual) == host.lower().removesuffix(usual)


def is_local(host: str) -> bool:
    """Whether a Host header, with or without a port, is a name of this machine."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to listen on."""
    try:  # an address alone first: of ::1:5 the 5 is no port
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return is_local(host)
