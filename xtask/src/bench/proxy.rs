//! The proxies that are compared, each in front of the same worker program and with the same duties.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    accounting,
    child::{Program, Running},
    client::Client,
    cores::Layout,
    worker::SMALL_BODY,
};
use crate::packages;

/// The one session that requests, bodies and WebSockets are measured in.
pub(crate) const SESSION: &str = "bench";

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, clap::ValueEnum)]
pub(crate) enum Kind {
    Herd,
    Nginx,
    Haproxy,
}

/// What the benchmark is run with: where its files are and which cores it uses.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Holds configurations, logs and copies of the programs, so that a build in the meantime changes nothing.
    pub(crate) directory: PathBuf,
    pub(crate) herd: PathBuf,
    pub(crate) worker: PathBuf,
    pub(crate) layout: Layout,
}

/// A proxy that answers.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// The process that does the proxy's work, whose time and memory count.
    pub(crate) process: u32,
    _running: Running,
}

/// A worker that the benchmark started for the proxies that start none.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    _running: Running,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Herd => "herd",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
        })
    }
}

impl Upstream {
    pub(crate) fn start(bench: &Bench, name: &str) -> Result<Self> {
        let program =
            Program { name, path: &bench.worker, args: vec!["bench-worker".into()], cores: &bench.layout.load };
        let (running, line) = program.start_and_read_line(&bench.directory)?;
        let address = line.parse().with_context(|| format!("the worker printed `{line}` and no address"))?;
        Ok(Self { address, _running: running })
    }
}

impl Proxy {
    pub(crate) fn start_all(kinds: &[Kind], bench: &Bench, upstreams: &[Upstream]) -> Result<Vec<Self>> {
        kinds.iter().map(|&kind| Self::start(kind, bench, upstreams)).collect()
    }

    /// Starts a proxy and waits until it passes on a request.
    fn start(kind: Kind, bench: &Bench, upstreams: &[Upstream]) -> Result<Self> {
        let address = free_address()?;
        let (program, args) = match kind {
            Kind::Herd => {
                let socket = bench.directory.join("herd.sock").display().to_string();
                let flags = ["--admin", "off", "--control-socket", &socket, "--workers", "1..4", "--spare", "1"];
                (bench.herd.clone(), herd_arguments(bench, address, &flags))
            }
            Kind::Nginx => {
                let running = start_nginx(bench, &format!("listen {address} backlog=4096;"), upstreams)?;
                return Self::ready(kind, address, running);
            }
            Kind::Haproxy => {
                let file = bench.directory.join("haproxy.cfg");
                fs::write(&file, haproxy_configuration(address, upstreams))?;
                (which("haproxy")?, ["-db", "-f", &file.display().to_string()].map(str::to_owned).into())
            }
        };
        let running = start(bench, &kind.to_string(), &program, args)?;
        Self::ready(kind, address, running)
    }

    fn ready(kind: Kind, address: SocketAddr, mut running: Running) -> Result<Self> {
        running.wait_for("the first answer", || {
            let response = Client::connect(address)?.get("/", SESSION)?;
            let body = response.body();
            ensure!(response.status == 200 && body == SMALL_BODY, "it answers {}: {body}", response.status);
            Ok(Some(()))
        })?;
        let process = match kind {
            Kind::Herd | Kind::Haproxy => running.pid(),
            Kind::Nginx => nginx_worker(&running)?,
        };
        Ok(Self { kind, address, process, _running: running })
    }
}

/// Starts nginx in front of the workers. `listen` says where and how, in its own words.
pub(crate) fn start_nginx(bench: &Bench, listen: &str, upstreams: &[Upstream]) -> Result<Running> {
    let file = bench.directory.join("nginx.conf");
    fs::write(&file, nginx_configuration(&bench.directory, listen, upstreams))?;
    let directory = bench.directory.display().to_string();
    let args = ["-p", &directory, "-c", &file.display().to_string()].map(str::to_owned).into();
    start(bench, "nginx", &which("nginx")?, args)
}

/// The one process of nginx that does its work.
pub(crate) fn nginx_worker(running: &Running) -> Result<u32> {
    match accounting::children(running.pid()).as_slice() {
        [worker] => Ok(*worker),
        other => bail!("nginx has {} processes for its work and not one", other.len()),
    }
}

/// Starts a program on the proxies' core.
pub(crate) fn start(bench: &Bench, name: &str, program: &Path, args: Vec<String>) -> Result<Running> {
    let args = args.into_iter().map(Into::into).collect();
    Program { name, path: program, args, cores: &bench.layout.proxy }.start(&bench.directory)
}

/// The arguments for a herd of one network thread in front of the worker.
pub(crate) fn herd_arguments(bench: &Bench, address: SocketAddr, flags: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = ["run", "--listen", &address.to_string(), "--threads", "1"].map(str::to_owned).into();
    args.extend(flags.iter().map(|&flag| flag.to_owned()));
    args.push("--".to_owned());
    args.push(bench.worker.display().to_string());
    // The worker belongs to the load, not to the proxy that starts it.
    args.extend(["bench-worker", "--port", "{{.Port}}", "--cores"].map(str::to_owned));
    args.push(bench.layout.load.to_string());
    args
}

/// An address that was free a moment ago. Neither nginx nor HAProxy can say which port they were given.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port")?;
    Ok(listener.local_addr()?)
}

/// Where a program is: `PATH` of a user often lacks the directories of the administrator's programs.
pub(crate) fn which(program: &str) -> Result<PathBuf> {
    packages::which(program).with_context(|| format!("{program} is not installed"))
}

fn nginx_configuration(directory: &Path, listen: &str, upstreams: &[Upstream]) -> String {
    let directory = directory.display();
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let servers: String = upstreams.iter().map(|upstream| format!("        server {};\n", upstream.address)).collect();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|purpose| format!("    {purpose}_temp_path {directory}/nginx-{purpose};\n"))
        .concat();
    format!(
        "{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
{temporary}
    keepalive_requests 1000000000;
    client_max_body_size 0;
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
    map $http_upgrade $connection_field {{ default upgrade; '' ''; }}
    upstream workers {{
        hash $http_x_session_id consistent;
{servers}
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        {listen}
        location / {{
            proxy_pass http://workers;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection $connection_field;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"
    )
}

fn haproxy_configuration(address: SocketAddr, upstreams: &[Upstream]) -> String {
    let servers: String = upstreams
        .iter()
        .enumerate()
        .map(|(number, upstream)| format!("    server worker{number} {}\n", upstream.address))
        .collect();
    format!(
        "global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 60s
    http-reuse always
frontend sessions
    bind {address} backlog 4096
    option forwardfor
    http-request set-header X-Forwarded-Host %[req.hdr(Host)]
    http-request set-header X-Forwarded-Proto http
    default_backend workers
backend workers
    balance hdr(X-Session-ID)
    hash-type consistent
{servers}"
    )
}
