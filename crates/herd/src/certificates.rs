//! The certificates of the gateway and of the admin address, which change when their files do or the configuration does.

use std::{future::pending, sync::Arc, time::SystemTime};

use anyhow::Context as _;
use herd_gateway::Tls;
use tokio::join;

use crate::{
    config::settings::{self, Network},
    tls::{Certificate, CertificateStore},
};

const GATEWAY: &str = "network.tls";
const ADMIN: &str = "network.admin_tls";

/// Those that the settings ask for. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    gateway: Option<Arc<CertificateStore>>,
    admin: Option<Arc<CertificateStore>>,
}

/// Certificates that were read for changed settings.
#[derive(Debug)]
pub(crate) struct Renewed {
    gateway: Option<(settings::Tls, Certificate)>,
    admin: Option<(settings::Tls, Certificate)>,
}

impl Renewed {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// What is wrong with all of them.
    pub(crate) fn read(network: &Network) -> (Option<Self>, Vec<anyhow::Error>) {
        let read = |setting: &'static str, files: &Option<settings::Tls>| {
            let files = files.clone()?;
            let certificate = Certificate::read(&files).with_context(|| format!("{setting} cannot be used"));
            Some(certificate.map(|certificate| (files, certificate)))
        };
        match (read(GATEWAY, &network.tls).transpose(), read(ADMIN, &network.admin_tls).transpose()) {
            (Ok(gateway), Ok(admin)) => (Some(Self { gateway, admin }), Vec::new()),
            (gateway, admin) => (None, [gateway.err(), admin.err()].into_iter().flatten().collect()),
        }
    }
}

impl Certificates {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// If one cannot be used.
    pub(crate) fn open(network: &Network) -> anyhow::Result<Self> {
        let open = |setting, files: &Option<settings::Tls>| {
            files.as_ref().map(|files| CertificateStore::open(setting, files).map(Arc::new)).transpose()
        };
        Ok(Self { gateway: open(GATEWAY, &network.tls)?, admin: open(ADMIN, &network.admin_tls)? })
    }

    /// What the gateway's handshakes use; `None`: plain HTTP.
    pub(crate) fn gateway(&self) -> Option<Arc<Tls>> {
        self.gateway.as_ref().map(|store| store.tls())
    }

    /// What the admin address's handshakes use.
    pub(crate) fn admin(&self) -> Option<Arc<Tls>> {
        self.admin.as_ref().map(|store| store.tls())
    }

    /// Uses others from now on, for handshakes that begin. Whether there is TLS at all does not change.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub(crate) fn replace(&self, renewed: Renewed) -> anyhow::Result<()> {
        let Renewed { gateway, admin } = renewed;
        for (store, read) in [(&self.gateway, gateway), (&self.admin, admin)] {
            if let (Some(store), Some((files, certificate))) = (store, read) {
                store.replace(&files, certificate)?;
            }
        }
        Ok(())
    }

    /// When each of those in use expires, with whose it is, as far as that is known.
    pub(crate) fn expiries(&self) -> impl Iterator<Item = (&'static str, SystemTime)> {
        let stores = [("gateway", &self.gateway), ("admin", &self.admin)];
        stores.into_iter().filter_map(|(user, store)| Some((user, store.as_ref()?.expires()?)))
    }

    /// Looks after their files. Does not end by itself.
    pub(crate) async fn watch(self) {
        let watch = async |store: Option<Arc<CertificateStore>>| match store {
            Some(store) => store.watch().await,
            None => pending().await,
        };
        join!(watch(self.gateway), watch(self.admin));
    }
}
