use axum::{Json, extract::State};

use super::{
    Admin,
    extract::NoParams,
    problem::{Document, Kind, Problem},
};
use crate::reload::{ReloadError, Reloaded};

/// Reads the configuration file again and applies it.
///
/// All of it, or nothing: what is wrong in it, what this host cannot give, and what cannot change while the daemon runs
/// leaves everything as it is. Sessions keep their workers, and new ones get workers by the new settings.
#[utoipa::path(
    post, path = "/v1/reload", tag = "daemon", operation_id = "reload",
    responses(
        (status = 200, description = "What has changed", body = Reloaded),
        (status = 400, description = "A parameter is not understood", body = Document, content_type = "application/problem+json"),
        (status = 422, description = "Nothing has: the problem's `mistakes` say why", body = Document, content_type = "application/problem+json"),
        (status = 503, description = "The daemon is stopping", body = Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn reload(State(admin): State<Admin>, _: NoParams) -> Result<Json<Reloaded>, Problem> {
    match admin.reloader.reload().await {
        Ok(reloaded) => Ok(Json(reloaded)),
        Err(error @ ReloadError::Stopping) => Err(Problem::new(Kind::Draining).detail(error.to_string())),
        Err(error @ ReloadError::NoFile) => Err(Problem::new(Kind::NotReloaded).detail(error.to_string())),
        Err(error @ ReloadError::Refused(_)) => {
            let detail = "nothing has changed; correct the file, or restart the daemon for what needs it";
            Err(Problem::new(Kind::NotReloaded).detail(detail).mistakes(error.lines()))
        }
    }
}
