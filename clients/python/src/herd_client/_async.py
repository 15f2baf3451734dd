from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Callable

import anyio
import httpx2

from ._connections import AsyncConnections, Closed, Reader
from ._errors import Forbidden, GatewayTimeout, GatewayUnreachable, HerdError, SessionLost, SessionNotFound
from ._forgotten import Forgotten, end_outside_of_loops, not_ended
from ._keys import Gateway, random_id
from ._problem import HERD_ERROR, MOST_BYTES, may_be_admin
from ._state import END_AGAIN_AFTER, END_TIMEOUT, HASTY_END_TIMEOUT, RequestOptions, State
from ._sync import FIELDS, _ignore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from types import TracebackType

    from typing_extensions import Self, Unpack


class AsyncHerd:
    """A gateway of herd, for asyncio.

    Leaving its block, or `aclose`, closes its connections and ends the sessions that nobody has ended yet and whose IDs
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
        """As for `Herd`."""
        self._gateway = Gateway.parse(gateway, session_key, token)
        self._timeout = timeout
        self._transport = AsyncConnections(tls)
        self._forgotten = Forgotten(end_outside_of_loops(tls))

    def session(self, id: str | None = None) -> AsyncSession:
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
            return AsyncSession(State(self._gateway, id, _ignore, _ignore), self._transport, self._timeout)
        state = State(self._gateway, random_id(), self._forgotten.add, self._forgotten.remove)
        return AsyncSession(state, self._transport, self._timeout)

    async def aclose(self) -> None:
        """Ends what nobody has ended, and closes all connections."""
        sessions = [AsyncSession(state, self._transport, self._timeout) for state in self._forgotten.take_all()]
        await asyncio.gather(*(session._leave(HASTY_END_TIMEOUT) for session in sessions))
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncHerd({str(self._gateway.url)!r})"


class AsyncSession:
    """A session: its worker starts with the first request, keeps its state, and ends with the session.

    After the first answer, each request says that it is for that session alone: once it is lost, requests fail with
    `SessionLost` and no new session begins unnoticed.

    Leaving its block ends it, also when its task is cancelled. Several tasks may use it at once. Its cookies are its
    own.
    """

    def __init__(
        self, state: State, transport: AsyncConnections, timeout: float | httpx2.Timeout | None
    ) -> None:
        self._state = state
        self._transport = _SessionTransport(transport, state)
        # Redirects could lead elsewhere with the session's ID and the token; and nobody else's credentials are to go
        # with them.
        self._client = httpx2.AsyncClient(
            transport=self._transport, headers=FIELDS, timeout=timeout, follow_redirects=False, trust_env=False
        )
        self._ending: asyncio.Task[None] | None = None

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

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """What the session's worker answers, whatever the status, with its whole body.

        Raises:
            HerdError: Why there is no answer of the worker. The type tells what to do.
            RuntimeError: If the `AsyncHerd` is closed.
            ValueError: If ``path`` does not begin with a slash, or is too short for ``path:N``.
        """
        url = self._state.target(path, options.pop("params", None))
        return await self._client.request(method, url, **options)  # type: ignore[arg-type, misc, unused-ignore]

    async def get(self, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """`request` with GET."""
        return await self.request("GET", path, **options)

    async def head(self, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """`request` with HEAD."""
        return await self.request("HEAD", path, **options)

    async def post(self, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """`request` with POST."""
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """`request` with PUT."""
        return await self.request("PUT", path, **options)

    async def patch(self, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """`request` with PATCH."""
        return await self.request("PATCH", path, **options)

    async def delete(self, path: str, **options: Unpack[RequestOptions]) -> httpx2.Response:
        """`request` with DELETE. It asks the worker; `end` ends the session."""
        return await self.request("DELETE", path, **options)

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, **options: Unpack[RequestOptions]
    ) -> AsyncGenerator[httpx2.Response, None]:
        """Like `request`, but the body is read piece by piece: with ``aiter_bytes()``, ``aiter_lines()`` and so on.

        Raises:
            HerdError: Why there is no answer of the worker, or, while it is read, why it broke off.
        """
        url = self._state.target(path, options.pop("params", None))
        async with self._client.stream(method, url, **options) as response:  # type: ignore[arg-type, misc, unused-ignore]
            yield response

    async def end(self) -> None:
        """Ends the session, and returns when its worker is gone. A session that is not there any more is no error.

        Requests of this session that are under way fail with `SessionLost`. Cancelled, it still sees to it that the
        gateway hears of the end, for which it takes up to a second.

        Raises:
            Forbidden: If sessions are the control plane's alone (``lookup_only``).
            HerdError: What else keeps it from being ended.
            RuntimeError: If the `AsyncHerd` is closed, and the session is still there.
        """
        await self._end(END_TIMEOUT)

    async def _end(self, timeout: float) -> None:
        self._state.ending = True
        if not self._state.to_be_ended:
            self._state.ended()
            return
        if self._ending is None:
            self._ending = asyncio.create_task(self._ask_for_end(time.monotonic() + timeout))
        ending = self._ending
        await _finish(ending)
        try:
            ending.result()
        except (HerdError, Closed):
            self._ending, self._state.ending = None, False
            raise

    async def _ask_for_end(self, until: float) -> None:
        """Until no request can begin the session after the gateway has ended it, or has said that there is none."""
        is_settled = False
        while not is_settled:
            is_settled = self._state.is_settled
            try:
                response = await self._transport.exchange(self._state.end(until - time.monotonic()))
                await response.aclose()
            except (SessionLost, SessionNotFound):
                pass
            if not is_settled:
                if time.monotonic() + 2 * END_AGAIN_AFTER > until:
                    raise self._state.never_settled()
                await asyncio.sleep(END_AGAIN_AFTER)
        self._state.ended()

    async def _leave(self, timeout: float) -> None:
        """Ends the session, and lets whoever left it see their own errors alone."""
        try:
            await self._end(timeout)
        except (HerdError, Closed) as error:
            # The gateway has heard of it, and ends it whether anybody waits or not; or it is not the client's to end.
            is_heard = isinstance(error, GatewayTimeout) and self._state.is_settled
            if not is_heard and not isinstance(error, Forbidden):
                not_ended(self._state, error)
            self._state.ending = True
            self._state.ended()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_in_haste = kind is not None and not issubclass(kind, Exception)
        await self._leave(HASTY_END_TIMEOUT if is_in_haste else END_TIMEOUT)

    def __repr__(self) -> str:
        return f"<AsyncSession {self.id!r} of {self._state.gateway.origin}>"


async def _finish(task: asyncio.Task[None]) -> None:
    """Waits for the task, which whoever is cancelled here leaves up to a second to go on."""
    until: float | None = None
    cancelled: asyncio.CancelledError | None = None
    # A cancelled scope of anyio cancels every wait in it; the shield keeps it out.
    with anyio.CancelScope(shield=True):
        while not task.done() and (until is None or time.monotonic() < until):
            try:
                await asyncio.wait({task}, timeout=None if until is None else until - time.monotonic())
            except asyncio.CancelledError as error:
                cancelled = error
                until = until or time.monotonic() + HASTY_END_TIMEOUT
    if cancelled is not None:
        # Whoever cancelled is not told of other errors; the task's own would be logged if nobody looked at it.
        task.cancel()
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise cancelled


class _SessionTransport(httpx2.AsyncBaseTransport):
    """Makes requests the session's, and tells answers of its worker from everything else."""

    def __init__(self, transport: AsyncConnections, state: State) -> None:
        self._transport = transport
        self._state = state

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # Before all: that the session has been ended is the lesser news.
        self._transport.check()
        with self._state.under_way(request):
            response = await self.exchange(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Stream(response.stream, self, request.url),
            extensions=response.extensions,
        )

    async def exchange(self, request: httpx2.Request) -> httpx2.Response:
        """Sends a request, and raises what the gateway says instead of a worker."""
        try:
            response = await self._transport.handle_async_request(request)
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol):
            # The caller's mistake says nothing of the gateway.
            raise
        except httpx2.TransportError as error:
            raise self._state.unanswered(request, error) from error
        status, headers = response.status_code, response.headers
        if HERD_ERROR in headers:
            raise self._state.refuse(request, status, headers, await _beginning(response))
        wrong = self._state.accept(request, status, headers)
        if wrong is None:
            return response
        if isinstance(wrong, GatewayUnreachable) and may_be_admin(headers):
            wrong = self._state.recognise(wrong, await _beginning(response))
        await response.aclose()
        raise wrong

    async def explain(self, url: httpx2.URL, error: httpx2.TransportError) -> HerdError:
        """Asks the gateway why an answer of this address broke off, unless that is clear."""
        known = self._state.broken(error)
        if known is not None:
            return known
        try:
            response = await self.handle_async_request(self._state.probe(url))
            await response.aclose()
        except HerdError as probed:
            return self._state.explain(error, probed)
        return self._state.explain(error, None)


class _Stream(httpx2.AsyncByteStream):
    """A body of a worker. Where it breaks off, it says why."""

    def __init__(self, stream: httpx2.AsyncByteStream, transport: _SessionTransport, url: httpx2.URL) -> None:
        self._stream = stream
        self._transport = transport
        self._url = url
        self._reader = Reader()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._reader.check()
        try:
            async for piece in self._stream:
                yield piece
        except httpx2.TransportError as error:
            raise await self._transport.explain(self._url, error) from error

    async def aclose(self) -> None:
        if self._reader.is_here:
            await self._stream.aclose()


async def _beginning(response: httpx2.Response) -> bytes:
    """The body, or nothing if it is too long or breaks off."""
    body = b""
    try:
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > MOST_BYTES:
                return b""
        return body
    except httpx2.TransportError:
        return b""
    finally:
        await response.aclose()
