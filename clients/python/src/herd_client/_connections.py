"""Connections to the gateway, which no two processes share."""

from __future__ import annotations

import gc
import os
import ssl
import warnings
from typing import Callable, Generic, TypeVar

import httpx2

T = TypeVar("T")

LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=100)


class _Own(Generic[T]):
    """What each process has for itself."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._of = {os.getpid(): make()}

    def __call__(self) -> T:
        process = os.getpid()
        own = self._of.get(process)
        if own is None:
            # Whichever thread comes first. A lock could be held by a thread that the child of a fork does not have.
            own = self._of.setdefault(process, self._make())
            # The parent's is let go of and never closed: that could say something on its connections or wait for its
            # locks. The child's descriptors are closed with it, of which nobody else hears, and which is no leak.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                for other in list(self._of):
                    if other != process:
                        self._of.pop(other, None)
                # Those of asyncio hold one another, and would warn whenever they are found.
                gc.collect()
        return own


class Closed(RuntimeError):
    """Nothing is sent any more."""

    def __init__(self) -> None:
        super().__init__("this Herd is closed, and its sessions with it; make a new one")


class _Closable:
    """What is closed once and for all."""

    is_closed = False

    def check(self) -> None:
        """
        Raises:
            Closed: Once it is.
        """
        if self.is_closed:
            raise Closed


class Connections(_Closable, httpx2.BaseTransport):
    """Those of this process. After a fork, parent and child would else read each other's answers from them."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._own = _Own(lambda: httpx2.HTTPTransport(verify=tls or True, limits=LIMITS))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.check()
        return self._own().handle_request(request)

    def close(self) -> None:
        self.is_closed = True
        self._own().close()


class AsyncConnections(_Closable, httpx2.AsyncBaseTransport):
    """The same for asyncio."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._own = _Own(lambda: httpx2.AsyncHTTPTransport(verify=tls or True, limits=LIMITS))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.check()
        return await self._own().handle_async_request(request)

    async def aclose(self) -> None:
        self.is_closed = True
        await self._own().aclose()


class Reader:
    """Who reads an answer: the process that asked for it alone."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def is_here(self) -> bool:
        return self._process == os.getpid()

    def check(self) -> None:
        """
        Raises:
            RuntimeError: In the child of a fork.
        """
        if not self.is_here:
            raise RuntimeError("this answer is read by the process that has asked for it, and not by its fork; ask again")
