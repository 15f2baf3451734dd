use std::{
    fs,
    io::{self, Write},
    sync::{Arc, Mutex},
};

use herd_pool::Worker as _;
use herd_process::{LogLine, OutputStream, ProcessWorker};
use tracing_subscriber::fmt::MakeWriter;

use crate::fixture::{get, patiently, role, script, start};

/// The first `count` lines, once they are there.
async fn lines(worker: &ProcessWorker, count: usize) -> Vec<LogLine> {
    let mut follow = worker.logs().follow(0);
    let mut lines = Vec::new();
    while lines.len() < count {
        lines.extend(patiently(follow.next()).await.expect("the output has not ended"));
    }
    lines
}

fn texts(lines: &[LogLine], stream: OutputStream) -> Vec<&str> {
    lines.iter().filter(|line| line.stream == stream).map(|line| &*line.text).collect()
}

pub(crate) async fn lines_of_both_streams_are_kept_in_order() {
    let worker = start(role(&["write", "one\\ntwo\\n\\nthree\\n", "a\\0d\\nb\\n"])).await;
    let lines = lines(&worker, 6).await;
    assert_eq!(texts(&lines, OutputStream::Stdout), ["one", "two", "", "three"]);
    assert_eq!(texts(&lines, OutputStream::Stderr), ["a", "b"]);
    assert_eq!(lines.iter().map(|line| line.sequence).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
}

pub(crate) async fn hostile_bytes_are_made_printable() {
    let worker = start(role(&["write", "\\1b[2J\\1b]0;x\\07\\n\\ff\\feok\\n\\00\\n", ""])).await;
    let lines = lines(&worker, 3).await;
    let expected = ["\\u{1b}[2J\\u{1b}]0;x\\u{7}", "\u{fffd}\u{fffd}ok", "\\u{0}"];
    assert_eq!(texts(&lines, OutputStream::Stdout), expected);
}

pub(crate) async fn a_line_without_end_is_cut() {
    let worker =
        start(script(r#"head -c 3000000 /dev/zero | tr '\0' x; echo; echo next; exec "$0" worker serve"#)).await;
    let lines = lines(&worker, 2).await;
    let texts = texts(&lines, OutputStream::Stdout);
    assert!(texts[0].starts_with("xxx") && texts[0].ends_with(" … [2991808 more bytes cut]"), "{}", texts[0].len());
    assert_eq!(texts[1], "next");
}

/// Bytes that are resident, without what is mapped from files.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("the line is there");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") * 1024
}

pub(crate) async fn a_flood_neither_grows_the_daemon_nor_stops_other_workers() {
    let quiet = start(role(&["serve"])).await;
    let floods = [start(role(&["flood", "y"])).await, start(role(&["flood", &"long ".repeat(20_000)])).await];
    let reached = |worker: &ProcessWorker| worker.logs().since(0).last().map_or(0, |line| line.sequence);
    let before = memory();
    // A hundred answers while both floods are seen to go on.
    let mut seen = floods.each_ref().map(reached);
    for _ in 0..10 {
        for _ in 0..10 {
            assert_eq!(get(&quiet, "/pid").await, quiet.pid().to_string());
        }
        for (flood, seen) in floods.iter().zip(&mut seen) {
            let mut follow = flood.logs().follow(*seen + 1);
            *seen = patiently(follow.next()).await.expect("it goes on").last().expect("a line").sequence;
            assert_eq!(get(flood, "/pid").await, flood.pid().to_string());
        }
    }
    let grown = memory().saturating_sub(before);
    assert!(grown < 4 * 1024 * 1024, "the daemon grew by {grown} bytes");
    for flood in &floods {
        let kept = flood.logs().since(0);
        assert!(kept.len() <= 1_000 && kept.iter().map(|line| line.text.len()).sum::<usize>() <= 256 * 1024);
        patiently(flood.close()).await;
    }
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("UTF-8")
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

pub(crate) async fn the_log_is_limited_and_says_how_much_is_missing() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    // The worker's output is read on this thread.
    let _guard = tracing::subscriber::set_default(subscriber);
    let worker = start(script(r#"seq 1 900; exec "$0" worker serve"#)).await;
    lines(&worker, 900).await;
    patiently(worker.close()).await;

    let text = log.text();
    let logged = text.lines().filter(|line| line.contains("herd::worker:") && line.contains("INFO")).count();
    assert!((100..=300).contains(&logged), "{logged} lines:\n{text}");
    let missing: usize =
        text.lines().filter_map(|line| line.rsplit_once(" suppressed=")?.1.parse::<usize>().ok()).sum();
    assert_eq!(logged + missing, 900, "{text}");
    assert!(text.contains("worker=worker-1 stream=\"stdout\""), "{text}");
}

pub(crate) async fn a_follower_sees_lines_as_they_come_and_the_end() {
    let worker = start(script(r#"echo first; "$0" worker serve; echo last >&2; exit 1"#)).await;
    let mut follow = worker.logs().follow(0);
    assert_eq!(&*patiently(follow.next()).await.expect("a line")[0].text, "first");
    let _ = patiently(worker.client().get("/abort")).await;
    let mut seen = Vec::new();
    while let Some(lines) = patiently(follow.next()).await {
        seen.extend(lines);
    }
    let seen = texts(&seen, OutputStream::Stderr);
    assert!(seen.first() == Some(&"about to abort") && seen.last() == Some(&"last"), "{seen:?}");
}

pub(crate) async fn the_last_words_are_complete_when_the_exit_is_told() {
    let text = r#"trap 'head -c 60000 /dev/zero | tr "\0" "\n"; seq 1 500 >&2; kill -9 $$' TERM
        "$0" worker serve & while :; do wait; done"#;
    for _ in 0..5 {
        let worker = start(script(text)).await;
        let exited = worker.exited();
        let ((), exit) = tokio::join!(patiently(worker.close()), patiently(exited));
        let expected: Vec<_> = (481..=500).map(|number: u32| number.to_string()).collect();
        assert_eq!(*exit.stderr_tail, expected);
    }
}
