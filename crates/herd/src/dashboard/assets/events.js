// What happened to sessions and workers, as it happens: the newest first.

import { h, visible } from './dom.js';
import { clock, exactly, millis } from './format.js';
import { poolPath, sessionPath, workerPath } from './columns.js';
import { Following, address, ask } from './stream.js';

/** How many are kept in the page. */
const MOST = 500;
/** After how many milliseconds is looked again, if something seems to have happened and if not. */
const SOON = 1000;
const LATER = 5000;

const GOOD = new Set(['worker-ready', 'session-started']);
const BAD = new Set(['spawn-failed', 'worker-crashed', 'worker-unhealthy']);
/** Reasons for which sessions end that nobody wanted. */
const UNWANTED = new Set(['crashed', 'out-of-memory', 'unhealthy', 'killed', 'evicted']);

/** How an event reads, as nodes and text. */
function told(event) {
  const worker = event.worker ? h('a', { href: workerPath(event.worker) }, event.worker) : 'a worker';
  const session = event.session === undefined ? 'a session'
    : h('a.id', { href: sessionPath({ ...event, id: event.session }) }, visible(event.session));
  switch (event.kind) {
    case 'worker-starting': return [worker, ' is being started'];
    case 'worker-ready': return [worker, ` is ready after ${millis(event.ready_after_ms)}`];
    case 'spawn-failed': return [worker, ' could not be started: ', ...visible(event.error ?? '')];
    case 'worker-crashed': return [worker, ' crashed: ', ...visible(event.exit ?? '')];
    case 'worker-unhealthy': return [worker, ' does not answer its health checks'];
    case 'worker-gone': return [worker, ' is gone'];
    case 'session-started': return [session, ' started on ', worker];
    case 'session-ended': return [session, ' ended: ', ...visible(event.detail ?? event.reason ?? '')];
    case 'draining': return ['the pool takes on no more sessions'];
    case 'shutting-down': return ['the pool shuts down'];
    default: return [event.kind];
  }
}

function grade({ kind, reason }) {
  if (BAD.has(kind) || UNWANTED.has(reason)) return 'bad';
  return GOOD.has(kind) ? 'good' : 'plain';
}

function item(event, withPool) {
  const tail = event.stderr_tail?.length
    ? h('pre', { tabindex: 0, 'aria-label': 'Its last lines on standard error' }, visible(event.stderr_tail.join('\n'))) : null;
  return h(`li.${grade(event)}`, {},
    h('time', { datetime: event.at, title: `${exactly(event.at)}, event ${event.sequence}` }, clock(new Date(event.at))),
    h('span.what', {}, told(event), withPool && h('a.pool', { href: poolPath(event.pool) }, event.pool), tail));
}

/** A list of events that follows one or several streams. */
export class EventList {
  /** All that are kept, newest first. */
  events = [];
  #known = new Set();
  #pending = [];
  #list = h('ol.events');
  #state = h('p.note', {}, 'Loading…');
  #following = new Map();
  #asked = new Map();
  #timer = 0;
  #turn = 0;
  #looks = 0;
  #picture;
  #withPool;
  #heard;
  #words = [];

  /** `heard()` is called when there are new ones. */
  constructor(picture, { withPool = false, heard = () => {} } = {}) {
    this.#picture = picture;
    this.#withPool = withPool;
    this.#heard = heard;
    this.element = h('div', {}, this.#state, this.#list);
  }

  /** Follows those that fit a query, from the first one that is kept on. */
  follow(query) {
    const path = address(['v1', 'events'], query);
    if (this.#following.has(path)) return;
    this.#following.set(path, new Following(path, {
      event: (name, event) => this.#take(name, event),
      state: ({ kind, error }) => {
        if (kind === 'refused') this.#say(error.message);
        else if (kind === 'live') this.#stand();
      },
    }, { gate: () => this.#picture.whenLive(), id: '0' }));
  }

  /** Shows those alone that have all of these words. */
  search(text) {
    this.#words = text.toLowerCase().split(/\s+/).filter(Boolean);
    for (const element of this.#list.children) this.#fit(element);
    this.#tell();
  }

  /**
   * Asks for those that fit a query now, whenever `look` is called, and every now and then: a stream would take one of
   * the six connections that a browser has to one address, and windows beside this one need some.
   */
  ask(query) {
    const key = address([], query);
    if (this.#asked.has(key)) return;
    this.#asked.set(key, { query, last: 0 });
    this.look();
  }

  /** Looks whether something has happened, and once more a moment later, when the daemon has written it down. */
  look() {
    clearTimeout(this.#timer);
    this.#looks = 2;
    this.#lookOnce();
  }

  async #lookOnce() {
    const turn = this.#turn += 1;
    await this.#picture.whenLive();
    for (const one of this.#asked.values()) {
      if (this.#turn !== turn) return;
      try {
        const path = address(['v1', 'events'], { ...one.query, follow: false, last_event_id: one.last });
        const { items } = await ask(path);
        if (this.#turn !== turn) return;
        for (const event of items) this.#take(event.kind, event);
        one.last = items.at(-1)?.sequence ?? one.last;
        this.#stand();
      } catch (error) {
        if (!this.events.length && this.#turn === turn) this.#say(error.message);
      }
    }
    this.#looks -= 1;
    if (this.#turn === turn) this.#timer = setTimeout(() => this.#lookOnce(), this.#looks > 0 ? SOON : LATER);
  }

  #stand() {
    if (!this.events.length) this.#say('Nothing is kept of what happened, or nothing has.');
    else if (!this.#pending.length) this.#tell();
  }

  close() {
    // What was asked for before is not heard any more.
    this.#turn += 1;
    clearTimeout(this.#timer);
    this.#asked.clear();
    for (const following of this.#following.values()) following.close();
    this.#following.clear();
  }

  /** Another daemon answers: its events count from 1. */
  restart() {
    this.close();
    this.events = [];
    this.#known.clear();
    this.#pending = [];
    this.#list.replaceChildren();
  }

  #take(name, event) {
    // `missed` is no news: the list begins with what is kept.
    if (event.sequence === undefined || this.#known.has(event.sequence)) return;
    this.#known.add(event.sequence);
    this.events.unshift(event);
    // Two streams may tell of one another's past.
    if (this.events[1]?.sequence > event.sequence) this.events.sort((a, b) => b.sequence - a.sequence);
    for (const old of this.events.splice(MOST)) this.#known.delete(old.sequence);
    if (!this.#pending.length) requestAnimationFrame(() => this.#draw());
    this.#pending.push(event);
  }

  #draw() {
    const pending = this.#pending;
    this.#pending = [];
    if (!pending.length) return;
    const shown = this.#list.firstElementChild?.sequence ?? 0;
    const inOrder = pending.every(({ sequence }, index) => sequence > (pending[index - 1]?.sequence ?? shown));
    const fresh = inOrder ? pending.slice(-MOST).reverse() : this.events;
    if (!inOrder) this.#list.replaceChildren();
    this.#list.prepend(...fresh.map((event) => {
      const element = item(event, this.#withPool);
      element.sequence = event.sequence;
      this.#fit(element);
      return element;
    }));
    while (this.#list.children.length > MOST) this.#list.lastElementChild.remove();
    this.#tell();
    this.#heard();
  }

  #fit(element) {
    const text = element.textContent.toLowerCase();
    element.hidden = !this.#words.every((word) => text.includes(word));
  }

  #tell() {
    const items = [...this.#list.children];
    if (items.length) this.#say(items.every(({ hidden }) => hidden) ? 'No event fits the search.' : null);
  }

  #say(text) {
    this.#state.hidden = text === null;
    this.#state.textContent = text ?? '';
  }
}

/** The page of all events. */
export class EventsPage {
  place = 'events';
  title = 'Events';
  #list;

  constructor({ picture }) {
    this.#list = new EventList(picture, { withPool: true });
    this.#list.follow({});
    this.element = h('section', { 'aria-labelledby': 'events-title' },
      h('div.bar-line', {}, h('h1', { id: 'events-title' }, 'Events'),
        h('p.note', {}, `The last ${MOST}, the newest first.`),
        h('div.tools', {}, h('input', {
          type: 'search', placeholder: 'Search', 'aria-label': 'Search events', spellcheck: 'false', autocomplete: 'off',
          input: ({ target }) => this.#list.search(target.value),
        }))),
      this.#list.element);
  }

  update() {}

  restarted() {
    this.#list.restart();
    this.#list.follow({});
  }

  close() {
    this.#list.close();
  }
}
