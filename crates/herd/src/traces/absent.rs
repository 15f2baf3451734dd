//! What a build without traces has in their place.

use std::{sync::Arc, time::Duration};

use herd_gateway::Tracer;

use super::Counts;
use crate::config::settings::Telemetry;

/// No traces at all. The configuration is refused before it comes here if it asks for some.
#[derive(Clone, Debug)]
pub(crate) struct Traces(());

impl Traces {
    pub(crate) fn start(_: &Telemetry) -> anyhow::Result<Self> {
        Ok(Self(()))
    }

    pub(crate) fn tracer(&self) -> Option<Arc<dyn Tracer>> {
        None
    }

    pub(crate) fn counts(&self) -> Option<Counts> {
        None
    }

    #[expect(clippy::unused_async, reason = "that of builds with traces has something to wait for")]
    pub(crate) async fn flush(&self, _: Duration) {}
}
