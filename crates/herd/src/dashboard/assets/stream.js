// How the page talks to its daemon: requests, and streams of server-sent events that come back by themselves.
// `EventSource` cannot send a token, so streams are read with `fetch`.

const LONGEST_PAUSE = 30_000;
/** Streams say something at least each 15 s. */
const SILENCE = 40_000;
/** After how long a page that nobody looks at gives its connections back. A browser has few for one host. */
const UNSEEN_FOR = 1000;
/** How long an answer may take that waits for nobody, in milliseconds. */
const ANSWER_TIME = 20_000;

let token = recall();
/** Hears of it when the daemon takes the token no more, or asks for one. */
let denied = () => {};
let admitted = Promise.withResolvers();

export function whenDenied(listener) {
  denied = listener;
}

function recall() {
  try {
    return sessionStorage.getItem('herd-token');
  } catch {
    return null;
  }
}

export function hasToken() {
  return token !== null;
}

/** Takes a token for all requests from now on; `null` forgets it. It is kept as long as the tab is open. */
export function useToken(next) {
  token = next;
  if (next !== null) {
    admitted.resolve();
    admitted = Promise.withResolvers();
  }
  try {
    if (next === null) sessionStorage.removeItem('herd-token');
    else sessionStorage.setItem('herd-token', next);
  } catch {
    // It is kept as long as the page is open.
  }
}

/** What the daemon answered instead of what was asked for. */
export class Refusal extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail ? `${problem.title}: ${problem.detail}` : problem.title ?? `the daemon answers ${status}`);
    this.status = status;
    this.kind = String(problem.type ?? '').replace('urn:herd:problem:', '');
    this.retryAfter = retryAfter;
    /** The worker that a session has by now. */
    this.worker = problem.worker ?? null;
  }
}

/** Sends a request below the page's own address and gives the response if it is a good one. */
export async function request(path, { headers = {}, ...options } = {}) {
  const used = token;
  const credentials = used === null ? {} : { authorization: `Bearer ${used}` };
  const response = await fetch(path, { ...options, headers: { ...headers, ...credentials }, cache: 'no-store' });
  if (response.ok) return response;
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // Something between here and the daemon answers.
  }
  const refusal = new Refusal(response.status, problem, Number(response.headers.get('retry-after')) || null);
  if (response.status === 401) {
    if (used === token) denied(refusal);
    // The answer to a token that has been exchanged meanwhile says nothing about the new one.
    else if (token !== null) return request(path, { headers, ...options });
  }
  throw refusal;
}

export async function ask(path, { time = ANSWER_TIME, ...options } = {}) {
  try {
    return await (await request(path, { ...options, signal: time === null ? null : AbortSignal.timeout(time) })).json();
  } catch (error) {
    if (error.name !== 'TimeoutError') throw error;
    throw new Error(`no answer came within ${time / 1000} s; a browser has six connections to one address, so close other windows of this dashboard`);
  }
}

/** A path or query of parts, each of them escaped. */
export function address(parts, query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  const text = pairs.map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join('&');
  return parts.map(encodeURIComponent).join('/') + (text ? `?${text}` : '');
}

/** Takes text as it comes and gives events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>. */
export class Parser {
  #rest = '';
  #event = '';
  #data = [];
  /** The last ID that was sent. */
  id = null;

  *feed(text) {
    // A carriage return at the end may be the first half of a line's end; ours are line feeds alone.
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (this.#data.length) yield { name: this.#event || 'message', data: this.#data.join('\n') };
        this.#event = '';
        this.#data = [];
        continue;
      }
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'event') this.#event = value;
      else if (field === 'data') this.#data.push(value);
      else if (field === 'id') this.id = value;
    }
  }
}

const wakers = new Set();
let hiddenSince = document.hidden ? performance.now() : null;

document.addEventListener('visibilitychange', () => {
  hiddenSince = document.hidden ? performance.now() : null;
  if (!document.hidden) wakers.forEach((wake) => wake());
});
addEventListener('online', () => wakers.forEach((wake) => wake()));
setInterval(() => {
  if (unseen()) wakers.forEach((wake) => wake());
}, 1000);

const unseen = () => hiddenSince !== null && performance.now() - hiddenSince > UNSEEN_FOR;

/**
 * Follows a stream until it is closed, or `event` returns `false`, or the daemon refuses it for good.
 *
 * `open(response)` hears that it begins, `event(name, data)` each event, `heard()` that anything came, and `state(state)`
 * how it stands: `connecting`, `live`, `waiting` (with `until`, and with `reason` if the daemon said why), `unseen`,
 * `refused` (with `error`). `hung` says that the last try ended in silence, and not because nobody is there.
 */
export class Following {
  #path;
  #handlers;
  #gate;
  #id;
  #abort = null;
  #wake = () => {};
  #closed = false;
  #hung = false;
  /** Whether the daemon wants to be asked anew, with the token that counts by now. */
  #again = false;

  constructor(path, handlers, { gate = async () => {}, id = null } = {}) {
    this.#path = path;
    this.#handlers = { open() {}, event() {}, heard() {}, state() {}, ...handlers };
    this.#gate = gate;
    this.#id = id;
    this.#run();
  }

  close() {
    this.#closed = true;
    this.#abort?.abort();
    this.#wake();
  }

  /** Does not wait any longer. */
  retry() {
    this.#wake();
  }

  async #run() {
    const wake = () => {
      if (unseen()) this.#abort?.abort();
      else this.#wake();
    };
    wakers.add(wake);
    let failures = 0;
    while (!this.#closed) {
      if (unseen()) {
        this.#handlers.state({ kind: 'unseen' });
        await this.#sleep(2 ** 31 - 1);
        continue;
      }
      await this.#gate();
      if (this.#closed) break;
      let reason = null;
      try {
        this.#handlers.state({ kind: 'connecting', failures, hung: this.#hung });
        this.#hung = false;
        const over = await this.#read(() => { failures = 0; });
        if (over) break;
        if (this.#again) continue;
      } catch (error) {
        if (this.#closed) break;
        const isForGood = error instanceof Refusal && error.status < 500 && ![408, 409, 429].includes(error.status);
        if (error.status === 401) {
          this.#handlers.state({ kind: 'refused', error });
          await Promise.race([admitted.promise, this.#sleep(2 ** 31 - 1)]);
          continue;
        }
        if (isForGood) {
          this.#handlers.state({ kind: 'refused', error });
          break;
        }
        if (error instanceof Refusal) reason = error.message;
        failures = Math.max(failures, error.retryAfter ? Math.log2(error.retryAfter) : 0);
      }
      if (unseen()) continue;
      // Half of the pause is chance, so that many pages do not come back at one moment.
      const pause = Math.min(LONGEST_PAUSE, 1000 * 2 ** failures) * (0.5 + Math.random() / 2);
      failures += 1;
      this.#handlers.state({ kind: 'waiting', until: Date.now() + pause, reason, hung: this.#hung });
      await this.#sleep(pause);
    }
    wakers.delete(wake);
  }

  async #sleep(time) {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, time);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = () => {};
  }

  /** Whether nothing more is wanted of it. */
  async #read(alive) {
    const abort = new AbortController();
    this.#abort = abort;
    this.#again = false;
    const watch = () => setTimeout(() => {
      this.#hung = true;
      abort.abort();
    }, SILENCE);
    let watchdog = watch();
    try {
      const headers = this.#id === null ? {} : { 'last-event-id': this.#id };
      const response = await request(this.#path, { headers, signal: abort.signal });
      this.#handlers.open(response);
      this.#handlers.heard();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new Parser();
      this.#handlers.state({ kind: 'live' });
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return false;
        clearTimeout(watchdog);
        watchdog = watch();
        this.#handlers.heard();
        for (const { name, data } of parser.feed(value)) {
          alive();
          if (parser.id !== null) this.#id = parser.id;
          const told = JSON.parse(data);
          this.#again = name === 'end' && told.reason === 'token-changed';
          if (this.#handlers.event(name, told) === false) {
            abort.abort();
            return true;
          }
          if (this.#closed) return true;
        }
      }
    } finally {
      clearTimeout(watchdog);
      abort.abort();
    }
  }
}
