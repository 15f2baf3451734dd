use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::progress;

/// What is in it besides the least that is a Debian: a service manager, what herd's package recommends, programs of one's
/// own, and what looks at them.
const PACKAGES: &str = "ca-certificates,curl,man-db,passt,procps,python3,systemd,systemd-sysv,dbus";

/// Says with which packages a Debian was made, which is made anew when they change.
const MADE_WITH: &str = "etc/herd-tests-are-set-up";

/// A Debian in a directory, of the release that this host is, since it has to run what was built here.
///
/// # Errors
/// If it cannot be had. Only root can set it up.
pub(super) fn provide(tools: &Path) -> Result<PathBuf> {
    let release = release()?;
    let home = tools.join(format!("debian-{release}"));
    if fs::read_to_string(home.join(MADE_WITH)).is_ok_and(|packages| packages == PACKAGES) {
        return Ok(home);
    }
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
    }
    progress(&format!("installs Debian {release} into a directory"));
    // It gets its name last, so that half of one is never mistaken for the whole.
    let unfinished = tools.join(format!("unfinished-debian-{}", std::process::id()));
    let mut command = Command::new("debootstrap");
    command
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), &release])
        .arg(&unfinished)
        .arg(archive(&release)?);
    // Its programs are found whatever the caller's own PATH is.
    let path = env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin"));
    let status = command.stdin(Stdio::null()).stdout(io::stderr()).status().context("cannot start debootstrap")?;
    ensure!(status.success(), "debootstrap failed; see {}/debootstrap/debootstrap.log", unfinished.display());
    let cache = unfinished.join("var/cache/apt/archives");
    fs::remove_dir_all(&cache).and_then(|()| fs::create_dir_all(cache.join("partial"))).context("cannot tidy up")?;
    fs::write(unfinished.join(MADE_WITH), PACKAGES).context("cannot say what is in it")?;
    fs::rename(&unfinished, &home).with_context(|| format!("cannot make {}", home.display()))?;
    Ok(home)
}

fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned()).context("/etc/os-release names no release of Debian")
}

/// Where this host gets its own packages from.
fn archive(release: &str) -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"]);
    let said = command.stdin(Stdio::null()).stderr(Stdio::null()).output().context("cannot start apt-get")?.stdout;
    let said = String::from_utf8_lossy(&said);
    let own = said.lines().find_map(|line| line.split_once(' ').filter(|(_, codename)| *codename == release));
    let (archive, _) =
        own.with_context(|| format!("apt knows no archive of Debian {release}; name one in its sources"))?;
    Ok(archive.to_owned())
}
