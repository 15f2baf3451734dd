//! What requests are answered by, and how it is exchanged while they are.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use herd_pool::{Pool, WorkerFactory};
use hyper::header::HeaderValue;

use crate::{
    GatewayOptions, GatewayStats, Routes,
    counters::Counters,
    latency::{PoolLatencies, Record},
    routes::Table,
};

/// What all serving threads share: what they answer by now, and the threads themselves.
pub(crate) struct Setups<F: WorkerFactory>(Mutex<State<F>>);

struct State<F: WorkerFactory> {
    options: Arc<GatewayOptions>,
    table: Arc<Table>,
    pools: Vec<Member<F>>,
    /// How many pools there were so far.
    numbers: u64,
    threads: Vec<Arc<Thread<F>>>,
}

struct Member<F: WorkerFactory> {
    number: u64,
    name: Arc<str>,
    pool: Pool<F>,
}

/// What one serving thread answers by, and what it has counted.
pub(crate) struct Thread<F: WorkerFactory> {
    pub(crate) counters: Arc<Counters>,
    /// Nobody but the thread itself looks here, unless the gateway is configured or somebody wants to know its numbers;
    /// so requests find the lock free, and the count of references in their own processor's cache.
    setup: Mutex<Arc<Setup<F>>>,
}

/// What a request is answered by from its beginning to its end.
pub(crate) struct Setup<F: WorkerFactory> {
    pub(crate) options: Arc<GatewayOptions>,
    pub(crate) table: Arc<Table>,
    pub(crate) seats: Vec<Arc<Seat<F>>>,
}

/// A pool, as one serving thread has it. Whoever holds it keeps the pool from being dropped.
pub(crate) struct Seat<F: WorkerFactory> {
    /// Tells pools apart, also if the IDs of their workers do not.
    pub(crate) number: u64,
    pub(crate) pool: Pool<F>,
    pub(crate) options: Arc<GatewayOptions>,
    pub(crate) name: Arc<str>,
    /// The name for the response, if there are several.
    pub(crate) shown: Option<HeaderValue>,
    pub(crate) record: Arc<Record>,
}

impl<F: WorkerFactory> Setups<F> {
    pub(crate) fn new(routes: Routes<F>, options: GatewayOptions) -> Self {
        let Routes { pools, table } = routes;
        let mut state = State {
            options: Arc::new(options),
            table: Arc::new(table),
            pools: Vec::new(),
            numbers: 0,
            threads: Vec::new(),
        };
        state.seat(pools);
        Self(Mutex::new(state))
    }

    /// From now on, new requests are answered by these, on all threads.
    pub(crate) fn exchange(&self, routes: Routes<F>, options: GatewayOptions) {
        let Routes { pools, table } = routes;
        let mut state = self.lock();
        (state.options, state.table) = (Arc::new(options), Arc::new(table));
        let left = state.seat(pools);
        let before: Vec<_> = state.threads.iter().map(|thread| thread.exchange(&state)).collect();
        // Pools may be dropped with these, and then work is done that nobody should wait for here.
        drop(state);
        drop((left, before));
    }

    /// One more thread that answers requests.
    pub(crate) fn add_thread(&self) -> Arc<Thread<F>> {
        let mut state = self.lock();
        let thread = Arc::new(Thread { counters: Arc::default(), setup: Mutex::new(Arc::new(state.setup(None))) });
        state.threads.push(thread.clone());
        thread
    }

    pub(crate) fn stats(&self) -> GatewayStats {
        self.lock().threads.iter().map(|thread| thread.counters.stats()).sum()
    }

    pub(crate) fn latencies(&self) -> Vec<PoolLatencies> {
        let state = self.lock();
        let mut all: Vec<_> = state.pools.iter().map(|member| PoolLatencies::new(member.name.clone())).collect();
        for thread in &state.threads {
            for (sum, seat) in all.iter_mut().zip(&thread.setup().seats) {
                sum.add(&seat.record);
            }
        }
        all
    }

    fn lock(&self) -> MutexGuard<'_, State<F>> {
        lock(&self.0)
    }
}

impl<F: WorkerFactory> State<F> {
    /// Takes these pools instead of those that there are. A pool that was there already keeps its number, and so the
    /// connections to its workers.
    fn seat(&mut self, pools: Vec<(Arc<str>, Pool<F>)>) -> Vec<Member<F>> {
        let before = std::mem::take(&mut self.pools);
        for (name, pool) in pools {
            let number = before.iter().find(|member| member.pool.is_same_as(&pool)).map(|member| member.number);
            let number = number.unwrap_or_else(|| {
                self.numbers += 1;
                self.numbers
            });
            self.pools.push(Member { number, name, pool });
        }
        before
    }

    /// What a thread is to answer by, which goes on counting where it has counted for a pool of the same name.
    fn setup(&self, before: Option<&Setup<F>>) -> Setup<F> {
        let record = |name: &str| {
            let seat = before.and_then(|before| before.seats.iter().find(|seat| *seat.name == *name));
            seat.map_or_else(Arc::default, |seat| seat.record.clone())
        };
        let shown = |name: &str| HeaderValue::from_str(name).expect("names of pools were checked");
        let seats = self.pools.iter().map(|Member { number, name, pool }| {
            Arc::new(Seat {
                number: *number,
                pool: pool.clone(),
                options: self.options.clone(),
                name: name.clone(),
                shown: (self.pools.len() > 1).then(|| shown(name)),
                record: record(name),
            })
        });
        Setup { options: self.options.clone(), table: self.table.clone(), seats: seats.collect() }
    }
}

impl<F: WorkerFactory> Thread<F> {
    pub(crate) fn setup(&self) -> Arc<Setup<F>> {
        lock(&self.setup).clone()
    }

    fn exchange(&self, state: &State<F>) -> Arc<Setup<F>> {
        let now = Arc::new(state.setup(Some(&self.setup())));
        std::mem::replace(&mut *lock(&self.setup), now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
