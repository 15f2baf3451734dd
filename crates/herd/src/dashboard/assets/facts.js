// What is known of something, as a list of terms; and what a sandbox consists of.

import { h, attribute, replace, write } from './dom.js';
import { NOTHING, bytes, count } from './format.js';

/**
 * A list of terms. Each fact is `{ label, value, wide }`, and `value()` gives a text, or `{ text, href, title }`; a fact whose
 * value is `null` is not shown.
 */
export class Facts {
  #facts;

  constructor(facts) {
    this.#facts = facts.map(({ label, value, wide }) => {
      const text = h('dd');
      return { value, text, group: h(wide ? 'div.wide' : 'div', {}, h('dt', {}, label), text), link: null };
    });
    this.element = h('dl.facts', {}, this.#facts.map(({ group }) => group));
  }

  update() {
    for (const fact of this.#facts) {
      const value = fact.value();
      fact.group.hidden = value === null;
      if (value === null) continue;
      const { text, href = null, title = null } = typeof value === 'object' ? value : { text: value };
      attribute(fact.text, 'title', title);
      if (href === null) {
        fact.link = null;
        write(fact.text, text);
        continue;
      }
      if (!fact.link) replace(fact.text, fact.link = h('a'));
      attribute(fact.link, 'href', href);
      write(fact.link, text);
    }
  }
}

/** The limits and the layers of a sandbox. */
export class SandboxView {
  #layers = h('ul.layers', { 'aria-label': 'Layers that are on' });
  #missing = h('div.missing');
  #shown = null;
  #limits = null;

  constructor() {
    const limit = (format, name) => () => {
      if (!this.#limits) return NOTHING;
      return this.#limits[name] === null ? 'none' : format(this.#limits[name]);
    };
    this.facts = new Facts([
      { label: 'Memory', value: limit(bytes, 'memory_bytes') },
      { label: 'CPU', value: limit((cores) => `${cores} ${cores === 1 ? 'core' : 'cores'}`, 'cpu_cores') },
      { label: 'Processes', value: limit(count, 'pids') },
      { label: 'Open files', value: limit(count, 'open_files') },
    ]);
    this.element = h('div', {}, h('h3', {}, 'Limits'), this.facts.element, h('h3', {}, 'Layers'), this.#layers, this.#missing);
  }

  /** Takes what a worker, or the sandbox of a pool, says of itself. */
  update({ layers, missing, limits, mode = null }) {
    this.#limits = limits;
    this.facts.update();
    const stamp = JSON.stringify([layers, missing, mode]);
    if (this.#shown === stamp) return;
    this.#shown = stamp;
    replace(this.#layers, layers.map((layer) => h('li', {}, layer)));
    if (!layers.length) replace(this.#layers, h('li.none', {}, mode === 'off' ? 'none: the sandbox is off' : 'none yet'));
    replace(this.#missing, missing.map(({ layer, step, reason, remedy }) => h('details', {},
      h('summary', {}, h('span.absent', {}, layer), ' cannot be had on this host'),
      h('p', {}, `The step '${step}' fails: ${reason}`), h('p', {}, remedy))));
  }
}
