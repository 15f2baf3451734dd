// The frame of all pages: which one is shown, how the daemon stands, and the keys.

import { announce, attribute, replace, h, write } from './dom.js';
import { clock, count } from './format.js';
import { Dialogs } from './dialogs.js';
import { SessionPage, WorkerPage } from './detail.js';
import { EventsPage } from './events.js';
import { SessionsPage, WorkersPage } from './overview.js';
import { Picture } from './picture.js';
import { PoolPage } from './pool.js';
import { ask, hasToken, useToken, whenDenied } from './stream.js';

const main = document.getElementById('main');
const status = document.getElementById('status');
const banner = document.getElementById('banner');
const themeButton = document.getElementById('theme');
const forget = document.getElementById('forget');
const places = [...document.querySelectorAll('nav.places a')];
const dialogs = new Dialogs();
/** Where the reader was on each page that was left: how far down, and on which row. */
const left = new Map();
let page = null;
let address = '';
let scheduled = false;
let loaded = null;
let saidState = '';

const picture = new Picture(schedule, () => {
  announce('The daemon was started anew');
  dialogs.restarted();
  page?.restarted();
});

const context = {
  picture,
  dialogs,
  schedule,
  query: new URLSearchParams(),
  gateway: () => ask('v1/gateway'),
};

/** Draws once before the next frame, however much has changed. */
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    drawFrame();
    page?.update();
    dialogs.update();
  });
}

/** What stands for a page whose address leads nowhere. */
class Nowhere {
  place = '';
  title = 'No such page';
  element = h('section.empty', {}, h('h1', {}, 'There is no such page'), h('p', {}, h('a', { href: '#/' }, 'All sessions')));
  update() {}
  restarted() {}
  close() {}
}

function make(path) {
  try {
    const parts = path.replace(/^#?\/?/, '').split('/').map(decodeURIComponent);
    const [place, ...rest] = parts;
    if (rest.length === 0) {
      if (place === '' || place === 'sessions') return new SessionsPage(context);
      if (place === 'workers') return new WorkersPage(context);
      if (place === 'events') return new EventsPage(context);
    }
    const [first, second, third] = rest;
    if (place === 'sessions' && rest.length === 3) {
      return new SessionPage(context, { pool: first, tenant: second || null, id: third });
    }
    if (place === 'workers' && rest.length === 1) return new WorkerPage(context, first);
    if (place === 'pools' && rest.length === 1) return new PoolPage(context, first);
  } catch (error) {
    // An escape that is none.
    if (!(error instanceof URIError)) throw error;
  }
  return new Nowhere();
}

function go() {
  const [path, query = ''] = location.hash.split('?');
  // The page of sessions has several addresses.
  const key = ['', '#', '#/'].includes(path) ? '#/sessions' : path;
  if (page) {
    left.set(address, { top: scrollY, active: page.grid?.active ?? null });
    page.close();
  }
  const isFirst = page === null;
  address = key;
  context.query = new URLSearchParams(query);
  page = make(path);
  replace(main, page.element);
  for (const link of places) attribute(link, 'aria-current', link.dataset.place === page.place ? 'page' : null);
  page.update();
  const known = left.get(key);
  scrollTo({ top: known?.top ?? 0, behavior: 'instant' });
  page.update();
  if (known?.active && page.grid) page.grid.focus(known.active);
  // Readers of the screen begin at the new page's heading.
  else if (!isFirst) main.querySelector('h1')?.focus({ preventScroll: true });
  drawFrame();
}

/** The header, the notice above the page, and the question for the token. */
function drawFrame() {
  const { stats, state } = picture;
  document.title = page && page.title !== 'Sessions' ? `${page.title} – herd` : 'herd';
  for (const link of places) {
    const number = link.querySelector('.number');
    if (number && stats) write(number, count(link.dataset.place === 'workers' ? picture.workers.size : picture.begun));
  }
  forget.hidden = !hasToken();
  const { kind, text, title } = stand(state);
  status.dataset.kind = kind;
  write(status.querySelector('span'), text);
  attribute(status, 'title', title);
  if (kind !== saidState) {
    const said = { live: 'Connected to the daemon', lost: 'The daemon is gone', silent: 'The daemon does not answer' }[kind];
    if (saidState || kind === 'lost') announce(said ?? text);
    saidState = kind;
  }
  document.body.dataset.stale = String((kind === 'lost' || kind === 'silent') && picture.ready);
  const notice = noticeOf(kind);
  banner.hidden = notice === null;
  if (notice) {
    write(banner.querySelector('span'), notice.text);
    banner.querySelector('button').hidden = !notice.action;
    write(banner.querySelector('button'), notice.action ?? '');
    banner.dataset.kind = notice.kind;
  }
}

function stand(state) {
  const seconds = Math.floor(picture.silence / 1000);
  if (seconds) return { kind: 'silent', text: `silent for ${seconds} s`, title: null };
  const missing = state.hung ? 'silent' : 'lost';
  switch (state.kind) {
    case 'live': return { kind: 'live', text: 'live', title: `herd ${picture.version}, started ${new Date(picture.started).toLocaleString()}` };
    case 'connecting': return picture.heard === null || !state.failures
      ? { kind: 'connecting', text: 'connecting…', title: null } : { kind: missing, text: 'reconnecting…', title: null };
    case 'waiting': {
      const left = Math.max(1, Math.ceil((state.until - Date.now()) / 1000));
      return { kind: missing, text: `reconnecting in ${left} s`, title: state.reason };
    }
    case 'unseen': return { kind: 'connecting', text: 'paused', title: 'Nobody looks at this page' };
    default: return { kind: 'lost', text: state.error?.status === 401 ? 'token needed' : 'refused', title: state.error?.message };
  }
}

function noticeOf(kind) {
  const { state, stats, heard } = picture;
  if (kind === 'silent') {
    const since = heard === null ? 'The daemon does not answer.' : `The daemon has not answered since ${clock(new Date(heard))}.`;
    const rest = `It may be stopped or busy, or the network is cut.${picture.ready ? ' What is shown is how it was then.' : ''}`;
    return { kind: 'warn', text: `${since} ${rest}`, action: state.kind === 'waiting' ? 'Try now' : null };
  }
  if (kind === 'lost' && state.kind !== 'refused') {
    if (state.reason) return { kind: 'bad', text: state.reason, action: 'Try now' };
    const since = heard === null ? 'The daemon does not answer.' : `The daemon is gone since ${clock(new Date(heard))}.`;
    const rest = picture.ready ? 'What is shown is how it was then.' : 'Is it running? herd serve starts it.';
    return { kind: 'bad', text: `${since} ${rest}`, action: 'Try now' };
  }
  if (state.kind === 'refused' && state.error.status !== 401) return { kind: 'bad', text: state.error.message, action: 'Try again' };
  if (stats?.draining) return { kind: 'warn', text: 'The daemon is draining: it takes on no more sessions, and stops when those that live have ended.' };
  // The page is of the daemon that it came from.
  loaded ??= picture.version;
  if (loaded !== null && picture.version !== loaded) {
    return { kind: 'warn', text: `The daemon is now herd ${picture.version}, and this page is of ${loaded}.`, action: 'Load the page anew' };
  }
  return null;
}

whenDenied((error) => {
  const refused = error.kind === 'bad-token' ? 'That is not the token. Look again into the file.' : '';
  if (hasToken() && refused) useToken(null);
  dialogs.token(refused);
});

function turnTheme() {
  const order = ['', 'light', 'dark'];
  const next = order[(order.indexOf(document.documentElement.dataset.theme ?? '') + 1) % order.length];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  try {
    if (next) localStorage.setItem('herd-theme', next);
    else localStorage.removeItem('herd-theme');
  } catch {
    // It lasts as long as the page.
  }
  nameTheme();
  announce(themeButton.getAttribute('aria-label'));
}

function nameTheme() {
  const theme = { light: 'light', dark: 'dark' }[document.documentElement.dataset.theme] ?? 'the system’s';
  attribute(themeButton, 'aria-label', `Colours: ${theme}`);
  attribute(themeButton, 'title', `Colours: ${theme} (t)`);
}

const KEYS = {
  '/': () => (page.search ?? main.querySelector('input[type=search]'))?.focus(),
  '?': () => dialogs.help(),
  j: () => page.grid?.move(1),
  k: () => page.grid?.move(-1),
  ArrowDown: () => page.grid?.move(1),
  ArrowUp: () => page.grid?.move(-1),
  PageDown: () => page.grid?.move(20),
  PageUp: () => page.grid?.move(-20),
  g: () => page.grid?.focus(0),
  G: () => page.grid?.focus(Infinity),
  Enter: () => page.grid?.openActive(),
  t: turnTheme,
  1: () => { location.hash = '#/'; },
  2: () => { location.hash = '#/workers'; },
  3: () => { location.hash = '#/events'; },
};
/** Keys that browsers have a use for where the focus is in no table. */
const IN_GRID = new Set(['ArrowDown', 'ArrowUp', 'PageDown', 'PageUp', 'Enter']);

addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || dialogs.isOpen) return;
  const { target, key } = event;
  const types = target.matches?.('input, select, textarea');
  if (key === 'Escape') {
    if (types) {
      if (target.value && target.type === 'search') {
        target.value = '';
        target.dispatchEvent(new Event('input'));
      } else target.blur();
    } else if (page.parent || page instanceof PoolPage) history.length > 1 && left.size ? history.back() : (location.hash = '#/');
    else return;
    event.preventDefault();
    return;
  }
  if (types) return;
  const isRow = target.matches?.('.grid .row');
  if (IN_GRID.has(key) && !isRow) return;
  const act = page.keys?.[key] ?? KEYS[key];
  if (!act) return;
  event.preventDefault();
  act();
});

addEventListener('hashchange', go);
addEventListener('scroll', () => page?.grid?.draw(), { passive: true });
addEventListener('resize', () => page?.resize?.());
themeButton.addEventListener('click', turnTheme);
document.getElementById('help').addEventListener('click', () => dialogs.help());
forget.addEventListener('click', () => {
  useToken(null);
  // What it showed goes with it.
  location.reload();
});
document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault();
  (main.querySelector('.row[tabindex="0"]') ?? main).focus();
});
banner.querySelector('button').addEventListener('click', () => {
  if (picture.version !== loaded && picture.state.kind === 'live') location.reload();
  else if (picture.state.kind === 'refused') picture.connect();
  else picture.retry();
});
setInterval(schedule, 1000);

history.scrollRestoration = 'manual';
nameTheme();
go();
picture.connect();
