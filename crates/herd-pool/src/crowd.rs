//! Who has how many callers that wait.

use std::collections::{BTreeSet, HashMap};

use crate::{queue::Ticket, tenant::Whose};

/// Callers that wait, by tenant, so that the room for them can be shared fairly. Every operation is O(log n).
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    callers: HashMap<Whose, BTreeSet<Ticket>>,
    /// Tenants by how many callers they have.
    ranks: BTreeSet<(usize, Whose)>,
}

impl Crowd {
    pub(crate) fn add(&mut self, ticket: Ticket, whose: Whose) {
        let callers = self.callers.entry(whose.clone()).or_default();
        let before = (callers.len(), whose);
        if callers.insert(ticket) {
            self.ranks.remove(&before);
            self.ranks.insert((before.0 + 1, before.1));
        }
    }

    pub(crate) fn remove(&mut self, ticket: Ticket, whose: Whose) {
        let Some(callers) = self.callers.get_mut(&whose) else { return };
        let before = (callers.len(), whose);
        if !callers.remove(&ticket) {
            return;
        }
        self.ranks.remove(&before);
        let (count, whose) = before;
        if count > 1 {
            self.ranks.insert((count - 1, whose));
        } else {
            self.callers.remove(&whose);
        }
    }

    /// Who has to make room for one more caller of this tenant: the newest caller of the tenant that has most, if that
    /// tenant has as many as the other one afterwards, or more.
    pub(crate) fn in_the_way_of(&self, whose: &Whose) -> Option<Ticket> {
        let own = self.callers.get(whose).map_or(0, BTreeSet::len);
        let (most, crowded) = self.ranks.last()?;
        if own + 1 >= *most {
            return None;
        }
        self.callers.get(crowded)?.last().copied()
    }
}
