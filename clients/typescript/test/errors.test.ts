/** Each error for real: a daemon in that state, and what its clients are told. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";

import {
  BadGateway,
  Draining,
  Forbidden,
  GatewayTimeout,
  GatewayUnreachable,
  Herd,
  HerdError,
  type HerdOptions,
  InvalidSession,
  isHerdError,
  PoolFull,
  RequestRefused,
  ResponseBroken,
  SessionLost,
  SessionNotFound,
  StartFailed,
  TooManyRequests,
  Unauthorized,
} from "herd-client";

import { Daemon, worker } from "./daemon.js";

/** What the promise is rejected with, which has to be of that type and to say what happened and what to do. */
async function failure<E extends HerdError>(
  ErrorType: new (...given: never[]) => E,
  promise: Promise<unknown>,
): Promise<E> {
  try {
    await promise;
  } catch (error) {
    assert(error instanceof ErrorType, `no ${ErrorType.name}, but ${String(error)}`);
    assert(error instanceof HerdError && error instanceof Error && isHerdError(error));
    assert.equal(error.name, ErrorType.name);
    assert(error.remedy.length > 10 && error.message.endsWith(`(${error.remedy})`), error.message);
    if (error.problem !== undefined) {
      assert.equal(error.problem.status, error.status);
      assert.equal(error.problem.type, `urn:herd:problem:${error.failure}`);
    }
    return error;
  }
  assert.fail(`this should have failed with ${ErrorType.name}`);
}

const client = (daemon: Daemon, options: HerdOptions = {}) => new Herd({ gateway: daemon.gateway, ...options });

test("a_crash_while_it_answers_is_a_lost_session_and_no_request_starts_another", async () => {
  await using daemon = await Daemon.start(worker);
  await using session = client(daemon).session();
  await session.get("/fields");
  const silent = failure(SessionLost, session.get("/silent"));
  await busy(daemon, session.id);
  await daemon.crash(session.id);
  const error = await silent;
  assert.deepEqual([error.code, error.failure, error.status, error.session], [
    "session-lost",
    "worker-crashed",
    502,
    session.id,
  ]);
  assert.match(error.message, /signal 9/);
  const later = await failure(SessionLost, session.get("/fields"));
  assert.equal(later.cause, error);
  assert.deepEqual([later.failure, later.status, later.problem], [error.failure, error.status, error.problem]);
  await session.end();
  assert.equal((await daemon.admin("/v1/stats")).sessions_started, 1);
});

test("a_crash_between_requests_is_a_lost_session", async () => {
  await using daemon = await Daemon.start(worker);
  await using session = client(daemon).session();
  await session.get("/fields");
  await daemon.crash(session.id);
  await gone(daemon, session.id);
  const error = await failure(SessionLost, session.get("/fields"));
  assert.deepEqual([error.failure, error.status], ["no-such-session", 404]);
  assert.deepEqual(await daemon.sessions(), []);
});

test("a_session_that_somebody_ended_is_lost_also_if_somebody_began_it_anew", async () => {
  await using daemon = await Daemon.start(worker);
  const herd = client(daemon);
  const session = herd.session("alice");
  await session.get("/fields");
  const silent = failure(SessionLost, session.get("/silent"));
  await busy(daemon, "alice");
  await daemon.admin("/v1/sessions/alice", { method: "DELETE" });
  assert.deepEqual([(await silent).failure, (await silent).status], ["session-ended", 502]);

  const another = herd.session("bob");
  await another.get("/fields");
  await daemon.admin("/v1/sessions/bob", { method: "DELETE" });
  await gone(daemon, "bob");
  await using renewed = herd.session("bob");
  await renewed.get("/fields");
  const error = await failure(SessionLost, another.get("/fields"));
  assert.match(error.message, /was with worker-\d+, and now worker-\d+ answers: somebody has begun it anew/);
  await another.end();
  assert.deepEqual(await daemon.sessions(), ["bob"], "the other one's session is left alone");
});

test("requests_after_the_end_are_lost_and_start_nothing", async () => {
  await using daemon = await Daemon.start(worker);
  const session = client(daemon).session();
  await session.get("/fields");
  const silent = failure(SessionLost, session.get("/silent"));
  await busy(daemon, session.id);
  await session.end();
  assert.equal((await silent).failure, "session-ended");
  const error = await failure(SessionLost, session.get("/fields"));
  assert.match(error.message, /ended/);
  assert.equal(error.message.split("begin a new session").length, 2, "what to do is said once");
  assert.deepEqual(await daemon.sessions(), []);
});

test("a_full_pool_says_when_to_try_again", async () => {
  const resources = { max_workers: 1, acquire_timeout: "4s", ttl: "1h" };
  await using daemon = await Daemon.start(worker, { resources });
  const herd = client(daemon);
  await using first = herd.session();
  await first.get("/fields");
  const second = herd.session();
  const error = await failure(PoolFull, second.get("/fields"));
  assert.deepEqual([error.code, error.failure, error.status], ["pool-full", "acquire-timeout", 503]);
  assert(error.retryAfter !== undefined && error.retryAfter >= 1000, `${error.retryAfter} ms`);
  // Nothing has begun, so the same session may be tried again.
  await first.end();
  await using session = second;
  assert.equal((await session.get("/fields")).status, 200);
});

test("a_full_pool_is_told_while_a_body_without_end_is_sent", async () => {
  await using daemon = await Daemon.start(worker, { resources: { max_workers: 1, acquire_timeout: "4s", ttl: "1h" } });
  const herd = client(daemon);
  await using first = herd.session();
  await first.get("/fields");
  let stopped = false;
  async function* endless(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) yield new Uint8Array(64 * 1024);
    } finally {
      stopped = true;
    }
  }
  await failure(PoolFull, herd.session().post("/echo", endless()));
  await setImmediate();
  assert(stopped, "nothing is left open");
});

test("a_full_queue_is_a_full_pool", async () => {
  await using daemon = await Daemon.start(worker, { resources: { max_workers: 1, max_waiting: 1, ttl: "1h" } });
  const herd = client(daemon);
  await using first = herd.session();
  await first.get("/fields");
  await using second = herd.session();
  const waiting = second.get("/fields");
  while ((await daemon.admin("/v1/stats")).waiting === 0);
  assert.equal((await failure(PoolFull, herd.session().get("/fields"))).failure, "queue-full");
  await first.end();
  assert.equal((await waiting).status, 200);
});

test("a_worker_that_does_not_start_says_why", async () => {
  await using daemon = await Daemon.start(["false"], { resources: { acquire_timeout: "5s" } });
  const error = await failure(StartFailed, client(daemon).session().get("/"));
  assert.deepEqual([error.code, error.failure, error.status], ["start-failed", "spawn-failed", 503]);
  assert.match(error.message, /exit/);
});

const TOKENS = { acme: "token-of-acme-0001", globex: "token-of-globex-01" };

const access = {
  tokens: Object.entries(TOKENS).map(([tenant, token]) => ({
    name: tenant,
    tenant,
    sha256: createHash("sha256").update(token).digest("hex"),
  })),
};

test("a_wrong_token_is_unauthorized_and_a_right_one_is_let_in", async () => {
  await using daemon = await Daemon.start(worker, { access });
  for (const options of [{}, { token: "token-of-nobody-01" }]) {
    const error = await failure(Unauthorized, client(daemon, options).session().get("/fields"));
    assert.deepEqual([error.code, error.failure, error.status], ["unauthorized", "unauthorized", 401]);
    assert.doesNotMatch(error.message, /token-of/);
  }
  await using session = client(daemon, { token: TOKENS.acme }).session("alice");
  const fields = (await (await session.get("/fields")).json()) as Record<string, string>;
  assert.equal(fields["authorization"], undefined);
  // The same ID of another tenant is another session, and ends alone.
  const other = client(daemon, { token: TOKENS.globex }).session("alice");
  await other.get("/fields");
  assert.notEqual(other.worker, session.worker);
  await other.end();
  assert.equal((await session.get("/fields")).status, 200);
});

test("a_tenants_limits_are_too_many_requests", async () => {
  const tenants = {
    default: { max_sessions: 1 },
    named: { globex: { requests_per_second: 1 } },
  };
  await using daemon = await Daemon.start(worker, { access, tenants });
  const acme = client(daemon, { token: TOKENS.acme });
  await using first = acme.session();
  await first.get("/fields");
  const full = await failure(TooManyRequests, acme.session().get("/fields"));
  assert.deepEqual([full.code, full.failure, full.status], ["too-many-requests", "tenant-sessions", 429]);
  assert(full.retryAfter !== undefined && full.retryAfter >= 1000);

  const session = client(daemon, { token: TOKENS.globex }).session();
  const answers = await Promise.allSettled(Array.from({ length: 5 }, () => session.get("/fields")));
  const refused = answers.filter((answer) => answer.status === "rejected");
  assert(refused.length >= 1, "five at once are more than one in a second");
  for (const { reason } of refused) {
    assert(reason instanceof TooManyRequests);
    assert.equal(reason.failure, "too-many-requests");
    assert(reason.retryAfter !== undefined && reason.retryAfter >= 1000);
  }
});

test("a_session_of_the_control_plane_is_looked_up_and_cannot_be_ended_from_here", async () => {
  await using daemon = await Daemon.start(worker, { network: { lookup_only: true } });
  const herd = client(daemon);
  const missing = await failure(SessionNotFound, herd.session("alice").get("/fields"));
  assert.deepEqual([missing.code, missing.failure, missing.status], ["session-not-found", "no-such-session", 404]);

  await daemon.admin("/v1/sessions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ id: "alice" }),
  });
  const session = herd.session("alice");
  assert.equal((await session.get("/fields")).status, 200);
  const refused = await failure(Forbidden, session.end());
  assert.deepEqual([refused.code, refused.failure, refused.status], ["forbidden", "forbidden-end", 403]);
  await session[Symbol.asyncDispose]();
  assert.equal((await session.get("/fields")).status, 200, "a session that could not be ended goes on");

  await daemon.admin("/v1/sessions/alice", { method: "DELETE" });
  await gone(daemon, "alice");
  await failure(SessionLost, session.get("/fields"));
});

test("a_wrong_session_key_is_an_invalid_session", async () => {
  await using daemon = await Daemon.start(worker);
  const error = await failure(InvalidSession, client(daemon, { sessionKey: "cookie:sid" }).session().get("/fields"));
  assert.deepEqual([error.code, error.failure, error.status], ["invalid-session", "no-session-id", 400]);
  assert.match(error.message, /x-session-id.*sessionKey/i);
});

test("a_worker_that_takes_too_long_is_a_timeout_and_its_session_goes_on", async () => {
  await using daemon = await Daemon.start(worker, { network: { response_timeout: "2s" } });
  await using session = client(daemon).session();
  const error = await failure(GatewayTimeout, session.get("/silent"));
  assert.deepEqual([error.code, error.failure, error.status], ["gateway-timeout", "worker-timeout", 504]);
  assert.equal((await session.get("/fields")).headers.get("herd-session"), "resumed");
  assert.equal(session.headers["herd-session"], "resume");
});

test("a_worker_that_answers_no_http_is_a_bad_gateway", async () => {
  const answer = "(connection) => connection.on('data', () => connection.end('nonsense\\r\\n\\r\\n'))";
  const nonsense = `require("node:net").createServer(${answer}).listen(process.env.PORT)`;
  await using daemon = await Daemon.start(["node", "-e", nonsense], { worker: { ready: "tcp" } });
  await using session = client(daemon).session();
  const error = await failure(BadGateway, session.get("/"));
  assert.deepEqual([error.code, error.failure, error.status], ["bad-gateway", "bad-gateway", 502]);
  assert.equal(session.headers["herd-session"], "resume");
});

test("a_request_that_fits_no_route_or_is_too_long_is_refused", async () => {
  const routes = [{ path_prefix: "/tools", pool: "tools" }];
  await using daemon = await Daemon.start(worker, { pools: { tools: {} }, routes });
  const session = client(daemon).session();
  const unrouted = await failure(RequestRefused, session.get("/other"));
  assert.deepEqual([unrouted.code, unrouted.failure, unrouted.status], ["request-refused", "no-route", 404]);
  const long = await failure(RequestRefused, session.get(`/tools/${"x".repeat(40_000)}`));
  assert.deepEqual([long.failure, long.status], ["header-too-large", 431]);
});

test("a_daemon_that_ends_is_draining", async () => {
  await using daemon = await Daemon.start(worker, { network: { drain_timeout: "20s" } });
  const herd = client(daemon);
  const session = herd.session();
  // It holds the daemon, and an idle connection for the next request.
  const endless = await session.get("/endless");
  const reader = endless.body!.getReader();
  await reader.read();
  await (await session.get("/fields")).text();
  daemon.signal("SIGTERM");
  // Until the daemon has heard it, requests go on; from then on, each is told, or finds no listener.
  for (;;) {
    try {
      await (await session.get("/fields")).text();
    } catch (error) {
      assert(isHerdError(error));
      if (error.code === "gateway-unreachable") break;
      assert(error instanceof Draining, String(error));
      assert.equal(error.status, 503);
      assert(error.retryAfter !== undefined && error.retryAfter >= 1000);
      break;
    }
  }
  await reader.cancel();
  await daemon.ended();
  const later = await failure(GatewayUnreachable, herd.session().get("/fields"));
  assert.match(later.message, /does not answer: .*ECONNREFUSED/);
});

test("a_daemon_that_is_not_there_is_unreachable", async () => {
  const session = new Herd({ gateway: "http://127.0.0.1:9" }).session();
  const error = await failure(GatewayUnreachable, session.get("/"));
  assert.equal(error.code, "gateway-unreachable");
  assert(error.cause instanceof Error);
  await failure(GatewayUnreachable, session.end());
  // Leaving a block never hides the block's own error.
  await session[Symbol.asyncDispose]();
});

test("a_daemon_killed_in_the_middle_of_an_answer_is_unreachable", async () => {
  await using daemon = await Daemon.start(worker);
  await using session = client(daemon).session();
  const response = await session.get("/endless");
  const reader = response.body!.getReader();
  assert.equal(new TextDecoder().decode((await reader.read()).value), "begun\n");
  const silent = failure(GatewayUnreachable, session.get("/silent"));
  daemon.signal("SIGKILL");
  const error = await failure(GatewayUnreachable, reader.read());
  assert.match(error.message, /went away while it answered/);
  assert(error.cause instanceof Error);
  await silent;
});

test("a_crash_in_the_middle_of_an_answer_is_a_lost_session", async () => {
  await using daemon = await Daemon.start(worker);
  await using session = client(daemon).session();
  const response = await session.get("/endless");
  const text = failure(SessionLost, response.text());
  await daemon.crash(session.id);
  const error = await text;
  assert.match(error.message, /the answer broke off.*crashed/, "it is not said to have been ended by somebody");
  assert(error.cause instanceof Error);
  await failure(SessionLost, session.get("/fields"));
  await gone(daemon, session.id);
});

test("a_session_ended_in_the_middle_of_an_answer_is_lost", async () => {
  await using daemon = await Daemon.start(worker);
  const session = client(daemon).session();
  const text = (await session.get("/endless")).text();
  const lost = failure(SessionLost, text);
  await session.end();
  assert.match((await lost).message, /was ended/);
});

test("an_answer_that_its_worker_breaks_off_is_broken_and_its_session_goes_on", async () => {
  await using daemon = await Daemon.start(worker);
  await using session = client(daemon).session();
  const error = await failure(ResponseBroken, (await session.get("/broken")).text());
  assert.deepEqual([error.code, error.session], ["response-broken", session.id]);
  assert(error.cause instanceof Error);
  assert.equal((await session.get("/fields")).status, 200);
});

/** Returns when a request of the session is with its worker. */
async function busy(daemon: Daemon, session: string): Promise<void> {
  for (;;) {
    const sessions = await daemon.admin("/v1/sessions");
    if (sessions.items.some((item: { id: string; leases: number }) => item.id === session && item.leases > 0)) return;
  }
}

/** Returns when the daemon has noticed that the session is gone. */
async function gone(daemon: Daemon, session: string): Promise<void> {
  while ((await daemon.sessions()).includes(session));
}
