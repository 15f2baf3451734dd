//! The dashboard in a browser, and the daemon behind it.

use std::{net::SocketAddr, path::Path, time::Duration};

use hyper::Method;
use serde_json::{Value, json};

use crate::{browser::Driver, daemon::Daemon, provided};

/// Where something is on the page.
#[derive(Clone, Debug)]
pub(super) struct Place(Value);

pub(super) fn css(selector: &str) -> Place {
    Place(json!({ "css": selector }))
}

/// Found as those find it who do not see the page.
pub(super) fn role(role: &str, name: &str) -> Place {
    Place(json!({ "role": role, "name": name }))
}

pub(super) fn button(name: &str) -> Place {
    role("button", name)
}

/// A row of a table with this text.
pub(super) fn row(text: &str) -> Place {
    rows().with(text)
}

pub(super) fn rows() -> Place {
    css(".grid .rows > .row")
}

/// The lines of the log.
pub(super) fn lines() -> Place {
    css(".log .lines > p")
}

pub(super) fn status() -> Place {
    css("#status")
}

impl Place {
    pub(super) fn with(mut self, text: &str) -> Self {
        self.0["text"] = text.into();
        self
    }

    pub(super) fn nth(mut self, number: usize) -> Self {
        self.0["nth"] = number.into();
        self
    }
}

/// A tab of a browser.
#[derive(Debug)]
pub(super) struct Tab {
    driver: Driver,
}

impl Tab {
    pub(super) fn open(admin: SocketAddr) -> Self {
        Self::open_with(admin, json!({}))
    }

    /// With options of Playwright's for a context, and others that `dashboard.py` knows.
    #[track_caller]
    pub(super) fn open_with(admin: SocketAddr, options: Value) -> Self {
        let mut tab = Self { driver: Driver::start("dashboard.py") };
        tab.turn_to(admin, options);
        tab
    }

    /// The same in another context of the browser, which knows nothing of this one.
    #[track_caller]
    pub(super) fn turn_to(&mut self, admin: SocketAddr, options: Value) {
        let Value::Object(mut question) = options else { panic!("{options} has no names") };
        question.insert("do".to_owned(), "open".into());
        question.insert("address".to_owned(), format!("http://{admin}/").into());
        self.ask(&question.into());
    }

    /// Goes on in a further window of the same browser, beside those that are open and in sight.
    #[track_caller]
    pub(super) fn another(&mut self) {
        self.ask(&json!({ "do": "another" }));
    }

    #[track_caller]
    fn ask(&mut self, question: &Value) -> Value {
        let answer = self.driver.ask(question);
        let page = answer["page"].as_str().unwrap_or_default();
        assert_eq!(answer["error"], Value::Null, "{question}, and the page says:\n{page}");
        answer["value"].clone()
    }

    #[track_caller]
    fn of(&mut self, what: &str, place: &Place) {
        self.ask(&json!({ "do": what, "where": place.0 }));
    }

    #[track_caller]
    pub(super) fn sees(&mut self, place: &Place) {
        self.of("sees", place);
    }

    #[track_caller]
    pub(super) fn sees_none(&mut self, place: &Place) {
        self.of("sees_none", place);
    }

    #[track_caller]
    pub(super) fn hides(&mut self, place: &Place) {
        self.of("hides", place);
    }

    #[track_caller]
    pub(super) fn counts(&mut self, place: &Place, count: usize) {
        self.ask(&json!({ "do": "counts", "where": place.0, "count": count }));
    }

    #[track_caller]
    pub(super) fn says(&mut self, place: &Place, text: &str) {
        self.ask(&json!({ "do": "says", "where": place.0, "text": text }));
    }

    #[track_caller]
    pub(super) fn has(&mut self, place: &Place, attribute: &str, value: &str) {
        self.ask(&json!({ "do": "has", "where": place.0, "attribute": attribute, "value": value }));
    }

    #[track_caller]
    pub(super) fn holds(&mut self, place: &Place, value: &str) {
        self.ask(&json!({ "do": "holds", "where": place.0, "value": value }));
    }

    #[track_caller]
    pub(super) fn has_focus(&mut self, place: &Place) {
        self.of("has_focus", place);
    }

    /// The whole text of each.
    #[track_caller]
    pub(super) fn texts(&mut self, place: &Place) -> Vec<String> {
        let texts = self.ask(&json!({ "do": "texts", "where": place.0 }));
        texts.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    pub(super) fn click(&mut self, place: &Place) {
        self.of("click", place);
    }

    #[track_caller]
    pub(super) fn check(&mut self, place: &Place) {
        self.of("check", place);
    }

    #[track_caller]
    pub(super) fn fill(&mut self, place: &Place, text: &str) {
        self.ask(&json!({ "do": "fill", "where": place.0, "text": text }));
    }

    /// Presses a key wherever the focus is.
    #[track_caller]
    pub(super) fn press(&mut self, key: &str) {
        self.ask(&json!({ "do": "press", "key": key }));
    }

    #[track_caller]
    pub(super) fn type_text(&mut self, text: &str) {
        self.ask(&json!({ "do": "type", "text": text }));
    }

    #[track_caller]
    pub(super) fn goto(&mut self, hash: &str) {
        self.ask(&json!({ "do": "goto", "hash": hash }));
    }

    #[track_caller]
    pub(super) fn reload(&mut self) {
        self.ask(&json!({ "do": "reload" }));
    }

    /// Takes the network away from the browser, or gives it back.
    #[track_caller]
    pub(super) fn offline(&mut self, is_offline: bool) {
        self.ask(&json!({ "do": "offline", "is_offline": is_offline }));
    }

    /// What a function gives that is called in the page.
    #[track_caller]
    pub(super) fn evaluate(&mut self, script: &str, argument: Value) -> Value {
        let mut question = json!({ "do": "evaluate", "script": script });
        question["argument"] = argument;
        self.ask(&question)
    }

    /// How many milliseconds it takes until what follows is painted: from a click, or from what is written into a field.
    #[track_caller]
    pub(super) fn takes(&mut self, selector: &str, value: Option<&str>) -> f64 {
        self.ask(&json!({ "do": "takes", "css": selector, "value": value })).as_f64().unwrap()
    }

    #[track_caller]
    pub(super) fn address(&mut self) -> String {
        self.ask(&json!({ "do": "address_bar" })).as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(super) fn screenshot(&mut self, path: &Path) {
        self.ask(&json!({ "do": "screenshot", "path": path }));
    }

    /// That nobody meets a barrier that axe-core knows of.
    #[track_caller]
    pub(super) fn has_no_barriers(&mut self, what: &str) {
        let found = self.ask(&json!({ "do": "barriers", "axe": provided("HERD_TEST_AXE") }));
        assert_eq!(found, json!([]), "{what}");
    }

    /// Errors and warnings on the console, dialogs, requests to elsewhere, and what the page's policy has forbidden.
    #[track_caller]
    pub(super) fn complaints(&mut self) -> Vec<String> {
        let all = self.ask(&json!({ "do": "all_complaints" }));
        all.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    pub(super) fn has_no_complaints(&mut self) {
        assert_eq!(self.complaints(), [""; 0]);
    }
}

/// Where their program is.
pub(super) const SPEAKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/speaker.py");

/// A daemon whose workers say what they are told to.
pub(super) fn speakers(flags: &[&str]) -> Daemon {
    speakers_at(SocketAddr::from(([127, 0, 0, 1], 0)), flags)
}

/// The same with the dashboard at this address.
pub(super) fn speakers_at(admin: SocketAddr, flags: &[&str]) -> Daemon {
    let usual = [["--health-path", "/"], ["--read-only", SPEAKER], ["--workers", "1..20"], ["--ttl", "1h"]];
    let usual = usual.into_iter().filter(|[flag, _]| !flags.contains(flag)).flatten();
    let all: Vec<_> = usual.chain(flags.iter().copied()).collect();
    Daemon::run_at(admin, &all, &["/usr/bin/python3", SPEAKER])
}

/// Has a session's worker write to its standard output (`/out`) or error (`/err`), or end after that (`/die`).
pub(super) async fn say(daemon: &Daemon, session: &str, path: &str, text: impl Into<hyper::body::Bytes>) -> u16 {
    let request = daemon.gateway.request(Method::POST, Some(session), path, text);
    daemon.gateway.send(request).await.status
}

/// Starts a session.
pub(super) async fn start(daemon: &Daemon, session: &str) {
    assert_eq!(daemon.gateway.get(Some(session), "/").await.status, 200);
}

/// How long workers may take to end that were told to.
pub(super) const END_TIMEOUT: Duration = Duration::from_secs(20);
