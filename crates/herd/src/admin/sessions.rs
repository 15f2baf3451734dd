use std::{cmp::Ordering, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use herd_pool::{AcquireError, InvalidTenant, SessionId, SessionInfo, SessionOutline, Tenant, TenantLimits, WorkerId};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    Admin,
    extract::{Fields, Id, NoParams, Params},
    front::{self, escape},
    model::{Acquired, Ended, Session, SessionState},
    page::{Gathering, Page, bad_cursor, decode, encode, page_limit},
    problem::{Candidate, Document, Kind, Problem},
};
use crate::{control, pools::NamedPool};

/// The longest time that somebody may want to wait for a session, in milliseconds: an hour.
const LONGEST_TIMEOUT: u64 = 60 * 60 * 1000;

/// A session with its pool.
type Found = (Arc<NamedPool>, SessionInfo);

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
    state: Option<SessionState>,
    /// The pool's name.
    pool: Option<String>,
    /// The tenant's name; empty: those that belong to nobody.
    tenant: Option<String>,
    /// The worker's ID.
    #[param(value_type = Option<String>, pattern = "^worker-[1-9][0-9]{0,17}$")]
    worker: Option<String>,
    /// What the ID begins with.
    prefix: Option<String>,
}

/// Sessions, in the order of their pools' names, then of their IDs, then of their tenants.
#[utoipa::path(
    get, path = "/v1/sessions", tag = "sessions", operation_id = "listSessions", params(ListQuery),
    responses(
        (status = 200, description = "A page of sessions", body = Page<Session>),
        (status = 400, description = "A parameter is not understood", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(admin): State<Admin>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Page<Session>>, Problem> {
    let ListQuery { limit, cursor, state, pool: named, tenant, worker, prefix } = query;
    let limit = page_limit(limit.as_deref())?;
    let cursor = cursor.map(|cursor| Cursor::parse(&cursor)).transpose()?;
    let worker = worker.as_deref().map(worker_id).transpose()?;
    let fits = |session: &SessionOutline<'_>| {
        state.is_none_or(|state| state.fits(session.state))
            && tenant.as_deref().is_none_or(|tenant| is_of(session.id, tenant))
            && worker.is_none_or(|worker| session.worker == Some(worker))
            && prefix.as_deref().is_none_or(|prefix| session.id.as_str().starts_with(prefix))
    };
    let mut pools: Vec<_> = pools_named(&admin, named.as_deref()).collect();
    // One that leaves may have the name of one that came.
    pools.sort_by(|a, b| place(a).cmp(&place(b)));
    let mut gathering = Gathering::new(limit);
    for pool in &pools {
        let after = match cursor.as_ref().map(|cursor| place(pool).cmp(&(&cursor.pool, cursor.serial))) {
            Some(Ordering::Less) => continue,
            Some(Ordering::Equal) => cursor.as_ref().map(|cursor| &cursor.session),
            Some(Ordering::Greater) | None => None,
        };
        let found = pool.pool.sessions_after(after, gathering.room(), fits);
        gathering.extend(found.into_iter().map(|session| (Arc::clone(pool), session)));
        if gathering.room() == 0 {
            break;
        }
    }
    let (found, next) = gathering.finish(|(pool, session)| Cursor::of(pool, &session.id));
    Ok(Json(Page { items: found.iter().map(|(pool, session)| Session::new(pool, session)).collect(), next }))
}

/// Which of several sessions of one ID is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Choice {
    /// The pool's name.
    pool: Option<String>,
    /// The tenant's name; empty: the session that belongs to nobody.
    #[param(value_type = Option<String>, max_length = 128, pattern = "^[!-~]*$")]
    tenant: Option<String>,
}

/// One session.
#[utoipa::path(
    get, path = "/v1/sessions/{id}", tag = "sessions", operation_id = "getSession",
    params(("id" = String, Path, description = "The session's ID, percent-encoded", example = "alice", min_length = 1, max_length = 256, pattern = "^[!-~]+$"), Choice),
    responses(
        (status = 200, description = "The session", body = Session),
        (status = 400, description = "The ID or a parameter is not understood", body = Document, content_type = "application/problem+json"),
        (status = 404, description = "There is no such session or pool", body = Document, content_type = "application/problem+json"),
        (status = 409, description = "Several sessions have this ID; `candidates` tells which", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn one(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(choice): Params<Choice>,
) -> Result<Json<Session>, Problem> {
    let (pool, session) = find(&admin, &session_id(&id)?, &choice)?;
    Ok(Json(Session::new(&pool, &session)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EndQuery {
    /// Whether the worker is killed, and not asked to stop.
    #[serde(default)]
    force: bool,
    /// The pool's name.
    pool: Option<String>,
    /// The tenant's name; empty: the session that belongs to nobody.
    #[param(value_type = Option<String>, max_length = 128, pattern = "^[!-~]*$")]
    tenant: Option<String>,
    /// The worker that the session is known to have. If it has another one, it was started anew meanwhile, and stays.
    #[param(value_type = Option<String>, pattern = "^worker-[1-9][0-9]{0,17}$")]
    worker: Option<String>,
}

/// End a session.
///
/// With `worker`, it ends this one session and never a later one of the same ID. The answer comes once the session's worker is gone. The session ends whether anybody waits for the answer or not.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}", tag = "sessions", operation_id = "endSession",
    params(("id" = String, Path, description = "The session's ID, percent-encoded", example = "alice", min_length = 1, max_length = 256, pattern = "^[!-~]+$"), EndQuery),
    responses(
        (status = 200, description = "It has ended", body = Ended),
        (status = 400, description = "The ID or a parameter is not understood", body = Document, content_type = "application/problem+json"),
        (status = 404, description = "There is no such session or pool", body = Document, content_type = "application/problem+json"),
        (status = 409, description = "Several sessions have this ID, and `candidates` tells which, or the session has another worker", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn end(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(query): Params<EndQuery>,
) -> Result<Json<Ended>, Problem> {
    let EndQuery { force, pool, tenant, worker: known } = query;
    let known = known.as_deref().map(worker_id).transpose()?;
    let (pool, SessionInfo { id, worker, .. }) = find(&admin, &session_id(&id)?, &Choice { pool, tenant })?;
    if let Some(known) = known.filter(|known| worker != Some(*known)) {
        return Err(started_anew(&id, known, worker));
    }
    let session = id.clone();
    let workers = pool.pool.clone();
    // In a task of its own: the session is ended also if the client does not wait for the answer.
    let ending =
        tokio::spawn(async move { if force { workers.kill(&session).await } else { workers.end(&session).await } });
    match ending.await {
        Ok(Ok(reason)) => Ok(Json(Ended {
            pool: pool.name.to_string(),
            tenant: id.tenant().map(Tenant::to_string),
            id: id.to_string(),
            reason: reason.name().to_owned(),
        })),
        Ok(Err(_)) => Err(no_such_session(&id)),
        Err(_) => Err(Problem::new(Kind::Internal).detail("the log says what happened").session(id.as_str())),
    }
}

/// Which session is wanted.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wish {
    /// The session's ID; without one, a new session gets an ID of 128 random bits.
    #[schema(example = "alice", min_length = 1, max_length = 256, pattern = "^[!-~]+$")]
    id: Option<String>,
    /// The pool's name; without one, the pool `default`, or the only one.
    #[schema(example = "default")]
    pool: Option<String>,
    /// To whom the session belongs; without one, to nobody.
    #[schema(example = "acme", min_length = 1, max_length = 128, pattern = "^[!-~]+$")]
    tenant: Option<String>,
    /// How long to wait for a worker, in milliseconds; never longer than the pool's `acquire_timeout`, which is the
    /// default.
    #[schema(minimum = 1, maximum = 3600000, example = 5000)]
    #[serde(deserialize_with = "whole_number")]
    timeout_ms: Option<u64>,
}

/// JSON knows one kind of number: `5000.0` is as whole as `5000`.
fn whole_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    let rounded = number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..=1e15).contains(float));
    // Up to 1e15 a float holds every whole number exactly.
    let whole = number.as_u64().or(rounded.map(|float| float as u64));
    whole
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom(format!("timeout_ms: {number} is no whole number above zero")))
}

/// Start a session, or find out how to reach it.
///
/// It takes a lease of the session and gives it back at once, so that the session's idle clock begins to run. Asked for
/// again with the same ID, it answers the same session.
#[utoipa::path(
    post, path = "/v1/sessions", tag = "sessions", operation_id = "acquireSession",
    request_body(content = Option<Wish>, description = "No body and `null` are the same as an empty object"),
    responses(
        (status = 200, description = "There was such a session", body = Acquired),
        (status = 201, description = "It was started", body = Acquired, headers(("location" = String, description = "Where this API shows it"))),
        (status = 400, description = "The body or a parameter is not understood", body = Document, content_type = "application/problem+json"),
        (status = 404, description = "There is no such pool", body = Document, content_type = "application/problem+json"),
        (status = 408, description = "The body did not come in time", body = Document, content_type = "application/problem+json"),
        (status = 409, description = "Nobody could reach a session of a tenant", body = Document, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Document, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Document, content_type = "application/problem+json"),
        (status = 429, description = "The tenant has as much as it may have", body = Document, content_type = "application/problem+json", headers(("retry-after" = u64, description = "In seconds"))),
        (status = 503, description = "No worker was to be had", body = Document, content_type = "application/problem+json", headers(("retry-after" = u64, description = "In seconds"))),
    )
)]
pub(super) async fn acquire(
    State(admin): State<Admin>,
    _: NoParams,
    Fields(wish): Fields<Wish>,
) -> Result<Response, Problem> {
    let Wish { id, pool: named, tenant, timeout_ms } = wish;
    let id = match id {
        Some(id) => session_id(&id)?,
        None => random_id()?,
    };
    let id = match tenant {
        Some(name) => {
            if !control::admits_tenants(&admin.reloader.settings()) {
                return Err(Problem::new(Kind::NoTenants).detail(control::NO_TENANTS));
            }
            let tenant = admin.tenants.tenant(&name);
            id.of(&tenant.map_err(invalid_tenant)?)
        }
        None => id,
    };
    let patience = match timeout_ms {
        None => None,
        Some(millis @ 1..=LONGEST_TIMEOUT) => Some(Duration::from_millis(millis)),
        Some(_) => {
            let detail = format!("timeout_ms is no number from 1 to {LONGEST_TIMEOUT}; write one, or leave it out");
            return Err(Problem::new(Kind::BadBody).detail(detail));
        }
    };
    let pool = admin.pools.default_for_control(named.as_deref().unwrap_or_default());
    let pool = pool.filter(|_| named.as_deref() != Some("")).ok_or_else(|| no_such_pool(&admin, named.as_deref()))?;
    let acquire = pool.pool.acquire(&id);
    let lease = match patience {
        Some(patience) => tokio::time::timeout(patience, acquire)
            .await
            .unwrap_or(Err(AcquireError::TimedOut { after: patience, last_spawn_error: None })),
        None => acquire.await,
    };
    let lease = lease.map_err(|error| refused(&error).session(id.as_str()))?;
    let is_new = lease.is_new();
    // While the lease is held, only its end can take the session away.
    let session = pool.pool.session(&id);
    let info = session.ok_or_else(|| refused(&AcquireError::Draining).session(id.as_str()))?;
    drop(lease);
    // As it is without the lease, unless it had to make room for another one already.
    let session = Session::new(&pool, &pool.pool.session(&id).unwrap_or(info));
    let place = location(&session);
    let gateway = front::address(&admin.gateway, &admin.reloader.settings(), &pool.name, &id);
    let answer = Json(Acquired { session, gateway });
    if !is_new {
        return Ok(answer.into_response());
    }
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], answer).into_response())
}

/// Where a list goes on.
#[derive(Debug)]
struct Cursor {
    pool: String,
    serial: u64,
    session: SessionId,
}

impl Cursor {
    fn of(pool: &NamedPool, session: &SessionId) -> String {
        encode(&[&pool.name, &pool.serial.to_string(), session.tenant().map_or("", Tenant::name), session.as_str()])
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let [pool, serial, tenant, id] = decode(text)?;
        let serial = serial.parse().map_err(|_| bad_cursor())?;
        let session = SessionId::new(id).map_err(|_| bad_cursor())?;
        // Tenants are told apart by their names, so this one, which has no limits and no sessions, will do.
        let session = match &*tenant {
            "" => session,
            name => session.of(&Tenant::new(name, TenantLimits::default()).map_err(|_| bad_cursor())?),
        };
        Ok(Self { pool, serial, session })
    }
}

/// Where a pool's sessions stand in the list.
fn place(pool: &NamedPool) -> (&str, u64) {
    (&pool.name, pool.serial)
}

/// The only session of this ID that the choice leaves.
fn find(admin: &Admin, id: &SessionId, choice: &Choice) -> Result<Found, Problem> {
    if choice.pool.is_some() && pools_named(admin, choice.pool.as_deref()).next().is_none() {
        return Err(no_such_pool(admin, choice.pool.as_deref()));
    }
    if let Some(name) = choice.tenant.as_deref().filter(|name| !name.is_empty()) {
        Tenant::new(name, TenantLimits::default()).map_err(invalid_tenant)?;
    }
    let of_this_id = pools_named(admin, choice.pool.as_deref()).flat_map(|pool| {
        let sessions = pool.pool.session_candidates(id.as_str());
        sessions.into_iter().map(move |session| (Arc::clone(&pool), session))
    });
    let chosen = |(_, session): &Found| choice.tenant.as_deref().is_none_or(|tenant| is_of(&session.id, tenant));
    let mut found: Vec<Found> = of_this_id.filter(chosen).collect();
    if found.len() > 1 {
        // The one that leaves has no name of its own, and its sessions are no longer reached by theirs.
        found.sort_by_key(|(pool, _)| pool.is_leaving());
        let (first, rest) = (&found[0], &found[1..]);
        let is_namesake = |(pool, session): &Found| pool.name == first.0.name && session.id == first.1.id;
        if !rest.iter().all(is_namesake) {
            return Err(ambiguous(id, &found));
        }
    }
    found.into_iter().next().ok_or_else(|| no_such_session(id))
}

fn pools_named<'a>(admin: &Admin, name: Option<&'a str>) -> impl Iterator<Item = Arc<NamedPool>> + use<'a> {
    admin.pools.iter().filter(move |pool| name.is_none_or(|name| &*pool.name == name))
}

fn is_of(session: &SessionId, tenant: &str) -> bool {
    session.tenant().map_or("", Tenant::name) == tenant
}

fn random_id() -> Result<SessionId, Problem> {
    let failed = |_| Problem::new(Kind::Internal).detail("no random bytes are to be had; send an id");
    herd_gateway::random_session_id().map_err(failed)
}

fn location(session: &Session) -> HeaderValue {
    let tenant = session.tenant.as_deref().unwrap_or_default();
    let (id, pool, tenant) = (escape(&session.id), escape(&session.pool), escape(tenant));
    // All else is escaped.
    HeaderValue::from_str(&format!("/v1/sessions/{id}?pool={pool}&tenant={tenant}"))
        .unwrap_or(HeaderValue::from_static("/v1/sessions"))
}

fn refused(error: &AcquireError) -> Problem {
    let kind = match error {
        AcquireError::QueueFull { .. } => Kind::QueueFull,
        AcquireError::TenantSessions { .. } | AcquireError::TenantWaiting { .. } => Kind::TenantLimit,
        AcquireError::Spawn(_) => Kind::SpawnFailed,
        AcquireError::Ended(_) => Kind::SessionEnded,
        AcquireError::Draining | AcquireError::ShutDown => Kind::Draining,
        _ => Kind::AcquireTimeout,
    };
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    let delay = error.retry_after().unwrap_or(Duration::from_secs(5));
    Problem::new(kind).detail(format!("{error}{cause}; try again later")).retry_after(delay)
}

fn session_id(text: &str) -> Result<SessionId, Problem> {
    SessionId::new(text).map_err(|error| Problem::new(Kind::InvalidSessionId).detail(error.to_string()))
}

fn invalid_tenant(error: InvalidTenant) -> Problem {
    Problem::new(Kind::InvalidTenant).detail(error.to_string())
}

pub(super) fn worker_id(text: &str) -> Result<WorkerId, Problem> {
    let parsed = text.parse();
    parsed.map_err(|error: herd_pool::InvalidWorkerId| Problem::new(Kind::InvalidWorkerId).detail(error.to_string()))
}

fn no_such_session(id: &SessionId) -> Problem {
    Problem::new(Kind::NoSuchSession)
        .detail("it never started, or it has ended; /v1/sessions lists those that live")
        .session(id.as_str())
}

fn started_anew(id: &SessionId, known: WorkerId, worker: Option<WorkerId>) -> Problem {
    let now = worker.map_or_else(|| "another one that is being started".to_owned(), |worker| worker.to_string());
    let problem = Problem::new(Kind::SessionRestarted)
        .detail(format!("its worker is {now} and no longer {known}; look at it again before it is ended"))
        .session(id.as_str());
    worker.into_iter().fold(problem, |problem, worker| problem.worker(worker.to_string()))
}

fn ambiguous(id: &SessionId, found: &[Found]) -> Problem {
    let candidate = |(pool, session): &Found| Candidate {
        pool: pool.name.to_string(),
        tenant: session.id.tenant().map(Tenant::to_string),
    };
    Problem::new(Kind::AmbiguousSession)
        .detail("say which one is meant with ?pool= and ?tenant=, which is empty for a session that belongs to nobody")
        .session(id.as_str())
        .candidates(found.iter().map(candidate).collect())
}

fn no_such_pool(admin: &Admin, named: Option<&str>) -> Problem {
    let pools = admin.pools.iter().filter(|pool| !pool.is_leaving());
    let names: Vec<_> = pools.map(|pool| pool.name.to_string()).collect();
    let problem = if named.is_some() { "there are" } else { "there is none called default, so name one of" };
    Problem::new(Kind::NoSuchPool).detail(format!("{problem} {}", names.join(", ")))
}
