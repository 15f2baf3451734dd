//! `cargo xtask vm`, and where `cargo xtask test` runs what only a virtual machine has: cgroup v2 with all controllers,
//! whatever the host has.
//!
//! virtme-ng boots Debian's kernel under QEMU over the host's own file system, which cannot be written to from inside.
//! This program is inside too, sent on an [`Errand`]: see [`guest`].

mod boot;
mod errand;
pub(crate) mod guest;
mod kernel;

use std::{collections::BTreeMap, env, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

pub(crate) use self::errand::{Deed, Errand, Suite, Verdict};
use self::kernel::Kernel;
use crate::{
    packages::{self, Need},
    target_directory,
    tools::Tools,
    venv,
};

/// Run a command in the virtual machine that tests of limits run in
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many seconds the command may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u64,
    /// The command and its arguments; it is run as root, in this directory
    #[arg(last = true, required = true, value_name = "COMMAND")]
    line: Vec<String>,
}

/// What virtme-ng needs. Its initial RAM disk holds one static program.
const NEEDS: &[Need] = &[
    Need::program("qemu-system-x86_64", "qemu-system-x86"),
    Need::command("sh", &["-c", "busybox=$(command -v busybox) && ! ldd \"$busybox\""], "busybox-static"),
    Need::program("depmod", "kmod"),
    Need::program("ip", "iproute2"),
    Need::program("python3", "python3"),
    Need::command("python3", &["-c", "import ensurepip, venv"], "python3-venv"),
];

/// virtme-ng and all that it needs from PyPI.
const VIRTME: &[&str] = &[
    "virtme-ng==1.42",
    "argcomplete==3.7.2",
    "certifi==2026.10.18",
    "charset-normalizer==3.5.2",
    "idna==3.20",
    "requests==2.34.2",
    "urllib3==2.8.0",
];

/// A virtual machine that can be booted.
#[derive(Debug)]
pub(crate) struct Machine {
    kernel: Kernel,
    /// Where virtme-ng's programs are.
    programs: PathBuf,
    /// Where what belongs to one boot is kept.
    boots: PathBuf,
}

impl Machine {
    /// Installs and unpacks what is not there yet.
    ///
    /// # Errors
    /// If something cannot be had. The error says what, and what to do.
    pub(crate) fn provide() -> Result<Self> {
        ensure!(cfg!(target_arch = "x86_64"), "the virtual machine is one for x86-64, which this machine is not");
        let tools = Tools::lock()?;
        packages::provide(NEEDS)?;
        let virtme = tools.directory().join("virtme-ng");
        venv::provide(&virtme, VIRTME)?;
        let kernel = Kernel::provide(tools.directory())?;
        Ok(Self { kernel, programs: virtme.join("bin"), boots: target_directory()?.join("vm") })
    }
}

/// Runs a command in the machine, and ends as it did.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let machine = Machine::provide().context("the virtual machine cannot boot yet")?;
    let directory = env::current_dir().context("this directory is gone")?;
    let errand = Errand {
        copies: Vec::new(),
        scratch: vec![target_directory()?.join("tmp")],
        environment: BTreeMap::new(),
        deed: Deed::Command { line: options.line.clone(), directory },
    };
    match machine.send(&errand, Duration::from_secs(options.limit))? {
        Verdict::Exit(code) => Ok(ExitCode::from(code)),
        verdict => bail!("the virtual machine answered another question: {verdict:?}"),
    }
}
