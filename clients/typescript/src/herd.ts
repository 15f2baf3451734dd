import { Session } from "./session.js";
import { checkId, parseSessionKey, randomId, type SessionKey } from "./session_key.js";

/** Which gateway, and how it knows its sessions and its callers. */
export interface HerdOptions {
  /**
   * The gateway's address; `http://127.0.0.1:8080` by default. It may have a path, such as the `path_prefix` of a
   * route.
   */
  readonly gateway?: string | URL | undefined;
  /**
   * The bearer token, where the gateway has `access`. A function is asked before each request, so that a token that
   * expires can be replaced.
   */
  readonly token?: string | (() => string) | undefined;
  /**
   * The gateway's `session_key`; `header:X-Session-ID` by default. Of a list, the first is used. `path:N` counts the
   * segments after the path of `gateway`.
   */
  readonly sessionKey?: string | undefined;
  /** In the place of the platform's `fetch`: for proxies, certificates, and time limits of one's own. */
  readonly fetch?: typeof globalThis.fetch | undefined;
}

/** What sessions need to know of their gateway. */
export interface Connection {
  readonly gateway: URL;
  readonly key: SessionKey;
  readonly token: () => string | undefined;
  readonly fetch: typeof globalThis.fetch;
}

/** A gateway of herd. It holds no connection and needs not be closed. */
export class Herd {
  readonly #connection: Connection;

  /**
   * @throws {TypeError} If an option is not what it should be.
   */
  constructor(options: HerdOptions = {}) {
    const { token } = options;
    if (typeof token === "string") checkToken(token);
    this.#connection = {
      gateway: parseGateway(options.gateway ?? "http://127.0.0.1:8080"),
      key: parseSessionKey(options.sessionKey ?? "header:X-Session-ID"),
      token: typeof token === "function" ? () => checkToken(token()) : () => token,
      // A browser's own wants to be called without an object.
      fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
    };
    checkHost(this.#connection);
  }

  /**
   * A session. Nothing is sent: its worker starts with its first request.
   *
   * Without `id` it gets one of 128 random bits, which nobody can guess. Whoever knows a session's ID is in that
   * session.
   *
   * @throws {InvalidSession} If `id` is no session ID, or the session key cannot carry it.
   */
  session(id: string = randomId()): Session {
    checkId(this.#connection.key, id);
    return new Session(this.#connection, id);
  }

  /**
   * Calls `use` with a new session, and ends the session when `use` is done or has failed.
   *
   * For runtimes without `await using`. What keeps the session from being ended is not told: it ends by its time to
   * live.
   */
  async withSession<T>(use: (session: Session) => T | Promise<T>): Promise<T> {
    const session = this.session();
    try {
      return await use(session);
    } finally {
      await session.leave();
    }
  }
}

function parseGateway(address: string | URL): URL {
  let url: URL;
  try {
    url = new URL(address);
  } catch (cause) {
    throw new TypeError(`gateway: ${JSON.stringify(String(address))} is no address; write http://HOST:PORT`, { cause });
  }
  const wrong = (why: string): never => {
    throw new TypeError(`gateway: ${why}; write http://HOST:PORT or https://HOST:PORT`);
  };
  if (url.protocol !== "http:" && url.protocol !== "https:") wrong(`${url.protocol} is not spoken`);
  if (url.username !== "" || url.password !== "") wrong("the address has a user in it, and herd knows tokens alone");
  if (url.search !== "" || url.hash !== "") wrong("the address has a query or a fragment");
  return url;
}

/** An error must not show the token, as that of the platform would. */
function checkToken(token: string): string {
  if (!/^[!-~]+$/.test(token)) {
    throw new TypeError("token: it is empty, or has what no field can carry; leave it out where none is wanted");
  }
  return token;
}

/** An address such as `127.0.0.1` has no labels. */
function checkHost({ gateway, key }: Connection): void {
  if (key.source === "host" && (/^[\d.]+$/.test(gateway.hostname) || gateway.hostname.startsWith("["))) {
    throw new TypeError(`gateway: the session key host needs a name, and ${gateway.hostname} is an address`);
  }
}
