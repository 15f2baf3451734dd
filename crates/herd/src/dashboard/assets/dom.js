// Elements are made node by node. Nothing in this page turns text into HTML: what comes from workers and callers is put
// into text nodes and attributes alone.

const SVG = 'http://www.w3.org/2000/svg';

/** Makes an element; `name` is `tag` or `tag.class.class`. Attributes that are functions are listeners. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name.split('.', 1)[0]), name, attributes, children);
}

/** The same for a part of a drawing. */
export function s(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name.split('.', 1)[0]), name, attributes, children);
}

function fill(element, name, attributes, children) {
  const classes = name.split('.').slice(1).join(' ');
  if (classes) element.setAttribute('class', classes);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(key, value);
    else attribute(element, key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets an attribute that is not so already; `null` and `false` take it away. */
export function attribute(element, key, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(key)) element.removeAttribute(key);
    return;
  }
  const text = value === true ? '' : String(value);
  if (element.getAttribute(key) !== text) element.setAttribute(key, text);
}

/** Sets the text of an element that is not so already, so that what stands still costs nothing and stays selected. */
export function write(element, text) {
  const next = String(text);
  if (element.textContent !== next) element.textContent = next;
}

/** Puts children in place of those that there are. */
export function replace(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

// What turns the direction of text or cannot be seen could make one thing look like another.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\u2800\ufff9-\ufffb]|\p{Default_Ignorable_Code_Point}/u;
const UNSEEN_PARTS = new RegExp(`(${UNSEEN.source})`, 'u');

/** Text of a stranger as nodes: characters that are not seen are written out. */
export function visible(text) {
  if (!UNSEEN.test(text)) return [text];
  return text.split(UNSEEN_PARTS).filter(Boolean).map((part) => {
    if (!UNSEEN.test(part)) return part;
    const code = part.codePointAt(0).toString(16);
    return h('span.unseen', {}, `\\u{${code}}`);
  });
}

let announcer;

/** Says something to those who do not see the page. */
export function announce(text) {
  announcer ??= document.getElementById('announcer');
  // The same words a second time would not be a change.
  announcer.textContent = announcer.textContent === text ? `${text}\u00a0` : text;
}

/** A button that copies what `text` gives, where the browser lets it. */
export function copyButton(label, text) {
  const button = h('button.quiet', { type: 'button', 'aria-label': label }, 'Copy');
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = 'Copied';
      announce('Copied');
    } catch {
      button.textContent = 'Select it and copy';
    }
    setTimeout(() => { button.textContent = 'Copy'; }, 2000);
  });
  return button;
}
