use serde::Serialize;
use utoipa::ToSchema;

use super::time;

/// One line of a worker's output. What it says comes from the worker; control characters in it are escaped.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogLine<'a> {
    /// Counts the worker's lines, from 0 and without gaps.
    sequence: u64,
    /// When it was read.
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    at: String,
    /// `stdout` or `stderr`.
    #[schema(value_type = String, example = "stdout")]
    stream: &'static str,
    #[schema(value_type = String, example = "listening on port 8080")]
    text: &'a str,
}

impl<'a> LogLine<'a> {
    pub(crate) fn new(line: &'a herd_process::LogLine) -> Self {
        Self { sequence: line.sequence, at: time(line.at), stream: line.stream.name(), text: &line.text }
    }
}
