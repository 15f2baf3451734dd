/** What is no gateway of herd, or a strange one; and every failure that the real one knows. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import {
  type ErrorCode,
  GatewayUnreachable,
  Herd,
  isHerdError,
  PoolFull,
  RequestRefused,
  type Session,
  SessionLost,
  TooManyRequests,
} from "herd-client";

import { Daemon, worker } from "./daemon.js";

async function withServer(listener: RequestListener, use: (session: Session) => Promise<void>): Promise<void> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  try {
    await use(new Herd({ gateway: `http://127.0.0.1:${port}` }).session("alice"));
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test("what_answers_without_herds_fields_is_not_herd", async () => {
  const proxy: RequestListener = (_, response) => response.writeHead(502).end("<h1>Bad Gateway</h1>");
  await withServer(proxy, async (session) => {
    await assert.rejects(session.get("/"), (error) => {
      assert(error instanceof GatewayUnreachable);
      assert.equal(error.status, 502);
      assert.match(error.message, /not herd's gateway answers at http:\/\/127\.0\.0\.1:\d+, with the status 502/);
      return true;
    });
    assert.equal(session.headers["herd-session"], undefined);
    await assert.rejects(session.end(), GatewayUnreachable);
  });
});

test("herds_own_admin_address_is_recognised", async () => {
  await using daemon = await Daemon.start(worker);
  const session = new Herd({ gateway: daemon.adminAddress }).session();
  for (const ask of [() => session.get("/"), () => session.post("/eval", "1"), () => session.end()]) {
    await assert.rejects(ask(), (error) => {
      assert(error instanceof GatewayUnreachable);
      const said = `${daemon.adminAddress} is herd's admin address; the gateway is another one, usually port 8080`;
      assert.equal(error.detail, said);
      return true;
    });
  }
});

test("a_gateway_that_knows_no_end_is_not_taken_to_have_ended_the_session", async () => {
  const older: RequestListener = (_, response) => response.writeHead(204, { "herd-worker": "worker-1" }).end();
  await withServer(older, async (session) => {
    await assert.rejects(session.end(), /a gateway that knows no herd-session: end/);
  });
});

test("a_problem_that_cannot_be_read_is_still_the_error_that_its_fields_name", async () => {
  const documents = ["", "no JSON", "null", "[]", '{"type": 1}', `{"detail": "${"x".repeat(20_000)}"}`];
  for (const document of documents) {
    const gateway: RequestListener = (_, response) => {
      response.writeHead(503, { "herd-error": "queue-full", "retry-after": "7" }).end(document);
    };
    await withServer(gateway, async (session) => {
      await assert.rejects(session.get("/"), (error) => {
        assert(error instanceof PoolFull, document);
        assert.deepEqual([error.problem, error.retryAfter, error.session], [undefined, 7000, "alice"]);
        assert.match(error.message, /answered 503 queue-full/);
        return true;
      });
    });
  }
});

test("a_problem_that_never_ends_is_not_read_to_its_end", async () => {
  const gateway: RequestListener = (_, response) => {
    response.writeHead(503, { "herd-error": "queue-full" });
    const more = (): void => void (response.destroyed || response.write("x".repeat(1024), () => setImmediate(more)));
    more();
  };
  await withServer(gateway, (session) => assert.rejects(session.get("/"), PoolFull));
});

test("an_error_of_a_later_gateway_is_told_by_its_status", async () => {
  let status = 429;
  const gateway: RequestListener = (_, response) => {
    response.writeHead(status, { "herd-error": "of-tomorrow", "retry-after": "Mon, 01 Jan 2035 00:00:00 GMT" }).end();
  };
  await withServer(gateway, async (session) => {
    await assert.rejects(session.get("/"), (error) => {
      assert(error instanceof TooManyRequests);
      assert.deepEqual([error.failure, error.retryAfter], ["of-tomorrow", undefined]);
      return true;
    });
    status = 418;
    await assert.rejects(session.get("/"), RequestRefused);
  });
});

test("a_problem_of_a_crash_whose_text_is_hostile_is_only_text", async () => {
  const detail = "</script>\u001b[2J`${x}`";
  const gateway: RequestListener = (_, response) => {
    const type = "urn:herd:problem:worker-crashed";
    const problem = JSON.stringify({ type, title: "Bad Gateway", status: 502, detail, __proto__: { polluted: 1 } });
    response.writeHead(502, { "herd-error": "worker-crashed" }).end(problem);
  };
  await withServer(gateway, (session) =>
    assert.rejects(session.get("/"), (error) => {
      assert(error instanceof SessionLost);
      assert.equal(error.problem?.detail, detail);
      assert.equal(({} as { polluted?: unknown }).polluted, undefined);
      return true;
    }),
  );
});

const FAILURES: Record<string, [status: number, code: ErrorCode]> = {
  "acquire-timeout": [503, "pool-full"],
  "bad-gateway": [502, "bad-gateway"],
  "bad-request": [400, "request-refused"],
  draining: [503, "draining"],
  "forbidden-end": [403, "forbidden"],
  "forbidden-page": [403, "forbidden"],
  "forbidden-session": [403, "forbidden"],
  "header-too-large": [431, "request-refused"],
  internal: [500, "request-refused"],
  "invalid-session-id": [400, "invalid-session"],
  "no-route": [404, "request-refused"],
  "no-session-id": [400, "invalid-session"],
  "no-such-session": [404, "session-not-found"],
  "no-worker": [503, "pool-full"],
  "not-implemented": [501, "request-refused"],
  "queue-full": [503, "pool-full"],
  "request-timeout": [408, "request-refused"],
  "session-ended": [502, "session-lost"],
  shutdown: [503, "draining"],
  "spawn-failed": [503, "start-failed"],
  "target-too-long": [414, "request-refused"],
  "tenant-sessions": [429, "too-many-requests"],
  "tenant-waiting": [429, "too-many-requests"],
  "tls-required": [400, "request-refused"],
  "too-many-requests": [429, "too-many-requests"],
  unauthorized: [401, "unauthorized"],
  "worker-crashed": [502, "session-lost"],
  "worker-timeout": [504, "gateway-timeout"],
  "worker-unreachable": [502, "bad-gateway"],
};

test("every_failure_that_the_gateway_knows_is_an_error_of_its_type", async () => {
  await using daemon = await Daemon.start(worker);
  const metrics = await (await fetch(`${daemon.gateway}/metrics`)).text();
  const counted = metrics.matchAll(/^herd_gateway_failures_total\{.*?error="([a-z-]+)"/gm);
  const names = Array.from(counted, ([, name]) => name);
  assert.deepEqual(names.sort(), Object.keys(FAILURES));
  let failure = "";
  const gateway: RequestListener = (_, response) => {
    const [status] = FAILURES[failure]!;
    response.writeHead(status, { "herd-error": failure }).end();
  };
  for (const [name, [status, code]] of Object.entries(FAILURES)) {
    failure = name;
    // A session that was not lost yet, each time.
    await withServer(gateway, async (session) => {
      const told = await session.get("/").then(() => assert.fail(name), (error: unknown) => error);
      assert(isHerdError(told), `${name}: ${String(told)}`);
      assert.deepEqual([told.failure, told.status, told.code], [name, status, code]);
    });
  }
});
