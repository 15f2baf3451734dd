use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use herd_pool::{SessionId, SessionInfo, Tenant};
use serde::Deserialize;

use super::{
    Admin,
    extract::{Id, Params},
    model::{Ended, Session},
    page::{Page, PageQuery},
    problem::Problem,
};
use crate::pools::NamedPool;

pub(super) async fn list(
    State(admin): State<Admin>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<Session>>, Problem> {
    let all = admin.pools.iter().flat_map(|pool| {
        let sessions = pool.pool.sessions();
        sessions.into_iter().map(move |session| (Arc::clone(&pool), session))
    });
    // No part of the key has a space in it.
    let key = |(pool, session): &Found| {
        let tenant = session.id.tenant().map_or("", Tenant::name);
        format!("{} {tenant} {} {}", session.id.as_str(), pool.name, pool.is_leaving())
    };
    let page = page.cut(all.collect(), key)?;
    let items = page.items.iter().map(|(pool, session)| Session::new(pool, session)).collect();
    Ok(Json(Page { items, next: page.next }))
}

pub(super) async fn one(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(choice): Params<Choice>,
) -> Result<Json<Session>, Problem> {
    let (pool, session) = find(&admin, &session_id(&id)?, &choice)?;
    Ok(Json(Session::new(&pool, &session)))
}

/// A session with its pool.
type Found = (Arc<NamedPool>, SessionInfo);

/// Which of several sessions of one ID is meant.
#[derive(Debug, Deserialize)]
pub(super) struct Choice {
    pool: Option<String>,
    tenant: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct EndQuery {
    #[serde(default)]
    force: bool,
    pool: Option<String>,
    tenant: Option<String>,
}

/// The only session of this ID that the choice leaves.
fn find(admin: &Admin, id: &SessionId, choice: &Choice) -> Result<Found, Problem> {
    let Choice { pool: named, tenant } = choice;
    let pools = admin.pools.iter().filter(|pool| named.as_deref().is_none_or(|name| *pool.name == *name));
    let mut found: Vec<_> = pools
        .flat_map(|pool| {
            let sessions = pool.pool.sessions();
            sessions.into_iter().map(move |session| (Arc::clone(&pool), session))
        })
        .filter(|(_, session)| session.id.as_str() == id.as_str())
        .filter(|(_, session)| tenant.is_none() || tenant.as_deref() == session.id.tenant().map(Tenant::name))
        .collect();
    match found.len() {
        0 => Err(no_such_session(id)),
        1 => Ok(found.remove(0)),
        _ => {
            let place = |(pool, session): &Found| match session.id.tenant() {
                Some(tenant) => format!("pool={}&tenant={tenant}", pool.name),
                None => format!("pool={}", pool.name),
            };
            let places: Vec<_> = found.iter().map(place).collect();
            let detail = format!("say which one is meant: {}", places.join(", "));
            Err(Problem::new(StatusCode::CONFLICT, "Several sessions have this ID").detail(detail).session(id.as_str()))
        }
    }
}

/// Answers once the session's worker is gone.
pub(super) async fn end(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(query): Params<EndQuery>,
) -> Result<Json<Ended>, Problem> {
    let EndQuery { force, pool, tenant } = query;
    let (pool, found) = find(&admin, &session_id(&id)?, &Choice { pool, tenant })?;
    let (pool, id) = (pool.pool.clone(), found.id);
    let session = id.clone();
    // In a task of its own: the session is ended also if the client does not wait for the answer.
    let ending =
        tokio::spawn(async move { if force { pool.kill(&session).await } else { pool.end(&session).await } });
    match ending.await {
        Ok(Ok(reason)) => Ok(Json(Ended { id: id.to_string(), reason: reason.name().to_owned() })),
        Ok(Err(_)) => Err(no_such_session(&id)),
        Err(_) => {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The session could not be ended").session(id.as_str()))
        }
    }
}

fn session_id(text: &str) -> Result<SessionId, Problem> {
    SessionId::new(text)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "That is no session ID").detail(error.to_string()))
}

fn no_such_session(id: &SessionId) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "There is no such session")
        .detail("it never started, or it has ended; /v1/sessions lists those that live")
        .session(id.as_str())
}
