//! The wiring: requests → spans → queue → collector.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use herd_gateway::Tracer;
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracerProvider, SpanExporter as _},
};
use tokio::task::AbortHandle;

use super::{
    Counts,
    collector::{Address, Collector},
    queue::{self, Queue},
    share::Share,
    spans::Spans,
};
use crate::config::settings::Telemetry;

/// How long a collector has to take a batch.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the spans of requests go, if they go anywhere. Clones are the same; the last one to go ends the sending.
#[derive(Clone, Debug)]
pub(crate) struct Traces(Option<Arc<Exporting>>);

#[derive(Debug)]
struct Exporting {
    spans: Arc<Spans>,
    queue: Queue,
    sending: AbortHandle,
}

impl Traces {
    /// Sends spans from now on, if the settings say where to. Must be called in a runtime.
    ///
    /// # Errors
    /// If the collector's certificate could not be checked, or a variable of the OpenTelemetry exporter has a value that
    /// means nothing.
    pub(crate) fn start(telemetry: &Telemetry) -> anyhow::Result<Self> {
        let Some(endpoint) = &telemetry.otlp_endpoint else { return Ok(Self(None)) };
        let address = Address::of(endpoint).context("telemetry.otlp_endpoint is no address of a collector")?;
        let origin = address.origin();
        let told = || format!("cannot send traces to telemetry.otlp_endpoint at {origin}");
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(&address, PATIENCE).with_context(told)?)
            .with_endpoint(address.url())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(PATIENCE)
            .build()
            .with_context(told)?;
        let resource = resource();
        // The SDK tells processors of their resource; this one has given its exporter away by then.
        exporter.set_resource(&resource);
        let (queue, waiting) = queue::new();
        let sending = tokio::spawn(waiting.send(exporter, origin)).abort_handle();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Share::new(telemetry.trace_ratio))
            .with_resource(resource)
            .with_span_processor(queue.clone())
            .build();
        let spans = Arc::new(Spans::new(provider.tracer("herd")));
        Ok(Self(Some(Arc::new(Exporting { spans, queue, sending }))))
    }

    /// What follows requests.
    pub(crate) fn tracer(&self) -> Option<Arc<dyn Tracer>> {
        self.0.as_ref().map(|exporting| Arc::clone(&exporting.spans) as _)
    }

    /// `None` if no spans are sent.
    pub(crate) fn counts(&self) -> Option<Counts> {
        self.0.as_ref().map(|exporting| exporting.queue.counts())
    }

    /// Waits until the collector has what was there before, within reason.
    pub(crate) async fn flush(&self, patience: Duration) {
        if let Some(exporting) = &self.0 {
            exporting.queue.flush(patience).await;
        }
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

/// Who sends: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` count more than what is known here.
fn resource() -> Resource {
    let told = Resource::builder().build();
    let unknown = told.get(&"service.name".into()).is_none_or(|name| name.as_str().starts_with("unknown_service"));
    let mut builder = Resource::builder().with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())));
    if unknown {
        builder = builder.with_service_name("herd");
    }
    if told.get(&"service.version".into()).is_none() {
        builder = builder.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    }
    builder.build()
}
