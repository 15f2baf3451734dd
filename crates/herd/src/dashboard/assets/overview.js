// The pages of all sessions and of all workers, with the pools above them.

import { h, attribute, replace, write } from './dom.js';
import { bytes, count, percent } from './format.js';
import { Spark } from './chart.js';
import { poolPath, sessionColumns, sessionPath, workerColumns, workerPath } from './columns.js';
import { reach } from './detail.js';
import { Grid, search } from './grid.js';
import { CapacityBar, isCrowded } from './pool.js';

/** How many samples the tiles show: two minutes. */
const SHOWN = 120;

/** A number that is worth a glance, and its last minutes. */
class Tile {
  #value = h('span');
  #spark;
  #series;
  #text;
  #isBusy;
  #drawn = -1;

  constructor({ label, kind, series = null, text, isBusy }) {
    this.#isBusy = isBusy;
    this.#series = series;
    this.#text = text;
    this.#spark = series && new Spark(96, 24, kind);
    this.element = h('div.tile', {}, h('dt', {}, label), h('dd', {}, this.#value, this.#spark?.element));
  }

  update(picture) {
    write(this.#value, picture.stats ? this.#text(picture) : '–');
    attribute(this.element, 'data-kind', this.#isBusy?.(picture) ? 'busy' : null);
    if (!this.#spark || this.#drawn === picture.tick) return;
    this.#drawn = picture.tick;
    this.#spark.draw(this.#series.until(picture.tick, SHOWN), 0.1);
  }
}

/** A pool at a glance. */
class Card {
  #bar = new CapacityBar();
  #numbers = h('p');
  #trouble = h('p.trouble', { hidden: true });

  constructor(name) {
    this.element = h('li.card', {}, h('a', { href: poolPath(name) }, name), this.#bar.element, this.#numbers, this.#trouble);
  }

  update(pool) {
    const { workers, max_workers: most, waiting } = pool;
    this.#bar.update(pool);
    const parts = [`${count(workers.in_session)} of ${count(most)} in sessions`, `${count(workers.spare)} spare`];
    if (isCrowded(pool)) parts[1] = 'full';
    if (waiting) parts.push(`${count(waiting)} waiting`);
    write(this.#numbers, parts.join(' · '));
    const trouble = pool.last_start_failure ? 'The last start failed.' : pool.leaving ? 'Ends with its sessions.' : null;
    this.#trouble.hidden = trouble === null;
    write(this.#trouble, trouble ?? '');
    attribute(this.element, 'data-kind', pool.last_start_failure ? 'bad' : isCrowded(pool) ? 'busy' : null);
  }
}

/** Whether a session has its worker. */
const isThere = ({ worker }) => worker !== null;

class Cards {
  #cards = new Map();
  element = h('ul.cards', { 'aria-label': 'Pools' });

  update(pools) {
    const names = pools.map(({ pool }) => pool);
    if (names.join('\n') !== [...this.#cards.keys()].join('\n')) {
      this.#cards = new Map(names.map((name) => [name, this.#cards.get(name) ?? new Card(name)]));
      replace(this.element, [...this.#cards.values()].map(({ element }) => element));
    }
    for (const pool of pools) this.#cards.get(pool.pool).update(pool);
  }
}

class Overview {
  #context;
  #picture;
  #rows;
  #noun;
  #tiles;
  #cards = new Cards();
  #count = h('output.note', { 'aria-live': 'off' });
  #empty = h('div.empty', { hidden: true });
  #said = null;
  #shown = '';
  #ordered = 0;

  constructor(context, { place, title, noun, columns, rows, path, sort }) {
    const { picture } = context;
    this.#context = context;
    this.#picture = picture;
    this.#rows = rows;
    this.#noun = noun;
    this.place = place;
    this.title = title;
    const { query } = context;
    const column = columns.find(({ name }) => name === query.get('sort')?.replace(/^-/, ''));
    this.grid = new Grid({
      kind: place, label: title, noun, columns,
      sort: column ? { column: column.name, descending: query.get('sort').startsWith('-') } : sort,
      open: (row) => { location.hash = path(row); },
      resorted: () => {
        this.#remember();
        this.#list();
      },
    });
    this.search = h('input', {
      type: 'search', placeholder: 'Search', 'aria-label': `Search ${place}`, spellcheck: 'false', autocomplete: 'off',
      title: 'Words of an ID, a tenant, a pool, a worker; or pool:NAME tenant:NAME state:NAME',
      input: () => {
        this.#remember();
        this.#list();
      },
      keydown: (event) => {
        if (event.key === 'ArrowDown' || event.key === 'Enter') {
          event.preventDefault();
          this.grid.focus(0);
        }
      },
    });
    this.search.value = query.get('q') ?? '';
    this.#tiles = [
      { label: 'Sessions', kind: 'in-session', series: picture.totals.sessions, text: ({ begun }) => count(begun) },
      { label: 'Workers', text: ({ stats }) => `${count(stats.workers.total)} of ${count(stats.max_workers)}` },
      {
        label: 'Waiting callers', kind: 'starting', series: picture.totals.waiting, text: ({ stats }) => count(stats.waiting),
        isBusy: ({ stats }) => stats?.pools.some(isCrowded),
      },
      { label: 'Requests now', text: ({ stats }) => count(stats.gateway.requests + stats.gateway.upgrades) },
      { label: 'CPU of workers', kind: 'cpu', series: picture.totals.cpu, text: ({ totals }) => percent(totals.cpu.last) },
      { label: 'Memory of workers', kind: 'memory', series: picture.totals.memory, text: ({ totals }) => bytes(totals.memory.last) },
    ].map((tile) => new Tile(tile));
    this.element = h('div.overview', {},
      h('dl.tiles', { 'aria-label': 'The daemon at a glance' }, this.#tiles.map(({ element }) => element)),
      this.#cards.element,
      h('section', { 'aria-labelledby': 'list-title' },
        h('div.bar-line.sticky', {}, h('h1', { id: 'list-title' }, title), this.#count,
          h('div.tools', {}, this.grid.sorter, this.search)),
        this.grid.element, this.#empty));
  }

  update() {
    const picture = this.#picture;
    for (const tile of this.#tiles) tile.update(picture);
    if (picture.stats) this.#cards.update(picture.stats.pools);
    // Numbers that move would keep rows moving: they are put in order each other second.
    const stamp = `${picture.changes} ${picture.ready}`;
    if (stamp !== this.#shown && (performance.now() - this.#ordered > 900 || !picture.ready || this.grid.isEmpty)) {
      this.#list();
    } else this.grid.draw();
  }

  #list() {
    this.#shown = `${this.#picture.changes} ${this.#picture.ready}`;
    this.#ordered = performance.now();
    const all = [...this.#rows.values()];
    const fits = search(this.search.value);
    this.grid.show(fits ? all.filter(fits) : all);
    write(this.#count, all.length || this.#picture.ready ? this.grid.summary(all, this.#noun === 'session' ? isThere : () => true) : '');
    this.#tellIfEmpty(all.length);
  }

  #tellIfEmpty(all) {
    const said = !this.grid.isEmpty ? null : !this.#picture.ready ? 'loading' : all ? 'none fits' : 'none';
    if (said === this.#said) return;
    this.#said = said;
    this.#empty.hidden = said === null;
    this.grid.element.hidden = said !== null && said !== 'loading';
    if (said === 'loading') replace(this.#empty, h('p', {}, 'Loading…'));
    else if (said === 'none fits') {
      replace(this.#empty, h('p', {}, `No ${this.#noun} fits the search.`), h('button', {
        type: 'button', click: () => {
          this.search.value = '';
          this.search.focus();
          this.#remember();
          this.#list();
        },
      }, 'Clear the search'));
    } else if (said === 'none') this.#welcome();
  }

  async #welcome() {
    replace(this.#empty, h('p', {}, `No ${this.#noun} at this moment.`));
    const pool = this.#picture.stats?.pools.find(({ leaving }) => !leaving)?.pool;
    if (this.#noun !== 'session' || !pool) return;
    try {
      const { command } = reach(await this.#context.gateway(), { pool, id: 'alice' });
      if (this.#said === 'none') this.#empty.append(h('p.note', {}, 'A request that names one starts it:'), h('code', {}, command));
    } catch {
      // Without an example, then.
    }
  }

  /** Keeps the search and the order in the address, so that they are there after going back and after a reload. */
  #remember() {
    const { column, descending } = this.grid.sort;
    const query = new URLSearchParams();
    if (this.search.value) query.set('q', this.search.value);
    query.set('sort', `${descending ? '-' : ''}${column}`);
    history.replaceState(history.state, '', `#/${this.place}?${query}`);
  }

  restarted() {}

  resize() {
    this.grid.layout();
    this.grid.draw();
  }

  close() {}
}

export class SessionsPage extends Overview {
  constructor(context) {
    super(context, {
      place: 'sessions', title: 'Sessions', noun: 'session', columns: sessionColumns(context.picture),
      rows: context.picture.sessions, path: sessionPath, sort: { column: 'age', descending: false },
    });
  }
}

export class WorkersPage extends Overview {
  constructor(context) {
    super(context, {
      place: 'workers', title: 'Workers', noun: 'worker', columns: workerColumns(context.picture),
      rows: context.picture.workers, path: ({ id }) => workerPath(id), sort: { column: 'age', descending: false },
    });
  }
}
