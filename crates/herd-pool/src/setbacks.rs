//! How fast failed starts are tried again where each worker is for one session.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    time::Duration,
};

use crate::{SessionId, SpawnError, WorkerId, backoff::Backoff, clock::Moment, tenant::Whose};

/// So many different sessions of a tenant that fail in a row have something in common.
const SEVERAL: usize = 5;

/// How many sessions and how many tenants are remembered; whoever fails first is forgotten first.
const MOST: usize = 512;

/// After how long without another failure one is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Failures to start workers, by session and by tenant.
///
/// What a session keeps can make its worker fail, and then it is the session's own trouble: it alone waits before it is
/// tried again, and it alone learns of the error, in which the worker may have quoted what is the session's own. When
/// several sessions in a row have failed, all of the same tenant wait with them; those without a tenant count as those
/// of one. No tenant ever waits for another.
#[derive(Debug, Default)]
pub(crate) struct Setbacks {
    sessions: Fading<SessionId, Setback>,
    /// Sessions that are not to be tried yet, by when they may be.
    held: BTreeSet<(Moment, SessionId)>,
    tenants: Fading<Whose, Streak>,
}

#[derive(Debug)]
struct Setback {
    backoff: Backoff,
    error: SpawnError,
    /// As it is among the held.
    until: Option<Moment>,
}

#[derive(Debug, Default)]
struct Streak {
    /// Different sessions that failed, up to several.
    sessions: Vec<SessionId>,
    backoff: Backoff,
}

impl Setbacks {
    /// Whether a start for a session of this tenant may begin now.
    pub(crate) fn allows(&self, whose: &Whose, now: Moment) -> bool {
        self.tenants.find(whose).is_none_or(|streak| streak.backoff.allows(now))
    }

    /// When that is; `None` if it takes the outcome of another start, or if nothing is in the way.
    pub(crate) fn until(&self, whose: &Whose) -> Option<Moment> {
        self.tenants.find(whose)?.backoff.until()
    }

    /// Whether this session has to wait until it is [released](Self::release).
    pub(crate) fn holds(&self, session: &SessionId) -> bool {
        self.sessions.find(session).is_some_and(|setback| setback.until.is_some())
    }

    /// Why the last start for this session failed, if none has succeeded since.
    pub(crate) fn error(&self, session: &SessionId) -> Option<&SpawnError> {
        self.sessions.find(session).map(|setback| &setback.error)
    }

    pub(crate) fn started(&mut self, session: &SessionId, worker: WorkerId) {
        if let Some(setback) = self.sessions.find_mut(session) {
            setback.backoff.started(worker);
        }
        if let Some(streak) = self.tenants.find_mut(&session.tenant().cloned()) {
            streak.backoff.started(worker);
        }
    }

    pub(crate) fn failed(&mut self, session: &SessionId, worker: WorkerId, error: SpawnError, now: Moment) {
        let first = || Setback { backoff: Backoff::default(), error: error.clone(), until: None };
        let setback = self.sessions.touch(session, now, first);
        setback.backoff.failed(worker, now);
        let until = setback.backoff.until().unwrap_or(now);
        if let Some(before) = setback.until.replace(until) {
            self.held.remove(&(before, session.clone()));
        }
        setback.error = error;
        self.held.insert((until, session.clone()));

        let streak = self.tenants.touch(&session.tenant().cloned(), now, Streak::default);
        if streak.sessions.len() < SEVERAL && !streak.sessions.contains(session) {
            streak.sessions.push(session.clone());
        }
        if streak.sessions.len() == SEVERAL {
            streak.backoff.failed(worker, now);
        }
    }

    /// A worker for this session became ready.
    pub(crate) fn succeeded(&mut self, session: &SessionId) {
        if let Some(setback) = self.sessions.remove(session) {
            self.let_go(&setback, session);
        }
        self.tenants.remove(&session.tenant().cloned());
    }

    /// The sessions that may be tried from now on.
    pub(crate) fn release(&mut self, now: Moment) -> Vec<SessionId> {
        let mut released = Vec::new();
        while self.held.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, session)) = self.held.pop_first()
        {
            if let Some(setback) = self.sessions.find_mut(&session) {
                setback.until = None;
            }
            released.push(session);
        }
        while let Some((session, setback)) = self.sessions.pop_faded(now) {
            if self.let_go(&setback, &session) {
                released.push(session);
            }
        }
        while self.tenants.pop_faded(now).is_some() {}
        released
    }

    /// When something is to be released or forgotten.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        let held = self.held.first().map(|(at, _)| *at);
        [held, self.sessions.deadline(), self.tenants.deadline()].into_iter().flatten().min()
    }

    /// The sessions that have to wait, and until when.
    #[cfg(test)]
    pub(crate) fn held(&self) -> impl Iterator<Item = (Moment, &SessionId)> {
        self.held.iter().map(|(at, session)| (*at, session))
    }

    /// Forgets everything, and returns the sessions that were held.
    pub(crate) fn clear(&mut self) -> Vec<SessionId> {
        std::mem::take(self).held.into_iter().map(|(_, session)| session).collect()
    }

    fn let_go(&mut self, setback: &Setback, session: &SessionId) -> bool {
        setback.until.is_some_and(|until| self.held.remove(&(until, session.clone())))
    }
}

/// What is forgotten some time after it was touched last, or when there is too much of it.
#[derive(Debug)]
struct Fading<K, V> {
    all: HashMap<K, (Moment, V)>,
    ages: BTreeSet<(Moment, K)>,
}

impl<K, V> Default for Fading<K, V> {
    fn default() -> Self {
        Self { all: HashMap::new(), ages: BTreeSet::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord, V> Fading<K, V> {
    fn find(&self, key: &K) -> Option<&V> {
        self.all.get(key).map(|(_, value)| value)
    }

    fn find_mut(&mut self, key: &K) -> Option<&mut V> {
        self.all.get_mut(key).map(|(_, value)| value)
    }

    fn touch(&mut self, key: &K, now: Moment, first: impl FnOnce() -> V) -> &mut V {
        let (touched, value) = self.all.entry(key.clone()).or_insert_with(|| (now, first()));
        self.ages.remove(&(*touched, key.clone()));
        self.ages.insert((now, key.clone()));
        *touched = now;
        value
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let (touched, value) = self.all.remove(key)?;
        self.ages.remove(&(touched, key.clone()));
        Some(value)
    }

    fn pop_faded(&mut self, now: Moment) -> Option<(K, V)> {
        let is_over = self.all.len() > MOST || self.deadline().is_some_and(|at| at <= now);
        let (_, key) = is_over.then(|| self.ages.pop_first()).flatten()?;
        let (_, value) = self.all.remove(&key)?;
        Some((key, value))
    }

    fn deadline(&self) -> Option<Moment> {
        self.ages.first().map(|(touched, _)| touched.after(FORGOTTEN_AFTER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: usize) -> SessionId {
        SessionId::new(format!("session-{number}")).unwrap()
    }

    fn failed(setbacks: &mut Setbacks, session: &SessionId, worker: usize, now: Moment) {
        let worker = WorkerId::new(worker as u64 + 1);
        setbacks.started(session, worker);
        setbacks.failed(session, worker, SpawnError::new("told to fail"), now);
    }

    #[test]
    fn failures_are_forgotten_after_a_while_and_the_oldest_when_there_are_too_many() {
        let mut setbacks = Setbacks::default();
        for number in 0..=MOST {
            failed(&mut setbacks, &session(number), number, Moment(number as u64));
        }
        assert_eq!(setbacks.release(Moment(MOST as u64)), [session(0)], "it is too much to remember");
        assert!(setbacks.error(&session(0)).is_none() && setbacks.error(&session(1)).is_some());
        let late = Moment(MOST as u64).after(FORGOTTEN_AFTER);
        assert_eq!(setbacks.release(late).len(), MOST);
        assert_eq!(setbacks.deadline(), None, "nothing is left");
    }

    #[test]
    fn a_session_that_fails_again_and_again_counts_once_for_its_tenant() {
        let mut setbacks = Setbacks::default();
        let mut now = Moment(0);
        for number in 0..100 {
            failed(&mut setbacks, &session(0), number, now);
            assert!(setbacks.allows(&None, now));
            now = now.after(Duration::from_secs(11));
            assert_eq!(setbacks.release(now), [session(0)]);
        }
        for number in 1..SEVERAL {
            assert!(setbacks.allows(&None, now));
            failed(&mut setbacks, &session(number), 100 + number, now);
        }
        assert!(!setbacks.allows(&None, now));
        setbacks.succeeded(&session(0));
        assert!(setbacks.allows(&None, now));
    }
}
