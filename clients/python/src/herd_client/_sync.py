from __future__ import annotations

import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable

import httpx2

from ._connections import Closed, Connections, Reader
from ._errors import Forbidden, GatewayTimeout, GatewayUnreachable, HerdError, SessionLost, SessionNotFound
from ._forgotten import Forgotten, not_ended
from ._keys import Gateway, random_id
from ._problem import HERD_ERROR, MOST_BYTES, may_be_admin
from ._state import END_AGAIN_AFTER, END_TIMEOUT, HASTY_END_TIMEOUT, RequestOptions, State

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from types import TracebackType

    from typing_extensions import Self, Unpack

MOST_AT_ONCE = 16
"""How many sessions end at the same time."""

FIELDS = {"accept-encoding": "identity"}
"""A worker is not asked to compress: a little of what it sends could be unpacked into more than there is memory."""


class Herd:
    """A gateway of herd. Several threads may use it at once, and so may a child of a fork.

    Leaving its block, or `close`, closes its connections and ends the sessions that nobody has ended yet and whose IDs
    it has made itself. So does the end of the program.
    """

    def __init__(
        self,
        gateway: str = "http://127.0.0.1:8080",
        *,
        token: str | Callable[[], str] | None = None,
        session_key: str = "header:X-Session-ID",
        timeout: float | httpx2.Timeout | None = 60.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """
        Args:
            gateway: Its address. It may have a path, such as the ``path_prefix`` of a route.
            token: The bearer token, where the gateway has ``access``. A function is asked before each request, so that
                a token that expires can be replaced.
            session_key: The gateway's ``session_key``. Of a list, the first is used. ``path:N`` counts the segments
                after the path of ``gateway``.
            timeout: How many seconds connecting, or a pause while a request is sent or answered, may take; ``None``:
                for ever. A session's first request waits for its worker.
            tls: What to believe over ``https``, instead of the system's certificates.

        Raises:
            ValueError: If one of them is not what it should be.
        """
        self._gateway = Gateway.parse(gateway, session_key, token)
        self._timeout = timeout
        self._transport = Connections(tls)
        self._forgotten = Forgotten(self._end)

    def session(self, id: str | None = None) -> Session:
        """A session. Nothing is sent: its worker starts with its first request.

        Without ``id`` it gets one of 128 random bits, which nobody can guess. Whoever knows a session's ID is in that
        session.

        Raises:
            InvalidSession: If ``id`` is no session ID, or the session key cannot carry it.
            RuntimeError: If this is closed.
        """
        self._transport.check()
        if id is not None:
            self._gateway.key.check(id)
            return Session(State(self._gateway, id, _ignore, _ignore), self._transport, self._timeout)
        state = State(self._gateway, random_id(), self._forgotten.add, self._forgotten.remove)
        return Session(state, self._transport, self._timeout)

    def close(self) -> None:
        """Ends what nobody has ended, and closes all connections."""
        states = self._forgotten.take_all()
        if states:
            with ThreadPoolExecutor(min(len(states), MOST_AT_ONCE)) as threads:
                list(threads.map(self._end, states))
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Herd({str(self._gateway.url)!r})"

    def _end(self, state: State, timeout: float = HASTY_END_TIMEOUT) -> None:
        Session(state, self._transport, self._timeout)._leave(timeout)


class Session:
    """A session: its worker starts with the first request, keeps its state, and ends with the session.

    After the first answer, each request says that it is for that session alone: once it is lost, requests fail with
    `SessionLost` and no new session begins unnoticed.

    Leaving its block ends it. Several threads may use it at once. Its cookies are its own.
    """

    def __init__(
        self, state: State, transport: Connections, timeout: float | httpx2.Timeout | None
    ) -> None:
        self._state = state
        self._transport = _SessionTransport(transport, state)
        # Redirects could lead elsewhere with the session's ID and the token; and nobody else's credentials are to go
        # with them.
        self._client = httpx2.Client(
            transport=self._transport, headers=FIELDS, timeout=timeout, follow_redirects=False, trust_env=False
        )
        self._end_lock = threading.Lock()

    @property
    def id(self) -> str:
        """Its ID. Whoever knows it is in this session."""
        return self._state.id

    @property
    def worker(self) -> str | None:
        """The worker that answers, for example ``worker-3``; unknown before the first answer."""
        return self._state.worker

    @property
    def headers(self) -> dict[str, str]:
        """All fields that a request of another client must have, such as a WebSocket's or Playwright's.

        The token is among them. Read them when they are used: from the first answer on, they ask for this session and
        no new one.
        """
        return self._state.headers()

    def url(self, path: str) -> str:
        """The address of ``path`` in this session, for other clients.

        It has the ID in it where the session key says so, and never the token.

        Raises:
            ValueError: If ``path`` does not begin with a slash, or is too short for ``path:N``.
        """
        return str(self._state.shown(path))

    def websocket_url(self, path: str) -> str:
        """The same for WebSockets: ``ws:`` or, over TLS, ``wss:``."""
        return "ws" + self.url(path).removeprefix("http")

    def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """What the session's worker answers, whatever the status, with its whole body.

        Raises:
            HerdError: Why there is no answer of the worker. The type tells what to do.
            RuntimeError: If the `Herd` is closed.
            ValueError: If ``path`` does not begin with a slash, or is too short for ``path:N``.
        """
        url = self._state.target(path, options.pop("params", None))
        return self._client.request(method, url, **options)  # type: ignore[arg-type, misc, unused-ignore]

    def get(self, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """`request` with GET."""
        return self.request("GET", path, **options)

    def head(self, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """`request` with HEAD."""
        return self.request("HEAD", path, **options)

    def post(self, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """`request` with POST."""
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """`request` with PUT."""
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """`request` with PATCH."""
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """`request` with DELETE. It asks the worker; `end` ends the session."""
        return self.request("DELETE", path, **options)

    @contextmanager
    def stream(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Generator[httpx2.Response, None, None]:
        """Like `request`, but the body is read piece by piece: with ``iter_bytes()``, ``iter_lines()`` and so on.

        Raises:
            HerdError: Why there is no answer of the worker, or, while it is read, why it broke off.
        """
        url = self._state.target(path, options.pop("params", None))
        with self._client.stream(method, url, **options) as response:  # type: ignore[arg-type, misc, unused-ignore]
            yield response

    def end(self) -> None:
        """Ends the session, and returns when its worker is gone. A session that is not there any more is no error.

        Requests of this session that are under way fail with `SessionLost`.

        Raises:
            Forbidden: If sessions are the control plane's alone (``lookup_only``).
            HerdError: What else keeps it from being ended.
            RuntimeError: If the `Herd` is closed, and the session is still there.
        """
        self._end(END_TIMEOUT)

    def _end(self, timeout: float) -> None:
        with self._end_lock:
            self._state.ending = True
            try:
                if self._state.to_be_ended:
                    self._ask_for_end(time.monotonic() + timeout)
            except (HerdError, Closed):
                self._state.ending = False
                raise
            self._state.ended()

    def _ask_for_end(self, until: float) -> None:
        """Until no request can begin the session after the gateway has ended it, or has said that there is none."""
        is_settled = False
        while not is_settled:
            is_settled = self._state.is_settled
            try:
                self._transport.exchange(self._state.end(until - time.monotonic())).close()
            except (SessionLost, SessionNotFound):
                pass
            if not is_settled:
                if time.monotonic() + 2 * END_AGAIN_AFTER > until:
                    raise self._state.never_settled()
                time.sleep(END_AGAIN_AFTER)

    def _leave(self, timeout: float) -> None:
        """Ends the session, and lets whoever left it see their own errors alone."""
        try:
            self._end(timeout)
        except (HerdError, Closed) as error:
            # The gateway has heard of it, and ends it whether anybody waits or not; or it is not the client's to end.
            is_heard = isinstance(error, GatewayTimeout) and self._state.is_settled
            if not is_heard and not isinstance(error, Forbidden):
                not_ended(self._state, error)
            self._state.ending = True
            self._state.ended()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_in_haste = kind is not None and not issubclass(kind, Exception)
        self._leave(HASTY_END_TIMEOUT if is_in_haste else END_TIMEOUT)

    def __repr__(self) -> str:
        return f"<Session {self.id!r} of {self._state.gateway.origin}>"


class _SessionTransport(httpx2.BaseTransport):
    """Makes requests the session's, and tells answers of its worker from everything else."""

    def __init__(self, transport: Connections, state: State) -> None:
        self._transport = transport
        self._state = state

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        # Before all: that the session has been ended is the lesser news.
        self._transport.check()
        with self._state.under_way(request):
            response = self.exchange(request)
        assert isinstance(response.stream, httpx2.SyncByteStream)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Stream(response.stream, self, request.url),
            extensions=response.extensions,
        )

    def exchange(self, request: httpx2.Request) -> httpx2.Response:
        """Sends a request, and raises what the gateway says instead of a worker."""
        try:
            response = self._transport.handle_request(request)
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol):
            # The caller's mistake says nothing of the gateway.
            raise
        except httpx2.TransportError as error:
            raise self._state.unanswered(request, error) from error
        status, headers = response.status_code, response.headers
        if HERD_ERROR in headers:
            raise self._state.refuse(request, status, headers, _beginning(response))
        wrong = self._state.accept(request, status, headers)
        if wrong is None:
            return response
        if isinstance(wrong, GatewayUnreachable) and may_be_admin(headers):
            wrong = self._state.recognise(wrong, _beginning(response))
        response.close()
        raise wrong

    def explain(self, url: httpx2.URL, error: httpx2.TransportError) -> HerdError:
        """Asks the gateway why an answer of this address broke off, unless that is clear."""
        known = self._state.broken(error)
        if known is not None:
            return known
        try:
            self.handle_request(self._state.probe(url)).close()
        except HerdError as probed:
            return self._state.explain(error, probed)
        return self._state.explain(error, None)


class _Stream(httpx2.SyncByteStream):
    """A body of a worker. Where it breaks off, it says why."""

    def __init__(self, stream: httpx2.SyncByteStream, transport: _SessionTransport, url: httpx2.URL) -> None:
        self._stream = stream
        self._transport = transport
        self._url = url
        self._reader = Reader()

    def __iter__(self) -> Iterator[bytes]:
        self._reader.check()
        try:
            yield from self._stream
        except httpx2.TransportError as error:
            raise self._transport.explain(self._url, error) from error

    def close(self) -> None:
        if self._reader.is_here:
            self._stream.close()


def _beginning(response: httpx2.Response) -> bytes:
    """The body, or nothing if it is too long or breaks off."""
    body = b""
    try:
        for piece in response.iter_raw():
            body += piece
            if len(body) > MOST_BYTES:
                return b""
        return body
    except httpx2.TransportError:
        return b""
    finally:
        response.close()


def _ignore(_: State) -> None:
    """A session whose ID somebody has chosen is theirs to end."""
