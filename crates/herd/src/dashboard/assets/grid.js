// A table of any length, of which only the rows that are seen are in the document. It scrolls with the page.

import { h, attribute, write, announce } from './dom.js';
import { count, counted } from './format.js';

/** Rows beyond the edges, so that a scroll of a few rows shows no gap. */
const MARGIN = 8;

/**
 * `columns` are `{ name, label, value, cell, live, descends }`: `value(row)` is what is sorted by, `cell()` makes
 * `{ element, update(row) }`, `live` says that values change all the time, and `descends` that the largest come first.
 */
export class Grid {
  #columns;
  #open;
  #noun;
  #resorted;
  #rows = [];
  #index = new Map();
  #made = new Map();
  #sort;
  #active = null;
  #body = h('div.rows', { role: 'rowgroup' });
  #heads;
  #sorters = new Map();
  #choice;
  #height = 0;

  /** `open(row)` is called for Enter and clicks, `resorted(sort)` when the reader sorts by another column. */
  constructor({ kind, label, noun, columns, sort, open, resorted }) {
    this.#columns = columns;
    this.#open = open;
    this.#noun = noun;
    this.#resorted = resorted;
    this.#sort = sort;
    const heads = columns.map((column) => this.#headOf(column));
    this.#heads = h('div.heads', { role: 'rowgroup' }, h('div.row.head', { role: 'row', 'aria-rowindex': 1 }, heads));
    this.#choice = h('select', { 'aria-label': `Sort ${label.toLowerCase()} by`, change: () => this.#choose() },
      columns.filter(({ value }) => value).map(({ name, label: text }) => h('option', { value: name }, text)));
    this.sorter = h('label.sorter', {}, 'Sort by ', this.#choice);
    this.element = h(`div.grid.${kind}`, {
      role: 'grid', 'aria-label': label, 'aria-colcount': columns.length,
      click: (event) => this.#click(event),
      focusin: (event) => this.#focused(event),
    }, this.#heads, this.#body);
    this.#body.style.position = 'relative';
    this.#showSort();
  }

  get sort() {
    return this.#sort;
  }

  /** The key of the row that the keyboard is on. */
  get active() {
    return this.#active;
  }

  get isEmpty() {
    return this.#rows.length === 0;
  }

  /** Takes the rows that fit, sorts them, and keeps what is in sight where it is. */
  show(rows) {
    const column = this.#columns.find(({ name }) => name === this.#sort.column);
    const anchor = column?.live ? null : this.#anchor();
    this.#rows = sorted(rows, column, this.#sort.descending);
    this.#index = new Map(this.#rows.map((row, index) => [row.key, index]));
    attribute(this.element, 'aria-rowcount', this.#rows.length + 1);
    if (this.#active !== null && !this.#index.has(this.#active)) this.#leave();
    this.#active ??= this.#rows[0]?.key ?? null;
    this.layout();
    if (anchor && this.#index.has(anchor.key)) {
      const moved = this.#index.get(anchor.key) * this.#height - anchor.top;
      if (moved) scrollBy({ top: moved, behavior: 'instant' });
    }
    this.draw();
  }

  /** Measures anew: the rows are higher where there is little room. */
  layout() {
    const height = parseFloat(getComputedStyle(this.element).getPropertyValue('--row')) || 36;
    this.#height = height;
    const total = `${this.#rows.length * height}px`;
    if (this.#body.style.height !== total) this.#body.style.height = total;
  }

  /** Puts the rows that are in sight into the document, and says in them how things are now. */
  draw() {
    if (!this.element.isConnected) return;
    const top = this.#body.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / this.#height) - MARGIN);
    const last = Math.min(this.#rows.length, Math.ceil((innerHeight - top) / this.#height) + MARGIN);
    const wanted = new Set();
    for (let at = first; at < last; at += 1) wanted.add(this.#rows[at].key);
    // The one with the focus stays, wherever it is.
    const active = this.#index.get(this.#active);
    if (active !== undefined) wanted.add(this.#active);
    for (const [key, made] of this.#made) {
      if (wanted.has(key)) continue;
      made.element.remove();
      this.#made.delete(key);
    }
    let before = null;
    for (const key of [...wanted].sort((a, b) => this.#index.get(b) - this.#index.get(a))) {
      const made = this.#made.get(key) ?? this.#make(key);
      this.#update(made, this.#index.get(key));
      // Readers go through rows in the order of the document. Moving a row would take its focus away.
      if (made.element.nextSibling !== before || made.element.parentNode !== this.#body) {
        if (!made.element.contains(document.activeElement)) this.#body.insertBefore(made.element, before);
        else this.#moveAround(made.element, before);
      }
      before = made.element;
    }
  }

  /** Puts the row at `index` before all others that stand between it and `before`, without touching it. */
  #moveAround(element, before) {
    while (element.nextSibling !== before) this.#body.insertBefore(element.nextSibling, element);
  }

  /** Moves the focus by rows. */
  move(step) {
    const from = this.#index.get(this.#active);
    this.focus(from === undefined || !this.element.contains(document.activeElement) ? from ?? 0 : from + step);
  }

  /** Puts the focus on a row: by its index, or by its key. */
  focus(which) {
    const wanted = typeof which === 'string' ? this.#index.get(which) : which;
    if (wanted === undefined || !this.#rows.length) return;
    const at = Math.min(this.#rows.length - 1, Math.max(0, wanted));
    this.#active = this.#rows[at].key;
    const top = this.#body.getBoundingClientRect().top + at * this.#height;
    const upper = this.#heads.getBoundingClientRect().bottom;
    if (top < upper) scrollBy({ top: top - upper, behavior: 'instant' });
    else if (top + this.#height > innerHeight - 8) scrollBy({ top: top + this.#height - innerHeight + 8, behavior: 'instant' });
    this.draw();
    this.#made.get(this.#active)?.element.focus({ preventScroll: true });
  }

  openActive() {
    const row = this.#rows[this.#index.get(this.#active)];
    if (row && this.element.contains(document.activeElement)) this.#open(row);
  }

  #anchor() {
    const top = this.#body.getBoundingClientRect().top;
    if (top >= 0 || !this.#height) return null;
    const at = Math.ceil(-top / this.#height);
    const row = this.#rows[at];
    return row && { key: row.key, top: at * this.#height };
  }

  #headOf({ name, label, value }) {
    const cell = h(`div.cell.${name}`, { role: 'columnheader' });
    if (!value) {
      cell.append(label);
      return cell;
    }
    const button = h('button', { type: 'button', click: () => this.#sortBy(name) }, label);
    cell.append(button);
    this.#sorters.set(name, { cell, button });
    return cell;
  }

  #choose() {
    const { value } = this.#choice;
    this.#sortBy(value, Boolean(this.#columns.find(({ name }) => name === value)?.descends));
  }

  #sortBy(name, direction) {
    const column = this.#columns.find((one) => one.name === name);
    const descending = direction
      ?? (this.#sort.column === name ? !this.#sort.descending : Boolean(column.descends));
    this.#sort = { column: name, descending };
    this.#showSort();
    announce(`Sorted by ${column.label}, ${descending ? 'descending' : 'ascending'}`);
    this.#resorted(this.#sort);
  }

  #showSort() {
    const { column, descending } = this.#sort;
    for (const [name, { cell }] of this.#sorters) {
      attribute(cell, 'aria-sort', name !== column ? null : descending ? 'descending' : 'ascending');
    }
    this.#choice.value = column;
  }

  #make(key) {
    const cells = this.#columns.map(({ name, cell }) => {
      const { element, update } = cell();
      return { element: h(`div.cell.${name}`, { role: 'gridcell' }, element), update };
    });
    const element = h('div.row', { role: 'row', tabindex: -1 }, cells.map(({ element: cell }) => cell));
    element.dataset.key = key;
    const made = { element, cells, at: null };
    this.#made.set(key, made);
    return made;
  }

  #update(made, at) {
    const row = this.#rows[at];
    if (made.at !== at || made.height !== this.#height) {
      made.element.style.transform = `translateY(${at * this.#height}px)`;
      attribute(made.element, 'aria-rowindex', at + 2);
      made.at = at;
      made.height = this.#height;
    }
    attribute(made.element, 'tabindex', row.key === this.#active ? 0 : -1);
    made.element.dataset.state = row.state;
    for (const { update } of made.cells) update(row);
  }

  /** The row with the focus is gone: its neighbour takes it. */
  #leave() {
    const made = this.#made.get(this.#active);
    const hadFocus = made?.element.contains(document.activeElement);
    const neighbour = this.#rows[Math.min(made?.at ?? 0, this.#rows.length - 1)];
    this.#active = neighbour?.key ?? null;
    if (hadFocus && neighbour) queueMicrotask(() => this.focus(neighbour.key));
  }

  #rowOf(target) {
    const key = target.closest?.('.rows > .row')?.dataset.key;
    return key === undefined ? undefined : this.#rows[this.#index.get(key)];
  }

  #click(event) {
    const row = this.#rowOf(event.target);
    // Links go where they lead, and who selects text wants the text.
    if (!row || event.target.closest('a') || String(getSelection())) return;
    this.#active = row.key;
    this.#open(row);
  }

  #focused(event) {
    const row = this.#rowOf(event.target);
    if (!row || row.key === this.#active) return;
    this.#active = row.key;
    this.draw();
  }

  /** How many of `all` are shown, in words. Those that are not `there` yet are told by themselves. */
  summary(all, there) {
    const [shown, sum] = [this.#rows, all].map((rows) => rows.filter(there).length);
    const others = this.#rows.length - shown;
    const text = this.#rows.length === all.length ? counted(sum, this.#noun) : `${count(shown)} of ${counted(sum, this.#noun)}`;
    return others ? `${text}, ${count(others)} waiting` : text;
  }
}

/** The rows by a column. Those that are equal keep the order of their keys, so that nothing jumps. */
export function sorted(rows, column, descending) {
  const keyed = rows.map((row) => ({ row, value: column?.value(row) ?? null }));
  const sign = descending ? -1 : 1;
  keyed.sort((a, b) => {
    if (a.value !== b.value) {
      // What is not known comes last, whichever way.
      if (a.value === null) return 1;
      if (b.value === null) return -1;
      return a.value < b.value ? -sign : sign;
    }
    return a.row.key < b.row.key ? -1 : a.row.key > b.row.key ? 1 : 0;
  });
  return keyed.map(({ row }) => row);
}

/** Whether rows have all words that are looked for; `pool:x`, `tenant:x`, `worker:x`, `state:x` look at one field. */
export function search(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const [, field, value] = /^(pool|tenant|worker|session|state):(.*)$/.exec(word) ?? [];
    return { word, field, value };
  });
  if (!words.length) return null;
  return (row) => words.every(({ word, field, value }) => {
    if (field) return String(row[field] ?? '').toLowerCase().startsWith(value) || (field === 'session' && String(row.id).toLowerCase().startsWith(value));
    row.hay ??= [row.id, row.session, row.tenant, row.pool, row.worker, row.state, row.pid].join('\n').toLowerCase();
    return row.hay.includes(word);
  });
}

/** A cell of text. */
export function textCell(text, name = 'span') {
  return () => {
    const element = h(name);
    return { element, update: (row) => write(element, text(row)) };
  };
}
