use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{herd, output, repository, said, tool};

/// What a person does with the package.
const NEW_USER: &str = include_str!("new_user.sh");

/// In a directory that has room and may hold programs, other than `/tmp`.
fn directory() -> TempDir {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(target).unwrap()
}

fn package(into: &Path) -> PathBuf {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["deb", "--profile", "dev", "--program"]).arg(herd()).arg("--output").arg(into);
    // The same whatever was committed meanwhile.
    command.env("SOURCE_DATE_EPOCH", "1700000000").env_remove("DEBEMAIL").env_remove("DEBFULLNAME");
    let output = output(command.current_dir(repository()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

#[test]
fn the_same_program_gives_the_same_package_which_lintian_finds_nothing_wrong_with() {
    let directories = [directory(), directory()];
    let [first, second] = directories.each_ref().map(|directory| package(directory.path()));
    assert_eq!(first.file_name(), second.file_name());
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "two packages of one program differ");

    let mut lintian = Command::new("lintian");
    let said = said(lintian.args(["--allow-root", "--fail-on=error,warning", "--pedantic"]).arg(&first));
    assert_eq!(said, "");
}

#[test]
fn the_package_is_all_that_a_fresh_debian_needs_and_leaves_nothing_when_it_goes() {
    let debian = tool("HERD_TEST_DEBIAN");
    let directory = directory();
    let root = directory.path().join("root");
    said(Command::new("cp").args(["--archive", "--reflink=auto"]).arg(&debian).arg(&root));
    fs::copy(package(directory.path()), root.join("root/herd.deb")).unwrap();
    fs::write(root.join("root/new_user.sh"), NEW_USER).unwrap();

    // A root of its own and no chroot(2): who is in one may make no user namespace (user_namespaces(7)).
    let mounts = "mount --make-rprivate / && mount --bind \"$1\" \"$1\" && cd \"$1\" && mount -t proc proc proc && \
                  mount --rbind /sys sys && mount --rbind /dev dev && mount -t tmpfs -o mode=755 tmpfs run && \
                  mount -t tmpfs tmpfs tmp && ip link set lo up && pivot_root . mnt && umount -l /mnt && \
                  exec chroot . /bin/sh /root/new_user.sh";
    let mut command = Command::new("unshare");
    // Its own network: the ports are those of the configuration that is installed.
    command.args(["--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c", mounts, "sh"]).arg(&root);
    let said = said(command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"));

    let lines = [
        "herd 0.",
        "enabled",
        "root:herd 750",
        "/usr/share/doc/herd/docs/deployment.md",
        "doctor: 0",
        "answer: 42",
        "dashboard: 200",
        "sessions: ['alice']",
        "run the command with sudo",
        "own: 200",
        "worker-crashed",
        "the flux capacitor is broken",
        "asked by dpkg --remove herd: asked: stop herd.socket herd.service herd-root.service \n",
        "asked by dpkg --install /root/herd.deb: asked: start herd.socket herd.service \n",
        "asked by dpkg --install /root/herd.deb: \n",
        "asked by dpkg --install /root/herd.deb: asked: start herd-root.service \n",
        "account: none",
        "the user herd is a person's account (user ID 1000 or more) and the daemon would run as it; rename that account",
        "a person: refused",
        "a person: herd:x:1234:1234::/home/herd:/bin/sh mine",
        ":/opt/herd:",
        "== done",
    ];
    for line in lines {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
    assert!(said.contains("left: \n"), "{said}");
    assert!(said.contains("herd-ps(1)") && said.contains("herd(1)"), "{said}");
}
