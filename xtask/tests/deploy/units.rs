use std::{fs, process::Command};

use tempfile::TempDir;

use crate::{deploy, herd, output, said};

const UNITS: [&str; 3] = ["herd.service", "herd-root.service", "herd.socket"];

/// The units as they would be installed: systemd looks whether their program and their manual are there.
fn installed() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let text = fs::read_to_string(deploy(&format!("systemd/{unit}"))).unwrap();
        let text = text.replace("/usr/bin/herd", herd().to_str().unwrap()).replace("man:herd(1)", "man:sh(1)");
        fs::write(directory.path().join(unit), text).unwrap();
    }
    directory
}

#[test]
fn systemd_understands_all_of_the_units() {
    let directory = installed();
    let verify = || {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]).args(UNITS.map(|unit| directory.path().join(unit)));
        command
    };
    assert_eq!(said(&mut verify()), "");
    // It is not just silent.
    let file = directory.path().join(UNITS[0]);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("NoNewPrivileges=", "NoNewPrivilege=")).unwrap();
    let said = output(&mut verify());
    assert!(String::from_utf8_lossy(&said.stderr).contains("NoNewPrivilege"), "{said:?}");
}

/// In tenths, the lower the safer, on a scale to 10. The docs state what systemd 252 says; versions count differently.
#[test]
fn the_units_are_as_hardened_as_the_docs_say() {
    for (unit, most) in [("herd.service", 37), ("herd-root.service", 58)] {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=yes", "--no-pager", &format!("--threshold={most}")]);
        let said = said(command.arg(deploy(&format!("systemd/{unit}"))));
        assert!(said.contains(&format!("Overall exposure level for {unit}")), "{said}");
    }
}

/// The words of all lines that set a directive.
fn values(unit: &str, directive: &str) -> Vec<String> {
    let text = fs::read_to_string(deploy(&format!("systemd/{unit}"))).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(directive)?.strip_prefix('='));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn of_two_units_that_conflict_one_has_ended_before_the_other_starts() {
    let conflicts = values("herd-root.service", "Conflicts");
    assert_eq!(conflicts, ["herd.service", "herd.socket"]);
    let after = values("herd-root.service", "After");
    assert!(conflicts.iter().all(|unit| after.contains(unit)), "{after:?}");
}

/// Whoever a unit runs as owns its runtime directory, and it is gone with the unit.
#[test]
fn the_users_that_root_hands_out_are_not_registered_in_what_belongs_to_a_unit() {
    for unit in ["herd.service", "herd-root.service"] {
        assert_eq!(values(unit, "RuntimeDirectory"), ["herd"]);
    }
    assert_eq!(values("herd-root.service", "ReadWritePaths"), ["-/run/herd-uids"]);
    assert!(values("herd-root.service", "ExecStartPre").ends_with(&["/run/herd-uids".to_owned()]));
}

#[test]
fn the_units_filter_no_less_than_the_profile_of_containers() {
    let forbidden = ["io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd", "kcmp"];
    for unit in ["herd.service", "herd-root.service"] {
        let filter = values(unit, "SystemCallFilter");
        let (allowed, taken_out) = filter.split_at(filter.iter().position(|call| call.starts_with('~')).unwrap());
        assert_eq!(allowed[0], "@system-service");
        for call in forbidden.into_iter().chain(["process_vm_readv", "process_vm_writev"]) {
            assert!(taken_out.iter().any(|out| out.trim_start_matches('~') == call), "{unit}: {call}");
        }
        assert!(!taken_out.iter().any(|out| out == "keyctl"), "init joins a keyring of its own");
    }
}

#[test]
fn every_directive_that_is_missing_is_explained() {
    let unit = fs::read_to_string(deploy("systemd/herd.service")).unwrap();
    let mut command = Command::new("systemd-analyze");
    let table = said(command.args(["security", "--offline=yes", "--no-pager"]).arg(deploy("systemd/herd.service")));
    let missing = table.lines().filter_map(|line| line.strip_prefix('✗')?.split_whitespace().next());
    for directive in missing {
        let name = directive.split('=').next().unwrap();
        assert!(unit.contains(&format!("{name}=")), "{directive} is not mentioned:\n{table}");
    }
}
