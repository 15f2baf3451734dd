"""What is known of a session, and what that means for its requests. Nothing here waits or sends."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, TypedDict

import httpx2

from ._errors import (
    Draining,
    GatewayTimeout,
    GatewayUnreachable,
    HerdError,
    ResponseBroken,
    SessionLost,
    SessionNotFound,
)
from ._problem import error_of, is_admin

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Generator, Iterable, Mapping, Sequence

    from ._keys import Gateway

HERD_SESSION = "herd-session"
"""In a request: only if the session is there (``resume``), or end it (``end``). In an answer to that: ``ended``."""

HERD_WORKER = "herd-worker"
"""In an answer of a worker, and of nobody else."""

EXPLANATION_TIMEOUT = 5.0
"""How many seconds a gateway may take to say why an answer broke off."""

END_TIMEOUT = 30.0
"""How many seconds a worker may take to be gone: three times what workers usually have."""

HASTY_END_TIMEOUT = 1.0
"""The same where the program wants to be gone: what matters is that the gateway has heard of it."""

END_AGAIN_AFTER = 0.05
"""How many seconds after an end it is ended again, if requests can have begun it since."""

SETTLED_AFTER = 0.5
"""How many seconds the gateway may take to read a request that was given up; it may begin the session until then."""

# Failures of a session that is there all the same.
_ALIVE = {"worker-timeout", "worker-unreachable", "bad-gateway"}

if TYPE_CHECKING:
    Primitive = str | int | float | bool | None
    Params = Mapping[str, Primitive | Sequence[Primitive]]


class RequestOptions(TypedDict, total=False):
    """What a request can have, as httpx2 has it."""

    params: Params
    """Added to the query of the path."""
    headers: Mapping[str, str]
    content: str | bytes | Iterable[bytes] | AsyncIterable[bytes]
    """The body; an iterable is sent piece by piece."""
    data: Mapping[str, Any]
    """The fields of a form."""
    files: Mapping[str, Any]
    json: Any
    timeout: float | httpx2.Timeout | None
    """Seconds that any one step may take; ``None``: for ever."""


class State:
    """One session, as its client sees it."""

    def __init__(
        self, gateway: Gateway, session: str, on_use: Callable[[State], None], on_end: Callable[[State], None]
    ) -> None:
        self.gateway = gateway
        self.id = session
        self.worker: str | None = None
        self.process: int | None = None
        """The process that used it; another one, made by a fork, must not end it."""
        self.ending = False
        self.began = False
        """Whether the gateway has said that the session is there."""
        self._place = gateway.address(session, gateway.key.shortest_path)
        """Leads to the session's pool, where routes look at the path: what was answered last, or asked for before that."""
        self._loss: SessionLost | None = None
        self._first: set[int] = set()
        """Requests under way that begin the session if it is not there. What changes it is one step for all threads."""
        self._settled_at = 0.0
        """Until then a request that was given up may do so."""
        self._unsettled: set[httpx2.Request] = set()
        """Requests that may have begun the session, as far as is known."""
        self._is_shown = False
        """Whether other clients may have begun it."""
        self._on_use = on_use
        self._on_end = on_end

    def use(self) -> None:
        """From now on there may be something to end."""
        if self.process is None and not self.ending:
            self.process = os.getpid()
            self._on_use(self)

    @property
    def to_be_ended(self) -> bool:
        """Whether there may be something that this process has to end."""
        return self.process == os.getpid() and self._loss is None

    @property
    def may_be_there(self) -> bool:
        """Whether anything may have begun the session, so that somebody has to know if it could not be ended."""
        return self.began or self._is_shown or bool(self._unsettled)

    def ended(self) -> None:
        """There is nothing left to end."""
        self.process = None
        self._on_end(self)

    def headers(self) -> dict[str, str]:
        """All fields that a request of another client must have."""
        self._is_shown = True
        self.use()
        fields = self.gateway.fields(self.id)
        return {**fields, HERD_SESSION: "resume"} if self.began else fields

    def target(self, path: str, params: Params | None) -> httpx2.URL:
        """Where a request for this path goes."""
        return self.gateway.address(self.id, path, httpx2.QueryParams(params) if params else None)

    def shown(self, path: str) -> httpx2.URL:
        """The address for other clients."""
        url = self.gateway.shown(self.id, path)
        # Whatever opens that may begin the session, and nobody tells.
        self._aim(self.gateway.address(self.id, path))
        self._is_shown = True
        self.use()
        return url

    @contextmanager
    def under_way(self, request: httpx2.Request) -> Generator[None, None, None]:
        """Makes the request one of this session, if there is one still, and knows of it until it is answered."""
        # Whoever ends the session must see it, or it must see the end.
        self._first.add(id(request))
        try:
            if self._loss is not None:
                raise self.lost(self._loss.detail, self._loss)
            if self.ending:
                raise self._ended_here()
            self._dress(request)
            if self.began:
                self._first.discard(id(request))
            try:
                yield
            except HerdError as error:
                if error.status is None and not isinstance(error, SessionLost):
                    self._give_up()
                raise
            except BaseException:
                self._give_up()
                raise
        finally:
            self._first.discard(id(request))

    @property
    def is_settled(self) -> bool:
        """Whether no request can begin the session any more, once it is `ending`."""
        return not self._first and time.monotonic() >= self._settled_at

    def never_settled(self) -> GatewayTimeout:
        """Why the end of the session is not certain."""
        detail = f"the session {self.id} may be begun still, by a request that has no answer yet"
        return GatewayTimeout(detail, session=self.id)

    def _give_up(self) -> None:
        if not self.began:
            self._settled_at = time.monotonic() + SETTLED_AFTER

    def _ended_here(self) -> SessionLost:
        return SessionLost(f"the session {self.id} was ended by its own client", session=self.id)

    def _dress(self, request: httpx2.Request) -> None:
        self._aim(request.url)
        if not self.began:
            self._unsettled.add(request)
        self.use()
        self._sign(request)
        request.headers.pop(HERD_SESSION, None)
        if self.began:
            request.headers[HERD_SESSION] = "resume"

    def probe(self, url: httpx2.URL) -> httpx2.Request:
        """A request for what was asked before that changes nothing in a worker, if one gets it."""
        return _request("HEAD", url, EXPLANATION_TIMEOUT)

    def end(self, timeout: float) -> httpx2.Request:
        """The request that ends the session."""
        request = _request("DELETE", self._place, timeout)
        self._sign(request)
        request.headers[HERD_SESSION] = "end"
        return request

    def accept(self, request: httpx2.Request, status: int, headers: httpx2.Headers) -> HerdError | None:
        """Takes note of an answer that is no problem of the gateway's; what it answers is why it cannot be accepted."""
        if request.headers.get(HERD_SESSION) == "end":
            is_ended = status == 204 and headers.get(HERD_SESSION) == "ended"
            if not is_ended:
                return self._foreign(status, headers)
            # What was given up has begun it, if anything has.
            self._settled_at = 0.0
            return None
        self._unsettled.discard(request)
        worker = headers.get(HERD_WORKER)
        if worker is None:
            return self._foreign(status, headers)
        if self.ending and not self.began:
            # Whoever ends it waits for this, and ends again what it has begun.
            return self._ended_here()
        # A session has one worker all its life.
        if self.worker not in (None, worker):
            why = "somebody has begun it anew, or the path leads to another pool"
            return self.lost(f"the session {self.id} was with {self.worker}, and now {worker} answers: {why}")
        self.worker, self.began, self._place = worker, True, request.url
        self._unsettled.clear()
        return None

    def refuse(self, request: httpx2.Request, status: int, headers: httpx2.Headers, body: bytes) -> HerdError:
        """Takes note of a problem of the gateway's."""
        error = error_of(status, headers, body, self.id)
        self._unsettled.discard(request)
        if isinstance(error, SessionLost):
            return self.lost(error.detail, error)
        if isinstance(error, SessionNotFound) and self.began:
            # The gateway does not remember what is gone.
            return self.lost(f"the session {self.id} is gone: its worker crashed, or it was ended", error)
        if error.failure in _ALIVE:
            self.began = True
        return error

    def unanswered(self, request: httpx2.Request, error: httpx2.TransportError) -> HerdError:
        """Why a request got no answer."""
        if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
            self._unsettled.discard(request)
        if isinstance(error, (httpx2.ReadTimeout, httpx2.WriteTimeout)):
            return GatewayTimeout(f"the gateway at {self.gateway.origin} did not answer in time", session=self.id)
        return self._unreachable("does not answer", error)

    def broken(self, error: httpx2.TransportError) -> HerdError | None:
        """Why an answer broke off, if that is clear without a `probe`."""
        if self.ending:
            return self.lost("the session was ended by its own client while its worker answered")
        if isinstance(error, httpx2.TimeoutException):
            return ResponseBroken("the worker's answer did not go on in time", session=self.id)
        return None

    def explain(self, error: httpx2.TransportError, probed: HerdError | None) -> HerdError:
        """Why an answer broke off, now that the probe got an answer or this error."""
        match probed:
            case SessionLost():
                return self.lost(f"the answer broke off: {probed.detail}", probed)
            case GatewayUnreachable():
                return self._unreachable("went away while it answered", error)
            case Draining():
                return probed
            case _:
                return ResponseBroken(f"the worker's answer broke off: {error}", session=self.id)

    def lost(self, detail: str, said: HerdError | None = None) -> SessionLost:
        """The session is gone; all its requests learn that from now on."""
        lost = SessionLost(detail, session=self.id)
        if said is not None:
            lost.failure, lost.status, lost.problem = said.failure, said.status, said.problem
        if self._loss is None:
            self._loss = lost
            self.ended()
        return lost

    def _aim(self, url: httpx2.URL) -> None:
        """Until there is an answer, the session may begin wherever it was last asked for."""
        if not self.began:
            self._place = url

    def _sign(self, request: httpx2.Request) -> None:
        for name, value in self.gateway.fields(self.id).items():
            if name != "cookie":
                request.headers[name] = value
        cookies = self.gateway.cookies(request.headers.get("cookie"), self.id)
        if cookies is not None:
            request.headers["cookie"] = cookies
        if self.gateway.key.source == "host":
            request.headers["host"] = self.gateway.host_of(self.id)
            request.extensions = {**request.extensions, "sni_hostname": f"{self.id}.{self.gateway.url.host}"}

    def _unreachable(self, what: str, error: Exception) -> GatewayUnreachable:
        reason = str(error) or type(error).__name__
        return GatewayUnreachable(f"the gateway at {self.gateway.origin} {what}: {reason}", session=self.id)

    def recognise(self, error: GatewayUnreachable, body: bytes) -> GatewayUnreachable:
        """Says who it is that is not the gateway, if that is herd itself."""
        if not is_admin(body):
            return error
        detail = f"{self.gateway.origin} is herd's admin address; the gateway is another one, usually port 8080"
        return GatewayUnreachable(detail, status=error.status, session=self.id)

    def _foreign(self, status: int, headers: httpx2.Headers) -> GatewayUnreachable:
        who = "a gateway that knows no herd-session: end" if HERD_WORKER in headers else "not herd's gateway"
        detail = f"{who} answers at {self.gateway.origin}, with the status {status}"
        return GatewayUnreachable(detail, status=status, session=self.id)


def _request(method: str, url: httpx2.URL, timeout: float) -> httpx2.Request:
    return httpx2.Request(method, url, extensions={"timeout": httpx2.Timeout(timeout).as_dict()})
