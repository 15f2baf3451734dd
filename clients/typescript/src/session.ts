/// <reference lib="esnext.disposable" preserve="true" />

import { explained, isStream, type Stream, Upload } from "./body.js";
import {
  Draining,
  GatewayUnreachable,
  HerdError,
  ResponseBroken,
  SessionLost,
  SessionNotFound,
} from "./errors.js";
import type { Connection } from "./herd.js";
import { errorOf, HERD_WORKER, isAdmin, isProblem } from "./problem.js";
import { addKey, address, shortestPath } from "./session_key.js";

/** What can be sent: all that `fetch` takes, and whatever gives bytes piece by piece. */
export type RequestBody = RequestInit["body"] | Stream | undefined;

/**
 * As `fetch` has them, with two differences: `redirect` is always `manual`, because a worker must not have the
 * session's ID sent elsewhere; and a body may come from any `AsyncIterable` of bytes.
 */
export interface RequestOptions extends Omit<RequestInit, "body" | "redirect"> {
  readonly body?: RequestBody;
  readonly redirect?: "manual";
}

/** In a request: only if the session is there (`resume`), or end it (`end`). In an answer to that: `ended`. */
const HERD_SESSION = "herd-session";

/** How long a gateway may take to say why an answer broke off, in milliseconds. */
const EXPLANATION_TIMEOUT = 5_000;

/** How long a block may take to be left, in milliseconds: as long as a worker usually may to stop, three times over. */
const LEAVE_TIMEOUT = 30_000;

/** How long after an end it is ended again, in milliseconds, if requests can have begun it since. */
const END_AGAIN_AFTER = 50;

/** How long the gateway may take to read a request that was given up and may begin the session, in milliseconds. */
const SETTLED_AFTER = 500;

/** Failures of a session that is there all the same. */
const ALIVE: ReadonlySet<string> = new Set(["worker-timeout", "worker-unreachable", "bad-gateway"]);

/** Runtimes without it have no `await using` either. */
const asyncDispose: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose");

/**
 * A session: its worker starts with the first request, keeps its state, and ends with the session.
 *
 * After the first answer, each request says that it is for that session alone: once it is lost, requests fail with
 * {@link SessionLost} and no new session begins unnoticed.
 *
 * It ends by {@link Session.end}, or when the block of its `await using` is left. If the program ends before, or
 * forgets it, it ends by its time to live.
 */
export class Session implements AsyncDisposable {
  /** Its ID. Whoever knows it is in this session. */
  readonly id: string;
  readonly #connection: Connection;
  #worker: string | undefined;
  /** Leads to the session's pool where routes look at the path. */
  #path: string;
  /** Whether the gateway has said that the session is there. */
  #began = false;
  /** How many requests are under way that begin the session if it is not there. */
  #first = 0;
  /** Until then a request that was given up may do so. */
  #settledAt = 0;
  #loss: SessionLost | undefined;
  #ending: Promise<void> | undefined;

  /** @internal */
  constructor(connection: Connection, id: string) {
    this.#connection = connection;
    this.id = id;
    this.#path = shortestPath(connection.key);
  }

  /** The worker that answers, for example `worker-3`; unknown before the first answer. */
  get worker(): string | undefined {
    return this.#worker;
  }

  /**
   * All fields that a request of another client must have, such as a WebSocket's or Playwright's. The token is among
   * them. Read them when they are used: from the first answer on, they ask for this session and no new one.
   */
  get headers(): Record<string, string> {
    return Object.fromEntries(this.#fields());
  }

  /**
   * The address of `path` in this session, for other clients. It has the ID in it where the session key says so, and
   * never the token.
   *
   * @throws {TypeError} If `path` does not begin with a slash, or is too short for `path:N`.
   */
  url(path: string): string {
    const { gateway, key } = this.#connection;
    const url = address(gateway, key, this.id, path);
    // Whatever opens that may begin the session, and nobody tells.
    if (!this.#began) this.#path = path;
    return url.href;
  }

  /** The same for WebSockets: `ws:` or, over TLS, `wss:`. */
  websocketUrl(path: string): string {
    return this.url(path).replace(/^http/, "ws");
  }

  /**
   * `fetch` in this session. What its worker answers is an answer, whatever the status; what the gateway says instead
   * of it is an error. A body that breaks off errors with one of these too.
   *
   * @throws {HerdError} Why there is no answer of the worker. The type tells what to do.
   * @throws {TypeError} If the path or an option is not what it should be.
   * @throws What `signal` was aborted with, or the request's own body failed with.
   */
  async fetch(path: string, options: RequestOptions = {}): Promise<Response> {
    if (this.#loss !== undefined) throw this.#lost(this.#loss.detail, this.#loss, this.#loss);
    if (this.#ending !== undefined) throw this.#endedHere();
    const url = this.url(path);
    if (options.redirect !== undefined && options.redirect !== "manual") {
      throw new TypeError("redirect: only manual is safe, because a worker could have the session's ID sent elsewhere");
    }
    const { signal } = options;
    const answer = await this.#ask(url, options);
    const response = explained(answer, async (cause) =>
      signal?.aborted ? cause : await this.#explain(path, cause),
    );
    this.#worker = response.headers.get(HERD_WORKER) ?? this.#worker;
    this.#began = true;
    this.#path = path;
    return response;
  }

  /** `GET`. */
  get(path: string, options?: RequestOptions): Promise<Response> {
    return this.request("GET", path, options);
  }

  /** `HEAD`. */
  head(path: string, options?: RequestOptions): Promise<Response> {
    return this.request("HEAD", path, options);
  }

  /** `POST`, with `body` if there is one. */
  post(path: string, body?: RequestBody, options?: RequestOptions): Promise<Response> {
    return this.request("POST", path, { body, ...options });
  }

  /** `PUT`, with `body` if there is one. */
  put(path: string, body?: RequestBody, options?: RequestOptions): Promise<Response> {
    return this.request("PUT", path, { body, ...options });
  }

  /** `PATCH`, with `body` if there is one. */
  patch(path: string, body?: RequestBody, options?: RequestOptions): Promise<Response> {
    return this.request("PATCH", path, { body, ...options });
  }

  /** `DELETE`. It asks the worker; {@link Session.end} ends the session. */
  delete(path: string, options?: RequestOptions): Promise<Response> {
    return this.request("DELETE", path, options);
  }

  /** Any method: `fetch` with the method in front. */
  request(method: string, path: string, options?: RequestOptions): Promise<Response> {
    return this.fetch(path, { ...options, method });
  }

  /**
   * Ends the session, and resolves when its worker is gone. A session that is not there, or not any more, is no error.
   * Requests of this session that are under way fail with {@link SessionLost}.
   *
   * Calls after the first one await the same end. After one that failed, the session can be ended again.
   *
   * @throws {Forbidden} If sessions are the control plane's alone (`lookup_only`).
   * @throws {HerdError} What else keeps it from being ended.
   */
  end(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    this.#ending ??= this.#end(options.signal).catch((error: unknown) => {
      this.#ending = undefined;
      throw error;
    });
    return this.#ending;
  }

  /**
   * @internal What leaving a block does: it ends the session, and lets the block's own error be seen. A session that
   * cannot be ended from here ends by its time to live.
   */
  async leave(): Promise<void> {
    await this.end({ signal: AbortSignal.timeout(LEAVE_TIMEOUT) }).catch(() => undefined);
  }

  /** Ends the session as {@link Session.end} does, but never fails: what cannot be ended ends by its time to live. */
  [asyncDispose](): Promise<void> {
    return this.leave();
  }

  async #end(signal: AbortSignal | undefined): Promise<void> {
    if (this.#loss !== undefined) return;
    // A request may begin the session after the gateway has ended it, or has said that there is none.
    for (;;) {
      const isSettled = this.#first === 0 && performance.now() >= this.#settledAt;
      await this.#askForEnd(signal);
      if (isSettled) return;
      await new Promise((resolve) => setTimeout(resolve, END_AGAIN_AFTER));
      signal?.throwIfAborted();
    }
  }

  async #askForEnd(signal: AbortSignal | undefined): Promise<void> {
    const headers = this.#fields();
    headers.set(HERD_SESSION, "end");
    const url = this.url(this.#path);
    try {
      const options = signal === undefined ? {} : { signal };
      const answer = await this.#sendAny(url, { ...options, method: "DELETE" }, headers);
      if (answer.status !== 204 || answer.headers.get(HERD_SESSION) !== "ended") throw await this.#foreign(answer);
      // What was given up has begun it, if anything has.
      this.#settledAt = 0;
    } catch (error) {
      if (!(error instanceof SessionLost || error instanceof SessionNotFound)) throw error;
    }
  }

  /** Sends a request of the session, and knows of it until it is answered if it may begin the session. */
  async #ask(url: string, options: RequestOptions): Promise<Response> {
    const headers = this.#fields(options.headers);
    if (this.#began) return await this.#send(url, options, headers);
    this.#first += 1;
    try {
      const answer = await this.#send(url, options, headers);
      if (this.#ending === undefined || this.#began) return answer;
      // Whoever ends it waits for this, and ends again what it has begun.
      await answer.body?.cancel();
      throw this.#endedHere();
    } catch (error) {
      const isAnswered = error instanceof HerdError && (error.status !== undefined || error instanceof SessionLost);
      if (!isAnswered && !this.#began) this.#settledAt = performance.now() + SETTLED_AFTER;
      throw error;
    } finally {
      this.#first -= 1;
    }
  }

  /** The caller's fields and all that herd needs. */
  #fields(given?: RequestOptions["headers"]): Headers {
    const { key, token } = this.#connection;
    const headers = new Headers(given);
    addKey(headers, key, this.id);
    const bearer = token();
    if (bearer !== undefined) headers.set("authorization", `Bearer ${bearer}`);
    if (this.#began) headers.set(HERD_SESSION, "resume");
    else headers.delete(HERD_SESSION);
    return headers;
  }

  /** Sends a request and answers what its worker says. */
  async #send(url: string, options: RequestOptions, headers: Headers): Promise<Response> {
    const answer = await this.#sendAny(url, options, headers);
    const worker = answer.headers.get(HERD_WORKER);
    if (worker === null) throw await this.#foreign(answer);
    // A session has one worker all its life.
    if (this.#worker !== undefined && worker !== this.#worker) {
      await answer.body?.cancel();
      const why = "somebody has begun it anew, or the path leads to another pool";
      throw this.#lost(`the session ${this.id} was with ${this.#worker}, and now ${worker} answers: ${why}`);
    }
    return answer;
  }

  /** Sends a request and answers what anybody says, unless it is a problem of the gateway. */
  async #sendAny(url: string, options: RequestOptions, headers: Headers): Promise<Response> {
    const { body, ...others } = options;
    // What is compressed `fetch` unpacks without a bound. Browsers do not let it be asked for.
    if (!headers.has("accept-encoding")) headers.set("accept-encoding", "identity");
    const upload = isStream(body) ? new Upload(body) : undefined;
    const init: RequestInit & { duplex?: "half" } = { redirect: "manual", ...others, headers };
    if (upload !== undefined) Object.assign(init, { body: upload.stream, duplex: "half" });
    else if (body !== undefined && body !== null) init.body = body as NonNullable<RequestInit["body"]>;
    check(url, init);
    try {
      const answer = await this.#connection.fetch(url, init).catch((cause: unknown) => {
        if (options.signal?.aborted) throw cause;
        if (upload?.failure !== undefined) throw upload.failure.error;
        throw this.#unreachable("does not answer", cause);
      });
      if (isProblem(answer)) throw this.#note(await errorOf(answer, this.id));
      return answer;
    } catch (error) {
      upload?.abandon(error);
      throw error;
    }
  }

  /** Learns from an error what has become of the session. */
  #note(error: HerdError): HerdError {
    if (error instanceof SessionLost) this.#loss = error;
    if (error instanceof SessionNotFound && this.#began) {
      // The gateway does not remember what is gone.
      return this.#lost(`the session ${this.id} is gone: its worker crashed, or it was ended`, undefined, error);
    }
    if (ALIVE.has(error.failure ?? "")) this.#began = true;
    return error;
  }

  /** Asks the gateway why the answer for `path` broke off. A `HEAD` changes nothing in a worker, if one gets it. */
  async #explain(path: string, cause: unknown): Promise<unknown> {
    if (this.#ending !== undefined) return this.#lost("the session was ended while its worker answered", cause);
    const signal = AbortSignal.timeout(EXPLANATION_TIMEOUT);
    try {
      await this.#send(this.url(path), { method: "HEAD", signal }, this.#fields());
    } catch (error) {
      if (error instanceof SessionLost) return this.#lost(`the answer broke off: ${error.detail}`, cause, error);
      if (error instanceof GatewayUnreachable) return this.#unreachable("went away while it answered", cause);
      if (error instanceof Draining) return error;
    }
    return new ResponseBroken({ detail: "the worker's answer broke off", session: this.id, cause });
  }

  #lost(detail: string, cause?: unknown, said?: HerdError): SessionLost {
    const { failure, status, problem } = said ?? {};
    const error = new SessionLost({ detail, failure, status, problem, session: this.id, cause });
    this.#loss ??= error;
    return error;
  }

  /** What it says while it is ended. If the end fails, the session goes on. */
  #endedHere(): SessionLost {
    return new SessionLost({ detail: `the session ${this.id} was ended by session.end()`, session: this.id });
  }

  #unreachable(what: string, cause: unknown): GatewayUnreachable {
    const detail = `the gateway at ${this.#connection.gateway.origin} ${what}${reasonOf(cause)}`;
    return new GatewayUnreachable({ detail, session: this.id, cause });
  }

  /** An answer of neither a worker nor the gateway. */
  async #foreign(answer: Response): Promise<GatewayUnreachable> {
    const { origin } = this.#connection.gateway;
    if (await isAdmin(answer)) {
      const detail = `${origin} is herd's admin address; the gateway is another one, usually port 8080`;
      return new GatewayUnreachable({ detail, status: answer.status, session: this.id });
    }
    const who = answer.headers.has(HERD_WORKER) ? "a gateway that knows no herd-session: end" : "not herd's gateway";
    const detail = `${who} answers at ${origin}, with the status ${answer.status}`;
    return new GatewayUnreachable({ detail, status: answer.status, session: this.id });
  }
}

/** What `fetch` would refuse is the caller's mistake and says nothing of the gateway. */
function check(url: string, { body, headers, method }: RequestInit): void {
  const sample = { headers, method, body: body === undefined || body === null ? undefined : "" };
  new Request(url, sample as RequestInit);
}

/** What lies below a "fetch failed". */
function reasonOf(error: unknown): string {
  let last: unknown;
  for (let cause = error; cause instanceof Error; cause = cause.cause) last = cause;
  if (!(last instanceof Error)) return "";
  const { code } = last as { code?: unknown };
  const text = last.message !== "" ? last.message : typeof code === "string" ? code : last.name;
  return `: ${text}`;
}
