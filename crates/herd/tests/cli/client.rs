//! A small HTTP client that sees every byte.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longer than anything in these tests takes, so that a test that hangs fails instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A connection with a request that may not be complete.
#[derive(Debug)]
pub(crate) struct Exchange(BufReader<TcpStream>);

impl Exchange {
    /// Sends the head of a request, which ends its connection.
    pub(crate) fn begin(to: SocketAddr, method: &str, path: &str, fields: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !fields.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: {to}\r\n");
        }
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        let mut exchange = Self(BufReader::new(stream));
        exchange.send(&(head + "\r\n"));
        exchange
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Reads the head of the response and, if it is to be read to the end, its body.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Response {
        let (status, fields) = self.head();
        let mut body = Vec::new();
        self.0.read_to_end(&mut body).unwrap();
        let mut body = String::from_utf8(body).unwrap();
        if fields.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
            body = unchunk(&body);
        }
        Response { status, fields, body }
    }

    #[track_caller]
    pub(crate) fn head(&mut self) -> (u16, Vec<(String, String)>) {
        let status_line = self.line();
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no response: {status_line:?}"));
        let mut fields = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(':') else { return (status, fields) };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The next line, of the head or of a stream; without its end.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next event of a stream: its ID, its name and its data.
    #[track_caller]
    pub(crate) fn event(&mut self) -> (String, String, serde_json::Value) {
        let (mut id, mut name) = (String::new(), String::new());
        loop {
            let line = self.line();
            if let Some(text) = line.strip_prefix("id: ") {
                text.clone_into(&mut id);
            } else if let Some(text) = line.strip_prefix("event: ") {
                text.clone_into(&mut name);
            } else if let Some(text) = line.strip_prefix("data: ") {
                return (id, name, serde_json::from_str(text).unwrap());
            }
        }
    }
}

#[track_caller]
pub(crate) fn request(to: SocketAddr, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
    Exchange::begin(to, method, path, fields).finish()
}

#[track_caller]
pub(crate) fn get(to: SocketAddr, path: &str) -> Response {
    request(to, "GET", path, &[])
}

/// Has the session's REPL evaluate a script.
#[track_caller]
pub(crate) fn eval(to: SocketAddr, session: &str, script: &str) -> Response {
    let length = script.len().to_string();
    let mut exchange = Exchange::begin(to, "POST", "/eval", &[("x-session-id", session), ("content-length", &length)]);
    exchange.send(script);
    exchange.finish()
}

fn unchunk(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body += &rest[..size];
        text = rest[size..].trim_start_matches("\r\n");
    }
    body
}
