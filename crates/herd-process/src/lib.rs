//! Workers that are processes, for a herd pool.
#![forbid(unsafe_code)]

mod builder;
mod check;
mod client;
mod connector;
mod directory;
mod error;
mod factory;
mod lines;
mod listener;
mod logs;
mod notify;
mod options;
mod output;
mod ports;
mod probe;
mod process;
mod readiness;
mod removal;
mod start;
mod template;
mod worker;

pub use builder::ProcessFactoryBuilder;
pub use client::{ClientError, HttpClient};
pub use connector::{Connector, Stream};
pub use error::{Mistake, OptionsError, StartError};
pub use factory::ProcessFactory;
pub use herd_sandbox::Signal;
pub use logs::{Follow, LogLine, Logs, OutputStream};
pub use options::{InvalidListen, Limits, Listen};
pub use readiness::{InvalidReadiness, Readiness};
pub use worker::ProcessWorker;
