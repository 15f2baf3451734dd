//! How single values are written: durations, sizes, addresses, ranges. Flags and the file share these.

mod names;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use herd_process::{Readiness, Signal};
use herd_sandbox::Reach;

pub(crate) use self::names::{
    EVENTS, claim, claim_value, event, header_condition, host_name, host_pattern, label, leeway, parameter,
    path_prefix, pool_name, sha256, tenant, url,
};

/// Why a text is not the value that is wanted, and what would be one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) problem: String,
    pub(crate) remedy: String,
    pub(crate) quote: Quote,
}

/// How much of a refused text may be quoted: it could be a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Quote {
    All,
    Part(String),
    Nothing,
}

impl Refusal {
    pub(crate) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into(), quote: Quote::All }
    }

    /// Quotes this part alone.
    pub(crate) fn part(self, part: &str) -> Self {
        Self { quote: Quote::Part(part.to_owned()), ..self }
    }

    /// Quotes nothing.
    pub(crate) fn unquoted(self) -> Self {
        Self { quote: Quote::Nothing, ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

impl std::error::Error for Refusal {}

/// The longest duration, a hundred years: far from where adding it to a clock overflows.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// `500ms`, `15m`, `1h30m`, `1.5h`, `7d`, `0`.
pub(crate) fn duration(text: &str) -> Result<Duration, Refusal> {
    let refuse = |problem: &str| Err(Refusal::new(problem, "write a duration such as 500ms, 15m or 1h30m"));
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return refuse("is no duration");
    }
    let mut nanos = 0_f64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_len);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "d" => 86400e9,
            "" => return refuse("has a number without a unit (ms, s, m, h, d)"),
            _ => return refuse("is no duration"),
        };
        let Ok(number) = number.parse::<f64>() else { return refuse("is no duration") };
        nanos += number * scale;
        rest = next;
    }
    if nanos > LONGEST.as_nanos() as f64 {
        return Err(Refusal::new("is longer than a hundred years", "write a shorter duration"));
    }
    Ok(Duration::from_nanos(nanos.round() as u64))
}

/// A duration that is not zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, Refusal> {
    match duration(text)? {
        Duration::ZERO => Err(Refusal::new("is zero", "write a duration above zero, such as 500ms or 15m")),
        other => Ok(other),
    }
}

/// Bytes: `512MiB`, `2GiB`, `64KiB`, `500MB`, `1048576B`, `0`. Without a unit it could be meant in any.
pub(crate) fn size(text: &str) -> Result<u64, Refusal> {
    let refuse = |problem: &str| Refusal::new(problem, "write a size such as 512MiB, 2GiB or 500MB");
    if text == "0" {
        return Ok(0);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim_start() {
        "" if !number.is_empty() => return Err(refuse("has a number without a unit (B, KiB, MiB, GiB)")),
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" | "m" => 1 << 20,
        "GiB" | "G" | "g" => 1 << 30,
        _ => return Err(refuse("is no size")),
    };
    let number: u64 = number.parse().map_err(|_| refuse("is no size"))?;
    number.checked_mul(scale).filter(|bytes| *bytes <= 1 << 60).ok_or_else(|| refuse("is more than any machine has"))
}

/// How many cores: `0.5`, `2`. Zero means no limit.
pub(crate) fn cores(text: &str) -> Result<f64, Refusal> {
    let refuse = || Refusal::new("is no number of cores", "write a number such as 0.5 or 2 (0 means no limit)");
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let cores: f64 = text.parse().ok().filter(|_| plain).ok_or_else(refuse)?;
    // The kernel takes a quota of at least a millisecond in each period of 100.
    if cores != 0.0 && !(0.01..=10_000.0).contains(&cores) {
        return Err(Refusal::new("is out of range", "write at least 0.01 cores and at most 10000 (0 means no limit)"));
    }
    Ok(cores)
}

/// `pids_limit`: a positive number, or -1 for none.
pub(crate) fn pids(text: &str) -> Result<Option<u32>, Refusal> {
    let refuse = || Refusal::new("is no limit of processes", "write a number above 0, or -1 for no limit");
    if text == "-1" {
        return Ok(None);
    }
    number::<u32>(text).map_err(|_| refuse()).and_then(|n| if n == 0 { Err(refuse()) } else { Ok(Some(n)) })
}

/// `memory_limit_mb`: mebibytes, as bytes. Zero means no limit.
pub(crate) fn mebibytes(text: &str) -> Result<u64, Refusal> {
    let refuse = || Refusal::new("is no number of mebibytes", "write a number such as 512 (0 means no limit)");
    number::<u64>(text).ok().and_then(|n| n.checked_mul(1 << 20)).filter(|n| *n <= 1 << 60).ok_or_else(refuse)
}

/// `tmp_limit_mb`: mebibytes above zero, as bytes.
pub(crate) fn positive_mebibytes(text: &str) -> Result<u64, Refusal> {
    mebibytes(text)
        .ok()
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| Refusal::new("is no number of mebibytes above 0", "write a number such as 64"))
}

/// A port that needs no privilege: the first 1024 do, see ip(7).
pub(crate) fn worker_port(text: &str) -> Result<u16, Refusal> {
    number::<u16>(text)
        .ok()
        .filter(|port| *port >= 1024)
        .ok_or_else(|| Refusal::new("is no port for a worker", "write a number from 1024 to 65535, such as 8000"))
}

/// `70000-70999`: user IDs that stand for nobody else.
pub(crate) fn uid_range(text: &str) -> Result<RangeInclusive<u32>, Refusal> {
    let refuse = |problem: &str| Refusal::new(problem, "write FIRST-LAST such as 2100000000-2100065535");
    let (first, last) = text.split_once('-').ok_or_else(|| refuse("is no range of user IDs"))?;
    let id = |text: &str| number::<u32>(text.trim()).map_err(|_| refuse("is no range of user IDs"));
    let (first, last) = (id(first)?, id(last)?);
    match (first, last) {
        (0, _) => Err(refuse("begins with 0, which is root")),
        // Calls that set an ID take it for "leave it as it is", see setresuid(2).
        (_, u32::MAX) => Err(refuse("ends with 4294967295, which is no user ID")),
        _ if first > last => Err(refuse("has its smaller number last")),
        _ => Ok(first..=last),
    }
}

/// `private`, `metadata`, `loopback`, `host`, `10.1.2.0/24`, `192.0.2.7`.
pub(crate) fn reach(text: &str) -> Result<Reach, Refusal> {
    text.parse().map_err(|_| {
        let remedy = "allowed: private, metadata, loopback, host, an IPv4 address, or addresses such as 10.1.2.0/24 \
                      whose bits after the prefix are 0; names of hosts are not looked up";
        Refusal::new("is nothing that a worker could be allowed to reach", remedy)
    })
}

/// How many files a process may have open.
pub(crate) fn open_files(text: &str) -> Result<u64, Refusal> {
    let refuse = || Refusal::new("is no limit of open files", "write a number from 16 to 1048576, such as 4096");
    number::<u64>(text).ok().filter(|n| (16..=1 << 20).contains(n)).ok_or_else(refuse)
}

/// One source of session IDs. The answer is the text, which is known to be one.
pub(crate) fn session_key(text: &str) -> Result<String, Refusal> {
    let remedy = "allowed: header:NAME, cookie:NAME, query:NAME, path:N, host";
    match text.parse::<herd_gateway::SessionKey>() {
        Ok(_) => Ok(text.to_owned()),
        Err(herd_gateway::InvalidSessionKey::Header { .. }) => {
            Err(Refusal::new("names no header that could carry a session ID", remedy))
        }
        Err(_) => Err(Refusal::new("is no session key", remedy)),
    }
}

/// What shows that a worker is ready.
pub(crate) fn ready(text: &str) -> Result<Readiness, Refusal> {
    text.parse().map_err(|_| {
        let remedy = "allowed: http, http:/PATH, tcp, socket, stdout:REGEX, notify, command:TEXT";
        Refusal::new("is not a way to be ready", remedy)
    })
}

/// A whole number without sign.
pub(crate) fn number<T: std::str::FromStr>(text: &str) -> Result<T, Refusal> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| Refusal::new("is no whole number in range", "write a number such as 10"))
}

/// A whole number above zero.
pub(crate) fn positive_number(text: &str) -> Result<usize, Refusal> {
    number::<usize>(text)
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| Refusal::new("is no whole number above 0", "write a number such as 10"))
}

/// A whole number above zero, of as many as there may be in a second.
pub(crate) fn rate(text: &str) -> Result<u32, Refusal> {
    let refuse = || Refusal::new("is no whole number above 0", "write a number such as 100");
    number::<u32>(text).ok().filter(|n| *n > 0).ok_or_else(refuse)
}

/// A share: 0 to 1.
pub(crate) fn ratio(text: &str) -> Result<f64, Refusal> {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let refuse = || Refusal::new("is no share", "write a number from 0 to 1, such as 0.1");
    text.parse().ok().filter(|ratio| plain && (0.0..=1.0).contains(ratio)).ok_or_else(refuse)
}

pub(crate) fn boolean(text: &str) -> Result<bool, Refusal> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err(Refusal::new("is neither true nor false", "write true or false")),
    }
}

/// `1..10`, or `4` for exactly four.
pub(crate) fn worker_range(text: &str) -> Result<(usize, usize), Refusal> {
    let refuse = || Refusal::new("is no range of workers", "write MIN..MAX such as 1..10, with MAX at least 1");
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    let min: usize = number(min).map_err(|_| refuse())?;
    let max: usize = number(max).map_err(|_| refuse())?;
    if max == 0 {
        return Err(refuse());
    }
    if min > max {
        return Err(Refusal::new("has its smaller number last", "write MIN..MAX such as 1..10"));
    }
    Ok((min, max))
}

/// `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`; port 0 lets the system choose one.
pub(crate) fn address(text: &str) -> Result<SocketAddr, Refusal> {
    if let Some(port) = text.strip_prefix("localhost:")
        && let Ok(port) = number(port)
    {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| {
        let remedy = match text.strip_prefix(':') {
            Some(_) => "write an IP before it: 127.0.0.1, or 0.0.0.0 for all interfaces",
            None => "write IP:PORT such as 127.0.0.1:8080 or [::1]:8080",
        };
        Refusal::new("is no address", remedy)
    })
}

/// An address, or `off`.
pub(crate) fn admin_address(text: &str) -> Result<Option<SocketAddr>, Refusal> {
    if text == "off" { Ok(None) } else { address(text).map(Some) }
}

/// The most bytes of a Unix socket's path: `sun_path` has 108 with the final zero, unix(7).
pub(crate) const LONGEST_SOCKET_PATH: usize = 107;

/// An absolute path that fits into a socket address.
pub(crate) fn socket_path(text: &str) -> Result<PathBuf, Refusal> {
    if !text.starts_with('/') {
        return Err(Refusal::new("is not an absolute path", "write a path that starts with /"));
    }
    if text.ends_with('/') || text.contains('\0') {
        return Err(Refusal::new("names no file", "write the path of the socket, such as /run/herd/herd.sock"));
    }
    if text.len() > LONGEST_SOCKET_PATH {
        return Err(Refusal::new(
            format!("has {} bytes, and the kernel takes {LONGEST_SOCKET_PATH} for a socket", text.len()),
            "choose a shorter path",
        ));
    }
    Ok(PathBuf::from(text))
}

/// An absolute path that could be a file's.
pub(crate) fn file_path(text: &str) -> Result<PathBuf, Refusal> {
    let path = plain_path(text)?;
    if text.ends_with('/') {
        return Err(Refusal::new("names no file", "write the path of the file"));
    }
    Ok(path)
}

/// A directory for workers: an absolute path, or one below their workspace.
pub(crate) fn worker_directory(text: &str) -> Result<PathBuf, Refusal> {
    let relative = ["{{.Port}}", "{{.WorkerID}}"].iter().any(|template| text.starts_with(template));
    // Of a name that nobody knows, the factory says so.
    let begins_with_template = text.starts_with("{{.") && !relative && !text.contains('\0');
    if begins_with_template { Ok(PathBuf::from(text)) } else { absolute_path(text) }
}

/// An absolute path.
pub(crate) fn absolute_path(text: &str) -> Result<PathBuf, Refusal> {
    if text.starts_with('/') && !text.contains('\0') {
        Ok(PathBuf::from(text))
    } else {
        Err(Refusal::new("is not an absolute path", "write a path that starts with /"))
    }
}

/// An absolute path without detours, so that it can be compared with others.
pub(crate) fn plain_path(text: &str) -> Result<PathBuf, Refusal> {
    if text.contains("{{") {
        return Err(Refusal::new("has a template in it, which means nothing here", "write the path itself"));
    }
    let path = absolute_path(text)?;
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Refusal::new("has `..` in it", "write the path without"));
    }
    // `.` and repeated slashes are no parts.
    Ok(path.components().collect())
}

/// A path of the host that workers see, or do not.
pub(crate) fn mounted_path(text: &str) -> Result<PathBuf, Refusal> {
    let path = plain_path(text)?;
    if path == Path::new("/") {
        return Err(Refusal::new("is the whole file system of the host", "name the directories that are meant"));
    }
    for own in ["/proc", "/sys", "/dev"] {
        if path.starts_with(own) {
            let problem = format!("belongs to {own}, of which a worker sees its own or nothing");
            return Err(Refusal::new(problem, "leave it out"));
        }
    }
    for own in ["/workspace", "/run/herd"] {
        if path.starts_with(own) {
            let problem = format!("belongs to {own}, which is each worker's own");
            return Err(Refusal::new(problem, "choose another path, or leave it out"));
        }
    }
    Ok(path)
}

/// A path on the workers' or the gateway's HTTP: starts with `/`, visible ASCII only.
pub(crate) fn http_path(text: &str) -> Result<String, Refusal> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new("is no HTTP path", "write a path such as /health, without spaces"))
    }
}

/// `K=V` with a name that a shell could use.
pub(crate) fn variable(text: &str) -> Result<(String, String), Refusal> {
    let remedy = "write NAME=VALUE";
    let Some((name, value)) = text.split_once('=') else {
        return Err(Refusal::new("has no =", remedy));
    };
    let first_is_digit = name.starts_with(|c: char| c.is_ascii_digit());
    if name.is_empty() || first_is_digit || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        let remedy = "write NAME=VALUE with a NAME of letters, digits and _";
        return Err(Refusal::new("is no name of a variable", remedy).part(name));
    }
    if value.contains('\0') {
        return Err(Refusal::new("has a value with a zero byte", remedy).part(name));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// `TERM`, `SIGTERM` or `15`.
pub(crate) fn signal(text: &str) -> Result<Signal, Refusal> {
    text.parse().map_err(|_| Refusal::new("is no signal", "write its name or number, such as TERM, SIGTERM or 15"))
}

/// A word out of a closed set, each with what it means.
pub(crate) trait Word: Copy + 'static {
    /// All words of the set.
    const WORDS: &'static [(&'static str, Self)];

    fn read(text: &str) -> Result<Self, Refusal> {
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = Self::WORDS.iter().map(|(word, _)| *word).collect();
            let hint = match nearest(text, &words) {
                Some(word) => format!("did you mean {word}? allowed: {}", words.join(", ")),
                None => format!("allowed: {}", words.join(", ")),
            };
            Refusal::new("is not one of the words allowed here", hint)
        })
    }
}

/// The word that `text` was most likely meant to be.
pub(crate) fn nearest<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    let text = text.to_ascii_lowercase().replace('-', "_");
    // Of a longer or shorter form, such as `warning` for `warn`, the distance is large.
    let same_stem = |word: &str| word.len().min(text.len()) >= 3 && (text.starts_with(word) || word.starts_with(&text));
    let mut stems = words.iter().filter(|word| same_stem(word));
    if let (Some(word), None) = (stems.next(), stems.next()) {
        return Some(word);
    }
    words
        .iter()
        .map(|word| (distance(&text, &word.to_ascii_lowercase().replace('-', "_")), *word))
        .filter(|(distance, word)| *distance <= 1 + word.len() / 5)
        .min()
        .map(|(_, word)| word)
}

/// How many letters to insert, remove, replace or swap with their neighbour to get from one to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().take(64).collect(), to.chars().take(64).collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<_>>()];
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let replace = rows[i][j] + usize::from(a != b);
            let mut best = replace.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests;
