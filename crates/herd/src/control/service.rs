//! The gRPC service `herd.v1.HerdService`.

use std::{net::SocketAddr, sync::Arc};

use futures_util::{StreamExt as _, stream::BoxStream};
use herd_pool::Tenant;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{
    NO_TENANTS, admits_tenants,
    conversation::Conversation,
    exec,
    wire::{AcquireRequest, AcquireResponse, StatusResponse, herd_service_server::HerdService},
};
use crate::{
    access::Tenants,
    draining::Draining,
    pools::{NamedPool, Pools},
    reload::Reloader,
};

/// Names the tenant of a session in a request's metadata.
const TENANT: &str = "herd-tenant";

/// What the control plane acts on. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(super) pools: Pools,
    pub(super) draining: Draining,
    /// The gateway's URL, as a process of this host reaches it.
    pub(super) gateway: Arc<str>,
    tenants: Tenants,
    reloader: Reloader,
    /// How many further commands may run in sandboxes.
    pub(super) executions: Arc<Semaphore>,
}

impl Control {
    /// `gateway` is where the gateway listens.
    pub(crate) fn new(
        pools: Pools,
        tenants: Tenants,
        draining: Draining,
        reloader: Reloader,
        gateway: SocketAddr,
    ) -> Self {
        let scheme = if reloader.settings().network.tls.is_some() { "https" } else { "http" };
        let gateway = format!("{scheme}://{}", reachable(gateway)).into();
        Self { pools, draining, gateway, tenants, reloader, executions: Arc::new(Semaphore::new(exec::MOST)) }
    }

    /// The gateway's URL, as a process of this host reaches it.
    pub(crate) fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The pool that a type of worker means.
    pub(super) fn pool(&self, worker_type: &str) -> Result<Arc<NamedPool>, Status> {
        self.pools.default_for_control(worker_type).ok_or_else(|| {
            let names: Vec<_> =
                self.pools.iter().filter(|pool| !pool.is_leaving()).map(|pool| pool.name.to_string()).collect();
            let problem = if worker_type.is_empty() {
                "no pool is the default one; name one in worker_type"
            } else {
                "no pool has the name in worker_type; there are"
            };
            Status::not_found(format!("{problem}: {}", names.join(", ")))
        })
    }

    fn tenant(&self, metadata: &MetadataMap) -> Result<Option<Tenant>, Status> {
        let mut named = metadata.get_all(TENANT).iter();
        let Some(name) = named.next() else { return Ok(None) };
        if named.next().is_some() {
            return Err(Status::invalid_argument(format!("the metadata has {TENANT} twice; a session has one tenant")));
        }
        if !admits_tenants(&self.reloader.settings()) {
            return Err(Status::failed_precondition(NO_TENANTS));
        }
        // What is not ASCII is no name either, and told like one.
        let tenant = self.tenants.tenant(name.to_str().unwrap_or_default());
        tenant
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("the metadata field {TENANT} is wrong: {error}")))
    }
}

#[tonic::async_trait]
impl HerdService for Control {
    type AcquireStream = BoxStream<'static, Result<AcquireResponse, Status>>;

    async fn acquire(
        &self,
        request: Request<Streaming<AcquireRequest>>,
    ) -> Result<Response<Self::AcquireStream>, Status> {
        let tenant = self.tenant(request.metadata())?;
        let conversation = Conversation::new(self.clone(), request.into_inner(), tenant);
        Ok(Response::new(conversation.answers().boxed()))
    }

    async fn status(&self, _: Request<()>) -> Result<Response<StatusResponse>, Status> {
        let count = |workers: usize| i32::try_from(workers).unwrap_or(i32::MAX);
        let mut counts = StatusResponse::default();
        for pool in self.pools.iter() {
            let stats = pool.pool.stats();
            counts.active_workers = counts.active_workers.saturating_add(count(stats.workers_in_session));
            counts.idle_workers = counts.idle_workers.saturating_add(count(stats.workers_spare));
            counts.max_workers = counts.max_workers.saturating_add(count(stats.max_workers));
        }
        Ok(Response::new(counts))
    }
}

/// Where a process of this host reaches a listener: one on all addresses by loopback.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let mut address = listener;
    if listener.ip().is_unspecified() {
        match &mut address {
            SocketAddr::V4(v4) => v4.set_ip([127, 0, 0, 1].into()),
            SocketAddr::V6(v6) => v6.set_ip([0, 0, 0, 0, 0, 0, 0, 1].into()),
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_on_all_addresses_is_reached_by_loopback() {
        for (listens, reached) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), reached);
        }
    }
}
