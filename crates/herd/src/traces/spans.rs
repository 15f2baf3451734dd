//! From requests to spans. No span has a session's ID, a token or a query.

use std::borrow::Cow;

use herd_gateway::{Trace, TraceEnd, Tracer};
use hyper::{HeaderMap, Method, header::HeaderValue};
use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator as _,
    trace::{Span as _, SpanBuilder, SpanKind, Status, Tracer as _},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{SdkTracer, Span},
};

/// How many characters of a path a span keeps, so that nobody fills the queue with long ones.
const MOST_OF_PATH: usize = 512;

/// Makes a span of each request that is sampled.
#[derive(Debug)]
pub(super) struct Spans {
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

/// The span of one request. Its phases are events: that of a phase says when it began.
struct Request {
    span: Span,
    has_ended: bool,
}

impl Spans {
    pub(super) fn new(tracer: SdkTracer) -> Self {
        Self { tracer, propagator: TraceContextPropagator::new() }
    }
}

impl Tracer for Spans {
    fn begin(&self, method: &Method, headers: &HeaderMap) -> Option<Box<dyn Trace>> {
        let parent = self.propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let known = known_method(method);
        let builder = SpanBuilder::from_name(known.unwrap_or("HTTP"))
            .with_kind(SpanKind::Server)
            .with_attributes([KeyValue::new("http.request.method", known.unwrap_or("_OTHER"))]);
        let span = self.tracer.build_with_context(builder, &parent);
        // One that is not sampled has an ID all the same: the worker hears that it need not sample it either.
        Some(Box::new(Request { span, has_ended: false }))
    }
}

impl Trace for Request {
    fn traceparent(&self) -> HeaderValue {
        let context = self.span.span_context();
        let flags = u8::from(context.is_sampled());
        let text = format!("00-{:032x}-{:016x}-{flags:02x}", context.trace_id(), context.span_id());
        HeaderValue::try_from(text).expect("digits and dashes are allowed in a field")
    }

    fn path(&mut self, path: &str) {
        if self.span.is_recording() {
            let path = match path.char_indices().nth(MOST_OF_PATH) {
                Some((end, _)) => &path[..end],
                None => path,
            };
            self.span.set_attribute(KeyValue::new("url.path", path.to_owned()));
        }
    }

    fn phase(&mut self, name: &'static str) {
        if self.span.is_recording() {
            self.span.add_event(name, Vec::new());
        }
    }

    fn end(mut self: Box<Self>, end: &TraceEnd<'_>) {
        self.has_ended = true;
        if !self.span.is_recording() {
            return;
        }
        let status = i64::from(end.status.as_u16());
        self.span.set_attribute(KeyValue::new("http.response.status_code", status));
        if let Some(pool) = end.pool {
            self.span.set_attribute(KeyValue::new("herd.pool", pool.to_owned()));
        }
        if let Some(is_new) = end.session_is_new {
            self.span.set_attribute(KeyValue::new("herd.session.new", is_new));
        }
        if end.status.is_server_error() {
            self.span.set_attribute(KeyValue::new("error.type", status.to_string()));
            self.span.set_status(Status::Error { description: Cow::Borrowed("") });
        }
        self.span.end();
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // The span itself ends when it is dropped.
        if !self.has_ended && self.span.is_recording() {
            self.span.set_attribute(KeyValue::new("error.type", "client_went_away"));
        }
    }
}

/// The methods that the semantic conventions know; all others are one, so that nobody makes up names of spans.
/// <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>
fn known_method(method: &Method) -> Option<&'static str> {
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"]
        .into_iter()
        .find(|known| method.as_str() == *known)
}
