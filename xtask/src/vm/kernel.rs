use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{packages, progress};

/// Depends on the newest kernel. The flavour for clouds will not do: it has no 9p file system.
const NEWEST: &str = "linux-image-amd64";

/// How the names of kernel packages begin, and those of the directories that they are unpacked into.
const PREFIX: &str = "linux-image-";

/// Debian's kernel with its modules, unpacked and not installed.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
}

impl Kernel {
    /// Unpacks the newest one into `tools`, unless there is any.
    pub(super) fn provide(tools: &Path) -> Result<Self> {
        if let Some(kernel) = Self::find(tools)? {
            return Ok(kernel);
        }
        let package = packages::dependency(NEWEST, PREFIX)?;
        progress(&format!("unpacks Debian's {package}"));
        // It gets its name last, so that half of one is never mistaken for the whole.
        let home = tools.join(&package);
        let unfinished = tools.join(format!("unfinished-{package}-{}", std::process::id()));
        fs::create_dir_all(&unfinished).with_context(|| format!("cannot make {}", unfinished.display()))?;
        let archive = packages::download(&package, &unfinished)?;
        run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&unfinished))?;
        fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
        // An installation would do it. Without its result no module is found.
        let version = package.strip_prefix(PREFIX).context("it is named as no kernel is")?;
        let depmod = packages::which("depmod").context("depmod is in no directory of PATH")?;
        run(Command::new(depmod).arg("--basedir").arg(&unfinished).arg(version))?;
        fs::rename(&unfinished, &home).with_context(|| format!("cannot make {}", home.display()))?;
        Self::find(tools)?.with_context(|| format!("no kernel is in the package {package}"))
    }

    fn find(tools: &Path) -> Result<Option<Self>> {
        for entry in fs::read_dir(tools).with_context(|| format!("cannot list {}", tools.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(version) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            let image = entry.path().join(format!("boot/vmlinuz-{version}"));
            if image.is_file() {
                return Ok(Some(Self { image }));
            }
        }
        Ok(None)
    }
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = command.stdin(Stdio::null()).stdout(io::stderr()).status();
    let status = status.with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(status.success(), "{} failed ({status})", program.display());
    Ok(())
}
