use std::{future::Future, sync::Arc};

use tokio::sync::watch;

/// Whether the daemon has stopped taking on sessions. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draining(Arc<watch::Sender<bool>>);

impl Draining {
    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when it has begun.
    pub(crate) fn begun(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut begun = self.0.subscribe();
        async move {
            // Without a sender there is no daemon either, whose end is as good a reason.
            let _ = begun.wait_for(|begun| *begun).await;
        }
    }
}
