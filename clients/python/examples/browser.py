"""A browser of one's own for each session. Playwright here and there have to be of the same version:

    herd run --health-path / --pids -1 --cwd . -- npx playwright-core run-server --port {{.Port}} --host 127.0.0.1
    python browser.py http://127.0.0.1:8080 ['{"channel": "chrome"}']
"""

import sys

from herd_client import Herd
from playwright.sync_api import sync_playwright

gateway, *launch = sys.argv[1:]

with Herd(gateway) as herd, herd.session() as session, sync_playwright() as playwright:
    headers = session.headers
    if launch:
        headers["x-playwright-launch-options"] = launch[0]
    browser = playwright.chromium.connect(session.websocket_url("/"), headers=headers)
    page = browser.new_page()
    page.goto("data:text/html,<title>hello</title>")
    print(page.title(), "from session", session.id)
    browser.close()
