//! What may happen to the world, at random.

use std::time::Duration;

use proptest::prelude::*;

use super::world::{ACQUIRE_TIMEOUT, MS, TTL};
use crate::{IdleBy, TenantLimits, WhenFull, options::Options, state::Force};

/// One step of the world. Numbers pick from what there is at that moment.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Acquire(u8),
    Hit(u8),
    GiveUp(usize),
    DropLease(usize),
    DeliverLastLease,
    FinishSpawn { pick: usize, works: bool },
    FinishCancel(usize),
    FinishCheck { pick: usize, healthy: bool },
    FinishProbe { pick: usize, healthy: bool },
    FinishEnd(usize),
    Exit { pick: usize, out_of_memory: bool },
    End { session: u8, force: Force },
    Advance(u64),
    Limit { tenant: usize, limits: TenantLimits },
    Reconfigure(Box<Options>),
    Drain(u64),
    Shutdown,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let pick = || any::<usize>();
    prop_oneof![
        20 => (0..6_u8).prop_map(Step::Acquire),
        10 => (0..6_u8).prop_map(Step::Hit),
        4 => pick().prop_map(Step::GiveUp),
        15 => pick().prop_map(Step::DropLease),
        8 => Just(Step::DeliverLastLease),
        20 => (pick(), prop::bool::weighted(0.8)).prop_map(|(pick, works)| Step::FinishSpawn { pick, works }),
        8 => pick().prop_map(Step::FinishCancel),
        12 => (pick(), prop::bool::weighted(0.8)).prop_map(|(pick, healthy)| Step::FinishCheck { pick, healthy }),
        8 => (pick(), prop::bool::weighted(0.6)).prop_map(|(pick, healthy)| Step::FinishProbe { pick, healthy }),
        15 => pick().prop_map(Step::FinishEnd),
        3 => (pick(), any::<bool>()).prop_map(|(pick, out_of_memory)| Step::Exit { pick, out_of_memory }),
        5 => (0..6_u8, any::<bool>())
            .prop_map(|(session, kill)| Step::End { session, force: if kill { Force::Kill } else { Force::Close } }),
        15 => (1..700_u64).prop_map(Step::Advance),
        3 => (0..2_usize, limits()).prop_map(|(tenant, limits)| Step::Limit { tenant, limits }),
        4 => options().prop_map(|options| Step::Reconfigure(Box::new(options))),
        1 => (0..3000_u64).prop_map(Step::Drain),
        1 => Just(Step::Shutdown),
    ]
}

prop_compose! {
    fn limits()(
        max_sessions in prop::option::of(0..4_usize),
        max_waiting in prop::option::of(0..5_usize),
    ) -> TenantLimits {
        TenantLimits { max_sessions, max_waiting }
    }
}

prop_compose! {
    pub(super) fn options()(
        max_workers in 1..6_usize,
        min_workers in 0..3_usize,
        spare in 0..3_usize,
        max_waiting in 1..8_usize,
        evict in any::<bool>(),
        worker_reuse in any::<bool>(),
        by_bytes in any::<bool>(),
        ttl in 1..3_u32,
        max_lifetime in prop::option::weighted(0.3, 700..2000_u64),
        per_session in prop::bool::weighted(0.3),
    ) -> Options {
        let options = Options {
            min_workers: min_workers.min(max_workers),
            max_workers,
            spare,
            ttl: ttl * TTL,
            max_lifetime: max_lifetime.map(Duration::from_millis),
            acquire_timeout: ACQUIRE_TIMEOUT,
            max_waiting,
            when_full: if evict { WhenFull::EvictIdle } else { WhenFull::Wait },
            health_interval: 300 * MS,
            worker_reuse: worker_reuse && !per_session,
            idle_by: if by_bytes { IdleBy::Bytes } else { IdleBy::Lease },
            ..Options::default()
        };
        if per_session { options.per_session() } else { options }
    }
}
