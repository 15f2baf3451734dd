//! Daemons that go, come back, drain, ask for a token, or are far away.

use std::{fs, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::tab::{SPEAKER, Tab, button, css, lines, role, row, rows, say, speakers, speakers_at, start, status};
use crate::{daemon::Daemon, processes::Watch};

async fn crowd(daemon: &Daemon) {
    for number in 10..18 {
        start(daemon, &format!("session-{number}")).await;
    }
}

fn kill(daemon: Daemon) {
    let workers = Watch::of(daemon.descendants().pids());
    daemon.signal(Signal::KILL);
    drop(daemon);
    workers.wait_for_exits(Duration::from_secs(20));
}

#[tokio::test]
async fn a_daemon_that_is_killed_is_said_to_be_gone_and_its_successor_is_shown_in_the_same_place() {
    let daemon = speakers(&[]);
    crowd(&daemon).await;
    let admin = daemon.admin;
    let mut tab = Tab::open_with(admin, json!({ "viewport": { "width": 1000, "height": 420 } }));
    tab.says(&status(), "live");
    tab.fill(&role("searchbox", "Search sessions"), "session-1");
    tab.click(&button("Session"));
    tab.counts(&rows(), 8);
    tab.evaluate("() => scrollTo(0, 260)", Value::Null);
    let place = "() => [Math.round(scrollY), location.hash, document.querySelector('input[type=search]').value]";
    let before = tab.evaluate(place, Value::Null);
    assert_eq!(before[0], 260, "the page is long enough");

    kill(daemon);
    tab.says(&css("#banner"), "The daemon is gone since");
    tab.says(&status(), "reconnecting");
    tab.counts(&rows(), 8);
    assert_eq!(tab.evaluate(place, Value::Null), before, "what was there stays, and where it was");

    // It comes back into view when it has sessions of the same names.
    tab.offline(true);
    let daemon = speakers_at(admin, &[]);
    crowd(&daemon).await;
    tab.offline(false);
    tab.says(&status(), "live");
    tab.hides(&css("#banner"));
    tab.counts(&rows(), 8);
    assert_eq!(tab.evaluate(place, Value::Null), before);
    start(&daemon, "session-19").await;
    tab.sees(&row("session-19"));
}

#[tokio::test]
async fn a_daemon_that_is_silent_is_said_to_be_so_at_once_and_not_to_be_gone() {
    let daemon = speakers(&[]);
    start(&daemon, "alice").await;
    let mut tab = Tab::open(daemon.admin);
    tab.sees(&row("alice"));
    tab.says(&status(), "live");
    daemon.signal(Signal::STOP);
    // Sooner than the page gives the connection up.
    tab.says(&status(), "silent for");
    tab.says(&css("#banner"), "The daemon has not answered since");
    tab.sees(&row("alice"));
    daemon.signal(Signal::CONT);
    tab.says(&status(), "live");
    tab.hides(&css("#banner"));
    tab.has_no_complaints();
}

#[tokio::test]
async fn the_page_of_a_session_outlives_the_daemon_and_goes_on_with_the_next_one() {
    let daemon = speakers(&[]);
    start(&daemon, "alice").await;
    say(&daemon, "alice", "/out", "said before\n").await;
    let admin = daemon.admin;
    let mut tab = Tab::open(admin);
    tab.click(&row("alice"));
    tab.sees(&lines().with("said before"));
    kill(daemon);
    tab.says(&css("#banner"), "The daemon is gone since");
    tab.sees(&lines().with("said before"));
    tab.says(&css("h1"), "alice");

    let daemon = speakers_at(admin, &[]);
    tab.says(&status(), "live");
    tab.says(&css(".notice"), "this session ended with the one before");
    start(&daemon, "alice").await;
    say(&daemon, "alice", "/out", "said afterwards\n").await;
    tab.sees(&lines().with("said afterwards"));
    tab.sees(&lines().with("The daemon was started anew"));
    tab.says(&css("h1"), "alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_drains_says_so_until_it_is_gone() {
    let daemon = speakers(&["--drain-timeout", "5s"]);
    start(&daemon, "alice").await;
    let mut tab = Tab::open(daemon.admin);
    tab.sees(&row("alice"));
    let gateway = daemon.gateway;
    let held = tokio::spawn(async move { gateway.get(Some("alice"), "/hold").await });
    tab.says(&row("alice"), "in use");
    daemon.signal(Signal::TERM);
    tab.says(&css("#banner"), "The daemon is draining");
    tab.sees(&row("alice"));
    tab.says(&css("#banner"), "The daemon is gone since");
    held.abort();
}

#[tokio::test]
async fn a_wrong_token_is_said_to_be_wrong_and_the_right_one_opens_the_page() {
    const TOKEN: &str = "a-token-that-is-long-enough-0123456789";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    let daemon = speakers(&["--admin-token-file", file.to_str().unwrap()]);
    start(&daemon, "alice").await;
    let mut tab = Tab::open(daemon.admin);
    let dialog = role("dialog", "This daemon asks for its admin token");
    tab.sees(&dialog);
    tab.sees_none(&row("alice"));
    tab.type_text("not-the-token");
    tab.press("Enter");
    tab.says(&dialog, "That is not the token.");
    tab.fill(&css("#token"), TOKEN);
    tab.click(&button("Continue"));
    tab.sees_none(&dialog);
    tab.sees(&row("alice"));
    tab.click(&row("alice"));
    say(&daemon, "alice", "/out", "for those who may know\n").await;
    tab.sees(&lines().with("for those who may know"));
    assert!(!tab.address().contains(TOKEN));
    tab.reload();
    tab.sees(&lines().with("for those who may know"));
    tab.click(&button("Forget token"));
    tab.sees(&dialog);
    tab.sees_none(&lines());
    // The browser's own words about the refusals.
    let complaints = tab.complaints();
    assert!(complaints.iter().all(|complaint| complaint.contains("401")), "{complaints:?}");
}

#[tokio::test]
async fn a_token_that_is_changed_is_asked_for_anew_and_everything_goes_on() {
    const TOKENS: [&str; 2] = ["a-token-that-is-long-enough-0123456789", "another-token-that-is-long-enough-0123"];
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, TOKENS[0]).unwrap();
    let configuration = directory.path().join("herd.yaml");
    // What is read again is what a file says.
    let text = format!(
        "worker: {{command: [/usr/bin/python3, {SPEAKER}], health_path: /}}\nnetwork: {{admin_token_file: {}}}\n",
        file.display()
    );
    fs::write(&configuration, text).unwrap();
    let daemon = Daemon::serve(&["--config", configuration.to_str().unwrap()]);
    start(&daemon, "alice").await;
    let mut tab = Tab::open(daemon.admin);
    let dialog = role("dialog", "This daemon asks for its admin token");
    tab.sees(&dialog);
    tab.fill(&css("#token"), TOKENS[0]);
    tab.click(&button("Continue"));
    tab.click(&row("alice"));
    say(&daemon, "alice", "/out", "before\n").await;
    tab.sees(&lines().with("before"));
    fs::write(&file, TOKENS[1]).unwrap();
    daemon.signal(Signal::HUP);
    tab.says(&dialog, "That is not the token.");
    say(&daemon, "alice", "/out", "not for the old token\n").await;
    tab.sees_none(&lines().with("not for the old token"));
    tab.fill(&css("#token"), TOKENS[1]);
    tab.click(&button("Continue"));
    tab.sees_none(&dialog);
    tab.says(&status(), "live");
    tab.sees(&lines().with("not for the old token"));
    say(&daemon, "alice", "/out", "after\n").await;
    tab.sees(&lines().with("after"));
}

#[tokio::test]
async fn the_page_can_be_used_on_a_slow_network() {
    let daemon = speakers(&[]);
    start(&daemon, "alice").await;
    let slow = json!({ "latency": 400, "downloadThroughput": 30_000, "uploadThroughput": 10_000 });
    let mut tab = Tab::open_with(daemon.admin, json!({ "throttle": slow }));
    // The page is there before the data.
    tab.sees(&role("heading", "Sessions"));
    tab.fill(&role("searchbox", "Search sessions"), "ali");
    tab.sees(&row("alice"));
    tab.holds(&role("searchbox", "Search sessions"), "ali");
    tab.click(&row("alice"));
    // More than the network carries in a moment, and the page goes on.
    let flood: String = (0..2000).map(|number| format!("line {number} of a flood that takes its time\n")).collect();
    say(&daemon, "alice", "/out", flood).await;
    tab.sees(&lines().with("line 1999 of a flood"));
    tab.click(&button("End session…"));
    tab.click(&button("End session"));
    tab.says(&css(".notice"), "This session ended");
    tab.has_no_complaints();
}
