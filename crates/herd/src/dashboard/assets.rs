//! The files that the dashboard consists of.

/// The page, with `{{digest}}` where its files' addresses have theirs.
pub(super) const PAGE: &str = include_str!("assets/index.html");

/// A file of the page's.
#[derive(Debug)]
pub(super) struct Asset {
    pub(super) name: &'static str,
    pub(super) content_type: &'static str,
    pub(super) content: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($($name:literal: $content_type:expr),* $(,)?) => {
        &[$(Asset { name: $name, content_type: $content_type, content: include_str!(concat!("assets/", $name)) }),*]
    };
}

/// All of them, by name.
pub(super) const ASSETS: &[Asset] = assets! {
    "chart.js": SCRIPT,
    "columns.js": SCRIPT,
    "detail.js": SCRIPT,
    "dialogs.js": SCRIPT,
    "dom.js": SCRIPT,
    "events.js": SCRIPT,
    "facts.js": SCRIPT,
    "format.js": SCRIPT,
    "grid.js": SCRIPT,
    "icon.svg": "image/svg+xml",
    "log.js": SCRIPT,
    "main.js": SCRIPT,
    "overview.js": SCRIPT,
    "picture.js": SCRIPT,
    "pool.js": SCRIPT,
    "stream.js": SCRIPT,
    "style.css": "text/css; charset=utf-8",
    "theme.js": SCRIPT,
};
