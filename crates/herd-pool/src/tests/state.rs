//! Random sequences of inputs against the invariants.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    step::{Step, options, step},
    world::{ACQUIRE_TIMEOUT, MS, TTL, World},
};
use crate::{TenantLimits, options::Options, state::Force};

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_whatever_happens(options in options(), steps in prop::collection::vec(step(), 0..150)) {
        let mut world = World::new(options);
        for step in steps {
            world.step(step);
        }
        // Whoever waits is answered in time, even if no worker ever moves again.
        world.advance(world.now.after(ACQUIRE_TIMEOUT));
        prop_assert!(world.waiting.is_empty(), "somebody was forgotten");

        // If the world comes to rest, so do the sessions: each ends as idle once its leases are gone.
        while !world.leases.is_empty() {
            world.step(Step::DropLease(0));
        }
        world.settle();
        world.advance(world.now.after(2 * TTL + 1000 * MS));
        world.settle();
        prop_assert_eq!(world.live.len(), 0, "a session is never idle");
        prop_assert!(world.enders.is_empty(), "somebody still waits for a session's end");
        prop_assert_eq!(world.started, world.ended);

        for tenant in &world.tenants {
            prop_assert_eq!((tenant.sessions(), tenant.waiting()), (0, 0), "something counts for ever");
            tenant.limit(TenantLimits::default());
        }

        if world.state.audit().running {
            // No capacity was lost: as many sessions as allowed can be had at once.
            for session in 0..world.options.max_workers {
                if world.options.max_waiting > 0 {
                    world.step(Step::Acquire(100 + u8::try_from(session).unwrap()));
                    world.advance(world.now.after(Duration::from_millis(1)));
                    world.settle();
                }
            }
            prop_assert_eq!(world.live.len(), world.options.max_workers);
            world.step(Step::Shutdown);
        }
        while !world.leases.is_empty() {
            world.step(Step::DropLease(0));
        }
        world.settle();
        world.advance(world.now.after(Duration::from_secs(10)));
        world.settle();
        prop_assert!(world.emptied && world.running.is_empty() && world.spawning.is_empty());
        prop_assert!(world.state.is_finished());
    }
}

/// The report that a last lease came back may be late: by then there can be another lease, and the session's end.
#[test]
fn a_late_report_of_a_last_lease_does_not_hand_on_a_worker_in_use() {
    let options = Options { min_workers: 0, spare: 0, ttl: TTL, worker_reuse: true, ..Options::default() };
    let mut world = World::new(options);
    world.step(Step::Acquire(0));
    world.step(Step::FinishSpawn { pick: 0, works: true });
    // The session is in use when its time has come, so its gate is watched.
    world.advance(world.now.after(TTL));
    world.step(Step::DropLease(0));
    world.step(Step::Hit(0));
    world.step(Step::End { session: 0, force: Force::Close });
    assert_eq!(world.mailbox.0.lock().unwrap().len(), 1);
    world.step(Step::DeliverLastLease);
    assert!(world.checks.is_empty() && world.ends.is_empty());
    world.step(Step::DropLease(0));
    world.step(Step::DeliverLastLease);
    assert_eq!(world.checks.len(), 1);
}
