"""Why a request has no answer of its session's worker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """What the gateway says of a failure (RFC 9457)."""

    type: str
    """``urn:herd:problem:NAME``."""
    title: str
    status: int
    detail: str
    """What happened, in one sentence."""
    session: str | None = None
    """The session that it is about, where one is known."""


class HerdError(Exception):
    """The base of all errors here. A worker's own 4xx and 5xx answers are answers and no errors."""

    remedy = "look up its failure in docs/gateway.md"
    """What to do about it, in one sentence."""

    def __init__(
        self,
        detail: str,
        *,
        failure: str | None = None,
        status: int | None = None,
        problem: Problem | None = None,
        retry_after: float | None = None,
        session: str | None = None,
    ) -> None:
        super().__init__(f"{detail} ({self.remedy})")
        self.detail = detail
        """What happened."""
        self.failure = failure
        """The gateway's own name for it (docs/gateway.md lists them all); ``None`` if the gateway said nothing."""
        self.status = status
        """The status of the gateway's answer, if there was one."""
        self.problem = problem
        """What the gateway said, if it did."""
        self.retry_after = retry_after
        """How many seconds to wait before the next try, where the gateway said so."""
        self.session = session
        """The ID of the session that it is about, where there is one."""


class SessionLost(HerdError):
    """The session was there and is gone with all its state.

    Its worker crashed, or it was ended by somebody, by its time to live, or with the daemon. ``failure`` is
    ``worker-crashed`` or ``session-ended`` where a request found out, and ``no-such-session`` where it came too late. It
    never comes back, and nothing starts a new one in its place.
    """

    remedy = "begin a new session with herd.session() and do again what it had done"


class SessionNotFound(HerdError):
    """There is no such session, and this gateway, or this request, starts none."""

    remedy = "check the ID, the pool and the tenant; with lookup_only the control plane starts sessions"


class PoolFull(HerdError):
    """All workers are taken, and none came free in time."""

    remedy = "try again after retry_after, end sessions that are not needed, or raise max_workers"


class StartFailed(HerdError):
    """The session's worker could not be started."""

    remedy = "look at the worker's log with herd logs, and at its command in the configuration"


class Unauthorized(HerdError):
    """The gateway wants a token, or does not believe this one."""

    remedy = "give Herd(token=...) a token that is valid now"


class Forbidden(HerdError):
    """The token is good, but not for this: it is for another session, or sessions are the control plane's to end."""

    remedy = "use a token for this session; with lookup_only end sessions through the control plane"


class TooManyRequests(HerdError):
    """The tenant has as many sessions, waiting requests, or requests per second as it may."""

    remedy = "try again after retry_after, and end sessions that are not needed"


class Draining(HerdError):
    """The daemon is ending, and its sessions with it."""

    remedy = "begin a new session after retry_after, when the next daemon is there"


class GatewayUnreachable(HerdError):
    """No gateway of herd answers there, or it went away before its answer was whole.

    What the session did with the request is not known.
    """

    remedy = "check that herd runs, and that Herd(gateway=...) has its address"


class InvalidSession(HerdError):
    """The request names no session where the gateway looks for one, or the ID cannot be one."""

    remedy = "check the ID, and that session_key is the session_key of the gateway"


class GatewayTimeout(HerdError):
    """Nobody began to answer within the gateway's ``response_timeout`` or the client's ``timeout``.

    The session goes on.
    """

    remedy = "ask for less at once, or raise response_timeout or timeout"


class BadGateway(HerdError):
    """The worker takes no connections, or answers what is not HTTP. The session goes on."""

    remedy = "look at the worker's log with herd logs, or end the session"


class ResponseBroken(HerdError):
    """The worker's answer broke off, or did not go on, although its session and the gateway are there."""

    remedy = "ask again if the request may be sent twice, and look at the worker's log with herd logs"


class RequestRefused(HerdError):
    """The gateway does not take the request, for another reason than all others here; ``failure`` names it."""
