/** First requests that reach the gateway behind the end of their session, on the way of a real daemon. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { after, before, test } from "node:test";

import { Herd, SessionLost } from "herd-client";

import { Daemon, worker } from "./daemon.js";

let daemon: Daemon;

before(async () => {
  daemon = await Daemon.start(worker);
});

after(() => daemon[Symbol.asyncDispose]());

/** A way to the gateway on which each GET waits until there was no session to end. */
class Slow implements AsyncDisposable {
  readonly #server = createServer((client) => this.#serve(client));
  readonly #sockets: Socket[] = [];
  #goOn = (): void => undefined;
  readonly #goesOn = new Promise<void>((resolve) => (this.#goOn = resolve));

  static async to(gateway: string): Promise<Slow> {
    const way = new Slow(new URL(gateway));
    way.#server.listen(0, "127.0.0.1");
    await once(way.#server, "listening");
    return way;
  }

  private constructor(readonly target: URL) {}

  get gateway(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** When a GET waits. */
  async waits(): Promise<void> {
    await once(this.#server, "waits");
  }

  #serve(client: Socket): void {
    const gateway = connect(Number(this.target.port), this.target.hostname);
    this.#sockets.push(client, gateway);
    for (const socket of [client, gateway]) socket.on("error", () => undefined);
    client.on("data", (bytes) => {
      if (!bytes.toString("latin1").startsWith("GET")) return void gateway.write(bytes);
      this.#server.emit("waits");
      void this.#goesOn.then(() => gateway.write(bytes));
    });
    gateway.on("data", (bytes) => {
      client.write(bytes);
      if (bytes.includes("no-such-session")) this.#goOn();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#goOn();
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }
}

test("a_first_request_behind_the_end_leaves_no_session", async () => {
  await using way = await Slow.to(daemon.gateway);
  const session = new Herd({ gateway: way.gateway }).session();
  const waits = way.waits();
  const answer = assert.rejects(session.get("/fields"), SessionLost);
  await waits;
  await session.end();
  await answer;
  assert(!(await daemon.sessions()).includes(session.id));
});

test("a_first_request_that_is_aborted_and_behind_the_end_leaves_no_session", async () => {
  await using way = await Slow.to(daemon.gateway);
  const session = new Herd({ gateway: way.gateway }).session();
  const waits = way.waits();
  const given = new AbortController();
  const answer = assert.rejects(session.get("/silent", { signal: given.signal }), { name: "AbortError" });
  await waits;
  given.abort();
  await answer;
  await session.end();
  assert(!(await daemon.sessions()).includes(session.id));
});
