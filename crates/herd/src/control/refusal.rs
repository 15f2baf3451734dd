//! What clients of the control plane are told when there is no session for them, or no more.

use herd_pool::{AcquireError, EndReason};
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

use crate::causes::with_causes;

/// The trailer that names why a session ended.
const END_REASON: &str = "herd-end-reason";

/// Why a session could not be had. `RESOURCE_EXHAUSTED` is what the first version of the service knew alone.
pub(super) fn of_acquire(error: &AcquireError) -> Status {
    let code = match error {
        AcquireError::QueueFull { .. }
        | AcquireError::TenantSessions { .. }
        | AcquireError::TenantWaiting { .. }
        | AcquireError::TimedOut { .. } => Code::ResourceExhausted,
        AcquireError::Spawn(_) => Code::Internal,
        AcquireError::Ended(_) => Code::Aborted,
        AcquireError::Draining | AcquireError::ShutDown => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, with_causes(error))
}

/// Why the session of an open stream has ended.
pub(super) fn of_end(reason: EndReason) -> Status {
    let code = match reason {
        EndReason::Drained | EndReason::Shutdown => Code::Unavailable,
        _ => Code::Aborted,
    };
    let mut trailers = MetadataMap::new();
    trailers.insert(END_REASON, MetadataValue::from_static(reason.name()));
    Status::with_metadata(code, format!("the session ended: {reason}"), trailers)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use herd_pool::SpawnError;

    use super::*;

    #[test]
    fn what_runs_out_what_goes_away_and_what_fails_are_told_apart() {
        let spawn = SpawnError::new("it printed nonsense");
        for (error, code, message) in [
            (AcquireError::QueueFull { max_waiting: 3 }, Code::ResourceExhausted, "3 callers wait"),
            (AcquireError::TenantSessions { max_sessions: 2 }, Code::ResourceExhausted, "2"),
            (AcquireError::TenantWaiting { max_waiting: 2 }, Code::ResourceExhausted, "2"),
            (
                AcquireError::TimedOut { after: Duration::from_secs(1), last_spawn_error: Some(spawn.clone()) },
                Code::ResourceExhausted,
                "within 1s: it printed nonsense",
            ),
            (AcquireError::Spawn(spawn), Code::Internal, "could not be started: it printed nonsense"),
            (AcquireError::Ended(EndReason::Killed), Code::Aborted, "killed"),
            (AcquireError::Draining, Code::Unavailable, "draining"),
            (AcquireError::ShutDown, Code::Unavailable, "shut down"),
        ] {
            let status = of_acquire(&error);
            assert_eq!(status.code(), code, "{error:?}");
            assert!(status.message().contains(message), "{status:?}");
        }
    }

    #[test]
    fn the_end_of_a_session_names_its_reason_for_programs() {
        let status = of_end(EndReason::OutOfMemory);
        assert_eq!((status.code(), status.message()), (Code::Aborted, "the session ended: out of memory"));
        assert_eq!(status.metadata().get(END_REASON).unwrap(), "out-of-memory");
        assert_eq!(of_end(EndReason::Shutdown).code(), Code::Unavailable);
    }
}
