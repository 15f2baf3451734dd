//! TLS as operators run it: certificates come from files, and are read again when the files change.

mod certificate;
mod listener;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use herd_gateway::Tls;
use tokio::time::{MissedTickBehavior, interval};

use self::certificate::Stamps;
pub(crate) use self::{certificate::Certificate, listener::TlsListener};
use crate::config::settings;

/// How often the files are looked at. A file that changes is read at the next look after that: whoever writes a
/// certificate and then its key has not finished when the first of them is there.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate in use, and the files that it comes from.
#[derive(Debug)]
pub(crate) struct CertificateStore {
    /// The setting that names the files, for messages.
    setting: &'static str,
    tls: Arc<Tls>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    files: settings::Tls,
    /// The certificates in use, as they are sent.
    chain: Vec<Vec<u8>>,
    expires: Option<SystemTime>,
    /// That it has expired was said.
    said_expired: bool,
    /// The files as they were when they were last read, successfully or not.
    read: Stamps,
    /// The files as they were at the last look, if that was not as they were read.
    changed: Option<Stamps>,
}

impl CertificateStore {
    /// Reads the files that a setting (such as `network.tls`) names, and logs what is odd about them.
    ///
    /// # Errors
    /// If there is no certificate with its key in them.
    pub(crate) fn open(setting: &'static str, files: &settings::Tls) -> anyhow::Result<Self> {
        let certificate = Certificate::read(files).with_context(|| format!("{setting} cannot be used"))?;
        certificate.announce(setting);
        let Certificate { key, chain, expires, read, .. } = certificate;
        let tls = Arc::new(Tls::new(key).context("cannot make keys for TLS session tickets")?);
        let said_expired = expires.is_some_and(|expires| expires <= SystemTime::now());
        let state = State { files: files.clone(), chain, expires, said_expired, read, changed: None };
        Ok(Self { setting, tls, state: Mutex::new(state) })
    }

    /// What handshakes use. It stays the same object for ever.
    pub(crate) fn tls(&self) -> Arc<Tls> {
        self.tls.clone()
    }

    /// When the certificate in use expires, if that could be told.
    pub(crate) fn expires(&self) -> Option<SystemTime> {
        self.state().expires
    }

    /// Uses a certificate that was read from these files, for handshakes that begin from now on; connections go on.
    /// It was read before, so that a configuration is not applied by half.
    ///
    /// It tells whether this is another certificate than before.
    ///
    /// # Errors
    /// If the system gives no random bytes; then the one in use stays.
    pub(crate) fn replace(&self, files: &settings::Tls, certificate: Certificate) -> anyhow::Result<bool> {
        let mut state = self.state();
        let is_new = self.take(&mut state, certificate)?;
        state.files = files.clone();
        Ok(is_new)
    }

    /// Looks after the files for ever, so that a renewed certificate is used without anybody saying so.
    ///
    /// Cancel safe.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let store = self.clone();
            // Files may lie on a file system that hangs. A panic was reported where it happened.
            let _ = tokio::task::spawn_blocking(move || store.look()).await;
        }
    }

    /// Reads the files if they have changed. If they cannot be used, somebody may be writing them: that is a matter for
    /// the log if they are the same at the next look.
    fn look(&self) {
        let (files, read) = {
            let mut state = self.state();
            if !state.said_expired && state.expires.is_some_and(|expires| expires <= SystemTime::now()) {
                state.said_expired = true;
                tracing::warn!(setting = self.setting, "the certificate has expired, and clients refuse it; renew it");
            }
            (state.files.clone(), state.read)
        };
        // Nobody waits for the lock while a file system takes its time.
        let now = Stamps::of(&files);
        let certificate = (now != read).then(|| Certificate::read(&files));
        let mut state = self.state();
        if state.files != files || state.read != read {
            // A reload has come first, and knows better.
            return;
        }
        let Some(certificate) = certificate else {
            state.changed = None;
            return;
        };
        let is_settled = state.changed == Some(now);
        match certificate.and_then(|certificate| self.take(&mut state, certificate)) {
            Ok(_) => {}
            Err(_) if !is_settled => state.changed = Some(now),
            Err(error) => {
                (state.read, state.changed) = (now, None);
                tracing::warn!(
                    setting = self.setting,
                    "the certificate's files have changed, and the old one stays in use: {error:#}"
                );
            }
        }
    }

    fn take(&self, state: &mut State, certificate: Certificate) -> anyhow::Result<bool> {
        let is_new = certificate.chain != state.chain;
        if is_new {
            certificate.announce(self.setting);
        }
        let Certificate { key, chain, expires, read, .. } = certificate;
        // Other keys for tickets would cost clients their sessions, for nothing.
        if is_new {
            self.tls.replace(key).context("cannot make keys for TLS session tickets")?;
            state.said_expired = expires.is_some_and(|expires| expires <= SystemTime::now());
        }
        (state.chain, state.expires, state.read, state.changed) = (chain, expires, read, None);
        Ok(is_new)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "tls/tests.rs"]
mod tests;
