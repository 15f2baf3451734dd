// The page of one session, and that of one worker.

import { h, attribute, announce, copyButton, write } from './dom.js';
import { NOTHING, bytes, count, duration, exactly, millis, percent, quoted } from './format.js';
import { Chart, recent } from './chart.js';
import { idleness, poolPath, sessionPath, stateMark, workerPath } from './columns.js';
import { EventList } from './events.js';
import { Facts, SandboxView } from './facts.js';
import { LogView } from './log.js';
import { sessionKey } from './picture.js';
import { ask } from './stream.js';

/** What the pages of sessions and workers have in common. */
class Detail {
  picture;
  context;
  /** The rows as they were last, also if they are gone. */
  session = null;
  worker = null;
  mark = stateMark();
  notice = h('p.notice', { hidden: true, role: 'status' });
  actions = h('div.actions');
  cpu = new Chart({ title: 'CPU', lines: [{ kind: 'cpu' }], format: percent, least: 0.05 });
  memory = new Chart({ title: 'Memory', lines: [{ kind: 'memory' }], format: bytes, least: 1 << 20 });
  sandbox = new SandboxView();
  #drawn = null;
  #heeded = null;
  /** What there is nothing to say in if nothing was ever seen. */
  #ofRows = [];

  constructor(context, { place, title, parent }) {
    this.context = context;
    this.picture = context.picture;
    this.place = place;
    this.title = title;
    this.log = new LogView(this.picture);
    this.events = new EventList(this.picture, { heard: () => context.schedule() });
    this.heading = h('h1.id', { tabindex: -1 }, title);
    this.parent = parent;
  }

  build(label, facts, extra) {
    this.facts = new Facts(facts);
    const sandbox = h('div', {}, h('h2', { id: 'sandbox-title' }, 'Sandbox'), this.sandbox.element);
    const charts = h('div.charts', {}, this.cpu.element, this.memory.element);
    this.#ofRows = [this.facts.element, charts, this.log.element, sandbox];
    this.element = h('article.detail', { 'aria-label': label },
      h('nav.trail', { 'aria-label': 'Trail' }, h('a', { href: this.parent.href }, this.parent.text), h('span', { 'aria-hidden': 'true' }, '/')),
      h('header.title', {}, this.heading, this.mark.element, this.actions),
      this.notice,
      this.facts.element,
      charts,
      this.log.element,
      h('div.columns', {},
        h('section', { 'aria-labelledby': 'events-title' }, h('h2', { id: 'events-title' }, 'Events'), this.events.element),
        h('section', { 'aria-label': 'More' }, extra ?? null, sandbox)));
  }

  /** Something happened if this is another than before. */
  heed(stamp) {
    if (this.#heeded === stamp) return;
    this.#heeded = stamp;
    this.events.look();
  }

  say(text, kind = 'plain') {
    this.notice.hidden = text === null;
    if (text !== null) write(this.notice, text);
    attribute(this.notice, 'data-kind', kind);
  }

  draw() {
    const isUnknown = this.picture.ready && !this.session && !this.worker;
    for (const element of this.#ofRows) element.hidden = isUnknown;
    this.facts.update();
    this.sandbox.update(this.worker ?? { layers: [], missing: [], limits: null });
    const stamp = `${this.worker?.id} ${this.picture.tick}`;
    if (this.#drawn === stamp) return;
    this.#drawn = stamp;
    // Of a worker that is gone the last picture stays. Another daemon may have another one of its name.
    const isThere = this.worker !== null && this.picture.workers.get(this.worker.id) === this.worker;
    if (this.worker && !isThere) return;
    const usage = this.picture.usage(this.worker?.id);
    this.cpu.draw(recent(this.picture, usage?.cpu), this.worker?.limits?.cpu_cores ?? null);
    this.memory.draw(recent(this.picture, usage?.memory), this.worker?.limits?.memory_bytes ?? null);
  }

  workerFacts() {
    const of = (format, name) => () => (this.worker ? format(this.worker[name]) : NOTHING);
    return [
      { label: 'PID', value: of((pid) => pid ?? NOTHING, 'pid') },
      { label: 'Processes', value: of(count, 'pids') },
      { label: 'CPU time', value: of(millis, 'cpu_time_ms') },
      { label: 'Memory peak', value: of(bytes, 'memory_peak_bytes') },
      { label: 'Killed for memory', value: () => (this.worker?.oom_kills ? count(this.worker.oom_kills) : null) },
      { label: 'Start took', value: of(millis, 'ready_after_ms') },
      { label: 'Address', wide: true, value: () => this.#address() },
    ];
  }

  /** With a network of its own, the worker's address is there for herd alone. */
  #address() {
    const { address = null, layers = [] } = this.worker ?? {};
    if (!address?.startsWith('http') || !layers.includes('network namespace')) return address ?? NOTHING;
    return { text: `${address} (private)`, title: 'In the worker’s own network, which herd alone reaches' };
  }

  close() {
    this.log.close();
    this.events.close();
  }
}

const since = (time, now) => ({ text: duration(now - Date.parse(time)), title: exactly(time) });

export class SessionPage extends Detail {
  #name;
  #key;
  #wasLive = false;
  /** Whether it was of a daemon that is no more. */
  #endedWithDaemon = false;
  /** When it was seen no more. */
  #ended = null;
  #reach = h('code');
  #reachNote = h('p.note');

  constructor(context, name) {
    super(context, { place: 'sessions', title: name.id, parent: { href: '#/', text: 'Sessions' } });
    this.#name = name;
    this.#key = sessionKey(name);
    const { picture } = this;
    const of = (value) => () => (this.session ? value(this.session) : NOTHING);
    this.end = h('button.danger', { type: 'button', click: () => this.confirm() }, 'End session…');
    this.actions.append(this.end);
    const reach = h('div.reach', {}, h('h2', {}, 'Reach it'),
      h('div.command', {}, this.#reach, copyButton('Copy the command', () => this.#reach.textContent)), this.#reachNote);
    this.build(`Session ${name.id}`, [
      { label: 'Pool', value: () => ({ text: name.pool, href: poolPath(name.pool) }) },
      { label: 'Tenant', value: () => name.tenant },
      { label: 'Worker', value: of(({ worker }) => (worker === null ? NOTHING : { text: worker, href: workerPath(worker) })) },
      { label: 'Age', value: of(({ created }) => since(created, this.#ended ?? picture.now())) },
      { label: 'Idle time', value: () => (this.session && this.#ended === null ? idleness(picture, this.session) : null) },
      { label: 'Ends at the latest', value: () => (this.session?.ends_by && this.#ended === null ? { text: `in ${duration(Date.parse(this.session.ends_by) - picture.now())}`, title: exactly(this.session.ends_by) } : null) },
      { label: 'Open now', value: of(({ leases }) => count(leases)) },
      { label: 'Requests', value: of(({ requests }) => count(requests)) },
      { label: 'From clients', value: of(({ bytes_in: sum }) => bytes(sum)) },
      { label: 'To clients', value: of(({ bytes_out: sum }) => bytes(sum)) },
      ...this.workerFacts(),
    ], reach);
    this.#bind();
    this.#tellHowToReach();
  }

  #bind() {
    const { pool, tenant, id } = this.#name;
    this.events.ask({ session: id, pool, tenant: tenant ?? '' });
  }

  restarted() {
    this.log.restart();
    this.events.restart();
    this.#endedWithDaemon ||= this.#wasLive;
    this.#wasLive = false;
    this.#bind();
  }

  update() {
    const { picture } = this;
    const session = picture.sessions.get(this.#key) ?? null;
    if (session) {
      this.session = session;
      this.#wasLive = true;
      this.#endedWithDaemon = false;
      this.#ended = null;
      if (session.worker !== null) {
        this.worker = picture.workers.get(session.worker) ?? (this.worker?.id === session.worker ? this.worker : null);
        if (session.state === 'live') this.log.open(session.worker);
      }
    }
    this.heed(`${session?.state} ${session?.worker}`);
    this.mark.update(session?.state ?? (picture.ready ? 'ended' : 'unknown'));
    attribute(this.end, 'disabled', !session);
    this.#tell(session);
    this.draw();
  }

  #tell(session) {
    if (session || !this.picture.ready) {
      this.say({
        ending: 'It is ending: its worker is being stopped.', waiting: 'It waits until its pool has a worker for it.',
      }[session?.state] ?? null);
      return;
    }
    // Only what happened last counts: an earlier session of this name may have ended before.
    const last = this.events.events.find(({ kind }) => kind.startsWith('session-'));
    const ended = last?.kind === 'session-ended' ? last : null;
    if (ended) this.#ended = Date.parse(ended.at);
    this.#ended ??= this.picture.now();
    if (ended?.worker) this.events.ask({ worker: ended.worker });
    this.log.absent('There is no worker whose log could be shown.');
    if (ended) {
      this.say(`This session ended at ${exactly(ended.at)}: ${ended.detail ?? ended.reason}.`, 'over');
    } else if (this.#endedWithDaemon) this.say('The daemon was started anew, and this session ended with the one before.', 'over');
    else if (this.#wasLive) this.say('This session has ended.', 'over');
    else this.say('There is no such session. It has ended, or it never started.', 'over');
  }

  async #tellHowToReach() {
    await this.picture.whenLive();
    try {
      const { command, note } = reach(await this.context.gateway(), this.#name);
      write(this.#reach, command);
      write(this.#reachNote, note);
    } catch {
      write(this.#reachNote, 'How the gateway is reached cannot be told at this moment.');
    }
  }

  confirm() {
    if (!this.session || this.end.disabled) return;
    const { picture, context } = this;
    context.dialogs.end(this.session, () => picture.sessions.get(this.#key) ?? null, () => announce(`The session ${this.#name.id} has ended`));
  }

  keys = { e: () => this.confirm() };
}

export class WorkerPage extends Detail {
  #id;
  /** When it was seen no more. */
  #gone = null;

  constructor(context, id) {
    super(context, { place: 'workers', title: id, parent: { href: '#/workers', text: 'Workers' } });
    this.#id = id;
    const of = (value) => () => (this.worker ? value(this.worker) : NOTHING);
    this.build(`Worker ${id}`, [
      { label: 'Pool', value: of(({ pool }) => ({ text: pool, href: poolPath(pool) })) },
      {
        label: 'Session',
        value: of(({ session, pool, tenant }) =>
          (session === null ? NOTHING : { text: session, href: sessionPath({ pool, tenant, id: session }) })),
      },
      { label: 'Tenant', value: () => this.worker?.tenant ?? null },
      { label: 'Age', value: of(({ started }) => since(started, this.#gone ?? this.picture.now())) },
      ...this.workerFacts(),
    ]);
    this.events.ask({ worker: id });
  }

  restarted() {
    this.log.restart();
    this.events.restart();
    this.worker = null;
    this.events.ask({ worker: this.#id });
  }

  update() {
    const worker = this.picture.workers.get(this.#id) ?? null;
    if (worker) this.worker = worker;
    this.#gone = worker || !this.picture.ready ? null : this.#gone ?? this.picture.now();
    if (worker && worker.state !== 'starting') this.log.open(worker.id);
    this.heed(`${worker?.state} ${worker?.session}`);
    this.mark.update(worker?.state ?? (this.picture.ready ? 'gone' : 'unknown'));
    if (worker || !this.picture.ready) this.say(null);
    else {
      this.log.absent('Its log is gone with it.');
      this.say(this.worker ? 'This worker is gone.' : 'There is no such worker. It is gone, or it never started.', 'over');
    }
    this.draw();
  }
}

/** The command line that reaches a session through the gateway, and what else it takes. */
export function reach(gateway, { pool, id }) {
  const url = gateway.url.replace(/\/$/, '');
  const [place, name] = gateway.session_key.split(',')[0].split(/:(.*)/);
  const { host, authority } = new URL(url);
  const routes = gateway.routes.filter((route) => route.pool === pool);
  const route = routes[0];
  const fields = [];
  let path = `${route?.path_prefix?.replace(/\/$/, '') ?? ''}/`;
  if (place === 'header') fields.push(`${name}: ${id}`);
  else if (place === 'cookie') fields.push(`cookie: ${name}=${id}`);
  else if (place === 'query') path += `?${name}=${encodeURIComponent(id)}`;
  else if (place === 'path') path = pathWith(path, Number(name), id);
  else if (place === 'host') fields.push(`host: ${id}.${route?.host?.replace(/^\*\./, '') ?? (authority ?? host)}`);
  if (place !== 'host' && route?.host) fields.push(`host: ${route.host.replace(/^\*/, 'any')}`);
  if (route?.header) {
    const [field, value = 'any'] = route.header.split(/=(.*)/);
    fields.push(`${field}: ${value}`);
  }
  if (gateway.asks_for_credentials) fields.push('authorization: Bearer TOKEN');
  const words = ['curl', ...fields.flatMap((field) => ['-H', quoted(field)]), quoted(url + path)];
  const isLost = !route && gateway.default_pool !== pool;
  const note = isLost ? `No route leads to the pool ${pool}; add one to \`routes\`.`
    : gateway.asks_for_credentials ? 'Put a token of the session’s owner in the place of TOKEN.' : '';
  return { command: words.join(' '), note };
}

/** A path whose `place`-th segment is the session. */
function pathWith(path, place, id) {
  const segments = path.split('/').filter(Boolean);
  while (segments.length < place - 1) segments.push('any');
  segments.splice(place - 1, 0, encodeURIComponent(id));
  return `/${segments.join('/')}/`;
}

