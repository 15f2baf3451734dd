//! Screens, as they are drawn on terminals of several sizes.

use std::time::{Duration, Instant, SystemTime};

use ratatui::{Terminal, backend::TestBackend};
use serde_json::{Value, json};

use super::{
    columns::Table,
    draw::{Theme, draw},
    keys::{Key, keys},
    picture::Picture,
    rows::SessionKey,
    view::{Over, View, Wish},
};
use crate::client::Frame;

/// What all times are told from.
const NOW: &str = "2026-01-31T12:00:00Z";

fn now() -> SystemTime {
    humantime::parse_rfc3339(NOW).unwrap()
}

fn ago(seconds: u64) -> String {
    humantime::format_rfc3339_millis(now() - Duration::from_secs(seconds)).to_string()
}

fn later(seconds: u64) -> String {
    humantime::format_rfc3339_millis(now() + Duration::from_secs(seconds)).to_string()
}

fn frame(name: &str, data: &Value) -> Frame {
    Frame { id: String::new(), name: name.to_owned(), data: data.to_string() }
}

fn session(number: u64, id: &str, tenant: Option<&str>, leases: u32) -> Value {
    json!({
        "pool": if number.is_multiple_of(2) { "default" } else { "python" }, "tenant": tenant, "id": id, "state": "live",
        "worker": format!("worker-{number}"), "address": "http://127.0.0.1:8080", "created": ago(number * 61),
        "last_used": ago(number), "idle_until": (leases == 0).then(|| later(300_u64.saturating_sub(number))), "ends_by": null,
        "leases": leases, "requests": number * 1003, "bytes_in": 4096, "bytes_out": 1 << 20,
    })
}

fn worker(number: u64, session: Option<&str>, tenant: Option<&str>, spent: u64) -> Value {
    json!({
        "pool": if number.is_multiple_of(2) { "default" } else { "python" }, "id": format!("worker-{number}"),
        "pid": 4000 + number, "state": if session.is_some() { "in-session" } else { "spare" }, "session": session,
        "tenant": tenant, "address": "http://127.0.0.1:8080", "started": ago(number * 62), "ready_after_ms": 41.5,
        "restarts": 0, "cpu_time_ms": spent, "memory_bytes": number << 22, "memory_peak_bytes": number << 23, "pids": number,
        "oom_kills": 1,
        "limits": { "memory_bytes": 512 << 20, "cpu_cores": 0.5, "pids": 100, "open_files": 4096 },
        "layers": ["user", "pid", "files", "network", "seccomp"],
        "missing": [{ "layer": "cgroup", "step": "s", "errno": null, "reason": "there is no cgroup v2", "remedy": "mount it" }],
    })
}

fn stats(requests: u64) -> Value {
    let counts = json!({
        "max_workers": 10, "workers": { "total": 5, "starting": 1, "spare": 1, "in_session": 3, "ending": 0 },
        "sessions": 3, "waiting": 2, "acquire_requests": requests,
    });
    let pool = |name: &str, failure: Value| {
        let mut pool = counts.clone();
        pool["pool"] = json!(name);
        pool["leaving"] = json!(false);
        pool["last_start_failure"] = failure;
        pool
    };
    let failure = json!({ "at": ago(5), "error": "the program ended with exit code 1\nTraceback" });
    let mut all = counts.clone();
    all["version"] = json!("0.5.0");
    all["uptime_ms"] = json!(7_384_000);
    all["pools"] = json!([pool("default", Value::Null), pool("python", failure)]);
    all
}

/// A daemon with two pools, tenants, and an ID that wants to be more than text.
fn picture() -> Picture {
    let begin = Instant::now();
    let hostile = "b\u{1b}[2J\u{202e}<i>\u{7}%s";
    let long = format!("session-{}", "0123456789".repeat(12));
    let mut picture = Picture::default();
    let sessions = json!({ "items": [
        session(1, "alice", Some("acme"), 1), session(2, hostile, None, 0), session(3, &long, Some("globex"), 0),
    ]});
    for second in 0..=4_u64 {
        let workers = json!({ "items": [
            worker(1, Some("alice"), Some("acme"), second * 500), worker(2, Some(hostile), None, 0),
            worker(3, Some(&long), Some("globex"), second * 20), worker(4, None, None, 0),
        ]});
        for frame in [frame("sessions", &sessions), frame("workers", &workers), frame("stats", &stats(second * 42))] {
            picture.take(&frame, begin + Duration::from_secs(second)).unwrap();
        }
    }
    picture.take(&frame("ready", &json!({})), begin + Duration::from_secs(4)).unwrap();
    picture
}

fn view() -> View {
    let mut view = View::new();
    view.link = super::Link::Live;
    view.show(&picture());
    view
}

fn press(view: &mut View, typed: &str) -> Vec<Wish> {
    keys(typed.as_bytes()).into_iter().filter_map(|key| view.press(key)).collect()
}

fn screen(view: &mut View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view, Theme { colours: true }, now())).unwrap();
    terminal.backend().to_string()
}

#[test]
fn terminals_of_every_size_show_what_fits() {
    for (width, height) in [(40, 10), (80, 24), (120, 40)] {
        insta::assert_snapshot!(format!("sessions_{width}x{height}"), screen(&mut view(), width, height));
    }
    let mut view = view();
    for width in 1..50 {
        for height in 1..14 {
            for typed in ["", "\r", "?", "x", "/", "\x1b\x1b"] {
                press(&mut view, typed);
                screen(&mut view, width, height);
            }
        }
    }
}

#[test]
fn workers_details_and_help_have_their_screens() {
    let mut view = view();
    press(&mut view, "\t");
    insta::assert_snapshot!("workers_80x24", screen(&mut view, 80, 24));
    press(&mut view, "\t\r");
    insta::assert_snapshot!("details_80x24", screen(&mut view, 80, 24));
    insta::assert_snapshot!("details_40x10", screen(&mut view, 40, 10));
    press(&mut view, "?");
    insta::assert_snapshot!("help_80x24", screen(&mut view, 80, 24));
    insta::assert_snapshot!("help_40x10", screen(&mut view, 40, 10));
}

#[test]
fn details_that_are_longer_than_the_screen_say_so_hang_and_are_turned_over() {
    let mut view = view();
    press(&mut view, "\r");
    let first = screen(&mut view, 40, 10);
    assert!(first.contains("PgDn: ") && first.contains("more lines below") && !first.contains("sandbox"), "{first}");
    let mut all = first;
    for _ in 0..3 {
        press(&mut view, "\x1b[6~");
        all += &screen(&mut view, 40, 10);
    }
    assert!(all.contains(" sandbox  user, pid") && all.contains("PgUp: what is above"), "{all}");
    // What goes on in the next line begins below the value.
    assert!(all.contains("missing  cgroup: ") && all.contains("\n\"          "), "{all}");
    assert_eq!(view.over, Over::Details);
    press(&mut view, "\x1b[5~\x1b[5~\x1b[5~");
    assert!(screen(&mut view, 40, 10).contains(" session  alice"));
    assert!(!screen(&mut view, 80, 40).contains("PgDn"), "there is room");
}

#[test]
fn the_hints_below_are_whole_at_every_width() {
    let hints = ["? help", "q quit", "x end it", "/ find", "Enter details", "Tab workers", "←→ sort"];
    for width in 10..100 {
        let drawn = screen(&mut view(), width, 8);
        let last = drawn.lines().last().unwrap().trim_matches('"').trim_end().to_owned();
        let shown = last.split("  ").collect::<Vec<_>>();
        assert_eq!(shown, hints[..shown.len()], "{width}");
    }
}

#[test]
fn a_pool_whose_starts_fail_says_so_on_every_terminal() {
    for (width, height) in [(40, 10), (40, 24), (80, 10), (80, 24), (120, 40)] {
        let drawn = screen(&mut view(), width, height);
        assert!(
            drawn.contains("start failed 5.0s ago") || drawn.contains("start of python failed 5.0s ago"),
            "{drawn}"
        );
    }
}

#[test]
fn until_the_daemon_has_told_everything_nothing_is_said_of_it() {
    let drawn = screen(&mut View::new(), 40, 10);
    assert!(drawn.contains("connecting") && drawn.contains("waiting for the daemon …"), "{drawn}");
    assert!(!drawn.contains("0 sessions") && !drawn.contains("workers 0"), "{drawn}");
}

#[test]
fn what_a_terminal_would_obey_is_shown_as_text() {
    let mut view = view();
    press(&mut view, "/<i>\r");
    let found = screen(&mut view, 110, 16);
    assert!(found.contains("b\u{fffd}[2J\u{fffd}<i>\u{fffd}%s"), "{found}");
    press(&mut view, "x");
    let asked = screen(&mut view, 60, 12);
    assert!(asked.contains("<i>"), "{asked}");
    for shown in [found, asked, {
        press(&mut view, "n\r");
        screen(&mut view, 60, 20)
    }] {
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown}");
    }
}

#[test]
fn a_daemon_that_is_gone_leaves_its_last_picture() {
    let mut view = view();
    view.lose("the daemon broke the connection off".to_owned(), now() - Duration::from_secs(7));
    view.lose("no daemon answers\u{1b}[2J".to_owned(), now());
    insta::assert_snapshot!("gone_80x24", screen(&mut view, 80, 24));
    insta::assert_snapshot!("gone_40x10", screen(&mut view, 40, 10));
}

#[test]
fn a_session_is_ended_only_by_who_says_yes() {
    let mut view = view();
    let alice = SessionKey { pool: "python".to_owned(), tenant: Some("acme".to_owned()), id: "alice".to_owned() };
    assert!(press(&mut view, "x").is_empty());
    let worker = Some("worker-1".to_owned());
    assert_eq!(view.over, Over::Confirm(alice.clone(), worker.clone()));
    insta::assert_snapshot!("confirm_80x24", screen(&mut view, 80, 24));
    insta::assert_snapshot!("confirm_40x10", screen(&mut view, 40, 10));
    assert!(press(&mut view, "n").is_empty());
    assert_eq!(view.over, Over::Nothing);
    assert_eq!(press(&mut view, "ky"), [Wish::End { session: alice.clone(), worker: worker.clone(), force: false }]);
    assert_eq!(press(&mut view, "xf"), [Wish::End { session: alice, worker, force: true }]);
    press(&mut view, "\t/spare\r");
    assert!(press(&mut view, "xy").is_empty(), "a spare worker has no session");
}

#[test]
fn the_session_that_was_chosen_is_ended_also_if_another_takes_its_place_meanwhile() {
    let mut view = view();
    press(&mut view, "x");
    let mut less = picture();
    let gone = json!({ "sessions": [{ "pool": "python", "tenant": "acme", "id": "alice" }], "workers": ["worker-1"] });
    less.take(&frame("gone", &gone), Instant::now()).unwrap();
    view.show(&less);
    let ended = press(&mut view, "y");
    assert!(matches!(&ended[..], [Wish::End { session, .. }] if session.id == "alice"), "{ended:?}");
}

#[test]
fn a_session_that_is_started_anew_while_the_question_stands_is_not_the_one_that_is_ended() {
    let mut view = view();
    press(&mut view, "x");
    let mut anew = picture();
    let row = json!({ "pool": "python", "tenant": "acme", "id": "alice", "state": "live", "worker": "worker-9" });
    anew.take(&frame("sessions", &json!({ "items": [row] })), Instant::now()).unwrap();
    view.show(&anew);
    let ended = press(&mut view, "y");
    assert!(matches!(&ended[..], [Wish::End { worker: Some(worker), .. }] if worker == "worker-1"), "{ended:?}");
}

#[test]
fn rows_are_sorted_found_and_followed() {
    let mut view = view();
    let first = |view: &View| view.rows[0].session_id().unwrap_or_default().chars().take(7).collect::<String>();
    assert_eq!(first(&view), "alice", "the busiest");
    press(&mut view, "r");
    assert_eq!(first(&view), "b\u{1b}[2J\u{202e}<");
    assert_eq!(view.selected, 2, "the selected one is followed");
    press(&mut view, "a");
    assert_eq!(first(&view), "session", "the oldest");
    press(&mut view, "m");
    assert_eq!(first(&view), "session", "the largest");
    press(&mut view, "mn");
    assert_eq!(first(&view), "alice");
    press(&mut view, "/GLOB");
    assert_eq!((view.rows.len(), first(&view).as_str()), (1, "session"), "by its tenant");
    press(&mut view, "\x1b");
    assert_eq!((view.rows.len(), view.filter.as_str()), (3, ""));
    press(&mut view, "/alice\r\t");
    assert_eq!((view.table, view.rows.len()), (Table::Workers, 1));
    assert_eq!(press(&mut view, "\x1b"), [], "first the search ends");
    assert_eq!(press(&mut view, "\x1b"), [Wish::Quit]);
    assert_eq!(press(&mut view, "q\x03\x1a\x0c"), [Wish::Quit, Wish::Quit, Wish::Suspend, Wish::Redraw]);
}

#[test]
fn a_pause_holds_the_picture_and_then_it_goes_on_with_the_newest() {
    let mut view = view();
    press(&mut view, "p");
    assert!(view.is_paused());
    let mut later = Picture::default();
    later.take(&frame("ready", &json!({})), Instant::now()).unwrap();
    view.show(&later);
    assert_eq!(view.rows.len(), 3);
    press(&mut view, "p");
    assert_eq!(view.rows.len(), 0);
    assert!(screen(&mut view, 40, 10).contains("there are none"));
}

#[test]
fn ten_thousand_sessions_are_drawn_as_fast_as_ten() {
    let mut picture = Picture::default();
    for from in (0..10_000).step_by(500) {
        let items: Vec<_> = (from..from + 500).map(|number| session(number, &format!("s-{number}"), None, 0)).collect();
        picture.take(&frame("sessions", &json!({ "items": items })), Instant::now()).unwrap();
    }
    picture.take(&frame("ready", &json!({})), Instant::now()).unwrap();
    let mut view = View::new();
    view.show(&picture);
    let begin = Instant::now();
    for _ in 0..100 {
        view.press(Key::PageDown);
        let shown = screen(&mut view, 120, 40);
        assert!(shown.contains("s-"));
    }
    view.press(Key::End);
    assert_eq!(view.selected, 9_999);
    screen(&mut view, 120, 40);
    assert_eq!(view.offset + view.room, 10_000);
    // By far: an unoptimized build on a busy machine draws a screen in some milliseconds.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}
