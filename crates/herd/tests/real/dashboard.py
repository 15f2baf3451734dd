"""A browser that the dashboard's tests look through: a JSON object per line in, one out."""

import json
import sys
from pathlib import Path

from chromium import LAUNCH
from playwright.sync_api import expect, sync_playwright

# A machine may be busy. What is waited for has come about long before, if it does at all.
PATIENCE = 30_000

# What the page may not do, it reports to itself.
WATCH = """
window.violations = [];
addEventListener('securitypolicyviolation', (event) => {
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI}`);
});
"""

# Sends a picture of many sessions from inside the page, and later whatever `window.tell` is given.
MANY = """
(({ stats, count }) => {
  const encoder = new TextEncoder();
  const frame = (name, data) => encoder.encode(`event: ${name}\\ndata: ${JSON.stringify(data)}\\n\\n`);
  const now = new Date().toISOString();
  const name = (index) => `session-${String(index).padStart(5, '0')}`;
  const session = (index) => ({
    pool: 'default', tenant: null, id: name(index), state: 'live', worker: `worker-${index + 1}`,
    address: 'http://127.0.0.1:1', created: new Date(Date.parse(now) - index * 1000).toISOString(), last_used: now,
    idle_until: new Date(Date.parse(now) + 300000 + index).toISOString(), ends_by: null, leases: 0,
    requests: (index * 7919) % 10007, bytes_in: index, bytes_out: index,
  });
  const worker = (index) => ({
    pool: 'default', id: `worker-${index + 1}`, pid: index + 100, state: 'in-session', session: name(index),
    tenant: null, address: 'http://127.0.0.1:1', started: now, ready_after_ms: 12.5, restarts: 0, cpu_time_ms: index,
    memory_bytes: (index + 1) * 1024, memory_peak_bytes: null, pids: 1, oom_kills: null, limits: null, layers: [],
    missing: [],
  });
  const { fetch } = window;
  window.fetch = async (path, options) => {
    if (!String(path).includes('v1/live')) return fetch(path, options);
    const body = new ReadableStream({
      start(controller) {
        window.tell = (event, data) => controller.enqueue(frame(event, data));
        const started = stats.started;
        window.tell('hello', { version: stats.version, started, interval_ms: 1000, stats });
        for (let at = 0; at < count; at += 500) {
          const some = Array.from({ length: Math.min(500, count - at) }, (_, index) => at + index);
          window.tell('sessions', { items: some.map(session) });
          window.tell('workers', { items: some.map(worker) });
        }
        window.tell('ready', {});
        window.tell('stats', stats);
      },
    });
    return new Response(body, { headers: { date: new Date().toUTCString() } });
  };
})(MANY_ROWS);
"""

# How long it takes from what is done until the next frame is painted.
TIMED = """
async ({ css, value }) => {
  const element = document.querySelector(css);
  const before = performance.now();
  if (value === null) element.click();
  else {
    element.value = value;
    element.dispatchEvent(new Event('input'));
  }
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  return performance.now() - before;
}
"""


class Tab:
    """One page, with everything that went wrong in it."""

    def __init__(self, browser, address, many=None, throttle=None, inject=None, **options):
        self.address = address
        self.complaints = []
        self.context = browser.new_context(reduced_motion="reduce", **options)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", self.dismiss)
        self.page.on("request", self.watch)
        self.page.add_init_script(WATCH)
        if many:
            self.page.add_init_script(MANY.replace("MANY_ROWS", json.dumps(many)))
        if throttle:
            self.throttle(throttle)
        if inject:
            self.page.route(address, lambda route: self.inject(route, inject))
        self.page.goto(address, wait_until="commit")

    def hear(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def dismiss(self, dialog):
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def watch(self, request):
        if not request.url.startswith(self.address):
            self.complaints.append(f"request: {request.url}")

    def another(self):
        """Goes on in a further window beside those that are open."""
        self.page = self.context.new_page()
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.add_init_script(WATCH)
        self.page.goto(self.address, wait_until="commit")

    def inject(self, route, html):
        """Lets the daemon's page come with something that the daemon did not write."""
        response = route.fetch()
        route.fulfill(response=response, body=response.text().replace("</body>", f"{html}</body>"))

    def offline(self, is_offline):
        self.context.set_offline(is_offline)

    def throttle(self, conditions):
        session = self.context.new_cdp_session(self.page)
        session.send("Network.enable")
        session.send("Network.emulateNetworkConditions", {"offline": False, **conditions})

    def find(self, css=None, role=None, name=None, text=None, nth=None):
        found = self.page.locator(css) if css else self.page.get_by_role(role, name=name, exact=True)
        if text is not None:
            found = found.filter(has_text=text)
        return found if nth is None else found.nth(nth)

    def goto(self, hash):
        self.page.evaluate("(hash) => { location.hash = hash; }", hash)

    def reload(self):
        self.page.reload(wait_until="commit")

    def sees(self, where):
        expect(self.find(**where).first).to_be_visible(timeout=PATIENCE)

    def sees_none(self, where):
        expect(self.find(**where)).to_have_count(0, timeout=PATIENCE)

    def hides(self, where):
        expect(self.find(**where)).to_be_hidden(timeout=PATIENCE)

    def counts(self, where, count):
        expect(self.find(**where)).to_have_count(count, timeout=PATIENCE)

    def says(self, where, text):
        expect(self.find(**where).first).to_contain_text(text, timeout=PATIENCE)

    def has(self, where, attribute, value):
        expect(self.find(**where).first).to_have_attribute(attribute, value, timeout=PATIENCE)

    def holds(self, where, value):
        expect(self.find(**where)).to_have_value(value, timeout=PATIENCE)

    def has_focus(self, where):
        expect(self.find(**where)).to_be_focused(timeout=PATIENCE)

    def texts(self, where):
        return self.find(**where).all_text_contents()

    def click(self, where):
        self.find(**where).first.click()

    def check(self, where):
        self.find(**where).check()

    def fill(self, where, text):
        self.find(**where).fill(text)

    def press(self, key):
        self.page.keyboard.press(key)

    def type(self, text):
        self.page.keyboard.type(text)

    def evaluate(self, script, argument=None):
        return self.page.evaluate(script, argument)

    def takes(self, css, value=None):
        return self.page.evaluate(TIMED, {"css": css, "value": value})

    def barriers(self, axe):
        """What axe-core finds that is serious or worse."""
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(Path(axe).read_text())
        found = self.page.evaluate("async () => (await axe.run(document, { resultTypes: ['violations'] })).violations")
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        return [f"{one['id']}: {node['html']} {node['failureSummary']}" for one in serious for node in one["nodes"]]

    def address_bar(self):
        return self.page.url

    def screenshot(self, path):
        self.page.screenshot(path=path)

    def all_complaints(self):
        return self.complaints + self.page.evaluate("() => window.violations")


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(**LAUNCH)
    tab = None
    for line in sys.stdin:
        request = json.loads(line)
        action = request.pop("do")
        try:
            if action == "open":
                tab = Tab(browser, **request)
                answer = {}
            else:
                answer = {"value": getattr(tab, action)(**request)}
        except Exception as error:  # The test shows it.
            answer = {"error": str(error)}
            if tab:
                answer["page"] = tab.page.evaluate("() => document.body.innerText")
        print(json.dumps(answer), flush=True)
    browser.close()
