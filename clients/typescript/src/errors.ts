/** What the gateway says of a failure (RFC 9457). */
export interface Problem {
  /** `urn:herd:problem:NAME`. */
  readonly type: string;
  readonly title: string;
  readonly status: number;
  /** What happened, in one sentence. */
  readonly detail: string;
  /** The session that it is about, where one is known. */
  readonly session?: string;
}

/** What an error tells beyond its type. */
export interface ErrorDetails {
  /** What happened. */
  readonly detail: string;
  /** The name in the answer's field `herd-error`. */
  readonly failure?: string | undefined;
  readonly status?: number | undefined;
  readonly problem?: Problem | undefined;
  /** Milliseconds. */
  readonly retryAfter?: number | undefined;
  readonly session?: string | undefined;
  readonly cause?: unknown;
}

/** Each type of error has one of these in `code`, so that a `switch` knows them all. */
export type ErrorCode = AnyHerdError["code"];

/** Every error that this package makes. */
export type AnyHerdError =
  | BadGateway
  | Draining
  | Forbidden
  | GatewayTimeout
  | GatewayUnreachable
  | InvalidSession
  | PoolFull
  | RequestRefused
  | ResponseBroken
  | SessionLost
  | SessionNotFound
  | StartFailed
  | TooManyRequests
  | Unauthorized;

/** Known to every copy of this package that a program may have loaded. */
const MARK = Symbol.for("herd-client.error");

/**
 * Whether `error` is one of this package's, also if a second copy of the package has made it.
 * A worker's own 4xx and 5xx answers are answers and no errors.
 */
export function isHerdError(error: unknown): error is AnyHerdError {
  return typeof error === "object" && error !== null && MARK in error;
}

/** Why a request has no answer of its session's worker. The base of all errors here. */
export abstract class HerdError extends Error {
  /** Which type of error it is, for a `switch`. */
  abstract readonly code: string;
  /** What happened. */
  readonly detail: string;
  /** What to do about it, in one sentence. */
  readonly remedy: string;
  /** The gateway's own name for it (docs/gateway.md lists them all), unless the gateway said nothing. */
  readonly failure: string | undefined;
  /** The status of the gateway's answer, if there was one. */
  readonly status: number | undefined;
  /** What the gateway said, if it did. */
  readonly problem: Problem | undefined;
  /** How many milliseconds to wait before the next try, where the gateway said so. */
  readonly retryAfter: number | undefined;
  /** The ID of the session that it is about, where there is one. */
  readonly session: string | undefined;

  /** @internal */
  constructor(details: ErrorDetails, remedy: string) {
    super(`${details.detail} (${remedy})`, details.cause === undefined ? undefined : { cause: details.cause });
    this.detail = details.detail;
    this.remedy = remedy;
    this.failure = details.failure;
    this.status = details.status;
    this.problem = details.problem;
    this.retryAfter = details.retryAfter;
    this.session = details.session;
    this.name = new.target.name;
    Object.defineProperty(this, MARK, { value: true });
  }
}

/**
 * The session was there and is gone with all its state: its worker crashed, or it was ended by somebody, by its time to
 * live, or with the daemon. `failure` is `worker-crashed` or `session-ended` where a request found out, and
 * `no-such-session` where it came too late. It never comes back, and nothing starts a new one in its place.
 */
export class SessionLost extends HerdError {
  readonly code = "session-lost";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "begin a new session with herd.session() and do again what it had done");
  }
}

/** There is no such session, and this gateway, or this request, starts none. */
export class SessionNotFound extends HerdError {
  readonly code = "session-not-found";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "check the ID, the pool and the tenant; with lookup_only the control plane starts sessions");
  }
}

/** All workers are taken, and none came free in time. */
export class PoolFull extends HerdError {
  readonly code = "pool-full";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "try again after retryAfter, end sessions that are not needed, or raise max_workers");
  }
}

/** The session's worker could not be started. */
export class StartFailed extends HerdError {
  readonly code = "start-failed";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "look at the worker's log with herd logs, and at its command in the configuration");
  }
}

/** The gateway wants a token, or does not believe this one. */
export class Unauthorized extends HerdError {
  readonly code = "unauthorized";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "give new Herd({ token }) a token that is valid now");
  }
}

/** The token is good, but not for this: it is for another session, or sessions are the control plane's to end. */
export class Forbidden extends HerdError {
  readonly code = "forbidden";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "use a token for this session; with lookup_only end sessions through the control plane");
  }
}

/** The tenant has as many sessions, waiting requests, or requests per second as it may. */
export class TooManyRequests extends HerdError {
  readonly code = "too-many-requests";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "try again after retryAfter, and end sessions that are not needed");
  }
}

/** The daemon is ending, and its sessions with it. */
export class Draining extends HerdError {
  readonly code = "draining";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "begin a new session after retryAfter, when the next daemon is there");
  }
}

/** No gateway of herd answers there, or it went away before its answer was whole. What the session did is not known. */
export class GatewayUnreachable extends HerdError {
  readonly code = "gateway-unreachable";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "check that herd runs, and that new Herd({ gateway }) has its address");
  }
}

/** The request names no session where the gateway looks for one, or the ID cannot be one. */
export class InvalidSession extends HerdError {
  readonly code = "invalid-session";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "check the ID, and that sessionKey is the session_key of the gateway");
  }
}

/** The worker did not begin to answer within `response_timeout`. The session goes on. */
export class GatewayTimeout extends HerdError {
  readonly code = "gateway-timeout";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "ask for less at once, or raise response_timeout");
  }
}

/** The worker takes no connections, or answers what is not HTTP. The session goes on. */
export class BadGateway extends HerdError {
  readonly code = "bad-gateway";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "look at the worker's log with herd logs, or end the session");
  }
}

/** The worker's answer broke off, or did not go on, although its session and the gateway are there. */
export class ResponseBroken extends HerdError {
  readonly code = "response-broken";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "ask again if the request may be sent twice, and look at the worker's log with herd logs");
  }
}

/** The gateway does not take the request, for another reason than all above; `failure` names it. */
export class RequestRefused extends HerdError {
  readonly code = "request-refused";

  /** @internal */
  constructor(details: ErrorDetails) {
    super(details, "look up its failure in docs/gateway.md");
  }
}
