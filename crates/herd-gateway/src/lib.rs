//! The HTTP front door of a pool: it reads the session from each request and passes the request to the session's
//! worker.
#![forbid(unsafe_code)]

mod admit;
mod client;
mod counters;
mod decode;
mod encode;
mod failure;
mod gateway;
mod http1;
mod options;
mod pipe;
mod request_body;
mod response_body;
mod rewrite;
mod serve;
mod session_key;
mod splice;
mod stream;
mod tasks;
mod upstream;
mod websocket;

pub use counters::GatewayStats;
pub use gateway::{ClientAddress, Gateway};
pub use options::{Forwarded, GatewayOptions, MetricsPage, Sessions};
pub use response_body::{BrokenResponse, ResponseBody};
pub use session_key::{InvalidSessionKey, SessionKey};
pub use websocket::close_code;
