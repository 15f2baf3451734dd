//! Ending sessions: the right one, and from however many windows.

use hyper::Method;
use serde_json::{Value, json};

use super::tab::{Tab, button, css, role, row, speakers, start};
use crate::{daemon::Daemon, gateway::Gateway};

/// Ends a session as somebody else would.
async fn end(daemon: &Daemon, session: &str) {
    let path = format!("/v1/sessions/{session}?force=true");
    let admin = Gateway(daemon.admin);
    let request = admin.request(Method::DELETE, None, &path, "");
    assert_eq!(admin.send(request).await.status, 200);
}

#[tokio::test]
async fn a_session_that_is_started_anew_while_its_dialog_is_open_is_not_ended() {
    let daemon = speakers(&[]);
    start(&daemon, "alice").await;
    let mut tab = Tab::open(daemon.admin);
    tab.click(&row("alice"));
    let (first, _) = daemon.worker_of("alice").await;
    tab.click(&button("End session…"));
    let dialog = role("dialog", "End session alice?");
    tab.says(&dialog, &format!("Its worker {first} is stopped"));
    end(&daemon, "alice").await;
    start(&daemon, "alice").await;
    let (second, _) = daemon.worker_of("alice").await;
    assert_ne!(first, second);
    tab.says(&dialog, "This session has ended meanwhile");
    tab.has(&button("End session"), "disabled", "");
    tab.click(&button("Close"));

    // What is sent names the worker that was shown.
    let listen = "() => {
        const { fetch } = window;
        window.asked = [];
        window.fetch = (path, options) => { window.asked.push(String(path)); return fetch(path, options); };
    }";
    tab.evaluate(listen, Value::Null);
    tab.click(&button("End session…"));
    tab.says(&dialog, &format!("Its worker {second} is stopped"));
    tab.click(&button("End session"));
    tab.says(&css(".notice"), "This session ended");
    let asked = tab.evaluate("() => window.asked", Value::Null);
    let path = format!("v1/sessions/alice?pool=default&tenant=&worker={second}");
    assert!(asked.as_array().unwrap().contains(&json!(path)), "{asked}");
    tab.has_no_complaints();
}
