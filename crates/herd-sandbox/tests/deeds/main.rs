//! The table of deeds: what a hostile worker may try, and that it fails.
//!
//! Each deed is tried by this same binary, in up to four places: `root` and `rootless` in herd's sandbox, `bwrap` in
//! bubblewrap's as the oracle where that offers the layer, and `control` without any, where it has to succeed: so the
//! test can tell. In herd's sandbox it is also tried by a further command beside a worker (`root-command` and so on).
//! `SECURITY.md` shows the table, and is compared with it.

mod attempt;
mod deed;
mod document;
mod life;
mod lines;
mod place;
mod raw;
mod role;
mod scene;
mod stage;
mod table;
mod target;
mod worker;

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;

use crate::{
    place::{Means, Place},
    table::{DEEDS, Deed},
};

/// An unprivileged user that owns nothing and is nobody else.
const USER: u32 = 64_321;

/// A supplementary group of what launches the workers.
const GROUP: u32 = 64_322;

fn main() -> ExitCode {
    herd_sandbox::enter_init();
    if let Some(code) = role::play() {
        return code;
    }
    let deeds = DEEDS.iter().flat_map(|deed| {
        deed.trials().into_iter().map(move |(name, place, means)| {
            Trial::test(format!("{name}::{}", deed.name), move || try_in(place, means, deed))
        })
    });
    let documents = [
        Trial::test("document::shows_the_table", document::shows_the_table),
        Trial::test("document::names_tests_that_exist", document::names_tests_that_exist),
    ];
    libtest_mimic::run(&Arguments::from_args(), deeds.chain(documents).collect()).exit_code()
}

/// Tries it from a process of its own, which has the right user and secrets to lose.
fn try_in(place: Place, means: Means, deed: &Deed) -> Result<(), Failed> {
    let root = rustix::process::geteuid().is_root();
    if place.needs_root() && !root {
        return Err("only root can try this: run `sudo --preserve-env=PATH cargo xtask test`".into());
    }
    let assets = assets(if root && !place.needs_root() { Some(USER) } else { None });
    let mut stage = Command::new(if root { "setpriv" } else { "env" });
    if root {
        stage.args(["--groups", &GROUP.to_string()]);
    }
    if root && !place.needs_root() {
        stage.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string()]);
    }
    if place == Place::Fallback {
        // As on a host that forbids user namespaces: one says how many may be made in it, and the one that this uses
        // up has no capability left to say anything else.
        let map = "unshare --user --map-user=1000 --map-group=1000";
        let script = format!("echo 1 > /proc/sys/user/max_user_namespaces && exec {map} \"$@\"");
        stage.args(["unshare", "--user", "--map-root-user", "sh", "-c", &script, "sh"]);
    }
    stage
        .arg(assets.path().join("program"))
        .args(["role:stage", place.name(), means.name(), deed.name])
        .arg(assets.path());
    stage.env(stage::SECRET_VARIABLE, "a secret of the daemon").env("RUST_BACKTRACE", "0");
    stage.stdin(Stdio::null()).current_dir("/");
    let output = stage.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Err(format!("{}: {said}", worker::shown(output.status)).into())
}

/// This program where everybody can run it, and programs that give those who run them more than they have.
fn assets(owner: Option<u32>) -> TempDir {
    let directory = tempfile::Builder::new().prefix("herd-deeds-").tempdir().expect("a directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("it is ours");
    let program = std::env::current_exe().expect("this program");
    install(&program, &directory.path().join("program"), 0o755);
    if let Some(owner) = owner {
        chown(directory.path().join("program"), Some(owner), Some(owner)).expect("root may");
    }
    fs::create_dir(directory.path().join("hidden")).expect("it is ours");
    for name in ["hidden/file", "hidden-file"] {
        fs::write(directory.path().join(name), "a secret of the operator").expect("it is ours");
    }
    if rustix::process::geteuid().is_root() {
        let cat = Path::new("/usr/bin/cat");
        install(cat, &directory.path().join("setuid"), 0o4755);
        let capable = directory.path().join("capable");
        install(cat, &capable, 0o755);
        // struct vfs_cap_data, see capabilities(7): revision 2 and effective, then permitted and inheritable, the lower
        // halves first. CAP_NET_RAW and CAP_SYS_ADMIN.
        let data = [0x0200_0001_u32, 1 << 13 | 1 << 21, 0, 0, 0].map(u32::to_le_bytes).concat();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&capable, "security.capability", &data, flags).expect("root may");
    }
    directory
}

/// Copies by another process: what this one writes may not be executable for a moment, as long as a program that
/// another thread is starting holds a copy of the open file.
fn install(from: &Path, to: &Path, mode: u32) {
    let mut install = Command::new("install");
    let status = install.arg("-m").arg(format!("{mode:o}")).arg(from).arg(to).status().expect("coreutils");
    assert!(status.success());
}
