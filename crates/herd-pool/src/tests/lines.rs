//! Random sequences of what happens to the lines, against how long anybody may have to wait for a turn.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::{SessionId, Tenant, TenantLimits, lines::Lines, queue::Ticket, tenant::Whose};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Somebody of this tenant comes.
    Add(usize),
    /// Of those of this tenant that wait, one gives up.
    Remove(usize, usize),
    /// A worker becomes free.
    Pop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        // One tenant has far more than the others.
        8 => Just(Step::Add(0)),
        4 => (0..5_usize).prop_map(Step::Add),
        2 => (0..5_usize, any::<usize>()).prop_map(|(tenant, pick)| Step::Remove(tenant, pick)),
        6 => Just(Step::Pop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_waits_is_served_after_at_most_one_hand_out_for_each_other_tenant(
        steps in prop::collection::vec(step(), 0..300)
    ) {
        let tenant = |name: &str| Some(Tenant::new(name, TenantLimits::default()).unwrap());
        let tenants: [Whose; 5] = [tenant("a"), tenant("b"), tenant("c"), tenant("d"), None];
        let mut lines = Lines::default();
        // Who waits, by tenant, in order; and how many hand-outs others had since the tenant had its last or began.
        let mut waiting: [BTreeMap<Ticket, SessionId>; 5] = Default::default();
        let mut passed_over = [0; 5];
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Add(tenant) => {
                    let ticket = Ticket(number as u64);
                    let id = SessionId::new(number.to_string()).unwrap();
                    let id = tenants[tenant].iter().fold(id, SessionId::of);
                    if waiting[tenant].is_empty() {
                        passed_over[tenant] = 0;
                    }
                    waiting[tenant].insert(ticket, id.clone());
                    lines.add(ticket, id);
                }
                Step::Remove(tenant, pick) => {
                    let pick = pick % waiting[tenant].len().max(1);
                    if let Some((&ticket, _)) = waiting[tenant].iter().nth(pick) {
                        let id = waiting[tenant].remove(&ticket).unwrap();
                        lines.remove(ticket, &id);
                    }
                }
                Step::Pop => {
                    let Some(served) = lines.pop_where(|_| true) else {
                        prop_assert!(waiting.iter().all(BTreeMap::is_empty), "somebody is forgotten");
                        continue;
                    };
                    let whose = tenants.iter().position(|whose| whose.as_ref() == served.tenant()).unwrap();
                    prop_assert_eq!(waiting[whose].pop_first().map(|(_, first)| first), Some(served));
                    passed_over[whose] = 0;
                    for other in (0..tenants.len()).filter(|other| *other != whose && !waiting[*other].is_empty()) {
                        passed_over[other] += 1;
                        prop_assert!(passed_over[other] < tenants.len(), "{:?} starves", tenants[other]);
                    }
                }
            }
            prop_assert_eq!(lines.len(), waiting.iter().map(BTreeMap::len).sum::<usize>());
        }
    }
}
