"""How the tests start Chromium."""

# A machine without a network must not make Chromium wait for it. The tests may run as root, whom Chromium refuses its
# own sandbox.
LAUNCH = {
    "channel": "chrome",
    "args": [
        "--no-sandbox",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-domain-reliability",
        "--disable-sync",
        "--metrics-recording-only",
    ],
}
