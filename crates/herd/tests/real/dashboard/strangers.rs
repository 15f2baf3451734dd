//! What comes from callers and workers is text.

use serde_json::{Value, json};

use super::tab::{Tab, button, css, lines, role, row, rows, say, speakers, start, status};

/// Session IDs, which may be any visible ASCII.
const NAMES: [&str; 7] = [
    "<img/src=x/onerror=alert(1)>",
    "\"></script><script>alert(1)</script>",
    "'\"`&lt;&#60;%3Cb%3E",
    "../../..//?#&a=b;c",
    "javascript:alert(document.domain)",
    "${alert(1)}{{alert(1)}}<!--",
    "__proto__",
];

#[tokio::test]
async fn a_hostile_session_id_is_shown_as_text_and_can_be_ended() {
    let daemon = speakers(&[]);
    for name in NAMES {
        start(&daemon, name).await;
    }
    let mut tab = Tab::open(daemon.admin);
    for name in NAMES {
        tab.goto("#/");
        tab.fill(&role("searchbox", "Search sessions"), name);
        tab.counts(&rows(), 1);
        tab.says(&rows(), name);
        tab.click(&row(name));
        tab.says(&css("h1"), name);
        assert_eq!(tab.texts(&css("h1")), [name]);
        tab.sees(&css(".events li").with(&format!("{name} started on")));
        tab.click(&button("End session…"));
        assert_eq!(tab.texts(&css("dialog h2")), [format!("End session {name}?")]);
        tab.check(&role("checkbox", "Kill it at once, without asking it to stop"));
        tab.click(&button("End session"));
        tab.says(&css(".notice"), "This session ended");
        tab.sees(&css(".events li").with(&format!("{name} ended")));
    }
    tab.goto("#/events");
    tab.sees(&css(".events li").with(NAMES[0]));
    nothing_became_of_it(&mut tab);
    assert_eq!(daemon.admin("/v1/sessions").await["items"], json!([]));
}

#[tokio::test]
async fn hostile_output_of_workers_is_shown_as_text() {
    let daemon = speakers(&[]);
    start(&daemon, "alice").await;
    let mut tab = Tab::open(daemon.admin);
    tab.click(&row("alice"));
    let long = "x".repeat(8 * 1024);
    let output: [(&[u8], &str); 9] = [
        (
            b"<script>alert(1)</script><img src=x onerror=alert(1)>",
            "<script>alert(1)</script><img src=x onerror=alert(1)>",
        ),
        (b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J", "red"),
        ("\u{202e}gnp.exe \u{2066}x".as_bytes(), "gnp.exe"),
        ("a\u{2800}b\u{e0041}c\u{34f}d".as_bytes(), r"a\u{2800}b\u{e0041}c\u{34f}d"),
        (b"invalid \xff\xfe UTF-8", "invalid \u{fffd}\u{fffd} UTF-8"),
        (b"a NUL \0 and a bell \x07", "a NUL "),
        (b"data: x\\nevent: gone\rdata: {}", "data: x"),
        (long.as_bytes(), "xxxxxxxxxxxxxxxx"),
        (b"]]></p></div><style>*{display:none}</style>", "]]></p></div><style>*{display:none}</style>"),
    ];
    for (bytes, shown) in output {
        say(&daemon, "alice", "/out", [bytes, b"\n"].concat()).await;
        tab.sees(&lines().with(shown));
    }
    // No character of those is left that would turn or hide others.
    let unseen = r"() => /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069\u2800]|\p{Default_Ignorable_Code_Point}/u.test(document.querySelector('.log').textContent)";
    assert_eq!(tab.evaluate(unseen, Value::Null), false);
    tab.sees(&css(".log .unseen"));
    say(&daemon, "alice", "/out", "the last line\n").await;
    tab.sees(&lines().with("the last line"));

    // What it wrote before it died is told as well.
    let _ = say(&daemon, "alice", "/die", "<img src=x onerror=alert(2)> \x1b[31m\u{202e}bad\n").await;
    tab.says(&css(".notice"), "This session ended");
    tab.says(&css(".events pre"), "<img src=x onerror=alert(2)>");
    nothing_became_of_it(&mut tab);
}

#[track_caller]
fn nothing_became_of_it(tab: &mut Tab) {
    let strange = "main img, main script, main style, main b, main iframe, main [onerror], body > :not(a, header, div, main, script, dialog)";
    tab.sees_none(&css(strange));
    tab.has_no_complaints();
}

#[tokio::test]
async fn whatever_gets_into_the_page_can_neither_run_nor_ask_others() {
    let daemon = speakers(&[]);
    let mut tab = Tab::open(daemon.admin);
    tab.says(&status(), "live");
    tab.has_no_complaints();
    let tries = r#"async () => {
        const outcomes = {};
        const script = document.createElement('script');
        try {
            script.append(document.createTextNode('window.ran = "inline"'));
            document.body.append(script);
            outcomes.inline = window.ran ?? 'blocked';
        } catch (error) {
            outcomes.inline = 'blocked';
        }
        for (const [name, trial] of Object.entries({
            html: () => { document.createElement('p').innerHTML = '<b>x</b>'; },
            write: () => document.write('<b>x</b>'),
            eval: () => eval('1'),
            construct: () => new Function('return 1'),
        })) {
            // Later: while this function is called from outside, what it evaluates is let through.
            outcomes[name] = await new Promise((resolve) => setTimeout(() => {
                try {
                    trial();
                    resolve('done');
                } catch (error) {
                    resolve('blocked');
                }
            }));
        }
        const button = document.createElement('button');
        try {
            button.setAttribute('onclick', 'window.ran = "handler"');
            button.click();
            outcomes.handler = window.ran ?? 'blocked';
        } catch (error) {
            outcomes.handler = 'blocked';
        }
        const paragraph = document.createElement('p');
        paragraph.setAttribute('style', 'position: fixed');
        document.body.append(paragraph);
        outcomes.style = getComputedStyle(paragraph).position === 'fixed' ? 'done' : 'blocked';
        outcomes.elsewhere = await fetch('http://127.0.0.1:9/').then(() => 'done', () => 'blocked');
        const image = new Image();
        outcomes.image = await new Promise((resolve) => {
            image.onload = () => resolve('done');
            image.onerror = () => resolve('blocked');
            image.src = 'http://127.0.0.1:9/x.png';
        });
        return { outcomes, violations: window.violations };
    }"#;
    let found = tab.evaluate(tries, Value::Null);
    for (what, outcome) in found["outcomes"].as_object().unwrap() {
        assert_eq!(outcome, "blocked", "{what}");
    }
    let violations = found["violations"].to_string();
    for directive in ["style-src", "connect-src", "img-src", "require-trusted-types-for"] {
        assert!(violations.contains(directive), "{directive}: {violations}");
    }
    tab.says(&status(), "live");

    let html = "<script>window.ran = 'inline'</script><img src='/x' onerror='window.ran = `handler`'>\
                <style>body { display: none }</style><script src='data:text/javascript,window.ran=1'></script>\
                <iframe src='/'></iframe><base href='http://127.0.0.1:9/'><object data='/'></object>";
    tab.turn_to(daemon.admin, json!({ "inject": html }));
    tab.says(&status(), "live");
    tab.counts(&css("script[src^='data:']"), 1);
    assert_eq!(tab.evaluate("() => window.ran ?? null", Value::Null), Value::Null);
    let complaints = tab.complaints().join("\n");
    for directive in [
        "script-src-elem inline",
        "script-src-attr inline",
        "style-src-elem inline",
        "script-src-elem data",
        "frame-src",
        "base-uri",
    ] {
        assert!(complaints.contains(directive), "{directive}: {complaints}");
    }
}
