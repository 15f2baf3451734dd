//! What is looked at, and what keys do to it.

use std::time::SystemTime;

use super::{
    columns::{Column, Key as RowKey, Row, Table},
    keys::Key,
    picture::Picture,
    rows::SessionKey,
};

/// How many characters may be searched for.
const MOST_SOUGHT: usize = 256;

/// The state of the screen.
#[derive(Debug)]
pub(super) struct View {
    /// What is shown.
    pub(super) picture: Picture,
    /// What has come meanwhile, while the picture stands still.
    meanwhile: Option<Picture>,
    pub(super) table: Table,
    pub(super) sort: Sort,
    pub(super) filter: String,
    pub(super) over: Over,
    /// Those that fit the filter, in order.
    pub(super) rows: Vec<Row>,
    /// The place of the selected row among them.
    pub(super) selected: usize,
    key: Option<RowKey>,
    /// The first row that is shown.
    pub(super) offset: usize,
    /// How many rows, or lines of details, there was room for.
    pub(super) room: usize,
    /// How many lines of the details are above those that are shown.
    pub(super) turned: usize,
    pub(super) notice: Option<String>,
    pub(super) link: Link,
}

/// The column by which rows are ordered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sort {
    pub(super) column: Column,
    pub(super) descending: bool,
}

/// What lies over the table or takes the keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Over {
    Nothing,
    Search,
    Details,
    Help,
    /// Whether this session, which has this worker, is to be ended.
    Confirm(SessionKey, Option<String>),
}

/// The connection to the daemon.
#[derive(Clone, Debug)]
pub(super) enum Link {
    Connecting,
    Live,
    /// It is gone since then, and this is why.
    Lost {
        since: SystemTime,
        why: String,
    },
}

/// What a key asks for that the screen cannot do by itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    Quit,
    Suspend,
    Redraw,
    /// End this session, unless it has another worker by now: then it is another one of its name.
    End {
        session: SessionKey,
        worker: Option<String>,
        force: bool,
    },
}

impl View {
    pub(super) fn new() -> Self {
        Self {
            picture: Picture::default(),
            meanwhile: None,
            table: Table::Sessions,
            sort: Sort::by(Column::Cpu),
            filter: String::new(),
            over: Over::Nothing,
            rows: Vec::new(),
            selected: 0,
            key: None,
            offset: 0,
            room: 1,
            turned: 0,
            notice: None,
            link: Link::Connecting,
        }
    }

    /// Shows a picture, unless it stands still.
    pub(super) fn show(&mut self, picture: &Picture) {
        if self.meanwhile.is_some() {
            self.meanwhile = Some(picture.clone());
            return;
        }
        self.picture = picture.clone();
        self.arrange();
    }

    pub(super) fn is_paused(&self) -> bool {
        self.meanwhile.is_some()
    }

    /// How many rows there would be without a filter.
    pub(super) fn all(&self) -> usize {
        match self.table {
            Table::Sessions => self.picture.sessions.len(),
            Table::Workers => self.picture.workers.len(),
        }
    }

    /// The daemon is gone.
    pub(super) fn lose(&mut self, why: String, now: SystemTime) {
        let since = match &self.link {
            Link::Lost { since, .. } => *since,
            _ => now,
        };
        self.link = Link::Lost { since, why };
        // The next daemon may have a session and a worker of the same names.
        if matches!(self.over, Over::Confirm(..)) {
            self.over = Over::Nothing;
            self.notice = Some("the daemon is gone, and nothing was ended".to_owned());
        }
    }

    pub(super) fn selected_row(&self) -> Option<&Row> {
        self.rows.get(self.selected)
    }

    /// Whether there is somebody's session among those that are shown, or another pool than the default one.
    pub(super) fn has(&self, column: Column) -> bool {
        match column {
            Column::Pool => self.picture.stats.pools.len() > 1,
            Column::Tenant => self.picture.sessions.keys().any(|session| session.tenant.is_some()),
            _ => true,
        }
    }

    /// Takes the rows of the picture that fit, in their order. The selected one is followed.
    fn arrange(&mut self) {
        let (table, sort) = (self.table, self.sort);
        let sought = self.filter.to_lowercase();
        let mut rows = table.rows(&self.picture);
        rows.retain(|row| sought.is_empty() || row.has(table, &sought));
        rows.sort_unstable_by(|a, b| {
            let by_column = sort.column.compare(table, a, b);
            let by_column = if sort.descending { by_column.reverse() } else { by_column };
            by_column.then_with(|| {
                let place = |row: &Row| (row.pool().to_owned(), row.session_id().map(str::to_owned));
                place(a).cmp(&place(b)).then_with(|| Column::Worker.compare(table, a, b))
            })
        });
        self.rows = rows;
        let found = self.key.as_ref().and_then(|key| self.rows.iter().position(|row| row.key(table) == *key));
        match found {
            Some(place) => self.selected = place,
            // It is gone: what was looked at in detail is not exchanged for something else unseen.
            None if self.over == Over::Details && self.key.is_some() => {
                self.over = Over::Nothing;
                self.notice = Some("what you looked at has ended".to_owned());
                self.select(self.selected);
            }
            None => self.select(self.selected),
        }
    }

    fn select(&mut self, place: usize) {
        self.turned = 0;
        self.selected = place.min(self.rows.len().saturating_sub(1));
        self.key = self.selected_row().map(|row| row.key(self.table));
    }

    /// Brings the selected row among the `room` rows that are shown.
    pub(super) fn scroll(&mut self, room: usize) {
        self.room = room.max(1);
        let last = self.rows.len().saturating_sub(self.room);
        let around = self.selected.saturating_sub(self.room - 1)..=self.selected;
        self.offset = self.offset.clamp(*around.start(), *around.end()).min(last.max(*around.start()));
    }

    /// What a key does; what is left to the caller.
    pub(super) fn press(&mut self, key: Key) -> Option<Wish> {
        self.notice = None;
        match key {
            Key::Ctrl('c') => return Some(Wish::Quit),
            Key::Ctrl('z') => return Some(Wish::Suspend),
            Key::Ctrl('l') => return Some(Wish::Redraw),
            _ => {}
        }
        match std::mem::replace(&mut self.over, Over::Nothing) {
            Over::Search => self.search(key),
            Over::Confirm(session, worker) => return self.answer(session, worker, key),
            Over::Help => {}
            over @ (Over::Details | Over::Nothing) => return self.act(over, key),
        }
        None
    }

    fn search(&mut self, key: Key) {
        match key {
            Key::Enter => return,
            Key::Escape => self.filter.clear(),
            Key::Backspace if self.filter.pop().is_none() => return,
            Key::Ctrl('u') => self.filter.clear(),
            Key::Char(c) if self.filter.len() < MOST_SOUGHT => self.filter.push(c),
            Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Home | Key::End => self.walk(key),
            _ => {}
        }
        if key != Key::Escape {
            self.over = Over::Search;
        }
        self.arrange();
    }

    fn answer(&mut self, session: SessionKey, worker: Option<String>, key: Key) -> Option<Wish> {
        match key {
            Key::Char('y' | 'Y') => Some(Wish::End { session, worker, force: false }),
            Key::Char('f' | 'F') => Some(Wish::End { session, worker, force: true }),
            _ => {
                self.notice = Some("nothing was ended".to_owned());
                None
            }
        }
    }

    fn act(&mut self, over: Over, key: Key) -> Option<Wish> {
        let is_detailed = over == Over::Details;
        match key {
            Key::Char('q') => return Some(Wish::Quit),
            Key::Escape if is_detailed => return None,
            Key::Escape if !self.filter.is_empty() => {
                self.filter.clear();
                self.arrange();
                return None;
            }
            Key::Escape => return Some(Wish::Quit),
            Key::Enter if is_detailed => return None,
            Key::PageUp | Key::PageDown | Key::Home | Key::End if is_detailed => {
                self.over = over;
                self.leaf(key);
                return None;
            }
            Key::Char('x' | 'k') => {
                let selected = self.selected_row();
                let worker = selected.and_then(Row::worker_id).map(str::to_owned);
                match selected.map(Row::session_key) {
                    Some(Some(session)) => self.over = Over::Confirm(session, worker),
                    Some(None) => self.notice = Some("this worker has no session that could be ended".to_owned()),
                    None => {}
                }
                return None;
            }
            _ => {}
        }
        self.over = over;
        match key {
            Key::Char('?' | 'h') => self.over = Over::Help,
            Key::Char('/') => self.over = Over::Search,
            Key::Enter if self.selected_row().is_some() => {
                self.over = Over::Details;
                self.turned = 0;
            }
            Key::Char('p' | ' ') => self.pause(),
            Key::Tab => self.turn(),
            Key::Left => self.sort_beside(-1),
            Key::Right => self.sort_beside(1),
            Key::Char('r') => self.order(Sort { descending: !self.sort.descending, ..self.sort }),
            Key::Char(letter) => {
                if let Some(column) = column(letter).filter(|column| self.columns().contains(column)) {
                    let again = self.sort.column == column;
                    let descending = if again { !self.sort.descending } else { column.begins_with_most() };
                    self.order(Sort { column, descending });
                }
            }
            other => self.walk(other),
        }
        None
    }

    fn walk(&mut self, key: Key) {
        let to = match key {
            Key::Up => self.selected.saturating_sub(1),
            Key::Down => self.selected + 1,
            Key::PageUp => self.selected.saturating_sub(self.room),
            Key::PageDown => self.selected + self.room,
            Key::Home => 0,
            Key::End => usize::MAX,
            _ => return,
        };
        self.select(to);
    }

    /// Moves the details of the selected row, which may be longer than the screen.
    fn leaf(&mut self, key: Key) {
        self.turned = match key {
            Key::PageUp => self.turned.saturating_sub(self.room),
            Key::PageDown => self.turned.saturating_add(self.room),
            Key::End => usize::MAX,
            _ => 0,
        };
    }

    /// Lets the picture stand still, or go on with what has come meanwhile.
    fn pause(&mut self) {
        match self.meanwhile.take() {
            Some(meanwhile) => {
                self.picture = meanwhile;
                self.arrange();
            }
            None => self.meanwhile = Some(self.picture.clone()),
        }
    }

    /// Turns to the other table, and to the same worker or session there.
    fn turn(&mut self) {
        let row = self.selected_row().cloned();
        self.table = if self.table == Table::Sessions { Table::Workers } else { Table::Sessions };
        if !self.columns().contains(&self.sort.column) {
            self.sort = Sort::by(Column::Cpu);
        }
        self.key = row.map(|row| row.key(self.table));
        self.arrange();
    }

    fn columns(&self) -> Vec<Column> {
        self.table.columns().iter().map(|(column, _)| *column).filter(|column| self.has(*column)).collect()
    }

    fn sort_beside(&mut self, steps: isize) {
        let columns = self.columns();
        let place = columns.iter().position(|column| *column == self.sort.column).unwrap_or(0);
        let column = columns[place.saturating_add_signed(steps).min(columns.len() - 1)];
        if column != self.sort.column {
            self.order(Sort::by(column));
        }
    }

    fn order(&mut self, sort: Sort) {
        self.sort = sort;
        self.arrange();
    }
}

impl Sort {
    /// In the order in which somebody looks for something there.
    fn by(column: Column) -> Self {
        Self { column, descending: column.begins_with_most() }
    }
}

/// The column that a letter orders by.
fn column(letter: char) -> Option<Column> {
    Some(match letter {
        'n' => Column::Session,
        's' => Column::State,
        'a' => Column::Age,
        'i' => Column::Idle,
        'e' => Column::Left,
        'c' => Column::Cpu,
        'm' => Column::Memory,
        't' => Column::Requests,
        'l' => Column::Leases,
        'w' => Column::Worker,
        _ => return None,
    })
}
