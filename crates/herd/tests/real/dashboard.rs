//! The dashboard in Chromium, in front of real daemons.

mod daemons;
mod ending;
mod people;
mod pictures;
mod strangers;
mod tab;

use serde_json::{Value, json};

use self::tab::{END_TIMEOUT, Tab, button, css, lines, role, row, rows, say, speakers, start, status};
use crate::processes::Watch;

#[tokio::test]
async fn a_session_appears_its_log_streams_and_ending_it_ends_its_worker() {
    let daemon = speakers(&[]);
    let mut tab = Tab::open(daemon.admin);
    tab.says(&status(), "live");
    tab.says(&css(".empty"), "No session at this moment.");
    // It is gone after a reload.
    tab.evaluate("() => { window.mark = true; }", Value::Null);
    start(&daemon, "alice").await;
    start(&daemon, "bob").await;
    tab.sees(&row("alice"));
    tab.sees(&row("bob"));
    tab.click(&row("alice"));
    tab.says(&role("heading", "alice"), "alice");

    say(&daemon, "alice", "/out", "the first line\n").await;
    tab.sees(&lines().with("the first line"));
    say(&daemon, "alice", "/err", "the second line\n").await;
    tab.sees(&lines().with("the second line"));
    tab.sees(&css(".events li").with("alice started on"));

    // It has a network of its own.
    tab.says(&css(".facts .wide"), "http://127.0.0.1:8000 (private)");

    let (worker, pid) = daemon.worker_of("alice").await;
    let watch = Watch::of([pid]);
    tab.click(&button("End session…"));
    tab.says(&role("dialog", "End session alice?"), &format!("Its worker {worker} is stopped"));
    tab.click(&button("Cancel"));
    tab.sees_none(&role("dialog", "End session alice?"));
    assert_eq!(daemon.admin("/v1/sessions/alice").await["state"], "live", "nothing was confirmed");
    tab.click(&button("End session…"));
    tab.click(&button("End session"));
    tab.says(&css(".notice"), "This session ended");
    tab.sees(&lines().with("There are no more lines"));
    watch.wait_for_exits(END_TIMEOUT);
    tab.click(&role("link", "herd, all sessions"));
    tab.sees(&row("bob"));
    tab.sees_none(&row("alice"));
    assert_eq!(tab.evaluate("() => window.mark", Value::Null), true, "the page was never loaded anew");
    tab.has_no_complaints();
}

#[tokio::test]
async fn ten_thousand_sessions_are_searched_and_sorted_with_few_rows_in_the_document() {
    const COUNT: usize = 10_000;
    /// No two sessions have had as many requests.
    fn requests(index: usize) -> usize {
        (index * 7919) % 10_007
    }

    let daemon = speakers(&[]);
    let many = json!({ "stats": daemon.admin("/v1/stats").await, "count": COUNT });
    let mut tab = Tab::open_with(daemon.admin, json!({ "many": many }));
    let name = |index: usize| format!("session-{index:05}");
    tab.says(&css("output.note"), "10,000 sessions");
    tab.has(&role("grid", "Sessions"), "aria-rowcount", &(COUNT + 1).to_string());
    let few = |tab: &mut Tab| {
        let rows = tab.texts(&rows()).len();
        assert!((10..120).contains(&rows), "{rows}");
    };
    few(&mut tab);

    let mut took = Vec::new();
    let search = "input[type=search]";
    took.push(("a search", tab.takes(search, Some("session-042"))));
    tab.says(&css("output.note"), "100 of 10,000 sessions");
    took.push(("a search for one", tab.takes(search, Some("session-04217"))));
    tab.counts(&rows(), 1);
    tab.sees(&row(&name(4217)));
    took.push(("no search", tab.takes(search, Some(""))));
    tab.says(&css("output.note"), "10,000 sessions");

    let mut order: Vec<_> = (0..COUNT).collect();
    order.sort_by_key(|index| std::cmp::Reverse(requests(*index)));
    took.push(("a sort", tab.takes(".head .requests button", None)));
    tab.has(&role("columnheader", "Requests"), "aria-sort", "descending");
    tab.has(&row(&name(order[0])), "aria-rowindex", "2");
    tab.has(&row(&name(order[1])), "aria-rowindex", "3");
    took.push(("a sort the other way", tab.takes(".head .requests button", None)));
    tab.has(&row(&name(order[COUNT - 1])), "aria-rowindex", "2");
    tab.evaluate("() => scrollTo(0, document.body.scrollHeight)", Value::Null);
    tab.has(&row(&name(order[0])), "aria-rowindex", &(COUNT + 1).to_string());
    few(&mut tab);

    let tell = "([name, data]) => window.tell(name, data)";
    let gone =
        json!(["gone", { "sessions": [{ "pool": "default", "tenant": null, "id": name(order[0]) }], "workers": [] }]);
    tab.evaluate(tell, gone);
    tab.says(&css("output.note"), "9,999 sessions");
    tab.sees_none(&row(&name(order[0])));
    few(&mut tab);
    tab.has_no_complaints();
    // A busy machine is given time. What grows with more than the rows does not fit into it.
    assert!(took.iter().all(|(_, millis)| *millis < 2000.0), "{took:?}");
    #[expect(clippy::print_stderr, reason = "whoever looks at the test wants to know")]
    for (what, millis) in took {
        eprintln!("{what}: {millis:.0} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_stands_out_and_those_who_wait_for_it_are_no_sessions_yet() {
    let daemon = speakers(&["--workers", "1..1"]);
    start(&daemon, "alice").await;
    let gateway = daemon.gateway;
    let waiting = tokio::spawn(async move { gateway.get(Some("bob"), "/").await });
    let mut tab = Tab::open(daemon.admin);
    tab.says(&row("bob"), "waiting");
    tab.says(&row("alice"), "live");
    tab.says(&css("output.note"), "1 session, 1 waiting");
    tab.says(&css(".tile").with("Sessions"), "1");
    tab.says(&css("nav.places [data-place=sessions] .number"), "1");
    tab.has(&css(".card"), "data-kind", "busy");
    tab.says(&css(".card"), "1 of 1 in sessions · full · 1 waiting");
    tab.has(&css(".tile").with("Waiting callers"), "data-kind", "busy");
    tab.fill(&role("searchbox", "Search sessions"), "state:waiting");
    tab.counts(&rows(), 1);
    tab.click(&row("bob"));
    tab.says(&css(".notice"), "It waits until its pool has a worker for it.");
    tab.goto("#/pools/default");
    tab.says(&css(".legend"), "Full, and 1 caller waiting.");
    tab.goto("#/sessions/default//alice");
    tab.click(&button("End session…"));
    tab.click(&button("End session"));
    tab.goto("#/");
    tab.says(&row("bob"), "live");
    tab.says(&css("output.note"), "1 session");
    assert_eq!(waiting.await.unwrap().status, 200);
    tab.has_no_complaints();
}

#[tokio::test]
async fn events_are_searched() {
    let daemon = speakers(&[]);
    start(&daemon, "alice").await;
    let mut tab = Tab::open(daemon.admin);
    tab.goto("#/events");
    tab.sees(&css(".events li").with("alice started on"));
    tab.sees(&css(".events li").with("is ready after"));
    tab.press("/");
    tab.type_text("alice START");
    tab.hides(&css(".events li").with("is ready after").nth(0));
    tab.sees(&css(".events li").with("alice started on"));
    start(&daemon, "bob").await;
    tab.fill(&role("searchbox", "Search events"), "bob started");
    tab.sees(&css(".events li").with("bob started on"));
    tab.hides(&css(".events li").with("alice started on"));
    tab.fill(&role("searchbox", "Search events"), "nobody did that");
    tab.says(&css("main .note").with("No event"), "No event fits the search.");
    tab.has_no_complaints();
}

#[tokio::test]
async fn a_pool_shows_its_capacity_its_starts_and_why_its_last_one_failed() {
    let daemon = speakers(&["--workers", "1..3", "--ttl", "90s"]);
    start(&daemon, "alice").await;
    let mut tab = Tab::open(daemon.admin);
    tab.click(&role("link", "default"));
    tab.says(&role("heading", "default"), "default");
    tab.says(&css(".legend"), "3 workers at most: 1 in sessions");
    tab.says(&css(".facts").nth(1), "p99");
    tab.sees(&css(".histogram svg rect"));
    tab.says(&css("section[aria-labelledby=settings-title]"), "1 to 3");
    // Only the rows that are in sight are in the document.
    tab.evaluate("() => scrollTo(0, document.body.scrollHeight)", Value::Null);
    tab.sees(&row("alice"));
    tab.has_no_complaints();

    let failing =
        crate::daemon::Daemon::run(&["--workers", "1..1"], &["/bin/sh", "-c", "echo '<b>no</b> luck' >&2; exit 7"]);
    tab.turn_to(failing.admin, json!({}));
    tab.says(&css(".card"), "The last start failed.");
    tab.click(&role("link", "default"));
    tab.says(&css(".failure pre"), "<b>no</b> luck");
    tab.has_no_complaints();
}
