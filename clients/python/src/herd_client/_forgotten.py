"""Sessions that nobody has ended yet."""

from __future__ import annotations

import atexit
import logging
import os
import ssl
import threading
import time
import weakref
from typing import TYPE_CHECKING

import httpx2

from ._state import State

if TYPE_CHECKING:
    from collections.abc import Callable

AT_EXIT = 10.0
"""How many seconds the end of the program may take on behalf of forgotten sessions."""

EACH_AT_EXIT = 0.25
"""How many of them each session may take. It ends whether its end is waited for or not."""

log = logging.getLogger("herd_client")


class Forgotten:
    """Sessions whose IDs the client has made, so that nobody else can end them. They end with the program at the latest.

    At that time no event loop runs any more and no thread can be started, so they end one after the other, and the
    gateway's answers are not waited for longer than it takes it to hear of them.
    """

    def __init__(self, end: Callable[[State, float], None]) -> None:
        self._end = end
        self._lock = threading.Lock()
        self._open: dict[str, State] = {}
        _all.add(self)

    def add(self, state: State) -> None:
        """The session is used."""
        with self._lock:
            if not self._open:
                atexit.register(self.end_all)
            self._open[state.id] = state

    def remove(self, state: State) -> None:
        """The session is ended."""
        with self._lock:
            if self._open.pop(state.id, None) is not None and not self._open:
                atexit.unregister(self.end_all)

    def take_all(self) -> list[State]:
        """All of them; they are somebody else's now."""
        with self._lock:
            states = list(self._open.values())
            self._open.clear()
            atexit.unregister(self.end_all)
        return [state for state in states if state.to_be_ended]

    def end_all(self) -> None:
        """Ends all of them, as the program ends."""
        until = time.monotonic() + AT_EXIT
        for state in self.take_all():
            if time.monotonic() < until:
                self._end(state, EACH_AT_EXIT)
            else:
                not_ended(state, TimeoutError(f"the program has ended others for {AT_EXIT:.0f} s"))

    def forget(self) -> None:
        """They are another process's."""
        self._lock = threading.Lock()
        self._open = {}


_all: weakref.WeakSet[Forgotten] = weakref.WeakSet()


def _forget_all() -> None:
    for forgotten in list(_all):
        forgotten.forget()


# A child of a fork has no sessions, and no locks that another thread of its parent holds. Windows has no forks.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def end_outside_of_loops(tls: ssl.SSLContext | None) -> Callable[[State, float], None]:
    """Ends sessions of an event loop that does not run any more."""

    def end(state: State, timeout: float) -> None:
        transport = httpx2.HTTPTransport(verify=tls or True)
        try:
            transport.handle_request(state.end(timeout)).close()
        except httpx2.ReadTimeout:
            # The gateway has heard of it.
            pass
        except httpx2.HTTPError as error:
            not_ended(state, error)
        finally:
            transport.close()

    return end


def not_ended(state: State, error: Exception) -> None:
    """Tells the log, since whoever left the session does not wait for an error. One that never began needs no end."""
    if state.may_be_there:
        log.warning("the session %s could not be ended, and ends by its time to live: %s", state.id, error)
