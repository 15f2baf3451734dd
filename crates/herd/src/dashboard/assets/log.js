// A worker's output as it comes.

import { h, attribute, visible, write } from './dom.js';
import { clockExactly, count, counted, exactly } from './format.js';
import { Following, address } from './stream.js';

/** How many lines the page keeps. */
const MOST = 5000;

/** herd writes control characters out, so that this is how colours come. */
const COLOUR = /\\u\{1b\}\[([\d;]*)m/;
const ESCAPES = /(\\u\{[0-9a-f]{1,6}\})/;

/** A line as nodes: its colours as classes, and other control characters written out. */
function coloured(text) {
  const nodes = [];
  const add = (part, style) => {
    for (const piece of part.split(ESCAPES)) {
      if (!piece) continue;
      const content = ESCAPES.test(piece) ? [h('span.unseen', {}, piece)] : visible(piece);
      nodes.push(...(style.length ? [h(`span.${style.join('.')}`, {}, content)] : content));
    }
  };
  let [weight, colour] = ['', ''];
  // The pieces at odd places are the colours' parameters.
  text.split(COLOUR).forEach((piece, index) => {
    if (index % 2 === 0) {
      add(piece, [weight, colour].filter(Boolean));
      return;
    }
    for (const code of piece.split(';').map(Number)) {
      if (code === 0) [weight, colour] = ['', ''];
      else if (code === 1) weight = 'bold';
      else if (code === 2) weight = 'faint';
      else if (code === 22) weight = '';
      else if (code === 39) colour = '';
      else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) colour = `c${code % 10}`;
    }
  });
  return nodes;
}

export class LogView {
  #lines = h('div.lines', { role: 'region', tabindex: 0 });
  #state = h('span.note', {}, 'Loading…');
  #find = h('input', { type: 'search', placeholder: 'Find in log', 'aria-label': 'Find in log', spellcheck: 'false', autocomplete: 'off' });
  #follow = h('button.toggle', { type: 'button', 'aria-pressed': 'true' }, 'Follow');
  #pause = h('button.toggle', { type: 'button', 'aria-pressed': 'false' }, 'Pause');
  #wrap = h('button.toggle', { type: 'button', 'aria-pressed': 'true' }, 'Wrap');
  /** Entries that are not shown yet: a ring of as many as the page keeps, of which `#first` is the oldest. */
  #pending = [];
  #first = 0;
  /** How many marks are among the lines that are shown. */
  #marks = 0;
  #counting = false;
  #drawing = false;
  #following = null;
  #picture;
  #worker = null;
  #words = '';
  #fitting = 0;

  constructor(picture) {
    this.#picture = picture;
    this.#find.addEventListener('input', () => this.#search());
    this.#follow.addEventListener('click', () => this.#setFollow(!this.#follows));
    this.#pause.addEventListener('click', () => this.#setPause(!this.#isPaused));
    this.#wrap.addEventListener('click', () => {
      attribute(this.#wrap, 'aria-pressed', this.#wrap.getAttribute('aria-pressed') !== 'true');
      this.#lines.classList.toggle('unwrapped', this.#wrap.getAttribute('aria-pressed') !== 'true');
      this.#toEnd();
    });
    this.#lines.addEventListener('scroll', () => {
      const isAtEnd = this.#lines.scrollHeight - this.#lines.scrollTop - this.#lines.clientHeight < 40;
      // Who scrolls up reads, and who scrolls to the end follows.
      if (isAtEnd !== this.#follows && !this.#drawing) this.#setFollow(isAtEnd);
    });
    attribute(this.#follow, 'title', 'Keep the newest line in sight');
    attribute(this.#pause, 'title', 'Show no further lines for now');
    this.element = h('section.log', { 'aria-labelledby': 'log-title' },
      h('div.bar-line', {}, h('h2', { id: 'log-title' }, 'Log'), this.#state,
        h('div.tools', {}, this.#find, this.#follow, this.#pause, this.#wrap)),
      this.#lines);
  }

  /** Follows a worker's log, from the first line that is kept on. */
  open(worker) {
    if (this.#worker === worker) return;
    this.#following?.close();
    if (this.#worker !== null) this.#mark(`What follows is of ${worker}.`);
    this.#worker = worker;
    attribute(this.#lines, 'aria-label', `Log of ${worker}`);
    const path = address(['v1', 'workers', worker, 'logs'], { follow: true });
    this.#following = new Following(path, {
      event: (name, data) => this.#take(name, data),
      state: (state) => this.#stand(state),
    }, { gate: () => this.#picture.whenLive() });
  }

  /** Another daemon answers, whose workers have the same names and other logs. */
  restart() {
    this.#following?.close();
    if (this.#worker !== null) this.#mark('The daemon was started anew. What is above is of the one before.');
    this.#worker = null;
  }

  /** There is nothing to follow. */
  absent(why) {
    if (this.#worker === null) write(this.#state, why);
  }

  close() {
    this.#following?.close();
  }

  get #follows() {
    return this.#follow.getAttribute('aria-pressed') === 'true';
  }

  get #isPaused() {
    return this.#pause.getAttribute('aria-pressed') === 'true';
  }

  #setFollow(follows) {
    attribute(this.#follow, 'aria-pressed', String(follows));
    if (follows) this.#toEnd();
  }

  #setPause(pauses) {
    attribute(this.#pause, 'aria-pressed', String(pauses));
    if (!pauses) this.#schedule();
    this.#count();
  }

  #stand({ kind, error }) {
    if (kind === 'refused') {
      write(this.#state, error.status === 404 ? 'The worker is gone, and its log with it.' : error.message);
    } else if (kind === 'live') this.#count();
    else if (kind === 'connecting' && !this.#lines.childElementCount) write(this.#state, 'Loading…');
  }

  #take(name, data) {
    if (name === 'line') this.#push(data);
    else if (name === 'missed') this.#mark(`Not kept any more: ${counted(data.count, 'line')}.`);
    else if (name === 'end' && data.reason === 'worker-gone') {
      this.#mark(`${this.#worker} is gone. There are no more lines.`);
      return false;
    }
    return true;
  }

  #mark(text) {
    this.#push({ mark: text });
  }

  #push(entry) {
    if (this.#pending.length < MOST) this.#pending.push(entry);
    else {
      this.#pending[this.#first] = entry;
      this.#first = (this.#first + 1) % MOST;
    }
    if (this.#isPaused) this.#countSoon();
    else this.#schedule();
  }

  #schedule() {
    if (this.#drawing || !this.#pending.length) return;
    this.#drawing = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const entries = [...this.#pending.slice(this.#first), ...this.#pending.slice(0, this.#first)];
    this.#pending = [];
    this.#first = 0;
    this.#lines.append(...entries.map((entry) => this.#line(entry)));
    let over = this.#lines.childElementCount - MOST;
    for (; over > 0; over -= 1) {
      const { classList, hidden } = this.#lines.firstElementChild;
      if (classList.contains('mark')) this.#marks -= 1;
      else if (!hidden) this.#fitting -= 1;
      this.#lines.firstElementChild.remove();
    }
    this.#toEnd();
    this.#count();
    // The scrolling that this made has been heard by then.
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#schedule();
    });
  }

  #line({ mark, at, stream, text, sequence }) {
    if (mark !== undefined) this.#marks += 1;
    const line = mark !== undefined
      ? h('p.mark', {}, mark)
      : h(`p.${stream}`, {},
        h('time', { datetime: at, title: `${exactly(at)}, ${stream}, line ${sequence}` }, clockExactly(new Date(at))),
        h('span.text', {}, coloured(text)));
    this.#fit(line);
    return line;
  }

  #fit(line) {
    if (line.classList.contains('mark')) return;
    line.hidden = this.#words !== '' && !line.textContent.toLowerCase().includes(this.#words);
    if (!line.hidden) this.#fitting += 1;
  }

  #search() {
    this.#words = this.#find.value.toLowerCase();
    this.#fitting = 0;
    for (const line of this.#lines.children) this.#fit(line);
    this.#toEnd();
    this.#count();
  }

  #toEnd() {
    if (this.#follows) this.#lines.scrollTop = this.#lines.scrollHeight;
  }

  /** Counts once before the next frame, however many lines come. */
  #countSoon() {
    if (this.#counting) return;
    this.#counting = true;
    requestAnimationFrame(() => {
      this.#counting = false;
      this.#count();
    });
  }

  #count() {
    const all = this.#lines.childElementCount - this.#marks;
    const shown = this.#words ? `${count(this.#fitting)} of ${counted(all, 'line')}` : counted(all, 'line');
    const waiting = this.#isPaused && this.#pending.length ? `, ${count(this.#pending.length)} more wait` : '';
    write(this.#state, all || waiting ? shown + waiting : 'Nothing was written yet.');
  }
}
