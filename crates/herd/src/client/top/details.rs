//! One session or worker, with all that is known of it.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use ratatui::text::{Line, Span};

use super::{
    columns::{Column, Row, Table, percent},
    draw::Theme,
    rows::{Limits, Session, Worker},
    view::View,
};
use crate::{
    client::ps::{bytes, span},
    console::printable,
    isolation::grouped,
};

/// Before what is told of something stands its name.
const NAME_WIDTH: usize = 8;
const INDENT: usize = NAME_WIDTH + 2;

/// What is shown of the selected row, in lines of at most `width` columns.
pub(super) fn lines(view: &View, theme: Theme, width: usize, now: SystemTime) -> Vec<Line<'static>> {
    let Some(row) = view.selected_row() else { return Vec::new() };
    let mut page = Page { lines: Vec::new(), theme, width };
    if let Some(id) = row.session_id() {
        page.entry("session", &printable(id));
    }
    page.entry("pool", &printable(row.pool()));
    if let Some(tenant) = row.tenant() {
        page.entry("tenant", &printable(tenant));
    }
    if let Some(session) = &row.session {
        of_session(&mut page, row, session, now);
    }
    if let Some(worker) = &row.worker {
        of_worker(&mut page, row, worker, now);
    }
    page.lines
}

struct Page {
    lines: Vec<Line<'static>>,
    theme: Theme,
    width: usize,
}

impl Page {
    /// A value, whose further lines begin below its first.
    fn entry(&mut self, name: &str, value: &str) {
        let room = self.width.saturating_sub(INDENT).max(1);
        for (number, line) in pieces(value, room).into_iter().enumerate() {
            let name = if number == 0 { name } else { "" };
            let name = Span::styled(format!("{name:>NAME_WIDTH$}  "), self.theme.dim());
            self.lines.push(Line::from(vec![name, Span::raw(line)]));
        }
    }
}

/// The text in lines, broken at spaces, and within words that are longer than a line.
fn pieces(text: &str, width: usize) -> Vec<String> {
    let options = textwrap::Options::new(width)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::wrap(text, options).into_iter().map(Cow::into_owned).collect()
}

fn of_session(page: &mut Page, row: &Row, session: &Session, now: SystemTime) {
    let cell = |column: Column| column.cell(row, Table::Sessions, now);
    page.entry("state", &cell(Column::State));
    page.entry("age", &format!("{}, idle {}", cell(Column::Age), cell(Column::Idle)));
    let left = |until: SystemTime| span(until.duration_since(now).unwrap_or_default());
    let idle = session.idle_until.map(|until| format!("in {} if nobody uses it", left(until)));
    let life = session.ends_by.map(|until| format!("in {} in any case", left(until)));
    let ends: Vec<_> = idle.into_iter().chain(life).collect();
    if !ends.is_empty() {
        page.entry("ends", &ends.join(", "));
    }
    let (requests, leases) = (session.requests, session.leases);
    page.entry("requests", &format!("{requests}, {leases} open now"));
    page.entry("bytes", &format!("{} in, {} out", bytes(session.bytes_in), bytes(session.bytes_out)));
}

fn of_worker(page: &mut Page, row: &Row, worker: &Worker, now: SystemTime) {
    let none = Limits::default();
    let limits = worker.limits.as_ref().unwrap_or(&none);
    let of = |limit: Option<String>| limit.map_or_else(|| " (no limit)".to_owned(), |limit| format!(" of {limit}"));
    let pid = worker.pid.map_or_else(String::new, |pid| format!(", process {pid}"));
    page.entry("worker", &format!("{}, {}{pid}", printable(&worker.id), printable(&worker.state)));
    if let Some(address) = &worker.address {
        page.entry("address", &printable(address));
    }
    let ready = worker.ready_after_ms.map_or_else(String::new, |ms| {
        format!(", ready after {}", span(Duration::from_secs_f64((ms / 1e3).clamp(0.0, 1e9))))
    });
    page.entry("started", &format!("{} ago{ready}", Column::Age.cell(row, Table::Workers, now)));
    if let Some(spent) = worker.cpu_time_ms {
        let now = row.cpu.map_or_else(|| "-".to_owned(), percent);
        let limit = of(limits.cpu_cores.map(|cores| format!("{}%", cores * 100.0)));
        page.entry("CPU", &format!("{now}%{limit}, {} in all", span(Duration::from_millis(spent))));
    }
    if let Some(memory) = worker.memory_bytes {
        let peak = worker.memory_peak_bytes.map_or_else(String::new, |peak| format!(", at most {}", bytes(peak)));
        page.entry("memory", &format!("{}{}{peak}", bytes(memory), of(limits.memory_bytes.map(bytes))));
    }
    if let Some(kills) = worker.oom_kills.filter(|kills| *kills > 0) {
        page.entry("", &format!("{kills} of its processes were killed for want of memory"));
    }
    if let Some(pids) = worker.pids {
        page.entry("pids", &format!("{pids}{}", of(limits.pids.map(|pids| pids.to_string()))));
    }
    if let Some(files) = limits.open_files {
        page.entry("files", &format!("at most {files} open"));
    }
    let layers: Vec<_> = worker.layers.iter().map(|layer| printable(layer)).collect();
    page.entry("sandbox", &(if layers.is_empty() { "off".to_owned() } else { layers.join(", ") }));
    for missing in grouped(&worker.missing) {
        page.entry("missing", &printable(&missing.to_string()));
    }
}
