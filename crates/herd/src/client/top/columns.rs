//! What the columns show, and how rows are ordered by them.

use std::{cmp::Ordering, rc::Rc, time::SystemTime};

use super::{
    picture::Picture,
    rows::{Session, SessionKey, Worker},
};
use crate::{
    client::ps::{bytes, span},
    console::printable,
};

/// What rows are about.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Table {
    #[default]
    Sessions,
    Workers,
}

/// A session with its worker, or a worker with its session; sometimes there is but one of them.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) session: Option<Rc<Session>>,
    pub(super) worker: Option<Rc<Worker>>,
    /// In percent of one.
    pub(super) cpu: Option<f64>,
}

/// What a row is known by while its values change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Key {
    Session(SessionKey),
    Worker(String),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Column {
    Pool,
    Tenant,
    Session,
    State,
    Age,
    Idle,
    Left,
    Cpu,
    Memory,
    Requests,
    Leases,
    Pids,
    Pid,
    Worker,
}

impl Table {
    /// Its columns from left to right, with how soon each is left out of a narrow terminal: 0 never, the highest first.
    pub(super) fn columns(self) -> &'static [(Column, u8)] {
        use Column::{Age, Cpu, Idle, Leases, Left, Memory, Pid, Pids, Pool, Requests, Session, State, Tenant, Worker};
        match self {
            Self::Sessions => &[
                (Pool, 6),
                (Tenant, 5),
                (Session, 0),
                (State, 4),
                (Age, 7),
                (Idle, 3),
                (Left, 8),
                (Cpu, 1),
                (Memory, 2),
                (Requests, 9),
                (Leases, 10),
                (Worker, 6),
            ],
            Self::Workers => &[
                (Pool, 6),
                (Worker, 0),
                (State, 3),
                (Tenant, 5),
                (Session, 0),
                (Pid, 7),
                (Age, 8),
                (Cpu, 1),
                (Memory, 2),
                (Pids, 9),
            ],
        }
    }

    /// All rows of a picture.
    pub(super) fn rows(self, picture: &Picture) -> Vec<Row> {
        match self {
            Self::Sessions => {
                let worker = |session: &Session| picture.workers.get(session.worker.as_ref()?).cloned();
                let all = picture.sessions.values().map(|session| (Some(Rc::clone(session)), worker(session)));
                all.map(|(session, worker)| Row::new(picture, session, worker)).collect()
            }
            Self::Workers => {
                let key = |worker: &Worker| {
                    let id = worker.session.clone()?;
                    Some(SessionKey { pool: worker.pool.clone(), tenant: worker.tenant.clone(), id })
                };
                let session = |worker: &Worker| picture.sessions.get(&key(worker)?).cloned();
                let all = picture.workers.values().map(|worker| (session(worker), Some(Rc::clone(worker))));
                all.map(|(session, worker)| Row::new(picture, session, worker)).collect()
            }
        }
    }
}

impl Row {
    fn new(picture: &Picture, session: Option<Rc<Session>>, worker: Option<Rc<Worker>>) -> Self {
        let cpu = worker.as_ref().and_then(|worker| picture.cpu_of(&worker.id));
        Self { session, worker, cpu }
    }

    pub(super) fn key(&self, table: Table) -> Key {
        match (table, &self.session, &self.worker) {
            (Table::Sessions, Some(session), _) | (_, Some(session), None) => Key::Session(session.key.clone()),
            (_, _, worker) => Key::Worker(worker.as_ref().map(|worker| worker.id.clone()).unwrap_or_default()),
        }
    }

    /// The session that is named, be it one that ends and is known by its worker alone.
    pub(super) fn session_key(&self) -> Option<SessionKey> {
        if let Some(session) = &self.session {
            return Some(session.key.clone());
        }
        let worker = self.worker.as_ref()?;
        let id = worker.session.clone()?;
        Some(SessionKey { pool: worker.pool.clone(), tenant: worker.tenant.clone(), id })
    }

    pub(super) fn pool(&self) -> &str {
        let of_session = self.session.as_ref().map(|session| &session.key.pool);
        of_session.or(self.worker.as_ref().map(|worker| &worker.pool)).map_or("", String::as_str)
    }

    pub(super) fn tenant(&self) -> Option<&str> {
        match (&self.session, &self.worker) {
            (Some(session), _) => session.key.tenant.as_deref(),
            (None, worker) => worker.as_ref()?.tenant.as_deref(),
        }
    }

    pub(super) fn session_id(&self) -> Option<&str> {
        match (&self.session, &self.worker) {
            (Some(session), _) => Some(&session.key.id),
            (None, worker) => worker.as_ref()?.session.as_deref(),
        }
    }

    pub(super) fn worker_id(&self) -> Option<&str> {
        match (&self.session, &self.worker) {
            (_, Some(worker)) => Some(&worker.id),
            (session, None) => session.as_ref()?.worker.as_deref(),
        }
    }

    pub(super) fn state(&self, table: Table) -> &str {
        let of_session = self.session.as_ref().map(|session| session.state.as_str());
        let of_worker = self.worker.as_ref().map(|worker| worker.state.as_str());
        let state = if table == Table::Sessions { of_session.or(of_worker) } else { of_worker.or(of_session) };
        state.unwrap_or("")
    }

    fn began(&self, table: Table) -> Option<SystemTime> {
        let of_session = self.session.as_ref().and_then(|session| session.created);
        let of_worker = self.worker.as_ref().and_then(|worker| worker.started);
        if table == Table::Sessions { of_session } else { of_worker }
    }

    /// Since when nobody has used it.
    fn idle_since(&self) -> Option<SystemTime> {
        self.session.as_ref().filter(|session| session.leases == 0)?.last_used
    }

    /// When it ends, if nobody uses it.
    fn until(&self) -> Option<SystemTime> {
        let session = self.session.as_ref()?;
        session.idle_until.into_iter().chain(session.ends_by).min()
    }

    fn memory(&self) -> Option<u64> {
        self.worker.as_ref()?.memory_bytes
    }

    /// Whether some of what names it has this in it.
    pub(super) fn has(&self, table: Table, lower_case: &str) -> bool {
        let texts = [self.session_id(), self.tenant(), Some(self.pool()), self.worker_id(), Some(self.state(table))];
        texts.into_iter().flatten().any(|text| text.to_lowercase().contains(lower_case))
    }
}

impl Column {
    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Pool => "POOL",
            Self::Tenant => "TENANT",
            Self::Session => "SESSION",
            Self::State => "STATE",
            Self::Age => "AGE",
            Self::Idle => "IDLE",
            Self::Left => "ENDS IN",
            Self::Cpu => "CPU%",
            Self::Memory => "MEMORY",
            Self::Requests => "REQS",
            Self::Leases => "LEASES",
            Self::Pids => "PIDS",
            Self::Pid => "PID",
            Self::Worker => "WORKER",
        }
    }

    /// How wide it is; `None`: as there is room.
    pub(super) fn width(self) -> Option<u16> {
        Some(match self {
            Self::Pool | Self::Tenant | Self::Session => return None,
            Self::State => 10,
            Self::Age | Self::Idle | Self::Cpu | Self::Requests => 6,
            Self::Left | Self::Memory | Self::Leases | Self::Pid => 8,
            Self::Pids => 5,
            Self::Worker => 12,
        })
    }

    pub(super) fn is_number(self) -> bool {
        !matches!(self, Self::Pool | Self::Tenant | Self::Session | Self::State | Self::Worker)
    }

    /// Whether the largest are looked for first.
    pub(super) fn begins_with_most(self) -> bool {
        matches!(self, Self::Cpu | Self::Memory | Self::Requests | Self::Leases | Self::Pids | Self::Idle | Self::Age)
    }

    pub(super) fn cell(self, row: &Row, table: Table, now: SystemTime) -> String {
        let text = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), printable);
        let since = |then: Option<SystemTime>| {
            then.map_or_else(|| "-".to_owned(), |then| span(now.duration_since(then).unwrap_or_default()))
        };
        let session = |of: fn(&Session) -> String| row.session.as_deref().map_or_else(|| "-".to_owned(), of);
        let worker =
            |of: fn(&Worker) -> Option<String>| row.worker.as_deref().and_then(of).unwrap_or_else(|| "-".to_owned());
        match self {
            Self::Pool => text(Some(row.pool())),
            Self::Tenant => text(row.tenant()),
            Self::Session => text(row.session_id()),
            Self::State => text(Some(row.state(table))),
            Self::Worker => text(row.worker_id()),
            Self::Age => since(row.began(table)),
            Self::Idle => since(row.idle_since()),
            Self::Left => {
                let left = row.until().map(|until| span(until.duration_since(now).unwrap_or_default()));
                left.unwrap_or_else(|| "-".to_owned())
            }
            Self::Cpu => row.cpu.map_or_else(|| "-".to_owned(), percent),
            Self::Memory => row.memory().map_or_else(|| "-".to_owned(), bytes),
            Self::Requests => session(|session| count(session.requests)),
            Self::Leases => session(|session| session.leases.to_string()),
            Self::Pids => worker(|worker| worker.pids.map(count)),
            Self::Pid => worker(|worker| worker.pid.map(|pid| pid.to_string())),
        }
    }

    /// From the least to the most; what is not known is less than anything.
    pub(super) fn compare(self, table: Table, a: &Row, b: &Row) -> Ordering {
        let session = |of: fn(&Session) -> u64, row: &Row| row.session.as_deref().map(of);
        match self {
            Self::Pool => a.pool().cmp(b.pool()),
            Self::Tenant => a.tenant().cmp(&b.tenant()),
            Self::Session => a.session_id().cmp(&b.session_id()),
            Self::State => a.state(table).cmp(b.state(table)),
            Self::Worker => number(a.worker_id()).cmp(&number(b.worker_id())),
            // Who began first is oldest.
            Self::Age => by_time(b.began(table), a.began(table)),
            Self::Idle => by_time(b.idle_since(), a.idle_since()),
            Self::Left => by_time(a.until(), b.until()),
            Self::Cpu => a.cpu.unwrap_or(-1.0).total_cmp(&b.cpu.unwrap_or(-1.0)),
            Self::Memory => a.memory().cmp(&b.memory()),
            Self::Requests => session(|s| s.requests, a).cmp(&session(|s| s.requests, b)),
            Self::Leases => session(|s| s.leases.into(), a).cmp(&session(|s| s.leases.into(), b)),
            Self::Pids => a.worker.as_ref().and_then(|w| w.pids).cmp(&b.worker.as_ref().and_then(|w| w.pids)),
            Self::Pid => a.worker.as_ref().and_then(|w| w.pid).cmp(&b.worker.as_ref().and_then(|w| w.pid)),
        }
    }
}

/// A time that is not known comes behind all others.
fn by_time(a: Option<SystemTime>, b: Option<SystemTime>) -> Ordering {
    match (a, b) {
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (a, b) => a.cmp(&b),
    }
}

/// `worker-9` comes before `worker-10`.
fn number(id: Option<&str>) -> (Option<u64>, Option<&str>) {
    (id.and_then(|id| id.rsplit('-').next()?.parse().ok()), id)
}

pub(super) fn percent(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// A count in at most six characters.
pub(super) fn count(value: u64) -> String {
    match value {
        0..1_000_000 => value.to_string(),
        1_000_000..1_000_000_000 => format!("{:.1}M", value as f64 / 1e6),
        _ => format!("{:.1}G", value as f64 / 1e9),
    }
}
