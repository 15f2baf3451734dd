//! `cargo xtask test`: sets up what the tests need, and runs all of them.

mod checkers;
mod debian;
mod linters;
mod machine;
mod playwright;
mod pythons;
mod run;
mod targets;
mod typescript;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result};

use self::{playwright::Playwright, pythons::Pythons};
use crate::{
    packages::{self, Need},
    progress, static_build,
    tools::Tools,
    vm::Machine,
};

/// Set up what the tests need, and run all of them
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run only the tests whose name contains one of these, and no documentation tests
    #[arg(last = true, value_name = "FILTER")]
    filters: Vec<String>,
}

/// The programs that the tests drive.
const NEEDS: &[Need] = &[
    Need::program("bwrap", "bubblewrap"),
    Need::program("chromium", "chromium"),
    Need::program("curl", "curl"),
    Need::program("debootstrap", "debootstrap"),
    Need::program("dpkg-shlibdeps", "dpkg-dev"),
    Need::program("gcc", "gcc"),
    Need::command("sh", &["-c", "echo '#include <stdio.h>' | gcc -E -"], "libc6-dev"),
    Need::program("git", "git"),
    Need::program("groff", "groff-base"),
    Need::program("ip", "iproute2"),
    Need::program("lintian", "lintian"),
    Need::program("nginx", "nginx"),
    Need::program("node", "nodejs"),
    Need::program("npm", "npm"),
    Need::program("openssl", "openssl"),
    Need::program("pasta", "passt"),
    // Debian keeps the programs of a server out of PATH, in a directory for each version.
    Need::command("sh", &["-c", "ls /usr/lib/postgresql/*/bin/initdb"], "postgresql"),
    // Of what PATH leads to, workers in a sandbox see the system's alone.
    Need::command("/usr/bin/python3", &["-c", ""], "python3"),
    Need::command("python3", &["-c", "import ensurepip, venv"], "python3-venv"),
    Need::program("promtool", "prometheus"),
    Need::program("redis-server", "redis-server"),
    Need::program("strip", "binutils"),
    Need::program("systemd-analyze", "systemd"),
];

/// How the names of the tests of the static program begin.
const STATIC_TESTS: &str = "static_program::";

/// What the set-up tells the tests. A test that misses one of these fails and names this command.
struct Environment {
    checkers: PathBuf,
    /// Only root can set it up.
    debian: Option<PathBuf>,
    linters: PathBuf,
    playwright: Playwright,
    promtool: PathBuf,
    pythons: Pythons,
    redis_server: PathBuf,
    /// The program that is linked statically. It is built for its own tests alone.
    static_program: Option<PathBuf>,
    /// `node_modules` of the TypeScript client.
    typescript: PathBuf,
}

impl Environment {
    fn variables(&self) -> Result<BTreeMap<String, String>> {
        let variables = [
            ("HERD_TEST_AXE", &self.playwright.axe),
            ("HERD_TEST_CHECKERS", &self.checkers),
            ("HERD_TEST_LINTERS", &self.linters),
            ("HERD_TEST_NODE_MODULES", &self.playwright.node_modules),
            ("HERD_TEST_PYTHON", &self.playwright.python),
            ("HERD_TEST_PROMTOOL", &self.promtool),
            ("HERD_TEST_PYTHON_NEWEST", &self.pythons.newest),
            ("HERD_TEST_PYTHON_OLDEST", &self.pythons.oldest),
            ("HERD_TEST_REDIS_SERVER", &self.redis_server),
            ("HERD_TEST_TYPESCRIPT", &self.typescript),
        ];
        let debian = self.debian.as_ref().map(|debian| ("HERD_TEST_DEBIAN", debian));
        let linked = self.static_program.as_ref().map(|program| ("HERD_TEST_STATIC_PROGRAM", program));
        let text = |path: &PathBuf| path.to_str().map(str::to_owned);
        let pairs =
            variables.iter().chain(&debian).chain(&linked).map(|(name, path)| Some(((*name).to_owned(), text(path)?)));
        pairs.collect::<Option<_>>().context("a path to what tests need is no text")
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let environment = set_up(&options.filters).context("the tests cannot run yet")?;
    // What the virtual machine needs is fetched while the tests are built. Chosen tests need it only perhaps.
    let machine = options.filters.is_empty().then(|| thread::spawn(Machine::provide));
    run::tests(&environment, &options.filters, machine)
}

fn set_up(filters: &[String]) -> Result<Environment> {
    let tools = Tools::lock()?;
    packages::provide(NEEDS)?;
    playwright::link_chromium()?;
    let playwright = Playwright::install(tools.directory())?;
    let checkers = checkers::install(tools.directory())?;
    let linters = linters::install(tools.directory())?;
    let typescript = typescript::install(tools.directory())?;
    let debian = rustix::process::geteuid().is_root().then(|| debian::provide(tools.directory())).transpose()?;
    let pythons = Pythons::install(tools.directory())?;
    let static_program = concerns_static_program(filters).then(static_program).flatten();
    let promtool = packages::which("promtool").context("promtool is in no directory of PATH")?;
    let redis_server = packages::which("redis-server").context("redis-server is in no directory of PATH")?;
    Ok(Environment {
        checkers,
        debian,
        linters,
        playwright,
        promtool,
        pythons,
        redis_server,
        static_program,
        typescript,
    })
}

/// Without it, its own tests fail and the others run.
fn static_program() -> Option<PathBuf> {
    static_build::provide("trial").inspect_err(|error| progress(&format!("no static program: {error:#}"))).ok()
}

/// It takes minutes, which other tests need not wait for.
fn concerns_static_program(filters: &[String]) -> bool {
    filters.is_empty()
        || filters.iter().any(|filter| filter.contains("static") || STATIC_TESTS.contains(filter.as_str()))
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the repository")
}
