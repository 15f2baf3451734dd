//! Which requests become spans.

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceId},
};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, Sampler, SamplingResult, ShouldSample};

/// Samples a share of all requests, whatever they say of themselves.
///
/// Clients choose the flags and the ID of the trace that they continue, so neither has a say: one client could fill the
/// queue, and leave no room for others. The price is that traces from outside may be there in parts.
#[derive(Clone, Debug)]
pub(super) struct Share {
    ratio: Sampler,
    ids: RandomIdGenerator,
}

impl Share {
    /// `ratio` is from 0 to 1.
    pub(super) fn new(ratio: f64) -> Self {
        Self { ratio: Sampler::TraceIdRatioBased(ratio), ids: RandomIdGenerator::default() }
    }
}

impl ShouldSample for Share {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        _: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        // The sampler draws its lot from an ID, so it gets one that nobody has chosen.
        self.ratio.should_sample(parent, self.ids.new_trace_id(), name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::SamplingDecision;

    use super::*;

    /// How many of 10,000 requests are sampled whose client says this.
    fn sampled(ratio: f64, trace: TraceId, flags: TraceFlags) -> usize {
        let share = Share::new(ratio);
        let said = SpanContext::new(trace, SpanId::from(1), flags, true, TraceState::default());
        let parent = Context::new().with_remote_span_context(said);
        let is_sampled = |_: &usize| {
            let result = share.should_sample(Some(&parent), trace, "GET", &SpanKind::Server, &[], &[]);
            result.decision == SamplingDecision::RecordAndSample
        };
        (0..10_000).filter(is_sampled).count()
    }

    #[test]
    fn no_client_has_more_or_fewer_of_its_requests_sampled_than_others() {
        for trace in [TraceId::from(1), TraceId::from(u128::MAX), TraceId::from(1 << 64)] {
            for flags in [TraceFlags::SAMPLED, TraceFlags::NOT_SAMPLED] {
                assert_eq!(sampled(0.0, trace, flags), 0);
                assert_eq!(sampled(1.0, trace, flags), 10_000);
                // Of a thousand that are expected, 250 more or fewer are eight standard deviations away.
                let tenth = sampled(0.1, trace, flags);
                assert!((750..1250).contains(&tenth), "{tenth} of {trace} {flags:?}");
            }
        }
    }
}
