// What the tables of sessions and workers show.

import { h, attribute, write } from './dom.js';
import { NOTHING, bytes, count, duration, exactly, millis, percent } from './format.js';
import { Bar, Spark } from './chart.js';
import { textCell } from './grid.js';

/** How many samples a small chart shows: a minute. */
const SHORT = 60;
const STATES = { waiting: 0, starting: 1, live: 2, 'in-session': 2, spare: 3, ending: 4 };

export const sessionPath = ({ pool, tenant, id }) =>
  `#/sessions/${[pool, tenant ?? '', id].map(encodeURIComponent).join('/')}`;
export const workerPath = (id) => `#/workers/${encodeURIComponent(id)}`;
export const poolPath = (name) => `#/pools/${encodeURIComponent(name)}`;

/** A state as a coloured dot and a word. */
export function stateMark() {
  const word = h('span');
  const element = h('span.state', {}, h('i', { 'aria-hidden': 'true' }), word);
  return {
    element,
    update(state) {
      if (element.dataset.state === state) return;
      element.dataset.state = state;
      write(word, state.replace('-', ' '));
    },
  };
}

/** A time as how long ago it is, with the whole of it in the title. */
function sinceCell(picture, time) {
  return () => {
    const element = h('time');
    return {
      element,
      update(row) {
        const at = time(row);
        if (element.dateTime !== at) {
          element.dateTime = at;
          element.title = exactly(at);
          element.at = Date.parse(at);
        }
        write(element, duration(picture.now() - element.at));
      },
    };
  };
}

/** A link to a row's page. It is no stop of its own for the keyboard, for which the row itself is one. */
function linkCell(path, text, name = 'a') {
  return () => {
    const element = h(name, { tabindex: -1 });
    return {
      element,
      update(row) {
        const [label, target] = [text(row), path(row)];
        attribute(element, 'href', target);
        attribute(element, 'title', label);
        write(element, label);
      },
    };
  };
}

function idCell(picture) {
  return () => {
    const tenant = h('span.tenant');
    const link = h('a', { tabindex: -1 });
    return {
      element: h('span.name', {}, tenant, link),
      update(row) {
        write(tenant, row.tenant === null ? '' : `${row.tenant} /`);
        attribute(tenant, 'title', row.tenant === null ? null : `tenant ${row.tenant}`);
        attribute(link, 'href', sessionPath(row));
        attribute(link, 'title', row.id);
        write(link, row.id);
      },
    };
  };
}

/** Later than any time that a daemon tells. */
const END = 1e15;

/** What becomes of a session that nobody uses. */
export function idleness(picture, session) {
  const { leases, state, last_used: used, idle_until: idle, ends_by: latest } = session;
  if (state !== 'live') return { text: NOTHING, share: 0, title: '' };
  const title = [
    leases > 0 ? `${leases} open` : `last used ${exactly(used)}`,
    idle && `ends at ${exactly(idle)} if nobody uses it`,
    latest && `ends at ${exactly(latest)} in any case`,
  ].filter(Boolean).join('; ');
  // While it is used, its idle time does not run out.
  if (leases > 0 && !idle) return { text: 'in use', share: 1, title };
  if (session.ending === Infinity) return { text: `idle ${duration(picture.now() - Date.parse(used))}`, share: 0, title };
  const left = session.ending - picture.now();
  const ttl = picture.pool(session.pool)?.ttl_ms;
  return { text: `${duration(left)} left`, share: idle && ttl ? left / ttl : 0, title };
}

function idleCell(picture) {
  return () => {
    const bar = new Bar(['idle']);
    attribute(bar.element, 'role', 'presentation');
    const text = h('span');
    const element = h('span.idling', {}, text, bar.element);
    return {
      element,
      update(row) {
        const { text: words, share, title } = idleness(picture, row);
        write(text, words);
        attribute(element, 'title', title);
        const label = bar.element;
        bar.draw({ idle: share }, '');
        label.removeAttribute('aria-label');
        label.removeAttribute('title');
        label.hidden = share <= 0;
      },
    };
  };
}

/** A number with what it was in the last minute. */
function usageCell(picture, kind, worker, write_, least) {
  return () => {
    const spark = new Spark(56, 18, kind);
    const text = h('span');
    let drawn = null;
    return {
      element: h('span.usage', {}, spark.element, text),
      update(row) {
        const id = worker(row);
        const series = picture.usage(id)?.[kind];
        write(text, write_(series?.last ?? null));
        const stamp = `${id} ${picture.tick}`;
        if (drawn === stamp) return;
        drawn = stamp;
        spark.draw(series?.until(picture.tick, SHORT) ?? [], least(row));
      },
    };
  };
}

function usageColumns(picture, worker) {
  const last = (kind) => (row) => {
    const value = picture.usage(worker(row))?.[kind].last;
    return value === undefined || Number.isNaN(value) ? null : value;
  };
  return [
    {
      name: 'cpu', label: 'CPU', live: true, descends: true, value: last('cpu'),
      cell: usageCell(picture, 'cpu', worker, percent, () => 0.1),
    },
    {
      name: 'memory', label: 'Memory', live: true, descends: true, value: last('memory'),
      cell: usageCell(picture, 'memory', worker, bytes, () => 1),
    },
  ];
}

export function sessionColumns(picture) {
  return [
    { name: 'state', label: 'State', value: (row) => STATES[row.state] ?? 9, cell: stateCell },
    { name: 'id', label: 'Session', value: (row) => `${row.id}\n${row.tenant ?? ''}`, cell: idCell(picture) },
    { name: 'pool', label: 'Pool', value: (row) => row.pool, cell: linkCell((row) => poolPath(row.pool), (row) => row.pool) },
    { name: 'worker', label: 'Worker', value: (row) => numberOf(row.worker), cell: textCell((row) => row.worker ?? NOTHING) },
    { name: 'age', label: 'Age', value: (row) => -row.born, cell: sinceCell(picture, (row) => row.created) },
    {
      name: 'idle', label: 'Idle time', live: true, cell: idleCell(picture),
      // What is in use comes behind what will end, and before what has no end.
      value: (row) => (row.state !== 'live' ? null : row.leases > 0 && !row.idle_until ? END : row.ending),
    },
    ...usageColumns(picture, (row) => row.worker),
    { name: 'requests', label: 'Requests', live: true, descends: true, value: (row) => row.requests, cell: textCell((row) => count(row.requests)) },
  ];
}

export function workerColumns(picture) {
  return [
    { name: 'state', label: 'State', value: (row) => STATES[row.state] ?? 9, cell: stateCell },
    { name: 'id', label: 'Worker', value: (row) => numberOf(row.id), cell: linkCell((row) => workerPath(row.id), (row) => row.id) },
    { name: 'pool', label: 'Pool', value: (row) => row.pool, cell: linkCell((row) => poolPath(row.pool), (row) => row.pool) },
    {
      name: 'session', label: 'Session', value: (row) => row.session,
      cell: linkCell(
        (row) => (row.session === null ? null : sessionPath({ pool: row.pool, tenant: row.tenant, id: row.session })),
        (row) => row.session ?? NOTHING),
    },
    { name: 'age', label: 'Age', value: (row) => -row.born, cell: sinceCell(picture, (row) => row.started) },
    { name: 'ready', label: 'Start took', descends: true, value: (row) => row.ready_after_ms, cell: textCell((row) => millis(row.ready_after_ms)) },
    ...usageColumns(picture, (row) => row.id),
    { name: 'pids', label: 'Processes', live: true, descends: true, value: (row) => row.pids, cell: textCell((row) => count(row.pids)) },
    { name: 'pid', label: 'PID', value: (row) => row.pid, cell: textCell((row) => row.pid ?? NOTHING) },
  ];
}

function stateCell() {
  const { element, update } = stateMark();
  return { element, update: (row) => update(row.state) };
}

/** `worker-10` comes behind `worker-9`. */
function numberOf(worker) {
  return worker === null ? null : Number(worker.slice('worker-'.length));
}
