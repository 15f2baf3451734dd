// What the daemon looks like at this moment, as `/v1/live` tells it, and what its numbers were in the last minutes.

import { Following } from './stream.js';

const INTERVAL = 1000;
/** After how many milliseconds without a word the daemon is silent. */
const QUIET = 5000;
/** How many samples are kept of each number. */
export const SAMPLES = 240;
/** For how long a worker whose processor time stands still is taken for one that was not looked at, in milliseconds. */
const STALE = 4000;
/** How many ticks may pass between two samples that belong together. */
const LATE = 3;

/** A time that may be none. */
const moment = (time) => (time ? Date.parse(time) : Infinity);

export const sessionKey = ({ pool, tenant, id }) => `${pool}\n${tenant ?? ''}\n${id}`;

/** Numbers of the last moments: one for each tick of the picture's clock, `NaN` where nothing was known. */
export class Series {
  #values = new Float32Array(SAMPLES).fill(NaN);
  #tick = -SAMPLES;

  push(tick, value) {
    // Ticks that passed without a number are gaps, unless the number only came a bit late.
    const missing = tick - this.#tick > LATE ? NaN : value ?? NaN;
    for (let at = Math.max(this.#tick + 1, tick - SAMPLES + 1); at < tick; at += 1) this.#values[at % SAMPLES] = missing;
    this.#values[tick % SAMPLES] = value ?? NaN;
    this.#tick = tick;
  }

  at(tick) {
    return tick < 0 || tick > this.#tick || tick <= this.#tick - SAMPLES ? NaN : this.#values[tick % SAMPLES];
  }

  get last() {
    return this.#tick < 0 ? NaN : this.#values[this.#tick % SAMPLES];
  }

  /** The last `most` numbers before and at `tick`, oldest first. */
  until(tick, most = SAMPLES) {
    return Array.from({ length: most }, (_, index) => this.at(tick - most + 1 + index));
  }
}

class Usage {
  cpu = new Series();
  memory = new Series();
  #cpuTime = null;
  #since = 0;
  #share = NaN;

  sample(tick, now, worker) {
    const { cpu_time_ms: cpuTime, memory_bytes: memory } = worker;
    if (cpuTime !== this.#cpuTime) {
      // Looked at less often than the picture is sent, it moves by jumps, each of which is spread over its time.
      const passed = now - this.#since;
      const known = this.#cpuTime !== null && cpuTime !== null && cpuTime >= this.#cpuTime && passed > 0;
      this.#share = known ? (cpuTime - this.#cpuTime) / passed : NaN;
      this.#cpuTime = cpuTime;
      this.#since = now;
    } else if (cpuTime !== null && (Number.isNaN(this.#share) || now - this.#since > STALE)) {
      this.#share = 0;
    }
    this.cpu.push(tick, this.#share);
    this.memory.push(tick, memory);
  }
}

const POOL_SERIES = ['in_session', 'spare', 'starting', 'ending', 'waiting'];

export class Picture {
  sessions = new Map();
  workers = new Map();
  stats = null;
  /** How the stream stands; see `Following`. */
  state = { kind: 'connecting' };
  /** When the daemon was last heard. */
  heard = null;
  /** Whether there has been a whole picture since the page was opened. */
  ready = false;
  /** When the daemon was started that this is the picture of. */
  started = null;
  version = null;
  tick = -1;
  /** How many of the sessions have no worker yet. */
  waiting = 0;
  totals = { cpu: new Series(), memory: new Series(), sessions: new Series(), waiting: new Series() };
  /** Counts all changes of the sessions' and the workers' rows. */
  changes = 0;
  #usage = new Map();
  #pools = new Map();
  #told = null;
  /** Whether another daemon answers than the one whose picture is shown. */
  #isAnother = false;
  #skew = 0;
  /** What is to be added to the daemon's `uptime_ms` to have this page's clock. */
  #origin = 0;
  #following = null;
  #last = performance.now();
  #whenLive = Promise.withResolvers();
  #changed;
  #restarted;

  /** `changed` hears of each change, and `restarted` when another daemon answers than before. */
  constructor(changed, restarted) {
    this.#changed = changed;
    this.#restarted = restarted;
  }

  /** Begins to follow the daemon, also if it has been refused before. */
  connect() {
    this.#following?.close();
    this.state = { kind: 'connecting', failures: 0 };
    this.#following = new Following(`v1/live?interval_ms=${INTERVAL}`, {
      open: (response) => this.#open(response),
      event: (name, data) => this.#event(name, data),
      heard: () => this.#hear(),
      state: (state) => this.#turn(state),
    });
  }

  retry() {
    this.#following?.retry();
  }

  /** Waits until the picture is that of a daemon that answers, and so the right daemon is asked for more. */
  async whenLive() {
    await this.#whenLive.promise;
  }

  /** For how many milliseconds nothing came from a daemon that is there; 0 while that is no wonder. */
  get silence() {
    const quiet = performance.now() - this.#last;
    return ['live', 'connecting'].includes(this.state.kind) && quiet > QUIET ? quiet : 0;
  }

  /** How many sessions have their worker. */
  get begun() {
    return this.sessions.size - this.waiting;
  }

  /** The daemon's time, in milliseconds. It stands still while the daemon is gone or silent, as all else. */
  now() {
    const goesOn = this.heard === null || (this.state.kind === 'live' && !this.silence);
    return (goesOn ? Date.now() : this.heard) + this.#skew;
  }

  usage(worker) {
    return this.#usage.get(worker) ?? null;
  }

  pool(name) {
    return this.stats?.pools.find(({ pool }) => pool === name) ?? null;
  }

  poolSeries(name) {
    return this.#pools.get(name) ?? null;
  }

  #turn(state) {
    const wasLive = this.state.kind === 'live';
    // Connected is not live: what is shown is the old picture until the new one is whole.
    if (state.kind === 'live') return;
    if (wasLive) this.#whenLive = Promise.withResolvers();
    if (!state.hung) this.#last = performance.now();
    this.state = state;
    this.#changed();
  }

  #open(response) {
    // To the second, which is enough to see a clock that goes wrong.
    const skew = Date.parse(response.headers.get('date')) - Date.now();
    this.#skew = Math.abs(skew) > 2000 ? skew : 0;
    this.#told = { sessions: new Set(), workers: new Set() };
  }

  #hear() {
    this.heard = Date.now();
    this.#last = performance.now();
  }

  #event(name, data) {
    if (name === 'hello') this.#greet(data);
    else if (name === 'sessions') this.#put(data.items, this.sessions, this.#told?.sessions, sessionKey);
    else if (name === 'workers') this.#put(data.items, this.workers, this.#told?.workers, ({ id }) => id);
    else if (name === 'gone') this.#remove(data);
    else if (name === 'ready') this.#complete();
    else if (name === 'stats') this.#count(data);
    this.#changed();
  }

  #greet({ version, started, stats }) {
    // The old picture stays until the new one is whole, so that the reader's place does.
    this.#isAnother ||= this.started !== null && this.started !== started;
    this.#origin = performance.now() - stats.uptime_ms;
    this.version = version;
    this.started = started;
    this.stats = stats;
  }

  #put(items, rows, told, keyOf) {
    for (const item of items) {
      const key = keyOf(item);
      told?.add(key);
      item.key = key;
      // The tables sort by these, and reading ten thousand times takes its time.
      item.born = Date.parse(item.created ?? item.started);
      item.ending = Math.min(moment(item.idle_until), moment(item.ends_by));
      rows.set(key, item);
    }
    this.changes += 1;
  }

  #remove({ sessions, workers }) {
    for (const session of sessions ?? []) this.sessions.delete(sessionKey(session));
    for (const worker of workers ?? []) this.#forget(worker);
    this.changes += 1;
  }

  #forget(worker) {
    this.workers.delete(worker);
    this.#usage.delete(worker);
  }

  #complete() {
    // What was not told again is gone.
    for (const key of this.sessions.keys()) if (!this.#told.sessions.has(key)) this.sessions.delete(key);
    for (const key of this.workers.keys()) if (!this.#told.workers.has(key)) this.#forget(key);
    this.#told = null;
    if (this.#isAnother) {
      this.#isAnother = false;
      this.#usage.clear();
      this.#pools.clear();
      this.#restarted();
    }
    this.ready = true;
    this.state = { kind: 'live' };
    this.#settle();
    this.changes += 1;
    this.#sample();
    this.#whenLive.resolve();
  }

  #count(stats) {
    this.stats = stats;
    this.#settle();
    if (this.state.kind === 'live') this.#sample();
  }

  /** Sessions get workers in the order in which they came: those for whom none is being started wait for room. */
  #settle() {
    const rows = [...this.sessions.values()].filter(({ state }) => state === 'starting' || state === 'waiting');
    const coming = new Map(this.stats.pools.map(({ pool, workers }) => [pool, workers.starting]));
    for (const row of rows.sort((a, b) => a.born - b.born)) {
      const left = coming.get(row.pool) ?? 0;
      coming.set(row.pool, left - 1);
      const state = left > 0 ? 'starting' : 'waiting';
      if (row.state === state) continue;
      row.state = state;
      row.hay = null;
      this.changes += 1;
    }
    this.waiting = rows.length;
  }

  #sample() {
    // When the daemon took the picture, however late it came.
    const now = this.#origin + this.stats.uptime_ms;
    // Ticks count time, so that a while without news is as wide as it was long.
    const tick = Math.max(this.tick + 1, Math.round(now / INTERVAL));
    this.tick = tick;
    let [cpu, memory] = [0, 0];
    for (const worker of this.workers.values()) {
      let usage = this.#usage.get(worker.id);
      if (!usage) this.#usage.set(worker.id, usage = new Usage());
      usage.sample(tick, now, worker);
      cpu += usage.cpu.last || 0;
      memory += worker.memory_bytes ?? 0;
    }
    this.totals.cpu.push(tick, cpu);
    this.totals.memory.push(tick, memory);
    this.totals.sessions.push(tick, this.begun);
    this.totals.waiting.push(tick, this.stats.waiting);
    for (const { pool, workers, waiting } of this.stats.pools) {
      let series = this.#pools.get(pool);
      if (!series) this.#pools.set(pool, series = Object.fromEntries(POOL_SERIES.map((name) => [name, new Series()])));
      for (const name of POOL_SERIES) series[name].push(tick, name === 'waiting' ? waiting : workers[name]);
    }
  }
}
