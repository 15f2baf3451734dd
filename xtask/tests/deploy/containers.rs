use std::{fs, process::Command};

use serde_json::Value;

use crate::{deploy, herd, output, said, tool};

/// Those of the oldest version that the manifest is for, and the newest one that is known.
const KUBERNETES: [&str; 2] = ["1.33.0", "1.37.0"];

#[test]
fn the_manifest_has_only_what_kubernetes_knows() {
    let validate = tool("HERD_TEST_LINTERS").join("kubernetes-validate");
    for version in KUBERNETES {
        said(
            Command::new(&validate)
                .args(["--strict", "--kubernetes-version", version])
                .arg(deploy("kubernetes/herd.yaml")),
        );
    }
    // It is the schema that decides: a mistake is noticed.
    let directory = tempfile::tempdir().unwrap();
    let wrong = directory.path().join("wrong.yaml");
    let text = fs::read_to_string(deploy("kubernetes/herd.yaml")).unwrap();
    fs::write(&wrong, text.replace("hostUsers: false", "hostUser: false")).unwrap();
    let refused = output(Command::new(&validate).args(["--strict", "--kubernetes-version", KUBERNETES[0]]).arg(&wrong));
    assert!(!refused.status.success());
}

#[test]
fn the_dockerfile_has_nothing_that_a_linter_minds() {
    let hadolint = tool("HERD_TEST_LINTERS").join("hadolint");
    assert_eq!(said(Command::new(hadolint).arg(deploy("docker/Dockerfile"))), "");
}

/// The program's own check of the files that are given to it.
#[test]
fn the_configurations_have_no_mistakes() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = fs::read_to_string(deploy("kubernetes/herd.yaml")).unwrap();
    let map = manifest.split("  herd.yaml: |\n").nth(1).and_then(|rest| rest.split("\n---\n").next()).unwrap();
    let token = directory.path().join("admin-token");
    fs::write(&token, "token\n").unwrap();
    let map = map.replace("/etc/herd-secrets/admin-token", token.to_str().unwrap());
    let map: String = map.lines().map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n").collect();
    let mapped = directory.path().join("herd.yaml");
    fs::write(&mapped, map).unwrap();
    for file in [mapped, deploy("docker/herd.yaml"), deploy("debian/herd.yaml")] {
        said(Command::new(herd()).arg("check").arg(file));
    }
}

#[test]
fn the_filter_of_system_calls_lets_sandboxes_be_built_and_nothing_be_loaded() {
    let filter: Value = serde_json::from_slice(&fs::read(deploy("docker/seccomp.json")).unwrap()).unwrap();
    assert_eq!(filter["defaultAction"], "SCMP_ACT_ERRNO");
    let rules = filter["syscalls"].as_array().unwrap();
    assert!(rules.iter().all(|rule| rule["action"] == "SCMP_ACT_ALLOW"));
    let allowed = |name: &str| rules.iter().any(|rule| rule["names"].as_array().unwrap().iter().any(|own| own == name));
    let needed = [
        "clone",
        "clone3",
        "unshare",
        "setns",
        "mount",
        "umount2",
        "pivot_root",
        "move_mount",
        "open_tree",
        "mount_setattr",
        "sethostname",
        "seccomp",
        "prctl",
        "landlock_restrict_self",
        "close_range",
        "pidfd_send_signal",
    ];
    for name in needed {
        assert!(allowed(name), "{name}");
    }
    let forbidden = [
        "init_module",
        "kexec_load",
        "bpf",
        "perf_event_open",
        "reboot",
        "swapon",
        "open_by_handle_at",
        "ptrace",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "userfaultfd",
        "process_vm_readv",
        "process_vm_writev",
        "kcmp",
    ];
    for name in forbidden {
        assert!(!allowed(name), "{name}");
    }
}
