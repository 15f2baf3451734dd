//! What a daemon that a person started says first.

use std::{fmt, net::SocketAddr, path::PathBuf};

use herd_gateway::SessionKey;

use crate::{
    config::{Settings, settings::Command},
    pools::Pools,
};

/// Where a daemon can be reached, and what to try.
#[derive(Debug)]
pub(crate) struct Banner {
    pub(crate) gateway: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) control: PathBuf,
    session_key: SessionKey,
    /// One line for each pool.
    isolations: Vec<String>,
    repl: bool,
}

impl Banner {
    pub(crate) fn new(
        settings: &Settings,
        pools: &Pools,
        gateway: SocketAddr,
        admin: Option<SocketAddr>,
        control: PathBuf,
    ) -> Self {
        Self {
            gateway,
            admin,
            control,
            session_key: settings.network.session_key.clone(),
            isolations: pools
                .iter()
                .map(|pool| match settings.pools.len() {
                    0..2 => pool.setup().isolation.to_string(),
                    _ => format!("of {}: {}", pool.name, pool.setup().isolation),
                })
                .collect(),
            repl: settings.pools.iter().all(|pool| pool.worker.command == Command::Repl),
        }
    }

    /// The arguments that make curl name a session in the way that the gateway looks for first.
    fn curl(&self, session: &str, path: &str) -> String {
        let gateway = self.gateway;
        if self.session_key == SessionKey::default() {
            return format!("-H 'X-Session-ID: {session}' http://{gateway}{path}");
        }
        let sources = self.session_key.to_string();
        let first = sources.split(',').next().unwrap_or_default();
        match first.split_once(':').unwrap_or((first, "")) {
            ("header", name) => format!("-H '{name}: {session}' http://{gateway}{path}"),
            ("cookie", name) => format!("-b '{name}={session}' http://{gateway}{path}"),
            ("query", name) => format!("'http://{gateway}{path}?{name}={session}'"),
            ("path", "1") => format!("http://{gateway}/{session}{path}"),
            ("host", _) => format!("-H 'Host: {session}.localhost' http://{gateway}{path}"),
            _ => format!("-H 'X-Session-ID: {session}' http://{gateway}{path}"),
        }
    }
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "herd {} serves http://{}", env!("CARGO_PKG_VERSION"), self.gateway)?;
        if self.repl {
            writeln!(f, "\nEach session is a REPL of its own. Try:")?;
            for (script, session) in [("let x = 41", "alice"), ("x + 1", "alice"), ("x + 1", "bob")] {
                writeln!(f, "  curl -d '{script}' {}", self.curl(session, "/eval"))?;
            }
            writeln!(f)?;
        } else {
            writeln!(f, "  try      curl {}", self.curl("alice", "/"))?;
        }
        match self.admin {
            Some(admin) => writeln!(f, "  admin    http://{admin}/v1/stats")?,
            None => writeln!(f, "  admin    off")?,
        }
        writeln!(f, "  control  {}  (herd ps, herd end SESSION)", self.control.display())?;
        for isolation in &self.isolations {
            writeln!(f, "  sandbox  {isolation}")?;
        }
        Ok(())
    }
}
