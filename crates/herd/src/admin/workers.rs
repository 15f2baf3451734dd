use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use herd_pool::WorkerInfo;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Admin,
    extract::{Id, NoParams, Params},
    logs,
    model::{LogLine, Worker, WorkerState},
    page::{Gathering, Page, bad_cursor, decode, encode, limit, page_limit},
    problem::{Document, Kind, Problem},
    sessions::worker_id,
    sse,
};
use crate::{pools::NamedPool, workers::PoolWorker};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// The most items that are answered.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
    /// The `next` of the page before.
    cursor: Option<String>,
    #[param(inline)]
    state: Option<WorkerState>,
    /// The pool's name.
    pool: Option<String>,
    /// The ID of the session that it serves, or served last if it is ending.
    session: Option<String>,
}

/// Workers, in the order in which they were started.
#[utoipa::path(
    get, path = "/v1/workers", tag = "workers", operation_id = "listWorkers", params(ListQuery),
    responses(
        (status = 200, description = "A page of workers", body = Page<Worker>),
        (status = 400, description = "A parameter is not understood", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(admin): State<Admin>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Page<Worker>>, Problem> {
    let ListQuery { limit, cursor, state, pool: named, session } = query;
    let limit = page_limit(limit.as_deref())?;
    let after = match cursor {
        Some(cursor) => {
            let [id] = decode(&cursor)?;
            Some(id.parse().map_err(|_| bad_cursor())?)
        }
        None => None,
    };
    let fits = |worker: &WorkerInfo<PoolWorker>| {
        let serves = |session: &str| worker.session.as_ref().is_some_and(|id| id.as_str() == session);
        state.is_none_or(|state| state.fits(worker.state)) && session.as_deref().is_none_or(serves)
    };
    let mut found: Vec<_> = admin
        .pools
        .iter()
        .filter(|pool| named.as_deref().is_none_or(|name| &*pool.name == name))
        .flat_map(|pool| {
            let workers = pool.pool.workers_after(after, limit + 1, fits);
            workers.into_iter().map(move |worker| (Arc::clone(&pool), worker))
        })
        .collect();
    found.sort_by_key(|(_, worker)| worker.id);
    let mut gathering = Gathering::new(limit);
    gathering.extend(found);
    let (found, next) = gathering.finish(|(_, worker)| encode(&[&worker.id.to_string()]));
    // Looking at what each uses takes a while for a page full of large process trees.
    let look = move || found.iter().map(|(pool, worker)| Worker::new(pool, worker)).collect();
    let items = tokio::task::spawn_blocking(look).await.map_err(|_| unreadable())?;
    Ok(Json(Page { items, next }))
}

/// One worker.
#[utoipa::path(
    get, path = "/v1/workers/{id}", tag = "workers", operation_id = "getWorker",
    params(("id" = String, Path, description = "The worker's ID", example = "worker-1", pattern = "^worker-[1-9][0-9]{0,17}$")),
    responses(
        (status = 200, description = "The worker", body = Worker),
        (status = 400, description = "That is no worker ID, or a parameter is not understood", body = Document, content_type = "application/problem+json"),
        (status = 404, description = "There is no such worker", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn one(State(admin): State<Admin>, Id(id): Id, _: NoParams) -> Result<Json<Worker>, Problem> {
    let (pool, info) = find(&admin, &id)?;
    let worker = tokio::task::spawn_blocking(move || Worker::new(&pool, &info)).await.map_err(|_| unreadable())?;
    Ok(Json(worker))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogsQuery {
    /// Whether lines are streamed as they come, as server-sent events.
    #[serde(default)]
    follow: bool,
    /// The last lines alone, this many. A stream begins with them, unless it goes on behind a line that was read.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// Only lines behind the one with this number, as with the field `last-event-id`, which counts before it.
    #[param(value_type = Option<u64>)]
    last_event_id: Option<String>,
}

/// The last lines of a worker's output.
///
/// Up to 1,000 lines and 256 KiB are kept. With `follow=true` this is a stream of server-sent events: `line` with a
/// LogLine, whose number is the event's ID; `missed` at the beginning, if some of what was asked for is not kept any
/// more; `dropped` as the last one, if the lines were not read fast enough; `end` as the last one, if the worker is gone
/// or the daemon stops.
#[utoipa::path(
    get, path = "/v1/workers/{id}/logs", tag = "workers", operation_id = "getWorkerLogs",
    params(("id" = String, Path, description = "The worker's ID", example = "worker-1", pattern = "^worker-[1-9][0-9]{0,17}$"), LogsQuery),
    responses(
        (status = 200, description = "The lines, oldest first", content(
            (Page<LogLine<'static>> = "application/json"),
            (String = "text/event-stream"),
        )),
        (status = 400, description = "The ID or a parameter is not understood", body = Document, content_type = "application/problem+json"),
        (status = 404, description = "There is no such worker", body = Document, content_type = "application/problem+json"),
        (status = 409, description = "The worker is still being started", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn logs(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(query): Params<LogsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let LogsQuery { follow, limit: most, last_event_id } = query;
    let most = limit(most.as_deref())?;
    let (_, info) = find(&admin, &id)?;
    let worker = info.worker.as_ref().ok_or_else(|| {
        Problem::new(Kind::NoLogYet).detail("it is still being started; try again when its state is another one")
    })?;
    let after = sse::resume_after(&headers, last_event_id.as_deref())?;
    if follow {
        let source = logs::Following::new(worker.logs().clone(), after, most);
        return Ok(sse::respond(source, &admin.streams));
    }
    let lines = worker.logs().since(after.map_or(0, |last| last.saturating_add(1)));
    let skipped = lines.len().saturating_sub(most.unwrap_or(lines.len()));
    let items: Vec<_> = lines.iter().skip(skipped).map(LogLine::new).collect();
    Ok(Json(Page { items, next: None }).into_response())
}

fn find(admin: &Admin, id: &str) -> Result<(Arc<NamedPool>, WorkerInfo<PoolWorker>), Problem> {
    admin.pools.worker(worker_id(id)?).ok_or_else(|| {
        Problem::new(Kind::NoSuchWorker).detail("it never started, or it is gone; /v1/workers lists those that live")
    })
}

fn unreadable() -> Problem {
    Problem::new(Kind::Internal).detail("what the worker's processes use cannot be looked at; the log says why")
}
