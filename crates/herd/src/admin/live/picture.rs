//! What there is at one moment, each row as it is sent.

use std::{cmp::Ordering, sync::Arc};

use axum::body::Bytes;
use herd_pool::{SessionId, WorkerId};
use serde::Serialize;
use tokio::time::Instant;

use super::super::model::{Session, Worker};

/// What there is at one moment.
#[derive(Debug)]
pub(super) struct Picture {
    /// Counts the pictures.
    pub(super) number: u64,
    /// When somebody began to take it.
    pub(super) taken: Instant,
    /// In the order of their keys.
    pub(super) sessions: Vec<Arc<Row<SessionKey>>>,
    /// In the order of their keys.
    pub(super) workers: Vec<Arc<Row<WorkerId>>>,
    /// The stats, as a frame.
    pub(super) stats: Bytes,
}

/// A session or a worker. Pictures share the rows that have not changed.
#[derive(Debug)]
pub(super) struct Row<K> {
    pub(super) key: K,
    /// In JSON.
    pub(super) text: Box<str>,
    /// The number of the picture in which it was another one last, or not there.
    pub(super) changed: u64,
    /// When it was used last, if it is in use. That time is always now, and makes no other row.
    in_use: Option<Box<str>>,
}

/// What names a session among all of the daemon.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct SessionKey {
    pub(super) pool: Arc<str>,
    pub(super) id: SessionId,
}

/// Who was there in the picture before.
#[derive(Clone, Debug)]
pub(super) enum Gone {
    Session(SessionKey),
    Worker(WorkerId),
}

/// What pictures are made of, in the order of the keys.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) sessions: Vec<(SessionKey, Session)>,
    pub(super) workers: Vec<(WorkerId, Worker)>,
    pub(super) stats: Bytes,
}

impl Picture {
    /// The picture behind `former`, and who is gone since.
    pub(super) fn next(number: u64, taken: Instant, content: Content, former: Option<&Self>) -> (Self, Vec<Gone>) {
        let Content { sessions, workers, stats } = content;
        let (former_sessions, former_workers): (&[_], &[_]) =
            former.map_or((&[], &[]), |former| (&former.sessions, &former.workers));
        let mut gone = Vec::new();
        let sessions = follow(
            former_sessions,
            sessions,
            |key| gone.push(Gone::Session(key)),
            |key, session, former| session_row(number, key, session, former),
        );
        let workers = follow(
            former_workers,
            workers,
            |key| gone.push(Gone::Worker(key)),
            |key, worker, former| {
                let text = render(&worker);
                former
                    .filter(|former| former.text == text)
                    .map_or_else(|| Arc::new(Row { key, text, changed: number, in_use: None }), Arc::clone)
            },
        );
        (Self { number, taken, sessions, workers, stats }, gone)
    }
}

/// A row of a session. Of one that is in use nothing else may have changed than the time, and then it stays as it is.
fn session_row(
    number: u64,
    key: SessionKey,
    mut session: Session,
    former: Option<&Arc<Row<SessionKey>>>,
) -> Arc<Row<SessionKey>> {
    let is_used = session.leases > 0;
    if let Some(former) = former {
        let now = former.in_use.as_deref().filter(|_| is_used).map(|then| {
            let then = then.to_owned();
            std::mem::replace(&mut session.last_used, then)
        });
        if former.text == render(&session) {
            return Arc::clone(former);
        }
        session.last_used = now.unwrap_or(session.last_used);
    }
    let in_use = is_used.then(|| session.last_used.as_str().into());
    Arc::new(Row { key, text: render(&session), changed: number, in_use })
}

/// Structures of ours with keys that are text, which cannot fail.
fn render(row: &impl Serialize) -> Box<str> {
    serde_json::to_string(row).unwrap_or_default().into()
}

/// Goes along both lists, and tells whose key is in the former one alone.
fn follow<K: Clone + Ord, T>(
    former: &[Arc<Row<K>>],
    items: Vec<(K, T)>,
    mut is_gone: impl FnMut(K),
    row: impl Fn(K, T, Option<&Arc<Row<K>>>) -> Arc<Row<K>>,
) -> Vec<Arc<Row<K>>> {
    let mut former = former.iter().peekable();
    let mut rows = Vec::with_capacity(items.len());
    for (key, item) in items {
        let mut same = None;
        while let Some(other) = former.peek() {
            match other.key.cmp(&key) {
                Ordering::Less => is_gone(other.key.clone()),
                Ordering::Equal => same = Some(*other),
                Ordering::Greater => break,
            }
            former.next();
        }
        rows.push(row(key, item, same));
    }
    former.for_each(|row| is_gone(row.key.clone()));
    rows
}
