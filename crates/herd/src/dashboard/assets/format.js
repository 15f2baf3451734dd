// Numbers, times and sizes for people.

const COUNT = new Intl.NumberFormat('en');
const EXACT = new Intl.DateTimeFormat('sv', { dateStyle: 'short', timeStyle: 'medium' });

/** What stands where there is nothing to say. */
export const NOTHING = '–';

export function count(number) {
  return number === null || number === undefined ? NOTHING : COUNT.format(number);
}

/** One noun or several: `1 worker`, `1,204 workers`. */
export function counted(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? '' : 's'}`;
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(number) {
  if (number === null || number === undefined || Number.isNaN(number)) return NOTHING;
  let unit = 0;
  let value = number;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${digits(value, unit === 0)} ${UNITS[unit]}`;
}

/** Three digits that count. */
function digits(value, whole) {
  return whole || value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** A long time in its two largest units; `milliseconds` below zero count as zero. */
export function duration(milliseconds) {
  if (milliseconds === null || milliseconds === undefined || Number.isNaN(milliseconds)) return NOTHING;
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const two = (number) => String(number).padStart(2, '0');
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${two(seconds % 60)}s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h ${two(Math.floor(seconds / 60) % 60)}m`;
  return `${Math.floor(seconds / 86400)}d ${Math.floor(seconds / 3600) % 24}h`;
}

/** A setting: as it would be written, so `5m` and not `5m 00s`. */
export function setting(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return 'none';
  if (milliseconds < 1000 || milliseconds % 1000) return milliseconds < 10000 ? `${milliseconds} ms` : duration(milliseconds);
  for (const [unit, size] of [['d', 864e5], ['h', 36e5], ['m', 6e4]]) {
    if (milliseconds % size === 0) return `${milliseconds / size}${unit}`;
  }
  return duration(milliseconds);
}

/** A short time, exactly. */
export function millis(milliseconds) {
  if (milliseconds === 0) return '0 ms';
  if (milliseconds === null || milliseconds === undefined || Number.isNaN(milliseconds)) return NOTHING;
  if (milliseconds >= 60000) return duration(milliseconds);
  if (milliseconds >= 1000) return `${digits(milliseconds / 1000)} s`;
  return `${digits(milliseconds)} ms`;
}

/** Processor time over time; 100 % is one core. */
export function percent(share) {
  if (share === null || share === undefined || Number.isNaN(share)) return NOTHING;
  const value = share * 100;
  return `${value >= 10 || value === 0 ? value.toFixed(0) : value.toFixed(1)} %`;
}

export function clock(time) {
  const two = (number, width = 2) => String(number).padStart(width, '0');
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

export function clockExactly(time) {
  return `${clock(time)}.${String(time.getMilliseconds()).padStart(3, '0')}`;
}

/** The whole date and time where the reader is. */
export function exactly(rfc3339) {
  const time = new Date(rfc3339);
  return Number.isNaN(time.getTime()) ? '' : EXACT.format(time);
}

/** Text as one word of a shell. */
export function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
