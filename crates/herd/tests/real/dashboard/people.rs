//! People without a mouse, who do not see the page, or have a small screen.

use serde_json::{Value, json};

use super::tab::{END_TIMEOUT, Tab, button, css, lines, role, row, rows, say, speakers, start, status};
use crate::{daemon::Daemon, processes::Watch};

#[tokio::test]
async fn everything_can_be_done_with_the_keyboard() {
    let daemon = speakers(&[]);
    for name in ["alice", "bob", "carol"] {
        start(&daemon, name).await;
    }
    let mut tab = Tab::open(daemon.admin);
    tab.counts(&rows(), 3);
    // By the tabulator: past the skip link to a column's head, and there the order is turned.
    tab.press("Tab");
    tab.has_focus(&role("link", "Skip to the content"));
    let focused = "() => document.activeElement?.textContent";
    for _ in 0..40 {
        if tab.evaluate(focused, Value::Null) == "Session" {
            break;
        }
        tab.press("Tab");
    }
    let head = role("columnheader", "Session");
    tab.press("Enter");
    tab.has(&head, "aria-sort", "ascending");
    tab.has(&row("alice"), "aria-rowindex", "2");
    tab.press("Space");
    tab.has(&head, "aria-sort", "descending");
    tab.has(&row("carol"), "aria-rowindex", "2");

    // Help, rows, a search.
    tab.press("?");
    tab.sees(&role("dialog", "Keys"));
    tab.press("Escape");
    tab.sees_none(&role("dialog", "Keys"));
    tab.press("g");
    tab.has_focus(&row("carol"));
    tab.press("j");
    tab.has_focus(&row("bob"));
    tab.press("ArrowUp");
    tab.has_focus(&row("carol"));
    tab.press("/");
    let search = role("searchbox", "Search sessions");
    tab.has_focus(&search);
    tab.type_text("bo");
    tab.counts(&rows(), 1);
    tab.press("Enter");
    tab.has_focus(&row("bob"));
    tab.press("Enter");
    tab.says(&css("h1"), "bob");

    // Back to where one was, and there again.
    tab.press("Escape");
    tab.holds(&search, "bo");
    tab.has_focus(&row("bob"));
    tab.press("Enter");
    tab.says(&css("h1"), "bob");

    let watch = Watch::of([daemon.worker_of("bob").await.1]);
    tab.press("e");
    let dialog = role("dialog", "End session bob?");
    tab.sees(&dialog);
    tab.has_focus(&button("Cancel"));
    tab.press("Escape");
    tab.sees_none(&dialog);
    tab.press("e");
    tab.press("Tab");
    tab.has_focus(&button("End session"));
    tab.press("Enter");
    tab.says(&css(".notice"), "This session ended");
    watch.wait_for_exits(END_TIMEOUT);
    tab.press("2");
    tab.sees(&role("heading", "Workers"));
    tab.press("3");
    tab.sees(&role("heading", "Events"));
    tab.press("1");
    tab.counts(&rows(), 2);
    tab.has_no_complaints();
}

/// Sessions with something to see.
async fn furnish(daemon: &Daemon) {
    for name in ["alice", "a-session-with-a-long-name-that-nobody-would-type-0123456789abcdef", "bob"] {
        start(daemon, name).await;
    }
    let _ = say(daemon, "carol", "/die", "out of luck\n").await;
    say(daemon, "alice", "/out", "\x1b[32mgreen\x1b[0m and \x1b[31mred\x1b[0m and \x07 a bell\n").await;
    say(daemon, "alice", "/err", "x".repeat(300) + " and y\n").await;
}

/// Every page, with what has to be there before it is looked at.
fn visit(tab: &mut Tab, mut look: impl FnMut(&mut Tab, &str)) {
    tab.says(&status(), "live");
    tab.sees(&row("alice"));
    look(tab, "all sessions");
    tab.fill(&role("searchbox", "Search sessions"), "no such name");
    tab.sees(&button("Clear the search"));
    look(tab, "a search for nobody");
    tab.goto("#/sessions/default//alice");
    tab.sees(&lines().with("green"));
    tab.sees(&css(".events li"));
    look(tab, "a session");
    tab.click(&button("End session…"));
    look(tab, "the question whether to end it");
    tab.press("Escape");
    tab.press("?");
    look(tab, "the keys");
    tab.press("Escape");
    tab.goto("#/sessions/default//carol");
    tab.says(&css(".notice"), "ended");
    tab.sees(&css(".events pre"));
    look(tab, "a session that has ended");
    tab.goto("#/pools/default");
    tab.sees(&css(".histogram svg rect"));
    look(tab, "a pool");
    tab.goto("#/workers");
    tab.sees(&row("alice"));
    look(tab, "all workers");
    tab.goto("#/workers/worker-1");
    tab.says(&css("h1"), "worker-1");
    look(tab, "a worker");
    tab.goto("#/events");
    tab.sees(&css(".events li").with("alice"));
    look(tab, "all events");
    tab.goto("#/nowhere");
    look(tab, "a page that is none");
}

#[tokio::test]
async fn there_are_no_barriers_in_light_and_in_dark() {
    let daemon = speakers(&[]);
    furnish(&daemon).await;
    let mut tab = None;
    for scheme in ["light", "dark"] {
        // What looks for barriers is put into the page, which the page's policy would not let it.
        let options = json!({ "bypass_csp": true, "color_scheme": scheme });
        let tab = tab.get_or_insert_with(|| Tab::open(daemon.admin));
        tab.turn_to(daemon.admin, options);
        visit(tab, |tab, what| tab.has_no_barriers(&format!("{what}, {scheme}")));
    }
}

#[tokio::test]
async fn nothing_scrolls_sideways_on_a_narrow_screen() {
    let daemon = speakers(&[]);
    furnish(&daemon).await;
    let mut tab = Tab::open_with(daemon.admin, json!({ "viewport": { "width": 360, "height": 640 } }));
    tab.sees(&row("alice"));
    // However long the other row's texts are.
    let edges = r"(name) => {
        document.querySelector('.rows .cell.age time').textContent = '59m 59s';
        document.querySelector('.rows .cell.state span span').textContent = 'in session';
        return new Set([...document.querySelectorAll(`.rows .cell.${name}`)].map((cell) => cell.getBoundingClientRect().left)).size;
    }";
    for name in ["cpu", "memory", "age", "idle"] {
        assert_eq!(tab.evaluate(edges, name.into()), 1, "{name}");
    }
    visit(&mut tab, |tab, what| {
        let width = tab.evaluate("() => [document.documentElement.scrollWidth, innerWidth]", Value::Null);
        assert_eq!(width[0], width[1], "{what}");
        // Nor is anything cut off that somebody would have to press.
        let outside = r"() => [...document.querySelectorAll('button, a, input, select')]
            .filter((element) => element.checkVisibility() && !element.closest('.lines, .skip, .row'))
            .map((element) => [element.getBoundingClientRect(), element.outerHTML])
            .filter(([{ left, right, width }]) => width > 0 && (left < 0 || right > innerWidth + 0.5))
            .map(([, html]) => html)";
        assert_eq!(tab.evaluate(outside, Value::Null), json!([]), "{what}");
    });
    tab.has_no_complaints();
}
