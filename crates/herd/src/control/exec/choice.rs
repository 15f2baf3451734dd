use std::sync::Arc;

use herd_pool::{SessionId, SessionInfo, SessionState, Tenant};
use tonic::Status;

use crate::{
    control::{service::Control, wire::ExecStart},
    pools::NamedPool,
};

/// The session that is meant, with its pool.
///
/// # Errors
/// If there is none, or several.
pub(super) fn session(control: &Control, start: &ExecStart) -> Result<(Arc<NamedPool>, SessionInfo), Status> {
    let id = SessionId::new(start.session.as_str())
        .map_err(|error| Status::invalid_argument(format!("`session` is wrong: {error}")))?;
    let is_meant = |session: &SessionInfo| {
        start.tenant.as_deref().is_none_or(|tenant| session.id.tenant().map_or("", Tenant::name) == tenant)
    };
    let pools = control.pools.iter().filter(|pool| start.pool.as_deref().is_none_or(|name| &*pool.name == name));
    let candidates = |pool: Arc<NamedPool>| {
        let sessions = pool.pool.session_candidates(id.as_str());
        sessions.into_iter().map(move |session| (Arc::clone(&pool), session))
    };
    let mut found: Vec<_> = pools.flat_map(candidates).filter(|(_, session)| is_meant(session)).collect();
    // The one that leaves has no name of its own, and its sessions are no longer reached by theirs.
    found.sort_by_key(|(pool, _)| pool.is_leaving());
    let mut found = found.into_iter();
    let (pool, session) = found.next().ok_or_else(|| Status::not_found("there is no such session"))?;
    if !found.all(|(other, namesake)| other.name == pool.name && namesake.id == session.id) {
        return Err(Status::failed_precondition(
            "several sessions have this ID; say which one is meant with `pool` and `tenant`",
        ));
    }
    match session.state {
        SessionState::Live => Ok((pool, session)),
        state => {
            let state = state.name();
            Err(Status::unavailable(format!(
                "the session is {state}, so that it has no worker to run a command beside"
            )))
        }
    }
}
