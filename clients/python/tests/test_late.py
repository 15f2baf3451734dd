"""First requests that reach the gateway behind the end of their session."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from daemon import PATIENCE, Daemon

from herd_client import AsyncHerd, Herd, SessionLost


class Slow:
    """A way to the gateway on which each GET waits until a DELETE was answered."""

    def __init__(self, gateway: str) -> None:
        address = urlsplit(gateway)
        self._gateway = (str(address.hostname), int(address.port or 80))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.gateway = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.waits, self.goes_on = threading.Event(), threading.Event()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            self._begin(lambda client=client: self._serve(client))

    def _begin(self, what: object) -> None:
        thread = threading.Thread(target=what)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _serve(self, client: socket.socket) -> None:
        first = client.recv(65536)
        if first.startswith(b"GET"):
            self.waits.set()
            self.goes_on.wait(PATIENCE)
        gateway = socket.create_connection(self._gateway)
        self._open += [client, gateway]
        gateway.sendall(first)
        self._begin(lambda: self._pump(client, gateway))
        self._pump(gateway, client)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(65536):
                sink.sendall(piece)
                if b"no-such-session" in piece:
                    self.goes_on.set()
        except OSError:
            pass

    def close(self) -> None:
        self.goes_on.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._open:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join()
        for end in self._open:
            end.close()


@contextmanager
def slow(gateway: str) -> Generator[Slow, None, None]:
    way = Slow(gateway)
    try:
        yield way
    finally:
        way.close()


def test_a_first_request_behind_the_end_leaves_no_session(shared: Daemon) -> None:
    with slow(shared.gateway) as way, Herd(way.gateway) as herd, ThreadPoolExecutor() as threads:
        session = herd.session()
        answer = threads.submit(lambda: session.get("/count"))
        assert way.waits.wait(PATIENCE)
        session.end()
        with pytest.raises(SessionLost):
            answer.result(PATIENCE)
        assert session.id not in shared.sessions()


def test_a_first_request_behind_the_end_leaves_no_session_with_asyncio(shared: Daemon) -> None:
    async def test(way: Slow) -> None:
        async with AsyncHerd(way.gateway) as herd:
            session = herd.session()
            answer = asyncio.ensure_future(session.get("/count"))
            assert await asyncio.to_thread(way.waits.wait, PATIENCE)
            await session.end()
            with pytest.raises(SessionLost):
                await answer
            assert session.id not in shared.sessions()

    with slow(shared.gateway) as way:
        asyncio.run(test(way))


def test_a_first_request_that_is_cancelled_and_behind_the_end_leaves_no_session(shared: Daemon) -> None:
    async def test(way: Slow) -> None:
        async with AsyncHerd(way.gateway) as herd:
            async with herd.session() as session:
                answer = asyncio.ensure_future(session.get("/never"))
                assert await asyncio.to_thread(way.waits.wait, PATIENCE)
                answer.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await answer
            assert session.id not in shared.sessions()

    with slow(shared.gateway) as way:
        asyncio.run(test(way))
