//! Where user namespaces are forbidden: what is required is refused, and Landlock and seccomp are left.

use std::process::Command;

use crate::stage::{PATH, this_program};

/// Runs the script without root and without user namespaces, but with root's own files: to the kernel its user is root,
/// who owns everything. What is refused is refused by Landlock and seccomp alone.
fn left_with(script: &str) -> Vec<String> {
    let output = Command::new("bwrap")
        .args(["--unshare-user", "--uid", "1000", "--gid", "1000", "--disable-userns", "--dev-bind", "/", "/"])
        .arg(this_program())
        .args(["role:fallback", script])
        .env_clear()
        .env("PATH", PATH)
        .output()
        .expect("bubblewrap is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

pub(crate) fn a_required_sandbox_is_refused_with_the_reason() {
    let lines = left_with("true");
    let refused = &lines[0];
    assert!(refused.starts_with("the sandbox cannot be had: user namespace, PID namespace, own root"), "{refused}");
    assert!(refused.contains("step 'user namespace' fails with No space left on device"), "{refused}");
    assert!(refused.contains("user.max_user_namespaces"), "{refused}");
    assert_eq!(lines[1], "seccomp, Landlock");
}

pub(crate) fn landlock_guards_files_and_ports() {
    let script = "cat /etc/shadow >/dev/null 2>&1 || echo no shadow; ls /root >/dev/null 2>&1 || echo no root; \
                  (echo > /var/herd) 2>/dev/null || echo no var; echo > $TMPDIR/herd-fallback && echo temporary; \
                  cat /etc/passwd >/dev/null && echo passwd; rm $TMPDIR/herd-fallback; \
                  python3 -c 'import socket; s = socket.socket(); s.bind((\"127.0.0.1\", 8000)); print(\"own port\")'; \
                  python3 -c 'import socket; s = socket.socket(); s.bind((\"127.0.0.1\", 0))' 2>/dev/null || echo no port";
    let script = format!("PATH=/usr/bin TMPDIR={}; {script}", std::env::temp_dir().display());
    let lines = left_with(&script);
    assert_eq!(
        lines[2..].iter().filter(|line| !line.is_empty()).collect::<Vec<_>>(),
        ["no shadow", "no root", "no var", "temporary", "passwd", "own port", "no port"]
    );
}

pub(crate) fn seccomp_guards_system_calls() {
    let lines = left_with("unshare -m true 2>/dev/null || echo no mounts");
    assert_eq!(lines[2], "no mounts");
}
