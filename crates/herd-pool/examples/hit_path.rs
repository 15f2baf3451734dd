//! Measures what an acquire of a live session costs, and what memory a session takes.
//!
//! Prints a line of JSON per measurement: `{"sessions":…,"threads":…,"ns_per_acquire":…}` for taking and dropping a
//! lease, by random access over all sessions (`null` if two threads never ran at once), also with `"tenants":…`, among
//! which the sessions are divided; `{"sessions":…,"us_per_page":…,"us_per_stats":…}` for the first hundred sessions and
//! for the pool's figures; `{"bytes_per_session":…}` for what the process grew by with a million sessions of workers
//! that exist in memory only; and, to hold the first against, `{"mib":…,"ns_per_random_read":…}`
//! for one read from memory of the given size at a place that the read before has named. An acquire makes two such
//! reads one after the other, of the index (16 to 64 bytes a session) and of the session.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::{
    fs,
    future::{Future, pending},
    hint::black_box,
    pin::pin,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use herd_pool::{
    Exit, HealthError, Lease, Pool, SessionId, SpawnError, Tenant, TenantLimits, Worker, WorkerFactory, WorkerId,
};
use tokio::runtime::Runtime;

/// Leases per run: few enough that most runs are over before the scheduler takes the processor away.
const RUN: usize = 250;

/// The longest that one measurement may take.
const PATIENCE: Duration = Duration::from_secs(5);

struct Factory;

struct InMemory(WorkerId);

impl WorkerFactory for Factory {
    type Worker = InMemory;

    async fn spawn(&self, id: WorkerId) -> Result<InMemory, SpawnError> {
        Ok(InMemory(id))
    }
}

impl Worker for InMemory {
    type Client = ();

    fn id(&self) -> WorkerId {
        self.0
    }

    fn address(&self) -> &str {
        "memory:"
    }

    fn client(&self) -> &() {
        &()
    }

    async fn healthy(&self) -> Result<(), HealthError> {
        Ok(())
    }

    fn exited(&self) -> impl Future<Output = Exit> + Send + 'static {
        pending()
    }

    async fn close(&self) {}
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    with_tenants(&runtime);
    for sessions in [1, 1_000, 1_000_000] {
        let mut ids: Vec<_> =
            (0..sessions).map(|number| SessionId::new(format!("session-{number:028}")).unwrap()).collect();
        let before = resident_bytes();
        let pool = runtime.block_on(fill(&ids));
        if sessions == 1_000_000 {
            println!(r#"{{"bytes_per_session":{}}}"#, resident_bytes().saturating_sub(before) / sessions);
        }
        shuffle(&mut ids);
        for threads in [1, 2] {
            let ns = measure(&pool, &ids, threads).map_or("null".to_owned(), |ns| format!("{ns:.1}"));
            println!(r#"{{"sessions":{sessions},"threads":{threads},"ns_per_acquire":{ns}}}"#);
        }
        runtime.block_on(pool.shutdown());
    }
    for mib in [1, 32, 1024] {
        println!(r#"{{"mib":{mib},"ns_per_random_read":{:.1}}}"#, random_read(mib));
    }
}

/// What ten thousand sessions of a hundred tenants cost, whose limits are looked at.
fn with_tenants(runtime: &Runtime) {
    const SESSIONS: usize = 10_000;
    const TENANTS: usize = 100;
    let limits = TenantLimits { max_sessions: Some(SESSIONS), max_waiting: Some(SESSIONS) };
    let tenants: Vec<_> =
        (0..TENANTS).map(|number| Tenant::new(&format!("tenant-{number}"), limits).unwrap()).collect();
    let mut ids: Vec<_> = (0..SESSIONS)
        .map(|number| SessionId::new(format!("session-{number:028}")).unwrap().of(&tenants[number % TENANTS]))
        .collect();
    let pool = runtime.block_on(fill(&ids));
    shuffle(&mut ids);
    let ns = measure(&pool, &ids, 1).unwrap();
    println!(r#"{{"sessions":{SESSIONS},"tenants":{TENANTS},"threads":1,"ns_per_acquire":{ns:.1}}}"#);
    let page = microseconds(|| drop(black_box(pool.sessions_after(None, 100, |_| true))));
    let stats = microseconds(|| _ = black_box(pool.stats()));
    println!(r#"{{"sessions":{SESSIONS},"us_per_page":{page:.1},"us_per_stats":{stats:.1}}}"#);
    runtime.block_on(pool.shutdown());
}

/// The median time of one call.
fn microseconds(mut call: impl FnMut()) -> f64 {
    let mut runs: Vec<_> = std::iter::repeat_with(|| {
        let began = Instant::now();
        call();
        began.elapsed()
    })
    .take(1000)
    .collect();
    runs.sort();
    runs[runs.len() / 2].as_secs_f64() * 1e6
}

/// Nanoseconds for a read that cannot begin before the one before it has ended.
fn random_read(mib: usize) -> f64 {
    let mut order: Vec<_> = (0..(mib << 20) / 64).collect();
    shuffle(&mut order);
    let mut lines = vec![[0_usize; 8]; order.len()];
    for pair in order.windows(2) {
        lines[pair[0]][0] = pair[1];
    }
    lines[order[order.len() - 1]][0] = order[0];
    let mut place = order[0];
    let mut runs: Vec<_> = std::iter::repeat_with(|| {
        let began = Instant::now();
        for _ in 0..RUN {
            place = lines[black_box(place)][0];
        }
        began.elapsed()
    })
    .take(1000)
    .collect();
    runs.sort();
    runs[runs.len() / 2].as_secs_f64() * 1e9 / RUN as f64
}

/// A pool in which all these sessions are live.
async fn fill(ids: &[SessionId]) -> Pool<Factory> {
    let hour = Duration::from_secs(3600);
    let pool = Pool::builder(Factory)
        .min_workers(0)
        .spare(0)
        .max_workers(ids.len())
        .ttl(hour)
        .health_interval(hour)
        .build()
        .unwrap();
    for id in ids {
        drop(pool.acquire(id).await.unwrap());
    }
    pool
}

/// Nanoseconds for taking and dropping a lease: the median over short runs, so that a run in which another process
/// had the processor does not count. With two threads, only those runs count during which both moved; on a busy machine
/// there may be none.
fn measure(pool: &Pool<Factory>, ids: &[SessionId], threads: usize) -> Option<f64> {
    let wanted = (4_000_000 / RUN).max(2 * ids.len() / RUN);
    let start = Barrier::new(threads);
    let finished: Vec<Finished> = (0..threads).map(|_| Finished::default()).collect();
    let mut runs: Vec<Duration> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let (start, finished) = (&start, &finished);
                scope.spawn(move || {
                    // Each thread begins elsewhere, so that they do not warm the caches for each other.
                    let (back, front) = ids.split_at(ids.len() * thread / threads);
                    let mut order = front.iter().chain(back).cycle();
                    let neighbour = &finished[(thread + 1) % threads].0;
                    let mut runs = Vec::new();
                    start.wait();
                    let first = Instant::now();
                    while runs.len() < wanted && first.elapsed() < PATIENCE {
                        let before = neighbour.load(Ordering::Relaxed);
                        let began = Instant::now();
                        for id in order.by_ref().take(RUN) {
                            drop(black_box(acquire(pool, id)));
                        }
                        let took = began.elapsed();
                        // If the other one moved far, it was this thread that stood still.
                        let moved = neighbour.load(Ordering::Relaxed) - before;
                        if threads == 1 || (1..=4).contains(&moved) {
                            runs.push(took);
                        }
                        finished[thread].0.fetch_add(1, Ordering::Relaxed);
                    }
                    runs
                })
            })
            .collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    runs.sort();
    let median = runs.get(runs.len() / 2)?;
    Some(median.as_secs_f64() * 1e9 / RUN as f64)
}

/// How many runs a thread has finished, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Finished(AtomicUsize);

/// A live session is had at the first poll.
fn acquire(pool: &Pool<Factory>, id: &SessionId) -> Lease<Factory> {
    match pin!(pool.acquire(id)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(lease) => lease.unwrap(),
        Poll::Pending => panic!("{id} is not live"),
    }
}

fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Fisher-Yates over xorshift64: the same random order at every run.
fn shuffle<T>(ids: &mut [T]) {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for last in (1..ids.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        ids.swap(last, usize::try_from(random % (last as u64 + 1)).unwrap());
    }
}
