/// Defines the kinds and their names in one place, so that neither is without the other.
macro_rules! kinds {
    ($($kind:ident = $name:literal,)*) => {
        /// What kind of failure a client is told about, by the name in `herd-error`. There are no others.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum FailureKind {
            $($kind,)*
        }

        impl FailureKind {
            pub(crate) const NAMES: [&'static str; [$($name,)*].len()] = [$($name,)*];
        }
    };
}

kinds! {
    BadRequest = "bad-request",
    RequestTimeout = "request-timeout",
    HeaderTooLarge = "header-too-large",
    TargetTooLong = "target-too-long",
    TlsRequired = "tls-required",
    Unauthorized = "unauthorized",
    TooManyRequests = "too-many-requests",
    ForbiddenSession = "forbidden-session",
    ForbiddenPage = "forbidden-page",
    ForbiddenEnd = "forbidden-end",
    NoRoute = "no-route",
    NoSessionId = "no-session-id",
    InvalidSessionId = "invalid-session-id",
    NoSuchSession = "no-such-session",
    NotImplemented = "not-implemented",
    TenantSessions = "tenant-sessions",
    TenantWaiting = "tenant-waiting",
    QueueFull = "queue-full",
    AcquireTimeout = "acquire-timeout",
    SpawnFailed = "spawn-failed",
    NoWorker = "no-worker",
    Draining = "draining",
    Shutdown = "shutdown",
    SessionEnded = "session-ended",
    WorkerCrashed = "worker-crashed",
    WorkerUnreachable = "worker-unreachable",
    WorkerTimeout = "worker-timeout",
    BadGateway = "bad-gateway",
    Internal = "internal",
}

impl FailureKind {
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}
