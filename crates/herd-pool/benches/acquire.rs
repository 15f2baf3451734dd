//! What taking and dropping a lease of a live session costs, by the number of sessions and of threads.
//!
//! `cargo bench -p herd-pool`; the example `hit_path` measures the same in a form for programs.
#![allow(missing_docs, reason = "criterion's macros make public items without any")]

use std::{
    future::{Future, pending},
    hint::black_box,
    pin::pin,
    sync::Barrier,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use herd_pool::{Exit, HealthError, Lease, Pool, SessionId, SpawnError, Worker, WorkerFactory, WorkerId};

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

fn acquire_of_a_live_session(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let mut group = criterion.benchmark_group("acquire_hit");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    for sessions in [1, 1_000, 1_000_000] {
        let mut ids: Vec<_> = (0..sessions).map(|n| SessionId::new(format!("session-{n:028}")).unwrap()).collect();
        let pool = runtime.block_on(fill(&ids));
        shuffle(&mut ids);
        for threads in [1, 2] {
            group.bench_function(BenchmarkId::new(format!("{threads} threads"), sessions), |bencher| {
                bencher.iter_custom(|iterations| leases(&pool, &ids, threads, iterations));
            });
        }
        runtime.block_on(pool.shutdown());
    }
    group.finish();
}

/// How long each of the threads takes for this many leases, on average.
fn leases(pool: &Pool<Factory>, ids: &[SessionId], threads: usize, iterations: u64) -> Duration {
    let start = Barrier::new(threads);
    let took: Duration = thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let start = &start;
                scope.spawn(move || {
                    let (back, front) = ids.split_at(ids.len() * thread / threads);
                    let mut order = front.iter().chain(back).cycle();
                    start.wait();
                    let began = Instant::now();
                    for _ in 0..iterations {
                        if let Some(id) = order.next() {
                            drop(black_box(acquire(pool, id)));
                        }
                    }
                    began.elapsed()
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    took / u32::try_from(threads).unwrap()
}

fn acquire(pool: &Pool<Factory>, id: &SessionId) -> Lease<Factory> {
    match pin!(pool.acquire(id)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(lease) => lease.unwrap(),
        Poll::Pending => panic!("{id} is not live"),
    }
}

async fn fill(ids: &[SessionId]) -> Pool<Factory> {
    let hour = Duration::from_secs(3600);
    let pool = Pool::builder(Factory).min_workers(0).spare(0).max_workers(ids.len()).ttl(hour).health_interval(hour);
    let pool = pool.build().unwrap();
    for id in ids {
        drop(pool.acquire(id).await.unwrap());
    }
    pool
}

fn shuffle(ids: &mut [SessionId]) {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for last in (1..ids.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        ids.swap(last, usize::try_from(random % (last as u64 + 1)).unwrap());
    }
}

criterion_group!(benches, acquire_of_a_live_session);
criterion_main!(benches);
