"""Reads what the gateway answers instead of a worker."""

from __future__ import annotations

import json
from typing import cast

import httpx2

from ._errors import (
    BadGateway,
    Draining,
    Forbidden,
    GatewayTimeout,
    HerdError,
    InvalidSession,
    PoolFull,
    Problem,
    RequestRefused,
    SessionLost,
    SessionNotFound,
    StartFailed,
    TooManyRequests,
    Unauthorized,
)

HERD_ERROR = "herd-error"
"""In every failure of the gateway's own. It takes this field out of what workers answer, so none can pass for it."""

MOST_BYTES = 16 * 1024
"""More than any problem of the gateway has; what is longer came from somewhere else."""

_BY_FAILURE: dict[str, type[HerdError]] = {
    "no-session-id": InvalidSession,
    "invalid-session-id": InvalidSession,
    "no-such-session": SessionNotFound,
    "tenant-sessions": TooManyRequests,
    "tenant-waiting": TooManyRequests,
    "queue-full": PoolFull,
    "acquire-timeout": PoolFull,
    "no-worker": PoolFull,
    "spawn-failed": StartFailed,
    "draining": Draining,
    "shutdown": Draining,
    "worker-crashed": SessionLost,
    "session-ended": SessionLost,
    "worker-unreachable": BadGateway,
    "bad-gateway": BadGateway,
}

# For names that a later gateway may have.
_BY_STATUS: dict[int, type[HerdError]] = {
    401: Unauthorized,
    403: Forbidden,
    429: TooManyRequests,
    504: GatewayTimeout,
}


# What the admin API alone says of requests that were meant for the gateway.
_OF_ADMIN = {"bad-token", "foreign-host", "foreign-origin", "method-not-allowed", "no-such-page", "no-token"}


def may_be_admin(headers: httpx2.Headers) -> bool:
    """Whether herd's admin address may have answered; `is_admin` knows by the body."""
    kind = headers.get("content-type", "").partition(";")[0]
    return kind in ("application/problem+json", "text/html")


def is_admin(body: bytes) -> bool:
    """Whether this is the dashboard, or a problem of the admin API."""
    problem = _parse(body)
    if problem is not None:
        return problem.type.removeprefix("urn:herd:problem:") in _OF_ADMIN
    return b"<title>herd</title>" in body


def error_of(status: int, headers: httpx2.Headers, body: bytes, session: str) -> HerdError:
    """The error that the gateway's answer tells of. The fields say enough if the body cannot be read."""
    failure = headers.get(HERD_ERROR, "")
    problem = _parse(body)
    kind = _BY_FAILURE.get(failure) or _BY_STATUS.get(status) or RequestRefused
    return kind(
        problem.detail if problem else f"herd's gateway answered {status} {failure}",
        failure=failure,
        status=status,
        problem=problem,
        retry_after=_seconds(headers.get("retry-after", "")),
        session=(problem and problem.session) or session,
    )


def _parse(body: bytes) -> Problem | None:
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    members = cast("dict[str, object]", document)
    match [members.get(name) for name in ("type", "title", "status", "detail", "session")]:
        case [str(kind), str(title), int(status), str(detail), session]:
            return Problem(kind, title, status, detail, session if isinstance(session, str) else None)
        case _:
            return None


def _seconds(field: str) -> float | None:
    """The gateway writes whole seconds, and no date (RFC 9110 section 10.2.3)."""
    return float(field) if field.isascii() and field.isdigit() and len(field) < 10 else None
