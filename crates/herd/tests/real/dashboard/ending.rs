//! Ending sessions: the right one, and from however many windows.

use hyper::Method;
use serde_json::{Value, json};

use super::tab::{Tab, button, css, lines, role, row, say, speakers, start, status};
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

#[tokio::test]
async fn windows_beside_one_another_leave_connections_for_what_is_asked() {
    let daemon = speakers(&[]);
    let mut tab = Tab::open(daemon.admin);
    for (number, session) in ["alice", "bob", "carol"].into_iter().enumerate() {
        start(&daemon, session).await;
        say(&daemon, session, "/out", format!("said by {session}\n")).await;
        if number > 0 {
            tab.another();
        }
        tab.goto(&format!("#/sessions/default//{session}"));
        tab.says(&status(), "live");
        tab.sees(&lines().with(&format!("said by {session}")));
        if session == "bob" {
            tab.click(&button("End session…"));
            tab.click(&button("End session"));
            tab.says(&css(".notice"), "This session ended");
        }
    }
    tab.has_no_complaints();
}

#[tokio::test]
async fn a_flood_that_comes_while_the_log_is_paused_costs_the_page_little() {
    let daemon = speakers(&[]);
    start(&daemon, "alice").await;
    let mut tab = Tab::open(daemon.admin);
    tab.click(&row("alice"));
    say(&daemon, "alice", "/out", "first\n").await;
    tab.sees(&lines().with("first"));
    tab.click(&button("Pause"));
    // How often the page writes how many lines wait, and in how many frames.
    let watch = "() => {
        window.writes = 0;
        window.frames = 0;
        const note = document.querySelector('.log .note');
        new MutationObserver((changes) => { window.writes += changes.length; }).observe(note, { childList: true });
        const frame = () => { window.frames += 1; requestAnimationFrame(frame); };
        requestAnimationFrame(frame);
    }";
    tab.evaluate(watch, Value::Null);
    for (round, waiting) in ["800", "1,600", "2,400", "3,200", "4,000", "4,800", "5,000"].into_iter().enumerate() {
        // No more than the daemon keeps of a log.
        let flood: String = (0..800).map(|number| format!("{round}-{number}\n")).collect();
        say(&daemon, "alice", "/out", flood).await;
        tab.says(&css(".log .note"), &format!("{waiting} more wait"));
    }
    let work = tab.evaluate("() => [window.writes, window.frames]", Value::Null);
    let [writes, frames] = [0, 1].map(|place| work[place].as_u64().unwrap());
    assert!(writes <= 2 * (frames + 1), "{writes} writes in {frames} frames");
    tab.click(&button("Pause"));
    tab.sees(&lines().with("6-799"));
    tab.has_no_complaints();
}
