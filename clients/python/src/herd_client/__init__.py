"""A client of herd's gateway: one session ID, one worker process, for the session's lifetime.

>>> from herd_client import Herd
>>> herd = Herd("http://127.0.0.1:8080")

`Herd` is for threads and `AsyncHerd` for asyncio; both give sessions, which end when their block is left.
"""

from ._async import AsyncHerd, AsyncSession
from ._errors import (
    BadGateway,
    Draining,
    Forbidden,
    GatewayTimeout,
    GatewayUnreachable,
    HerdError,
    InvalidSession,
    PoolFull,
    Problem,
    RequestRefused,
    ResponseBroken,
    SessionLost,
    SessionNotFound,
    StartFailed,
    TooManyRequests,
    Unauthorized,
)
from ._state import RequestOptions
from ._sync import Herd, Session

__all__ = [
    "AsyncHerd",
    "AsyncSession",
    "BadGateway",
    "Draining",
    "Forbidden",
    "GatewayTimeout",
    "GatewayUnreachable",
    "Herd",
    "HerdError",
    "InvalidSession",
    "PoolFull",
    "Problem",
    "RequestOptions",
    "RequestRefused",
    "ResponseBroken",
    "Session",
    "SessionLost",
    "SessionNotFound",
    "StartFailed",
    "TooManyRequests",
    "Unauthorized",
]
