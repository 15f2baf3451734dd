//! Log lines: text for people at a terminal, JSON for programs, always on standard error.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _,
};

use crate::config::settings::{LogFormat, LogLevel, Telemetry};

/// Starts logging as the settings say. Called once.
pub(crate) fn start(telemetry: &Telemetry) {
    let level = match telemetry.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Libraries' lines below a warning may hold headers, and so credentials. All of herd's crates begin with this word.
    let targets = Targets::new().with_target("herd", level).with_default(level.min(LevelFilter::WARN));
    let at_terminal = io::stderr().is_terminal();
    let format = telemetry.log_format.unwrap_or(if at_terminal { LogFormat::Text } else { LogFormat::Json });
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        LogFormat::Text => lines.with_ansi(at_terminal && wants_colours()).boxed(),
    };
    // A second call could only come from a mistake in here, and a daemon that logs twice is no reason to die.
    let _ = registry().with(lines.with_filter(targets)).try_init();
}

/// <https://no-color.org>: any text in the variable switches colours off.
fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
