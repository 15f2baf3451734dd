//! How values are written in a file: what reads each, and what the schema says of it. One place has both, so that the
//! file's reader and `herd schema` cannot disagree.

use std::{ffi::OsString, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use herd_process::{Readiness, Signal};
use herd_sandbox::Reach;

use super::value::{self, Refusal, Word};

/// How one kind of single value is written.
#[derive(Debug)]
pub(super) struct Form<T> {
    pub(super) read: fn(&str) -> Result<T, Refusal>,
    pub(super) shape: Shape,
    /// Whether it may be a secret, or hold one, so that mistakes do not quote it.
    pub(super) secret: bool,
}

// Whatever `T` is: a derived one would ask for copies of it.
impl<T> Clone for Form<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Form<T> {}

/// What a value looks like, as far as JSON Schema can say it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// Any text, also one that YAML takes for a number or a boolean.
    Text,
    /// A text that matches, and numbers in the range if there is one.
    Pattern(&'static str, Option<(i64, i64)>),
    Words(fn() -> Vec<&'static str>),
    Boolean,
    Integer(i64, u64),
    Number(f64, f64),
}

impl Shape {
    /// Whether it is no text, so that quotes are a mistake.
    pub(super) fn is_plain(self) -> bool {
        matches!(self, Self::Boolean | Self::Integer(..) | Self::Number(..))
    }
}

impl<T> Form<T> {
    const fn text(read: fn(&str) -> Result<T, Refusal>) -> Self {
        Self { read, shape: Shape::Text, secret: false }
    }

    const fn pattern(read: fn(&str) -> Result<T, Refusal>, pattern: &'static str) -> Self {
        Self { read, shape: Shape::Pattern(pattern, None), secret: false }
    }

    const fn integer(read: fn(&str) -> Result<T, Refusal>, min: i64, max: u64) -> Self {
        Self { read, shape: Shape::Integer(min, max), secret: false }
    }

    const fn number(read: fn(&str) -> Result<T, Refusal>, min: f64, max: f64) -> Self {
        Self { read, shape: Shape::Number(min, max), secret: false }
    }

    /// The numbers from `min` to `max` as well, where YAML takes the text for one.
    const fn or(self, min: i64, max: i64) -> Self {
        let shape = match self.shape {
            Shape::Pattern(pattern, _) => Shape::Pattern(pattern, Some((min, max))),
            other => other,
        };
        Self { shape, ..self }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }
}

/// A word out of a closed set.
pub(super) fn word<T: Word>() -> Form<T> {
    Form { read: T::read, shape: Shape::Words(|| T::WORDS.iter().map(|(word, _)| *word).collect()), secret: false }
}

/// The most that a JSON schema can name as a bound without any reader rounding it.
const LARGEST: u64 = (1 << 53) - 1;
/// As many mebibytes as 1 EiB has.
const MOST_MEBIBYTES: u64 = 1 << 40;
const TIME: &str = r"^(0|([0-9]*\.?[0-9]*(ns|us|µs|μs|ms|s|m|h|d))+)$";
const TIME_ABOVE_ZERO: &str = r"^(?=.*[1-9])([0-9]*\.?[0-9]*(ns|us|µs|μs|ms|s|m|h|d))+$";
const ADDRESS: &str = r"^(localhost|[0-9.]+|\[[0-9a-fA-F:.%]+\]):[0-9]{1,5}$";
const PATH: &str = "^/";
const FILE: &str = "^/.*[^/]$";
const HTTP_PATH: &str = r"^/[!-\x22$-~]*$";
const HOST: &str = r"^[A-Za-z0-9_.:\[\]-]+$";
const URL: &str = "^[hH][tT][tT][pP][sS]?://[^#@ ]+$";
const NAME: &str = "^[!-~]+$";

pub(super) const BOOLEAN: Form<bool> = Form { read: value::boolean, shape: Shape::Boolean, secret: false };
pub(super) const NUMBER: Form<usize> = Form::integer(value::number, 0, LARGEST);
pub(super) const POSITIVE: Form<usize> = Form::integer(value::positive_number, 1, LARGEST);
pub(super) const RATE: Form<u32> = Form::integer(value::rate, 1, u32::MAX as u64);
pub(super) const PORT: Form<u16> = Form::integer(value::worker_port, 1024, 65535);
pub(super) const OPEN_FILES: Form<u64> = Form::integer(value::open_files, 16, 1 << 20);
pub(super) const MEBIBYTES: Form<u64> = Form::integer(value::mebibytes, 0, MOST_MEBIBYTES);
pub(super) const POSITIVE_MEBIBYTES: Form<u64> = Form::integer(value::positive_mebibytes, 1, MOST_MEBIBYTES);
pub(super) const PIDS: Form<Option<u32>> = Form::integer(value::pids, -1, u32::MAX as u64);
pub(super) const CORES: Form<f64> = Form::number(value::cores, 0.0, 10_000.0);
pub(super) const RATIO: Form<f64> = Form::number(value::ratio, 0.0, 1.0);

pub(super) const DURATION: Form<Duration> = Form::pattern(value::duration, TIME).or(0, 0);
pub(super) const POSITIVE_DURATION: Form<Duration> = Form::pattern(value::positive_duration, TIME_ABOVE_ZERO);
pub(super) const ADDRESS_OF_GATEWAY: Form<SocketAddr> = Form::pattern(value::address, ADDRESS);
pub(super) const ADDRESS_OR_OFF: Form<Option<SocketAddr>> =
    Form::pattern(value::admin_address, r"^(off|(localhost|[0-9.]+|\[[0-9a-fA-F:.%]+\]):[0-9]{1,5})$");
pub(super) const SOCKET: Form<PathBuf> = Form::pattern(value::socket_path, FILE);
pub(super) const SECRET_FILE: Form<PathBuf> = Form::pattern(value::file_path, FILE);
pub(super) const DIRECTORY: Form<PathBuf> = Form::pattern(value::plain_path, PATH);
pub(super) const MOUNTED: Form<PathBuf> = Form::pattern(value::mounted_path, "^/.*[^/].*$");
pub(super) const WORKING_DIRECTORY: Form<PathBuf> = Form::pattern(value::worker_directory, r"^(/|\{\{\.)");
pub(super) const SESSION_KEY: Form<String> =
    Form::pattern(value::session_key, r"^((header|cookie|query):.+|path:[0-9]+|host)(,.+)?$");
pub(super) const ARGUMENT: Form<OsString> = Form::text(|text| Ok(text.into()));
pub(super) const VARIABLE: Form<(String, String)> = Form::pattern(value::variable, "^[A-Za-z_][A-Za-z0-9_]*=");
pub(super) const READINESS: Form<Readiness> =
    Form::pattern(value::ready, "^(http|http:/.*|tcp|socket|stdout:.+|notify|command:.+)$");
pub(super) const PAGE: Form<String> = Form::pattern(value::http_path, HTTP_PATH);
pub(super) const SIGNAL: Form<Signal> = Form::pattern(value::signal, "^([A-Za-z][A-Za-z0-9+-]*|[0-9]+)$").or(1, 64);
pub(super) const UID_RANGE: Form<RangeInclusive<u32>> = Form::pattern(value::uid_range, "^ *[0-9]+ *- *[0-9]+ *$");
pub(super) const REACH: Form<Reach> =
    Form::pattern(value::reach, r"^(private|metadata|loopback|host|[0-9]+(\.[0-9]+){3}(/[0-9]+)?)$");

pub(super) const POOL_NAME: Form<String> = Form::pattern(value::pool_name, "^[a-z][a-z0-9_-]{0,63}$");
pub(super) const HOST_PATTERN: Form<String> = Form::pattern(value::host_pattern, r"^(\*\.)?[A-Za-z0-9_.:\[\]-]+$");
pub(super) const HOST_NAME: Form<String> = Form::pattern(value::host_name, HOST);
pub(super) const PATH_PREFIX: Form<String> = Form::pattern(value::path_prefix, r"^(/[A-Za-z0-9._~!$&'()*+,=:@-]+)+$");
pub(super) const HEADER: Form<(String, Option<String>)> =
    Form::pattern(value::header_condition, "^[A-Za-z0-9!#$%&'*+.^_`|~-]+(=[ -~]*)?$").or(0, i64::MAX);

pub(super) const LABEL: Form<String> = Form::pattern(value::label, "^[!-~]{1,64}$").or(0, i64::MAX);
pub(super) const TENANT: Form<String> = Form::pattern(value::tenant, "^[!-~]{1,128}$").or(0, i64::MAX);
/// Whoever pastes the token itself here by mistake shall not find it in a log.
pub(super) const SHA256: Form<[u8; 32]> = Form::pattern(value::sha256, "^[0-9a-fA-F]{64}$").secret();
pub(super) const CLAIM: Form<String> = Form::pattern(value::claim, NAME);
pub(super) const AUDIENCE: Form<String> = Form::text(value::claim_value);
pub(super) const LEEWAY: Form<Duration> = Form::pattern(value::leeway, TIME).or(0, 0);
pub(super) const PARAMETER: Form<String> = Form::pattern(value::parameter, "^[A-Za-z0-9._~-]+$").or(0, i64::MAX);
/// Receivers hide secrets in the paths of their addresses.
pub(super) const HOOK_URL: Form<String> = Form::pattern(value::url, URL).secret();
pub(super) const COLLECTOR_URL: Form<String> = Form::pattern(value::url, URL);
pub(super) const EVENT: Form<String> =
    Form { read: value::event, shape: Shape::Words(|| value::EVENTS.to_vec()), secret: false };
