// The page of one pool.

import { h, s, attribute, visible, replace, write } from './dom.js';
import { NOTHING, count, counted, exactly, millis, setting } from './format.js';
import { Bar, Chart, recent } from './chart.js';
import { workerColumns } from './columns.js';
import { Facts, SandboxView } from './facts.js';
import { Grid } from './grid.js';

const KINDS = ['in-session', 'spare', 'starting', 'ending'];
const ENDED = {
  released: 'released by a caller',
  idle: 'idle for its TTL',
  'max-lifetime': 'at the end of its longest life',
  evicted: 'evicted for another session',
  killed: 'killed by an operator',
  crashed: 'its worker crashed',
  'out-of-memory': 'out of memory',
  'client-stream-closed': 'its client went away',
  shutdown: 'shut down with the daemon',
};

/** How full a pool is, in words. */
export function capacity({ workers, max_workers: most }) {
  const parts = [
    [workers.in_session, 'in sessions'], [workers.spare, 'spare'], [workers.starting, 'starting'], [workers.ending, 'ending'],
  ].filter(([number]) => number > 0).map(([number, word]) => `${count(number)} ${word}`);
  return `${counted(most, 'worker')} at most: ${parts.join(', ') || 'none runs'}`;
}

/** Whether callers wait because a pool is full. */
export const isCrowded = ({ workers, max_workers: most, waiting }) => waiting > 0 && workers.total >= most;

/** A bar of a pool's workers. */
export class CapacityBar {
  #bar = new Bar(KINDS);
  element = this.#bar.element;

  update(pool) {
    const { workers, max_workers: most } = pool;
    attribute(this.element, 'data-kind', isCrowded(pool) ? 'busy' : null);
    // After a reload there may be more than there may be.
    const whole = Math.max(most, workers.total, 1);
    this.#bar.draw({
      'in-session': workers.in_session / whole, spare: workers.spare / whole,
      starting: workers.starting / whole, ending: workers.ending / whole,
    }, capacity(pool));
  }
}

/** How often something took how long. */
class Histogram {
  #shown = '';
  element = h('div.histogram', { role: 'img' });

  update({ count: all, buckets }) {
    const stamp = JSON.stringify(buckets);
    if (stamp === this.#shown) return;
    this.#shown = stamp;
    const most = Math.max(1, ...buckets.map((bucket) => bucket.count));
    const bound = ({ up_to_ms: upTo, above_ms: above }) => (upTo === null ? `over ${millis(above)}` : `up to ${millis(upTo)}`);
    attribute(this.element, 'aria-label', `How long ${counted(all, 'start')} took: ${buckets.map((bucket) => `${bound(bucket)}: ${bucket.count}`).join('; ') || 'none'}`);
    const width = 100 / Math.max(1, buckets.length);
    const bars = buckets.map((bucket, index) => {
      const height = bucket.count === 0 ? 0 : Math.max(1.5, (bucket.count / most) * 60);
      return s('rect', { x: index * width + width * 0.06, y: 60 - height, width: width * 0.88, height },
        s('title', {}, `${bound(bucket)}: ${count(bucket.count)}`));
    });
    const first = buckets[0];
    const last = buckets.at(-1);
    replace(this.element, s('svg', { viewBox: '0 0 100 60', preserveAspectRatio: 'none' }, bars),
      h('div.axis', {}, h('span', {}, first ? millis(first.above_ms) : ''), h('span', {}, last ? bound(last) : '')));
  }
}

/** Counts by name as bars, the largest first. */
class Tally {
  #shown = '';
  element = h('table.tally');
  #names;

  constructor(names, label) {
    this.#names = names;
    attribute(this.element, 'aria-label', label);
  }

  update(counts) {
    const stamp = JSON.stringify(counts);
    if (stamp === this.#shown) return;
    this.#shown = stamp;
    const entries = Object.entries(counts).filter(([, number]) => number > 0).sort((a, b) => b[1] - a[1]);
    const most = entries[0]?.[1] ?? 1;
    const rows = entries.map(([name, number]) => {
      const bar = new Bar(['plain']);
      bar.draw({ plain: number / most }, '');
      attribute(bar.element, 'role', 'presentation');
      attribute(bar.element, 'aria-label', null);
      return h('tr', {}, h('th', { scope: 'row' }, this.#names[name] ?? name), h('td', {}, count(number)), h('td', {}, bar.element));
    });
    replace(this.element, h('tbody', {}, rows.length ? rows : h('tr', {}, h('td.none', {}, 'None so far.'))));
  }
}

export class PoolPage {
  place = 'sessions';
  #name;
  #picture;
  #pool = null;
  #notice = h('p.notice', { hidden: true, role: 'status' });
  #failure = h('section.failure', { hidden: true, 'aria-label': 'The last start failed' });
  #failed = '';
  #bar = new CapacityBar();
  #legend = h('p.legend');
  #workers = new Chart({
    title: 'Workers', lines: [{ kind: 'in-session', label: 'in sessions' }, { kind: 'spare', label: 'spare' }],
    format: (number) => (Number.isNaN(number) ? NOTHING : count(Math.round(number))), least: 1,
  });
  #waiting = new Chart({
    title: 'Waiting callers', lines: [{ kind: 'starting', label: '' }],
    format: (number) => (Number.isNaN(number) ? NOTHING : count(Math.round(number))), least: 4,
  });
  #starts = new Histogram();
  #ended = new Tally(ENDED, 'Why sessions ended');
  #exits = new Tally({}, 'How workers ended');
  #sandbox = new SandboxView();
  #facts;
  #quantiles;
  #settings;
  #drawn = -1;
  #seen = -1;

  constructor(context, name) {
    this.#name = name;
    this.#picture = context.picture;
    this.title = `Pool ${name}`;
    const of = (value) => () => (this.#pool ? value(this.#pool) : NOTHING);
    this.#facts = new Facts([
      { label: 'Sessions', value: of(({ sessions }) => ({ text: count(sessions), href: `#/?q=${encodeURIComponent(`pool:${name}`)}` })) },
      { label: 'Waiting callers', value: of(({ waiting, max_waiting: most }) => `${count(waiting)} of at most ${count(most)}`) },
      { label: 'Sessions started', value: of((pool) => count(pool.sessions_started)) },
      { label: 'Requests for a worker', value: of((pool) => ({ text: count(pool.acquire_requests), title: 'How often a session’s worker was asked for' })) },
      { label: 'Got none', value: of((pool) => ({ text: count(pool.acquire_failures), title: 'How many of these requests got no worker: the pool was full, or the start failed' })) },
      { label: 'Failed starts', value: of((pool) => count(pool.spawn_failures)) },
    ]);
    this.#quantiles = new Facts([
      { label: 'Starts', value: of(({ spawn_ms: times }) => count(times.count)) },
      ...['p50', 'p90', 'p99'].map((quantile) => ({ label: quantile, value: of(({ spawn_ms: times }) => millis(times[quantile])) })),
    ]);
    this.#settings = new Facts([
      { label: 'Workers', value: of((pool) => `${count(pool.min_workers)} to ${count(pool.max_workers)}`) },
      { label: 'Spare', value: of((pool) => count(pool.spare)) },
      { label: 'TTL', value: of((pool) => ({ text: setting(pool.ttl_ms), title: pool.idle_by === 'bytes' ? 'Counted from the last byte' : 'Counted from the end of the last request' })) },
      { label: 'Longest life', value: of((pool) => setting(pool.max_lifetime_ms)) },
      { label: 'Callers wait for', value: of((pool) => setting(pool.acquire_timeout_ms)) },
      { label: 'When full', value: of((pool) => (pool.when_full === 'evict-idle' ? 'evict the idlest' : 'wait')) },
      { label: 'Sandbox', value: of(({ sandbox }) => sandbox.mode) },
    ]);
    this.grid = new Grid({
      kind: 'workers.in-pool', label: 'Workers', noun: 'worker',
      columns: workerColumns(this.#picture).filter((column) => column.name !== 'pool'),
      sort: { column: 'id', descending: false }, resorted: () => this.#list(),
      open: (row) => { location.hash = `#/workers/${encodeURIComponent(row.id)}`; },
    });
    const section = (id, title, ...content) =>
      h('section', { 'aria-labelledby': `${id}-title` }, h('h2', { id: `${id}-title` }, title), ...content);
    this.element = h('article.detail', { 'aria-label': `Pool ${name}` },
      h('nav.trail', { 'aria-label': 'Trail' }, h('a', { href: '#/' }, 'Pools'), h('span', { 'aria-hidden': 'true' }, '/')),
      h('header.title', {}, h('h1.id', { tabindex: -1 }, name)),
      this.#notice, this.#failure,
      h('div.capacity', {}, this.#bar.element, this.#legend),
      this.#facts.element,
      h('div.charts', {}, this.#workers.element, this.#waiting.element),
      h('div.columns', {},
        section('starts', 'How long starts take', this.#quantiles.element, this.#starts.element),
        section('ended', 'Why sessions ended', this.#ended.element, h('h3', {}, 'How workers ended'), this.#exits.element)),
      h('div.columns', {},
        section('settings', 'Settings', this.#settings.element),
        section('sandbox', 'Sandbox', this.#sandbox.element)),
      h('section', { 'aria-labelledby': 'workers-title' },
        h('div.bar-line', {}, h('h2', { id: 'workers-title' }, 'Workers'), this.grid.sorter), this.grid.element));
  }

  update() {
    const picture = this.#picture;
    const pool = picture.pool(this.#name);
    if (pool) this.#pool = pool;
    this.#tell(pool);
    if (!this.#pool) return;
    this.#bar.update(this.#pool);
    write(this.#legend, isCrowded(this.#pool) ? `Full, and ${counted(this.#pool.waiting, 'caller')} waiting. ${capacity(this.#pool)}` : capacity(this.#pool));
    for (const facts of [this.#facts, this.#quantiles, this.#settings]) facts.update();
    this.#starts.update(this.#pool.spawn_ms);
    this.#ended.update(this.#pool.sessions_ended);
    this.#exits.update(this.#pool.worker_exits);
    this.#sandbox.update(this.#pool.sandbox);
    if (this.#drawn !== picture.tick) {
      this.#drawn = picture.tick;
      const series = picture.poolSeries(this.#name);
      this.#workers.draw(recent(picture, series?.in_session, series?.spare), this.#pool.max_workers);
      this.#waiting.draw(recent(picture, series?.waiting));
    }
    if (this.#seen !== picture.changes) {
      this.#seen = picture.changes;
      this.#list();
    } else this.grid.draw();
  }

  #list() {
    this.grid.show([...this.#picture.workers.values()].filter(({ pool }) => pool === this.#name));
  }

  #tell(pool) {
    const text = pool?.leaving ? 'This pool has been removed from the configuration, and ends when its sessions do.'
      : pool || !this.#picture.stats ? null
        : this.#pool ? 'This pool is gone.' : 'There is no such pool.';
    this.#notice.hidden = text === null;
    write(this.#notice, text ?? '');
    const failure = pool?.last_start_failure ?? null;
    const stamp = failure === null ? '' : failure.at + failure.error;
    if (stamp === this.#failed) return;
    this.#failed = stamp;
    this.#failure.hidden = failure === null;
    if (failure) {
      replace(this.#failure, h('h2', {}, 'The last start of a worker failed'),
        h('p.note', {}, exactly(failure.at)), h('pre', { tabindex: 0 }, visible(failure.error)));
    }
  }

  restarted() {
    this.#pool = null;
  }

  resize() {
    this.grid.layout();
    this.grid.draw();
  }

  close() {}
}
