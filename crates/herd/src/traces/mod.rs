//! Traces: a span for each request, sent with OTLP over HTTP to a collector.
//!
//! Only builds with the feature `otlp` have them. Others have this type all the same, so that nobody who uses it has to
//! know.

#[cfg(not(feature = "otlp"))]
mod absent;
#[cfg(feature = "otlp")]
mod collector;
#[cfg(feature = "otlp")]
mod exporting;
#[cfg(feature = "otlp")]
mod queue;
#[cfg(feature = "otlp")]
mod share;
#[cfg(feature = "otlp")]
mod spans;

#[cfg(not(feature = "otlp"))]
pub(crate) use self::absent::Traces;
#[cfg(feature = "otlp")]
pub(crate) use self::exporting::Traces;

/// What became of the spans so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    /// Spans that the collector took.
    pub(crate) exported: u64,
    /// Spans that the collector will never get.
    pub(crate) dropped: u64,
}
