use std::{
    fs::{self, FileTimes},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};

use super::{repository, succeed, template, text};
use crate::target_directory;

/// The files of a package, in a directory that is gone with this.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
}

/// Where what stands in the repository goes.
const COPIES: &[(&str, &str)] = &[
    ("deploy/systemd/herd.service", "usr/lib/systemd/system/herd.service"),
    ("deploy/systemd/herd-root.service", "usr/lib/systemd/system/herd-root.service"),
    ("deploy/systemd/herd.socket", "usr/lib/systemd/system/herd.socket"),
    ("deploy/systemd/sysusers.conf", "usr/lib/sysusers.d/herd.conf"),
    ("deploy/debian/herd.yaml", "etc/herd/herd.yaml"),
    ("deploy/debian/copyright", "usr/share/doc/herd/copyright"),
    ("deploy/debian/lintian-overrides", "usr/share/lintian/overrides/herd"),
    ("README.md", "usr/share/doc/herd/README.md"),
    ("SECURITY.md", "usr/share/doc/herd/SECURITY.md"),
    ("bench/README.md", "usr/share/doc/herd/bench/README.md"),
    ("clients/README.md", "usr/share/doc/herd/clients/README.md"),
    ("clients/python/README.md", "usr/share/doc/herd/clients/python/README.md"),
    ("clients/typescript/README.md", "usr/share/doc/herd/clients/typescript/README.md"),
];

/// Directories of the repository whose files go somewhere, each with the end of their names. What documents link to is
/// where they expect it.
const DIRECTORIES: &[(&str, &str, &str)] = &[
    ("docs", ".md", "usr/share/doc/herd/docs"),
    ("docs", ".yaml", "usr/share/doc/herd/docs"),
    ("docs/images", ".png", "usr/share/doc/herd/docs/images"),
    ("docs/examples", ".yaml", "usr/share/doc/herd/docs/examples"),
    ("deploy/grafana", ".json", "usr/share/doc/herd/deploy/grafana"),
    ("deploy/kubernetes", ".yaml", "usr/share/doc/herd/deploy/kubernetes"),
    ("deploy/prometheus", ".yml", "usr/share/doc/herd/deploy/prometheus"),
];

/// What the program itself prints for shells: the shell, and where Debian's shells look for it.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/herd"),
    ("zsh", "usr/share/zsh/vendor-completions/_herd"),
    ("fish", "usr/share/fish/vendor_completions.d/herd.fish"),
];

const MANUAL: &str = "usr/share/man/man1";

/// The scripts that dpkg runs.
const SCRIPTS: &[&str] = &["postinst", "prerm", "postrm"];

impl Tree {
    /// Puts everything in its place but the control file.
    pub(super) fn plant(program: &Path, version: &str, epoch: u64) -> Result<Self> {
        let root = target_directory()?.join("debian").join(format!("tree-{}", std::process::id()));
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let tree = Self { root };
        let installed = tree.copy(program, "usr/bin/herd")?;
        mode(&installed, 0o755)?;
        succeed(Command::new("strip").args(["--strip-unneeded", "--remove-section=.comment"]).arg(&installed))?;
        for (from, to) in COPIES {
            tree.copy(&repository().join(from), to)?;
        }
        for (from, end, to) in DIRECTORIES {
            for file in files(&repository().join(from))? {
                let name = file.file_name().and_then(|name| name.to_str()).context("a file's name is no text")?;
                if name.ends_with(end) {
                    tree.copy(&file, &format!("{to}/{name}"))?;
                }
            }
        }
        for (shell, to) in COMPLETIONS {
            tree.write(to, &text(Command::new(program).args(["completions", shell]))?)?;
        }
        tree.manual(program)?;
        let changelog = tree.write("usr/share/doc/herd/changelog", &changelog(version, epoch)?)?;
        compress(&changelog)?;
        for script in SCRIPTS {
            let installed = tree.write(&format!("DEBIAN/{script}"), &template(&format!("debian/{script}"))?)?;
            mode(&installed, 0o755)?;
        }
        tree.write("DEBIAN/conffiles", "/etc/herd/herd.yaml\n")?;
        Ok(tree)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn program(&self) -> PathBuf {
        self.root.join("usr/bin/herd")
    }

    /// All files that are installed, by their path from the root, in order.
    pub(super) fn installed(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        walk(&self.root, &mut found)?;
        let relative = found.iter().filter_map(|path| path.strip_prefix(&self.root).ok());
        let mut installed: Vec<_> = relative.filter(|path| !path.starts_with("DEBIAN")).map(Path::to_owned).collect();
        installed.retain(|path| !self.root.join(path).is_dir());
        installed.sort();
        Ok(installed)
    }

    pub(super) fn write(&self, to: &str, text: &str) -> Result<PathBuf> {
        let path = self.place(to)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        mode(&path, 0o644)?;
        Ok(path)
    }

    /// Gives everything the same time, and directories the mode that they have everywhere.
    pub(super) fn date(&self, epoch: u64) -> Result<()> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(epoch);
        let mut all = vec![self.root.clone()];
        walk(&self.root, &mut all)?;
        for path in all.iter().filter(|path| !path.is_symlink()) {
            if path.is_dir() {
                mode(path, 0o755)?;
            }
            let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            file.set_times(FileTimes::new().set_modified(time))?;
        }
        Ok(())
    }

    fn copy(&self, from: &Path, to: &str) -> Result<PathBuf> {
        let path = self.place(to)?;
        fs::copy(from, &path).with_context(|| format!("cannot copy {}", from.display()))?;
        mode(&path, 0o644)?;
        Ok(path)
    }

    /// The pages that the program makes of its own command line.
    fn manual(&self, program: &Path) -> Result<()> {
        let directory = self.place(&format!("{MANUAL}/herd.1"))?.parent().context("it is in no directory")?.to_owned();
        succeed(Command::new(program).args(["man", "--dir"]).arg(&directory))?;
        for page in files(&directory)? {
            // One that says nothing but where to look is better a link to there.
            let source = fs::read_to_string(&page)?;
            match source.strip_prefix(".so man1/") {
                Some(target) => {
                    fs::remove_file(&page)?;
                    symlink(format!("{}.gz", target.trim()), format!("{}.gz", page.display()))?;
                }
                None => {
                    mode(&page, 0o644)?;
                    compress(&page)?;
                }
            }
        }
        Ok(())
    }

    fn place(&self, to: &str) -> Result<PathBuf> {
        let path = self.root.join(to);
        let directory = path.parent().context("a path has no directory")?;
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(path)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // What stays is in the target directory.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// What Debian wants to be told; what has changed stands in `CHANGELOG.md`.
fn changelog(version: &str, epoch: u64) -> Result<String> {
    let date = text(Command::new("date").args(["--utc", "--rfc-email", &format!("--date=@{epoch}")]))?;
    Ok(format!(
        "herd ({version}) unstable; urgency=medium\n\n  * Version {version} of herd; its CHANGELOG.md says what has \
         changed.\n\n -- {}  {}",
        super::control::maintainer(),
        date
    ))
}

/// As policy wants it, and without the name and time of the file.
fn compress(file: &Path) -> Result<()> {
    succeed(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(file))
}

fn mode(path: &Path, mode: u32) -> Result<()> {
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, permissions).with_context(|| format!("cannot change the mode of {}", path.display()))
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    found.sort();
    Ok(found)
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        found.push(entry.path());
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), found)?;
        }
    }
    Ok(())
}
