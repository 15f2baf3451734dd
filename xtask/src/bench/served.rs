//! A herd that reads a configuration file, for what flags do not say.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    child::Running,
    proxy::{Bench, free_address, start},
    sessions::spares,
};

/// What is written in the file besides what every daemon of the benchmark has. Each is a part of a flow mapping
/// (`max_workers: 4, spare: 1`), or nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings<'a> {
    pub(crate) network: &'a str,
    pub(crate) worker: &'a str,
    pub(crate) resources: &'a str,
    /// Whole sections, one a line.
    pub(crate) sections: &'a str,
}

/// A daemon with the benchmark's worker, one network thread and an admin API.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) socket: PathBuf,
    file: PathBuf,
    running: Running,
}

impl Served {
    /// Starts it on the proxies' core, and waits for a worker that waits for a session.
    pub(crate) fn start(bench: &Bench, name: &str, settings: Settings<'_>) -> Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let socket = bench.directory.join(format!("{name}.sock"));
        let file = bench.directory.join(format!("{name}.yaml"));
        write(bench, &file, [address, admin], &socket, settings)?;
        let args = ["serve", "--config", &file.display().to_string()].map(str::to_owned).into();
        let mut running = start(bench, name, &bench.herd, args)?;
        running.wait_for("a spare worker", || Ok((spares(admin)? >= 1).then_some(())))?;
        Ok(Self { address, admin, socket, file, running })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Changes the file; the daemon looks at it when it is told to.
    pub(crate) fn rewrite(&self, bench: &Bench, settings: Settings<'_>) -> Result<()> {
        write(bench, &self.file, [self.address, self.admin], &self.socket, settings)
    }
}

fn write(bench: &Bench, file: &Path, on: [SocketAddr; 2], socket: &Path, settings: Settings<'_>) -> Result<()> {
    let Settings { network, worker, resources, sections } = settings;
    let [address, admin] = on;
    // What is JSON is YAML too.
    let cores = bench.layout.load.to_string();
    let command = json!([bench.worker, "bench-worker", "--port", "{{.Port}}", "--cores", cores]);
    let text = format!(
        "network: {{data_bind: '{address}', admin_bind: '{admin}', control_socket: {}, threads: 1, {network}}}\n\
         worker: {{command: {command}, {worker}}}\n\
         resources: {{{resources}}}\n\
         {sections}\n",
        json!(socket),
    );
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
