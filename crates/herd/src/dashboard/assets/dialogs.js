// What the page asks and explains: whether a session is to end, for the token, which keys there are.

import { h, write } from './dom.js';
import { count, quoted } from './format.js';
import { address, ask, useToken } from './stream.js';

const KEYS = [
  ['/', 'Search'],
  ['j, k, ↓, ↑', 'Next row, row before'],
  ['g, G', 'First row, last row'],
  ['Enter', 'Open the row'],
  ['Esc', 'Leave the search, go back'],
  ['e', 'End the session that is open'],
  ['1, 2, 3', 'Sessions, workers, events'],
  ['t', 'System’s, light or dark colours'],
  ['?', 'These keys'],
];

/** Opens a dialog that is gone from the document once it is closed. */
function open(dialog) {
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

export class Dialogs {
  #token = null;
  #watch = () => {};

  /** Looks whether what is asked about is still so. */
  update() {
    this.#watch(false);
  }

  /** Another daemon answers, which may have a session and a worker of the same names. */
  restarted() {
    this.#watch(true);
  }

  get isOpen() {
    return document.querySelector('dialog[open]') !== null;
  }

  help() {
    const close = h('button', { type: 'button', click: () => dialog.close() }, 'Close');
    const dialog = h('dialog.help', { 'aria-labelledby': 'help-title' },
      h('h2', { id: 'help-title' }, 'Keys'),
      h('dl', {}, KEYS.map(([keys, meaning]) => h('div', {},
        h('dt', {}, keys.split(', ').map((key) => h('kbd', {}, key))), h('dd', {}, meaning)))),
      h('p.note', {}, 'A search takes words, and pool:NAME, tenant:NAME, worker:NAME, state:NAME.'),
      h('div.buttons', {}, close));
    open(dialog);
  }

  /**
   * Asks whether a session is to end, and ends this one and none that takes its name meanwhile. `current()` gives the
   * row of that name as it is by now, or `null`.
   */
  end(session, current, ended) {
    const { id, pool, tenant, leases } = session;
    let { worker } = session;
    const force = h('input', { type: 'checkbox' });
    const error = h('p.error', { role: 'alert' });
    const cancel = h('button', { type: 'button', autofocus: true, click: () => dialog.close() }, 'Cancel');
    const go = h('button.danger', { type: 'button' }, 'End session');
    const inUse = leases > 0 && h('li', {}, leases === 1
      ? 'One request or connection to it is open and will be broken off.'
      : `${count(leases)} requests and connections to it are open and will be broken off.`);
    const lost = h('li');
    const tellWhatIsLost = () => {
      write(lost, worker === null ? 'Its worker, which is being started, is stopped.' : `Its worker ${worker} is stopped: all that it holds in memory and in its workspace is lost.`);
    };
    tellWhatIsLost();
    const refuse = (why) => {
      write(error, why);
      go.disabled = true;
      write(go, 'End session');
      write(cancel, 'Close');
      this.#watch = () => {};
    };
    const isAnother = (next) => refuse(`This session has ended meanwhile, and was started anew${next ? ` on ${next}` : ''}. Nothing was ended: close this, and look at the new one.`);
    const dialog = h('dialog.end', { 'aria-labelledby': 'end-title', 'aria-describedby': 'end-lost' },
      h('h2', { id: 'end-title' }, 'End session ', h('span.id', {}, id), '?'),
      h('ul', { id: 'end-lost' },
        lost,
        inUse,
        h('li', {}, 'The next request that names it starts a new one, which knows nothing of this one.')),
      h('label.check', {}, force, h('span', {}, 'Kill it at once, without asking it to stop')),
      error, h('div.buttons', {}, cancel, go));
    go.addEventListener('click', async () => {
      go.disabled = true;
      this.#watch = () => {};
      write(go, 'Ending…');
      write(cancel, 'Do not wait');
      write(error, '');
      try {
        // A browser takes `..` in a path for a step upwards, however it is written.
        if (id === '.' || id === '..') throw new Error(`a browser cannot name this session; “herd end ${quoted(id)}” in a terminal can`);
        const query = { pool, tenant: tenant ?? '', worker, force: force.checked ? true : null };
        await ask(address(['v1', 'sessions', id], query), { method: 'DELETE', time: null });
        dialog.close();
        ended();
      } catch (problem) {
        if (problem.kind === 'no-such-session') {
          dialog.close();
          ended();
          return;
        }
        if (problem.kind === 'session-restarted') {
          isAnother(problem.worker);
          return;
        }
        write(error, problem.status ? problem.message : `It could not be ended: ${problem instanceof TypeError ? 'no answer from the daemon' : problem.message}.`);
        go.disabled = false;
        write(go, 'End session');
        write(cancel, 'Cancel');
        this.#watch = watch;
      }
    });
    const watch = (isOther) => {
      const row = current();
      if (!row || isOther) refuse('This session has ended meanwhile: nothing is left to be ended.');
      else if (worker === null) {
        ({ worker } = row);
        tellWhatIsLost();
      } else if (row.worker !== worker) isAnother(row.worker);
    };
    dialog.addEventListener('close', () => { this.#watch = () => {}; });
    this.#watch = watch;
    open(dialog);
  }

  /** Asks for the token; all that waits for one goes on with it. `refused` says what was wrong with the one before. */
  token(refused) {
    if (this.#token) {
      if (refused) write(this.#token.error, refused);
      return;
    }
    const error = h('p.error', { role: 'alert', id: 'token-error' }, refused);
    const input = h('input', {
      type: 'password', autocomplete: 'off', spellcheck: 'false', required: true, id: 'token', 'aria-describedby': 'token-error',
    });
    const form = h('form', {
      submit: (event) => {
        event.preventDefault();
        const token = input.value.trim();
        if (!token) return;
        // What is no visible ASCII cannot be sent, and is no token.
        if (!/^[!-~]+$/.test(token)) {
          write(error, 'That is no token: it has characters that tokens have not.');
          return;
        }
        useToken(token);
        this.#token = null;
        dialog.close();
      },
    },
    h('h2', { id: 'token-title' }, 'This daemon asks for its admin token'),
    h('p', {}, 'It is in the file that network.admin_token_file names. This tab keeps it until it is closed.'),
    h('label', { for: 'token' }, 'Token'), input, error,
    h('div.buttons', {}, h('button.primary', { type: 'submit' }, 'Continue')));
    const dialog = h('dialog.token', { 'aria-labelledby': 'token-title' }, form);
    // There is nothing to see without it.
    dialog.addEventListener('cancel', (event) => event.preventDefault());
    this.#token = { error };
    open(dialog);
    input.focus();
  }
}

