// Small charts of the last minutes, drawn as SVG.

import { h, s, attribute, write } from './dom.js';
import { setting } from './format.js';
import { SAMPLES } from './picture.js';

/** A line's and its area's paths through `values`, which lie between 0 and `most`. Gaps stay gaps. */
function paths(values, most, width, height) {
  const step = width / Math.max(1, values.length - 1);
  const place = (value) => (height - (Math.min(value, most) / most) * height).toFixed(1);
  let [line, area, from] = ['', '', null];
  for (let at = 0; at <= values.length; at += 1) {
    const value = values[at];
    const is = value !== undefined && !Number.isNaN(value);
    const x = (at * step).toFixed(1);
    if (is) {
      line += `${from === null ? 'M' : 'L'}${x} ${place(value)}`;
      area += from === null ? `M${x} ${height}L${x} ${place(value)}` : `L${x} ${place(value)}`;
      from ??= x;
    } else if (from !== null) {
      area += `L${((at - 1) * step).toFixed(1)} ${height}Z`;
      from = null;
    }
  }
  return { line, area };
}

/** How many samples a small chart has room for at least. */
const FEWEST = 15;

const largest = (values, least) => values.reduce((most, value) => (value > most ? value : most), least);

/** A line without words, for a row or a tile. What it says is said beside it in numbers. */
export class Spark {
  #line = s('path.line');
  #area = s('path.area');
  #width;
  #height;

  constructor(width, height, kind) {
    this.#width = width;
    this.#height = height;
    this.element = s(`svg.spark.${kind}`, {
      viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true',
    }, this.#area, this.#line);
  }

  /** `least` is the least that the whole height stands for. */
  draw(values, least) {
    // Before there is much to see, the little that there is gets more room.
    const first = values.findIndex((value) => !Number.isNaN(value));
    values = values.slice(Math.max(0, Math.min(first, values.length - FEWEST)));
    const { line, area } = paths(values, largest(values, least) * 1.15, this.#width, this.#height - 1);
    attribute(this.#line, 'd', line);
    attribute(this.#area, 'd', area);
  }
}

const [WIDTH, HEIGHT] = [600, 120];

/**
 * A chart with words: a title, the number of this moment, the scale, and each moment's number under the pointer.
 *
 * `lines` are drawn one over the other: `{ kind, label }`. `format` writes a number, and `least` is the least that the
 * whole height stands for.
 */
export class Chart {
  #lines;
  #format;
  #least;
  #values = [];
  #limit = s('line.limit', { x1: 0, x2: WIDTH, 'vector-effect': 'non-scaling-stroke' });
  #cursor = s('line.cursor', { y1: 0, y2: HEIGHT, 'vector-effect': 'non-scaling-stroke', visibility: 'hidden' });
  #now = h('span.now');
  #top = h('span.top');
  #from = h('span');
  #at = null;
  #limitText = null;

  constructor({ title, lines, format, least }) {
    this.#format = format;
    this.#least = least;
    this.#lines = lines.map(({ kind, label }) => ({ label, kind, line: s('path.line'), area: s('path.area') }));
    const parts = this.#lines.map(({ kind, line, area }) => s(`g.${kind}`, {}, area, line));
    const drawing = s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      parts, this.#limit, this.#cursor);
    const plot = h('div.plot', {
      pointermove: (event) => this.#point(event, plot),
      pointerleave: () => this.#point(null, plot),
    }, drawing, this.#top);
    const key = lines.length > 1 && h('span.key', {}, lines.map(({ kind, label }) => h(`span.${kind}`, {}, label)));
    this.element = h('figure.chart', {},
      h('figcaption', {}, h('span', {}, title), key, this.#now), plot,
      h('div.axis', { 'aria-hidden': 'true' }, this.#from, h('span', {}, 'now')));
  }

  /** Draws one list of numbers for each line, oldest first, and the limit, if there is one. */
  draw(values, limit = null) {
    this.#values = values;
    this.#limitText = limit === null || values.length > 1 ? null : this.#format(limit);
    let most = values.reduce((known, list) => largest(list, known), this.#least);
    // A limit far above all that there is would press everything to the ground.
    const inSight = limit !== null && limit <= most * 8;
    if (inSight) most = Math.max(most, limit);
    most *= 1.08;
    this.#lines.forEach(({ line, area }, index) => {
      const drawn = paths(values[index], most, WIDTH, HEIGHT);
      attribute(line, 'd', drawn.line);
      attribute(area, 'd', drawn.area);
    });
    const y = inSight ? HEIGHT - (limit / most) * HEIGHT : 0;
    attribute(this.#limit, 'y1', y);
    attribute(this.#limit, 'y2', y);
    attribute(this.#limit, 'visibility', inSight ? null : 'hidden');
    write(this.#top, this.#format(most / 1.08));
    write(this.#from, `${setting(values[0].length * 1000)} ago`);
    this.#tell();
  }

  #point(event, plot) {
    const box = plot.getBoundingClientRect();
    this.#at = event && (event.clientX - box.left) / box.width;
    this.#tell();
  }

  #tell() {
    const length = this.#values[0]?.length ?? 0;
    const index = this.#at === null ? length - 1 : Math.round(Math.min(1, Math.max(0, this.#at)) * (length - 1));
    const x = (index / Math.max(1, length - 1)) * WIDTH;
    attribute(this.#cursor, 'x1', x);
    attribute(this.#cursor, 'x2', x);
    attribute(this.#cursor, 'visibility', this.#at === null ? 'hidden' : null);
    const numbers = this.#values.map((list) => this.#format(list[index])).join(' · ');
    const ago = length - 1 - index;
    const limit = this.#at === null && this.#limitText !== null ? ` of ${this.#limitText}` : '';
    write(this.#now, this.#at === null ? numbers + limit : `${numbers}, ${ago} s ago`);
  }
}

/** How much of something is used: a bar of parts, `{ kind, share }`. Its label says it in words. */
export class Bar {
  #parts = new Map();

  constructor(kinds) {
    this.element = h('div.bar', { role: 'img' });
    for (const kind of kinds) {
      const part = h(`span.${kind}`);
      this.#parts.set(kind, part);
      this.element.append(part);
    }
  }

  draw(shares, label) {
    attribute(this.element, 'aria-label', label);
    attribute(this.element, 'title', label);
    for (const [kind, part] of this.#parts) {
      const width = `${(Math.min(1, Math.max(0, shares[kind] || 0)) * 100).toFixed(2)}%`;
      if (part.style.width !== width) part.style.width = width;
    }
  }
}

/** The last samples of some series: all that there are, and a minute at least. */
export function recent(picture, ...series) {
  const all = series.map((one) => one?.until(picture.tick) ?? new Array(SAMPLES).fill(NaN));
  const first = Math.min(...all.map((list) => list.findIndex((value) => !Number.isNaN(value)) >>> 0), SAMPLES - 60);
  return all.map((list) => list.slice(first));
}
