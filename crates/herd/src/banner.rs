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
    /// Whether the gateway speaks TLS.
    tls: bool,
    admin_tls: bool,
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
            tls: settings.network.tls.is_some(),
            admin_tls: settings.network.admin_tls.is_some(),
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
        let insecure = if self.tls { "-k " } else { "" };
        format!("{insecure}{}", self.request(session, path))
    }

    fn request(&self, session: &str, path: &str) -> String {
        let gateway = format!("{}://{}", scheme(self.tls), self.gateway);
        if self.session_key == SessionKey::default() {
            return format!("-H 'X-Session-ID: {session}' {gateway}{path}");
        }
        let sources = self.session_key.to_string();
        let first = sources.split(',').next().unwrap_or_default();
        match first.split_once(':').unwrap_or((first, "")) {
            ("header", name) => format!("-H '{name}: {session}' {gateway}{path}"),
            ("cookie", name) => format!("-b '{name}={session}' {gateway}{path}"),
            ("query", name) => format!("'{gateway}{path}?{name}={session}'"),
            ("path", "1") => format!("{gateway}/{session}{path}"),
            ("host", _) => format!("-H 'Host: {session}.localhost' {gateway}{path}"),
            _ => format!("-H 'X-Session-ID: {session}' {gateway}{path}"),
        }
    }
}

fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "herd {} serves {}://{}", env!("CARGO_PKG_VERSION"), scheme(self.tls), self.gateway)?;
        if self.repl {
            writeln!(f, "\nEach session is a REPL of its own. Try:")?;
            for (script, session) in [("let x = 41", "alice"), ("x + 1", "alice"), ("x + 1", "bob")] {
                writeln!(f, "  curl -d '{script}' {}", self.curl(session, "/eval"))?;
            }
            writeln!(f)?;
        } else {
            writeln!(f, "  try        curl {}", self.curl("alice", "/"))?;
        }
        if self.tls {
            writeln!(
                f,
                "             (-k takes any certificate; trust this one with --cacert FILE and ask by its name)"
            )?;
        }
        match self.admin {
            Some(admin) => writeln!(f, "  dashboard  {}://{admin}/", scheme(self.admin_tls))?,
            None => writeln!(f, "  dashboard  off, as is the admin API")?,
        }
        writeln!(f, "  control    {}  (herd ps, herd end SESSION)", self.control.display())?;
        for isolation in &self.isolations {
            writeln!(f, "  sandbox    {isolation}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_suggested_speaks_tls_where_the_gateway_does() {
        let mut banner = Banner {
            gateway: ([127, 0, 0, 1], 8080).into(),
            admin: Some(([127, 0, 0, 1], 8081).into()),
            control: "/run/herd/herd.sock".into(),
            session_key: SessionKey::default(),
            tls: true,
            admin_tls: false,
            isolations: Vec::new(),
            repl: false,
        };
        let said = banner.to_string();
        for line in [
            " serves https://127.0.0.1:8080\n",
            "  try        curl -k -H 'X-Session-ID: alice' https://127.0.0.1:8080/\n",
            "--cacert FILE",
            "  dashboard  http://127.0.0.1:8081/\n",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
        (banner.tls, banner.admin_tls) = (false, true);
        let said = banner.to_string();
        assert!(
            said.contains("curl -H 'X-Session-ID: alice' http://127.0.0.1:8080/\n") && !said.contains("-k"),
            "{said}"
        );
        assert!(said.contains("  dashboard  https://127.0.0.1:8081/\n"), "{said}");
        banner.admin = None;
        let said = banner.to_string();
        assert!(said.contains("  dashboard  off, as is the admin API\n"), "{said}");
    }
}
