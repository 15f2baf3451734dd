//! Who gets the next worker: a line for each tenant, and turns.

use std::collections::{BTreeMap, HashMap};

use crate::{SessionId, queue::Ticket, tenant::Whose};

/// Sessions that stand in line for a worker.
///
/// Each tenant has a line, and sessions without a tenant have one together. Within a line the session that came first
/// is the first; workers go round the lines, one session of each. A tenant whose line begins has the last turn, so that
/// whoever waits with any number of sessions delays the first one of another tenant by one hand-out. Every operation is
/// O(log n).
#[derive(Debug, Default)]
pub(crate) struct Lines {
    lines: HashMap<Whose, Line>,
    turns: BTreeMap<i64, Whose>,
    sessions: usize,
    promised: usize,
}

#[derive(Debug)]
struct Line {
    sessions: BTreeMap<Ticket, SessionId>,
    turn: i64,
    /// How many workers were made room for in favour of this line, and did not get to it yet.
    promised: usize,
}

impl Lines {
    /// How many sessions stand in the lines.
    pub(crate) fn len(&self) -> usize {
        self.sessions
    }

    /// Puts a session into its tenant's line, behind all that came before it.
    pub(crate) fn add(&mut self, place: Ticket, session: SessionId) {
        let whose = session.tenant().cloned();
        let line = self.lines.entry(whose).or_insert_with_key(|whose| {
            let turn = self.turns.last_key_value().map_or(0, |(last, _)| last + 1);
            self.turns.insert(turn, whose.clone());
            Line { sessions: BTreeMap::new(), turn, promised: 0 }
        });
        if line.sessions.insert(place, session).is_none() {
            self.sessions += 1;
        }
    }

    /// Takes a session out of its line, if it stands there.
    pub(crate) fn remove(&mut self, place: Ticket, session: &SessionId) {
        let whose = session.tenant().cloned();
        let Some(line) = self.lines.get_mut(&whose) else { return };
        if line.sessions.remove(&place).is_some() {
            self.sessions -= 1;
            self.close_if_empty(&whose);
        }
    }

    /// Whose turns come, in order.
    pub(crate) fn turns(&self) -> impl Iterator<Item = &Whose> {
        self.turns.values()
    }

    /// Takes out the session whose turn it is, passing over those for whom this is no turn. The next turn is another
    /// tenant's, if there is one.
    pub(crate) fn pop_where(&mut self, fits: impl Fn(&Whose) -> bool) -> Option<SessionId> {
        let turn = self.turns.iter().find(|(_, whose)| fits(whose)).map(|(turn, _)| *turn)?;
        let whose = self.turns.remove(&turn)?;
        let line = self.lines.get_mut(&whose)?;
        let (_, session) = line.sessions.pop_first()?;
        self.sessions -= 1;
        if line.promised > 0 {
            line.promised -= 1;
            self.promised -= 1;
        }
        line.turn = self.turns.last_key_value().map_or(turn, |(last, _)| last + 1);
        self.turns.insert(line.turn, whose.clone());
        self.close_if_empty(&whose);
        Some(session)
    }

    /// The tenants whose lines have more sessions than workers were promised to them, in the order of their turns, each
    /// with the number of these.
    pub(crate) fn unpromised(&self) -> impl Iterator<Item = (&Whose, usize)> {
        let lines = self.turns.values().filter_map(|whose| Some((whose, self.lines.get(whose)?)));
        lines.filter(|(_, line)| line.sessions.len() > line.promised).map(|(whose, line)| (whose, line.promised))
    }

    /// Notes that room was made for one more session of this line, and lets the line have the next turn.
    pub(crate) fn promise(&mut self, whose: &Whose) {
        let Some(line) = self.lines.get_mut(whose) else { return };
        line.promised += 1;
        self.promised += 1;
        self.turns.remove(&line.turn);
        line.turn = self.turns.first_key_value().map_or(0, |(first, _)| first - 1);
        self.turns.insert(line.turn, whose.clone());
    }

    /// How many workers are promised.
    pub(crate) fn promised(&self) -> usize {
        self.promised
    }

    /// Takes all promises back.
    pub(crate) fn break_promises(&mut self) {
        if self.promised > 0 {
            self.promised = 0;
            self.lines.values_mut().for_each(|line| line.promised = 0);
        }
    }

    fn close_if_empty(&mut self, whose: &Whose) {
        if let Some(line) = self.lines.get(whose).filter(|line| line.sessions.is_empty()) {
            self.turns.remove(&line.turn);
            self.promised -= line.promised;
            self.lines.remove(whose);
        }
    }
}
