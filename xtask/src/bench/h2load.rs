//! Load by h2load, which speaks TLS and HTTP/2: wrk has no HTTP/2.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::{
    child::Program,
    proxy::{Bench, SESSION, which},
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    /// HTTP/1.1 over TLS.
    Https1,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 without TLS, known beforehand.
    H2c,
}

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Amount {
    Seconds(u32),
    /// So many requests, over as many connections as there are: each is new.
    OneEach,
}

/// What h2load says of one run.
#[derive(Debug, PartialEq)]
pub(crate) struct Done {
    pub(crate) requests: f64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// The mean time of a request, in microseconds; it tells no median.
    pub(crate) mean: f64,
    pub(crate) failures: u64,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Https1 => "HTTP/1.1, TLS",
            Self::H2 => "HTTP/2, TLS",
            Self::H2c => "HTTP/2, no TLS",
        }
    }
}

/// Loads what listens on `address` with so many connections, each with so many requests at once.
pub(crate) fn load(
    bench: &Bench,
    address: SocketAddr,
    protocol: Protocol,
    [connections, streams]: [usize; 2],
    amount: Amount,
) -> Result<Done> {
    let [scheme, alpn] = match protocol {
        Protocol::Https1 => ["https", "http/1.1"],
        Protocol::H2 => ["https", "h2"],
        Protocol::H2c => ["http", "h2c"],
    };
    let mut args = vec![
        format!("-c{connections}"),
        format!("-m{streams}"),
        // Both sides would else choose by their own taste what is compared.
        "--tls13-ciphers=TLS_AES_128_GCM_SHA256".to_owned(),
        "--groups=X25519".to_owned(),
        format!("--npn-list={alpn}"),
        format!("-HX-Session-ID: {SESSION}"),
    ];
    match amount {
        Amount::Seconds(seconds) => args.push(format!("-D{seconds}")),
        Amount::OneEach => args.push(format!("-n{connections}")),
    }
    args.push(format!("{scheme}://{address}/"));
    let program = Program {
        name: "h2load",
        path: &which("h2load")?,
        args: args.into_iter().map(Into::into).collect(),
        cores: &bench.layout.load,
    };
    let text = program.output(&bench.directory)?;
    Done::parse(&text, protocol).with_context(|| format!("cannot read what h2load printed:\n{text}"))
}

impl Done {
    fn parse(text: &str, protocol: Protocol) -> Result<Self> {
        let mut done = Self { requests: 0.0, rate: f64::NAN, mean: f64::NAN, failures: 0 };
        let mut spoken = Vec::new();
        for line in text.lines().map(str::trim) {
            let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_end_matches(',')).collect();
            match words.as_slice() {
                ["finished", "in", _, rate, "req/s", ..] => done.rate = rate.parse()?,
                ["requests:", _, "total", _, "started", _, "done", succeeded, "succeeded", failed, "failed", ..] => {
                    done.requests = succeeded.parse()?;
                    done.failures = failed.parse()?;
                }
                // min, max, mean, sd, share within one sd.
                ["time", "for", "request:", _, _, mean, ..] => done.mean = microseconds(mean)?,
                ["TLS", "Protocol:", version] => spoken.push(*version),
                ["Application", "protocol:", name] => spoken.push(*name),
                _ => {}
            }
        }
        ensure!(done.requests >= 1.0, "no request was answered");
        let meant: &[&str] = match protocol {
            Protocol::Https1 => &["TLSv1.3", "http/1.1"],
            Protocol::H2 => &["TLSv1.3", "h2"],
            Protocol::H2c => &["h2c"],
        };
        ensure!(spoken == meant, "{spoken:?} was spoken, and not {meant:?}");
        Ok(done)
    }
}

fn microseconds(text: &str) -> Result<f64> {
    let (number, factor) = [("us", 1.0), ("ms", 1e3), ("s", 1e6)]
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .with_context(|| format!("`{text}` is no time"))?;
    Ok(number.parse::<f64>()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "starting benchmark...
TLS Protocol: TLSv1.3
Cipher: TLS_AES_128_GCM_SHA256
Server Temp Key: X25519 253 bits
Application protocol: h2

finished in 1.01s, 5966.00 req/s, 413.85KB/s
requests: 5968 total, 5982 started, 5968 done, 5966 succeeded, 2 failed, 0 errored, 0 timeout
status codes: 5966 2xx, 0 3xx, 0 4xx, 2 5xx
                     min         max         mean         sd        +/- sd
time for request:       67us     32.01ms      1.50ms      1.68ms    94.74%
time for connect:     2.64ms      9.51ms      7.52ms      3.27ms    75.00%
";

    #[test]
    fn the_output_of_h2load_is_read_with_its_failures() {
        let expected = Done { requests: 5966.0, rate: 5966.0, mean: 1500.0, failures: 2 };
        assert_eq!(Done::parse(TEXT, Protocol::H2).unwrap(), expected);
    }

    #[test]
    fn another_protocol_than_was_meant_is_an_error() {
        let error = Done::parse(TEXT, Protocol::Https1).unwrap_err().to_string();
        assert_eq!(error, r#"["TLSv1.3", "h2"] was spoken, and not ["TLSv1.3", "http/1.1"]"#);
        let older = TEXT.replace("TLSv1.3", "TLSv1.2");
        assert!(Done::parse(&older, Protocol::H2).is_err());
    }
}
