use std::{convert::Infallible, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse as _, Response,
        sse::{self, Sse},
    },
};
use futures_util::{StreamExt as _, stream};
use herd_pool::{WorkerId, WorkerInfo};
use serde::Deserialize;

use super::{
    Admin,
    events::last_event_id,
    extract::{Id, Params},
    model::{LogLine, Worker},
    page::{Page, PageQuery, limit},
    problem::Problem,
};
use crate::{pools::NamedPool, workers::PoolWorker};

/// A worker with its pool.
type Found = (Arc<NamedPool>, WorkerInfo<PoolWorker>);

pub(super) async fn list(
    State(admin): State<Admin>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<Worker>>, Problem> {
    let all = admin.pools.iter().flat_map(|pool| {
        let workers = pool.pool.workers();
        workers.into_iter().map(move |worker| (Arc::clone(&pool), worker))
    });
    let page = page.cut(all.collect(), |(_, worker)| worker.id.number().to_be_bytes())?;
    // Looking at what each uses takes a while for a page full of large process trees.
    let one = |(pool, worker): &Found| Worker::new(pool, worker);
    let items = tokio::task::spawn_blocking(move || page.items.iter().map(one).collect());
    let items = items.await.map_err(|_| unreadable())?;
    Ok(Json(Page { items, next: page.next }))
}

pub(super) async fn one(State(admin): State<Admin>, Id(id): Id) -> Result<Json<Worker>, Problem> {
    let (pool, info) = find(&admin, &id)?;
    let worker = tokio::task::spawn_blocking(move || Worker::new(&pool, &info)).await.map_err(|_| unreadable())?;
    Ok(Json(worker))
}

#[derive(Debug, Deserialize)]
pub(super) struct LogsQuery {
    #[serde(default)]
    follow: bool,
    /// The last lines alone, this many; only without `follow`.
    limit: Option<String>,
}

pub(super) async fn logs(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(query): Params<LogsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (_, info) = find(&admin, &id)?;
    let worker = info.worker.as_ref().ok_or_else(|| {
        Problem::new(StatusCode::CONFLICT, "The worker has no log yet").detail("it is still being started")
    })?;
    let from = last_event_id(&headers)?.map_or(0, |last| last.saturating_add(1));
    if !query.follow {
        let lines = worker.logs().since(from);
        let limit = limit(query.limit.as_deref())?.unwrap_or(lines.len());
        let items = lines.iter().skip(lines.len().saturating_sub(limit)).map(LogLine::new).collect();
        return Ok(Json(Page { items, next: None }).into_response());
    }
    let follow = worker.logs().follow(from);
    let lines = stream::unfold(follow, |mut follow| async move { Some((follow.next().await?, follow)) })
        .flat_map(stream::iter)
        .map(|line| {
            let event = sse::Event::default().id(line.sequence.to_string()).event("line");
            Ok::<_, Infallible>(event.data(LogLine::new(&line).to_json()))
        });
    // What the stream says last, so that a client can tell the end of the worker from a broken connection.
    let end = stream::iter([Ok(sse::Event::default().event("end").data("{}"))]);
    Ok(Sse::new(lines.chain(end)).keep_alive(sse::KeepAlive::default()).into_response())
}

fn find(admin: &Admin, id: &str) -> Result<Found, Problem> {
    let parsed: WorkerId = id.parse().map_err(|error: herd_pool::InvalidWorkerId| {
        Problem::new(StatusCode::BAD_REQUEST, "That is no worker ID").detail(error.to_string())
    })?;
    admin.pools.worker(parsed).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "There is no such worker")
            .detail("it never started, or it is gone; /v1/workers lists those that live")
    })
}

fn unreadable() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The worker could not be looked at")
}
