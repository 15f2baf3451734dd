use axum::{Json, extract::State, http::StatusCode};
use herd_pool::SessionId;
use serde::Deserialize;

use super::{
    Admin,
    extract::{Id, Params},
    model::{Ended, Session},
    page::{Page, PageQuery},
    problem::Problem,
};

pub(super) async fn list(
    State(admin): State<Admin>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<Session>>, Problem> {
    let page = page.cut(admin.pool.sessions(), |session| session.id.as_str().to_owned())?;
    Ok(Json(Page { items: page.items.iter().map(Session::new).collect(), next: page.next }))
}

pub(super) async fn one(State(admin): State<Admin>, Id(id): Id) -> Result<Json<Session>, Problem> {
    let id = session_id(&id)?;
    let session = admin.pool.session(&id).ok_or_else(|| no_such_session(&id))?;
    Ok(Json(Session::new(&session)))
}

#[derive(Debug, Deserialize)]
pub(super) struct EndQuery {
    #[serde(default)]
    force: bool,
}

/// Answers once the session's worker is gone.
pub(super) async fn end(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(query): Params<EndQuery>,
) -> Result<Json<Ended>, Problem> {
    let id = session_id(&id)?;
    let pool = admin.pool.clone();
    let session = id.clone();
    // In a task of its own: the session is ended also if the client does not wait for the answer.
    let ending =
        tokio::spawn(async move { if query.force { pool.kill(&session).await } else { pool.end(&session).await } });
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
