//! Takes the pictures, while there is somebody who looks at them.

use std::sync::Arc;

use herd_pool::WorkerId;
use tokio::{
    select,
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};

use super::{
    super::{
        Admin,
        model::{Session, Stats, Worker},
        sse::frame,
    },
    board::Board,
    picture::{Content, Picture, SessionKey},
};
use crate::usage::{self, Seen};

/// After each picture nobody takes one for this many times as long as it took: a fifth of a processor at most.
const REST: u32 = 4;
/// How many workers that were not there when all were looked at last are looked at for one picture.
const MOST_LOOKS: usize = 64;

/// Takes pictures until nobody reads them any more.
pub(super) async fn run(admin: Admin, board: Board) {
    loop {
        let (number, begun, former) = (board.begin(), Instant::now(), board.latest());
        let source = admin.clone();
        // It reads files.
        let take = spawn_blocking(move || Picture::next(number, begun, content(&source), former.as_deref()));
        let Ok((picture, gone)) = take.await else {
            // The panic has been logged. Whoever reads hears that it is over, and may come back.
            return board.give_up();
        };
        board.show(picture, gone);
        sleep(begun.elapsed() * REST).await;
        loop {
            let Some(demand) = board.demand() else { return };
            let due = demand.due(begun);
            if due <= Instant::now() {
                break;
            }
            select! {
                () = sleep_until(due) => {}
                () = board.changed() => {}
            }
        }
    }
}

fn content(admin: &Admin) -> Content {
    admin.metrics.usage().look();
    let stats = Stats::new(&admin.pools, &admin.metrics, &admin.journal, admin.draining.has_begun());
    Content { sessions: sessions(admin), workers: workers(admin), stats: frame(None, "stats", &stats) }
}

fn sessions(admin: &Admin) -> Vec<(SessionKey, Session)> {
    let mut pools: Vec<_> = admin.pools.iter().collect();
    // Of two pools of one name the one counts that takes sessions on.
    pools.sort_by_key(|pool| pool.is_leaving());
    let mut sessions: Vec<_> = pools
        .iter()
        .flat_map(|pool| {
            let found = pool.pool.sessions_after(None, usize::MAX, |_| true);
            found.into_iter().map(|info| {
                let session = Session::new(pool, &info);
                (SessionKey { pool: Arc::clone(&pool.name), id: info.id }, session)
            })
        })
        .collect();
    sessions.sort_by(|(one, _), (other, _)| one.cmp(other));
    sessions.dedup_by(|(later, _), (earlier, _)| later == earlier);
    sessions
}

fn workers(admin: &Admin) -> Vec<(WorkerId, Worker)> {
    let seen: Arc<Seen> = admin.metrics.usage().seen();
    let mut looks = 0..MOST_LOOKS;
    let mut workers: Vec<_> = admin
        .pools
        .iter()
        .flat_map(|pool| {
            let infos = pool.pool.workers();
            infos.into_iter().map(|info| (Arc::clone(&pool), info)).collect::<Vec<_>>()
        })
        .map(|(pool, info)| {
            let worker = info.worker.as_deref();
            let usage = seen.workers.get(&info.id).copied();
            let usage = usage.or_else(|| usage::of(worker.filter(|_| looks.next().is_some())?));
            (info.id, Worker::with_usage(&pool, &info, usage))
        })
        .collect();
    workers.sort_by_key(|(id, _)| *id);
    workers
}
