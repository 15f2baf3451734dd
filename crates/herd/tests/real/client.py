"""The Playwright client that the tests drive: a JSON object per line in, one out."""

import json
import sys

from chromium import LAUNCH
from playwright.sync_api import sync_playwright

def connect(playwright, browsers, name, endpoint, session):
    headers = {"X-Session-ID": session, "x-playwright-launch-options": json.dumps(LAUNCH)}
    browsers[name] = playwright.chromium.connect(endpoint, headers=headers)
    return {"connected": browsers[name].is_connected(), "version": browsers[name].version}


def render(playwright, browsers, name, text):
    context = browsers[name].new_context()
    blank = context.new_page().screenshot()
    page = context.new_page()
    page.set_content(f"<title>{text}</title><h1 style='font-size: 80px'>{text}</h1>")
    answer = {"title": page.title(), "heading": page.inner_text("h1")}
    shot = page.screenshot()
    answer["screenshot_is_png"] = shot.startswith(b"\x89PNG")
    answer["screenshot_shows_something"] = shot != blank and len(shot) > len(blank)
    page.goto("data:text/html,<title>from a data URL</title><script>document.title += ', scripted'</script>")
    answer["second_title"] = page.title()
    context.close()
    return answer


def enter(playwright, browsers, name, page, scripts):
    address, page = page, browsers[name].new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    requests = []
    page.on("request", lambda request: requests.append(request.url.removeprefix(address)))
    page.goto(address)
    answers = []
    for number, (session, script) in enumerate(scripts):
        page.fill("#session", session)
        page.fill("#script", script)
        page.press("#script", "Enter")
        answer = page.locator("#log li").nth(number).locator("pre").nth(1)
        answer.wait_for(state="attached")
        answers.append([answer.get_attribute("class"), answer.text_content()])
    markup = page.locator("#log li b").count()
    return {"answers": answers, "markup": markup, "requests": requests, "complaints": complaints}


def disconnect(playwright, browsers, name):
    browsers.pop(name).close()
    return {}


ACTIONS = {"connect": connect, "render": render, "enter": enter, "disconnect": disconnect}

with sync_playwright() as playwright:
    browsers = {}
    for line in sys.stdin:
        request = json.loads(line)
        action = ACTIONS[request.pop("do")]
        try:
            answer = action(playwright, browsers, **request)
        except Exception as error:  # The test shows it.
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
