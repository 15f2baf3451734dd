//! Draws the screen.

use std::time::{Duration, SystemTime};

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Wrap},
};

use super::{
    columns::{Column, Row, count, percent},
    details,
    rows::{Counts, Pool, StartFailure},
    view::{Link, Over, View},
};
use crate::{
    client::ps::{bytes, span},
    console::printable,
};

/// From this height on each pool has a line of its own, for as many pools as this.
const TALL: u16 = 16;
const MOST_POOL_LINES: usize = 4;
/// Between two columns.
const GAP: u16 = 1;
/// A name has room for at least this many characters, a session's usually for that many, and any other for at most those.
const LEAST_NAME: u16 = 8;
const USUAL_NAME: u16 = 24;
const MOST_NAME: u16 = 16;
/// How wide the bar is that shows how many workers there are.
const BAR: usize = 20;

/// What keys do, the most important first.
const HELP: [(&str, &str); 14] = [
    ("q", "quit"),
    ("↑ ↓", "select"),
    ("Enter", "look closer"),
    ("x", "end it"),
    ("/", "find"),
    ("Tab", "workers, sessions"),
    ("← →", "sort by a column"),
    ("r", "turn the order"),
    ("p", "pause"),
    ("PgUp PgDn", "a page on"),
    ("Home End", "first, last"),
    ("c m a i e", "by CPU, memory, age, idle, end"),
    ("n s t l w", "by name, state, requests, leases, worker"),
    ("Ctrl-Z", "to the shell, `fg` comes back"),
];

/// How things look: with colours or without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    pub(super) colours: bool,
}

impl Theme {
    pub(super) fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn marked(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn coloured(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn alarming(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn state(self, state: &str) -> Style {
        match state {
            "live" | "in-session" => self.coloured(Color::Green),
            "starting" => self.coloured(Color::Yellow),
            "ending" => self.coloured(Color::Red),
            _ => Style::new(),
        }
    }
}

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View, theme: Theme, now: SystemTime) {
    let area = frame.area();
    let rows = lines(area);
    let pools = pool_lines(view, area, theme, now);
    let header = header(view, area.width, theme);
    let mut top = vec![header];
    top.extend(pools);
    let used = u16::try_from(top.len()).unwrap_or(u16::MAX).min(area.height);
    frame.render_widget(Paragraph::new(top), rows(0, used));
    let footer_height = u16::from(area.height > used + 1);
    let body = rows(used, area.height.saturating_sub(used + footer_height));
    match &view.over {
        Over::Details => {
            let lines = details::lines(view, theme, usize::from(body.width), now);
            page(frame, body, lines, view, theme);
        }
        Over::Help => help(frame, body, theme),
        _ => table(frame, body, view, theme, now),
    }
    if footer_height > 0 {
        frame.render_widget(footer(view, area.width, theme, now), rows(area.height - 1, 1));
    }
    if let Over::Confirm(session, _) = &view.over {
        let mut question = format!("End session {}", printable(&session.id));
        if let Some(tenant) = &session.tenant {
            question += &format!(" of {}", printable(tenant));
        }
        if view.has(Column::Pool) {
            question += &format!(" in pool {}", printable(&session.pool));
        }
        confirm(frame, area, &(question + "?"), theme);
    }
}

/// Whole lines of an area.
fn lines(area: Rect) -> impl Fn(u16, u16) -> Rect {
    move |from, count| Rect {
        y: area.y + from.min(area.height),
        height: count.min(area.height - from.min(area.height)),
        ..area
    }
}

/// As many of the pieces as fit.
fn fitting(pieces: Vec<Span<'static>>, width: u16) -> Line<'static> {
    let mut line = Line::default();
    for piece in pieces {
        let gap = if line.spans.is_empty() { "" } else { "  " };
        if line.width() + gap.len() + piece.width() > usize::from(width) {
            break;
        }
        line.push_span(Span::raw(gap));
        line.push_span(piece);
    }
    line
}

fn header(view: &View, width: u16, theme: Theme) -> Line<'static> {
    let stats = &view.picture.stats;
    let state = match &view.link {
        Link::Lost { .. } => Span::styled("DAEMON GONE", theme.alarming()),
        Link::Connecting => Span::styled("connecting", theme.coloured(Color::Yellow)),
        Link::Live if view.is_paused() => {
            Span::styled("PAUSED", theme.coloured(Color::Yellow).add_modifier(Modifier::BOLD))
        }
        Link::Live if stats.draining => Span::styled("DRAINING", theme.alarming()),
        Link::Live => Span::styled("live", theme.coloured(Color::Green)),
    };
    let mut pieces = vec![Span::styled(format!("herd {}", printable(&stats.version)), theme.bold()), state];
    if !view.picture.is_whole() {
        return fitting(pieces, width);
    }
    let sessions = if view.picture.sessions.len() == 1 { "session" } else { "sessions" };
    pieces.push(Span::raw(format!("{} {sessions}", view.picture.sessions.len())));
    pieces.push(Span::raw(format!("cpu {}%", percent(view.picture.cpu()))));
    pieces.push(Span::raw(format!("mem {}", bytes(view.picture.memory()))));
    if let Some(requests) = view.picture.requests_per_second() {
        pieces.push(Span::raw(format!("{requests:.1} req/s")));
    }
    pieces.push(Span::raw(format!("up {}", span(Duration::from_millis(stats.uptime_ms)))));
    fitting(pieces, width)
}

/// A line for each pool, or one for all.
fn pool_lines(view: &View, area: Rect, theme: Theme, now: SystemTime) -> Vec<Line<'static>> {
    let stats = &view.picture.stats;
    if !view.picture.is_whole() {
        return Vec::new();
    }
    let several = stats.pools.len() > 1;
    if area.height < TALL || stats.pools.len() > MOST_POOL_LINES || stats.pools.is_empty() {
        let failing = stats.pools.iter().find_map(|pool| Some((pool, pool.last_start_failure.as_ref()?)));
        let failure = failing.map(|(pool, failure)| {
            let of = if several { format!(" of {}", printable(&pool.pool)) } else { String::new() };
            told(&of, failure, now)
        });
        let count = several && failure.is_none();
        let name = if count { format!("{} pools", stats.pools.len()) } else { String::new() };
        return vec![pool_line(name, &stats.sums, failure, area.width, theme)];
    }
    let one = |pool: &Pool| {
        let leaving = if pool.leaving { " (leaving)" } else { "" };
        let name = format!("{}{leaving}", printable(&pool.pool));
        let failure = pool.last_start_failure.as_ref().map(|failure| told("", failure, now));
        pool_line(name, &pool.counts, failure, area.width, theme)
    };
    stats.pools.iter().map(one).collect()
}

/// That a start failed and when, and why; no worker has started since.
fn told(of: &str, failure: &StartFailure, now: SystemTime) -> (String, String) {
    let ago = failure.at.map(|at| format!(" {} ago", span(now.duration_since(at).unwrap_or_default())));
    let why = printable(failure.error.lines().next().unwrap_or_default());
    (format!("start{of} failed{}", ago.unwrap_or_default()), why)
}

fn pool_line(
    name: String,
    counts: &Counts,
    failure: Option<(String, String)>,
    width: u16,
    theme: Theme,
) -> Line<'static> {
    let workers = counts.workers;
    let mut pieces = Vec::new();
    let is_named = !name.is_empty();
    if is_named {
        pieces.push(Span::styled(name, theme.bold()));
    }
    pieces.push(Span::raw(format!("workers {}/{}", workers.total, counts.max_workers)));
    let waiting = format!("waiting {}", counts.waiting);
    pieces.push(if counts.waiting > 0 { Span::styled(waiting, theme.alarming()) } else { Span::raw(waiting) });
    pieces.push(Span::raw(format!("spare {}", workers.spare)));
    if let Some((what, why)) = failure {
        let width = usize::from(width);
        let used = |pieces: &[Span<'_>]| pieces.iter().map(|piece| piece.width() + 2).sum::<usize>();
        // Numbers give way to what is wrong.
        while pieces.len() > usize::from(is_named) && used(&pieces) + what.chars().count() > width {
            pieces.pop();
        }
        let room = width.saturating_sub(used(&pieces));
        pieces.push(Span::styled(cut(&format!("{what}: {why}"), room), theme.alarming()));
    }
    pieces.push(Span::raw(format!("starting {}", workers.starting)));
    pieces.push(Span::raw(format!("ending {}", workers.ending)));
    if width >= 80 {
        let share = workers.total as f64 / counts.max_workers.max(1) as f64;
        let filled = ((share * BAR as f64).round() as usize).min(BAR);
        pieces.push(Span::styled(format!("[{}{}]", "|".repeat(filled), " ".repeat(BAR - filled)), theme.dim()));
    }
    fitting(pieces, width)
}

/// The columns that fit, with their widths.
fn layout(view: &View, width: u16) -> Vec<(Column, u16)> {
    let mut columns: Vec<_> = view.table.columns().iter().copied().filter(|(column, _)| view.has(*column)).collect();
    let least = |column: Column| column.width().unwrap_or(LEAST_NAME) + GAP;
    while columns.iter().map(|(column, _)| least(*column)).sum::<u16>() > width + GAP {
        let Some(last) = (0..columns.len()).filter(|at| columns[*at].1 > 0).max_by_key(|at| columns[*at].1) else {
            break;
        };
        columns.remove(last);
    }
    let mut room = (width + GAP).saturating_sub(columns.iter().map(|(column, _)| least(*column)).sum());
    let mut widths: Vec<_> = columns.iter().map(|(column, _)| (*column, least(*column) - GAP)).collect();
    // Sessions come first, up to what most of their names have, and take at last what is left.
    let turns = [
        (Column::Session, USUAL_NAME),
        (Column::Pool, MOST_NAME),
        (Column::Tenant, MOST_NAME),
        (Column::Session, u16::MAX),
    ];
    for (wanted, most) in turns {
        let Some((column, width)) = widths.iter_mut().find(|(column, _)| *column == wanted) else { continue };
        let longest = view.rows.iter().map(|row| name(*column, row).len()).max().unwrap_or(0);
        let longest = u16::try_from(longest).unwrap_or(u16::MAX).min(most);
        let more = longest.saturating_sub(*width).min(room);
        (*width, room) = (*width + more, room - more);
    }
    widths
}

fn name(column: Column, row: &Row) -> &str {
    match column {
        Column::Pool => row.pool(),
        Column::Tenant => row.tenant().unwrap_or_default(),
        _ => row.session_id().unwrap_or_default(),
    }
}

fn table(frame: &mut Frame<'_>, area: Rect, view: &mut View, theme: Theme, now: SystemTime) {
    if area.height == 0 {
        return;
    }
    let room = usize::from(area.height - 1);
    view.scroll(room);
    let columns = layout(view, area.width);
    let mut heading = Line::default();
    for (place, (column, width)) in columns.iter().enumerate() {
        let is_sorted = *column == view.sort.column;
        let arrow = if view.sort.descending { "▼" } else { "▲" };
        let text = if is_sorted { format!("{}{arrow}", column.heading()) } else { column.heading().to_owned() };
        let style = if is_sorted { theme.bold() } else { theme.dim() };
        heading.push_span(Span::raw(gap(place)));
        heading.push_span(Span::styled(aligned(*column, &text, *width), style));
    }
    frame.render_widget(heading, Rect { height: 1, ..area });
    if view.rows.is_empty() && room > 0 {
        let nothing = match (view.picture.is_whole(), view.filter.is_empty()) {
            (false, _) => "waiting for the daemon …",
            (true, true) => "there are none",
            (true, false) => "none fits what is searched for; Esc shows all",
        };
        let place = Rect { y: area.y + 1, height: 1, ..area };
        frame.render_widget(Line::styled(nothing, theme.dim()), place);
    }
    for (place, row) in view.rows.iter().enumerate().skip(view.offset).take(room) {
        let is_selected = place == view.selected;
        let mut line = Line::default();
        for (index, (column, width)) in columns.iter().enumerate() {
            let cell = column.cell(row, view.table, now);
            let style = match column {
                Column::State if !is_selected => theme.state(&cell),
                _ => Style::new(),
            };
            line.push_span(Span::raw(gap(index)));
            line.push_span(Span::styled(aligned(*column, &cell, *width), style));
        }
        let y = area.y + 1 + u16::try_from(place - view.offset).unwrap_or(0);
        let place = Rect { y, height: 1, ..area };
        frame.render_widget(line, place);
        if is_selected {
            frame.buffer_mut().set_style(place, theme.marked());
        }
    }
}

fn gap(place: usize) -> &'static str {
    if place == 0 { "" } else { " " }
}

fn aligned(column: Column, text: &str, width: u16) -> String {
    let width = usize::from(width);
    let text = cut(text, width);
    if column.is_number() { format!("{text:>width$}") } else { format!("{text:<width$}") }
}

/// What is cut says so.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain((width > 0).then_some('…')).collect()
}

/// As many lines as there is room for, and how to see the others.
fn page(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'static>>, view: &mut View, theme: Theme) {
    let height = usize::from(area.height);
    if lines.len() <= height || height == 0 {
        view.turned = 0;
        frame.render_widget(Paragraph::new(lines), area);
        return;
    }
    let room = height - 1;
    view.room = room.max(1);
    view.turned = view.turned.min(lines.len() - room);
    let below = lines.len() - room - view.turned;
    let mut shown: Vec<_> = lines.into_iter().skip(view.turned).take(room).collect();
    let s = if below == 1 { "" } else { "s" };
    let hint = if below > 0 { format!("PgDn: {below} more line{s} below") } else { "PgUp: what is above".to_owned() };
    shown.push(Line::styled(hint, theme.bold()));
    frame.render_widget(Paragraph::new(shown), area);
}

fn footer(view: &View, width: u16, theme: Theme, now: SystemTime) -> Line<'static> {
    if view.over == Over::Search {
        return Line::raw(format!("/{}_   Enter: done  Esc: all", view.filter));
    }
    if let Some(notice) = &view.notice {
        return Line::styled(notice.clone(), theme.bold());
    }
    if let Link::Lost { since, why } = &view.link {
        let ago = span(now.duration_since(*since).unwrap_or_default());
        return Line::styled(format!("gone for {ago}, trying again: {}", printable(why)), theme.alarming());
    }
    let mut hints = Vec::new();
    if !view.filter.is_empty() {
        let found = format!("/{}: {} of {}", view.filter, count(view.rows.len() as u64), count(view.all() as u64));
        hints.push(cut(&found, usize::from(width)));
    }
    let keys: &[&str] = match view.over {
        Over::Details => &["↑↓ others", "x end it", "Esc back", "q quit"],
        Over::Help => &["any key: back"],
        _ => &["? help", "q quit", "x end it", "/ find", "Enter details", "Tab workers", "←→ sort"],
    };
    hints.extend(keys.iter().map(|&key| key.to_owned()));
    fitting(hints.into_iter().map(|hint| Span::styled(hint, theme.dim())).collect(), width)
}

fn help(frame: &mut Frame<'_>, area: Rect, theme: Theme) {
    let tall = usize::from(area.height) >= HELP.len();
    let lines: Vec<_> = if tall {
        let line = |(keys, does): (&str, &str)| {
            Line::from(vec![Span::styled(format!("{keys:>12}"), theme.bold()), Span::raw(format!("  {does}"))])
        };
        HELP.map(line).into()
    } else {
        let both =
            HELP.iter().flat_map(|(keys, does)| [Span::styled(*keys, theme.bold()), Span::raw(format!(" {does}. "))]);
        vec![Line::from(both.collect::<Vec<_>>())]
    };
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: !tall }), area);
}

fn confirm(frame: &mut Frame<'_>, area: Rect, question: &str, theme: Theme) {
    let width = area.width.min(60);
    let inner = usize::from(width.saturating_sub(2)).max(1);
    // An ID may have 256 characters, and what is answered has to be seen.
    let question = cut(question, inner * usize::from(area.height.saturating_sub(4).clamp(1, 4)));
    let lines = question.chars().count().div_ceil(inner) + 1;
    let height = u16::try_from(lines + 2).unwrap_or(u16::MAX).min(area.height);
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let mut text: Vec<_> = question
        .chars()
        .collect::<Vec<_>>()
        .chunks(inner)
        .map(|line| Line::styled(line.iter().collect::<String>(), theme.bold()))
        .collect();
    let keys = [("y", " end it  "), ("f", " kill it  "), ("any other", " no")];
    text.push(Line::from(
        keys.into_iter().flat_map(|(key, does)| [Span::styled(key, theme.bold()), Span::raw(does)]).collect::<Vec<_>>(),
    ));
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(text).block(Block::bordered()), place);
}
