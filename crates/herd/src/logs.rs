//! Log lines: text for people at a terminal, JSON for programs, always on standard error.

use std::{
    io::{self, IsTerminal as _},
    sync::OnceLock,
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _, Registry, filter::Targets, fmt, layer::SubscriberExt as _, registry, reload,
    util::SubscriberInitExt as _,
};

use crate::{
    config::settings::{LogFormat, LogLevel, Telemetry},
    console::colours_errors,
};

/// What of each format is written. There is a layer for each, and one of them writes nothing.
static FILTERS: OnceLock<[(LogFormat, Filter); 2]> = OnceLock::new();

/// A filter that can be exchanged.
type Filter = reload::Handle<Targets, Registry>;

/// Starts logging as the settings say. Called once.
pub(crate) fn start(telemetry: &Telemetry) {
    let (json, json_filter) = reload::Layer::new(targets(telemetry, LogFormat::Json));
    let (text, text_filter) = reload::Layer::new(targets(telemetry, LogFormat::Text));
    let lines = || fmt::layer().with_writer(io::stderr);
    let in_json = lines().json().flatten_event(true).with_current_span(true).with_span_list(false);
    let in_text = lines().with_ansi(colours_errors());
    let layers = vec![in_json.with_filter(json).boxed(), in_text.with_filter(text).boxed()];
    // A second call could only come from a mistake in here, and a daemon that logs twice is no reason to die.
    if registry().with(layers).try_init().is_ok() {
        let _ = FILTERS.set([(LogFormat::Json, json_filter), (LogFormat::Text, text_filter)]);
    }
}

/// Logs as other settings say from now on.
pub(crate) fn change(telemetry: &Telemetry) {
    for (format, filter) in FILTERS.get().into_iter().flatten() {
        // It fails only when nothing is logged any more.
        let _ = filter.reload(targets(telemetry, *format));
    }
}

/// What is written in this format.
fn targets(telemetry: &Telemetry, format: LogFormat) -> Targets {
    let default = if io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json };
    if format != telemetry.log_format.unwrap_or(default) {
        return Targets::new();
    }
    let level = match telemetry.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Libraries' lines below a warning may hold headers, and so credentials. All of herd's crates begin with this word.
    Targets::new().with_target("herd", level).with_default(level.min(LevelFilter::WARN))
}
