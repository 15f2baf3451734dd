//! `herd man`, `--help` and docs/cli.md say the same.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::daemon::{failure, herd, output};

fn stdout(args: &[&str]) -> String {
    let directory = TempDir::new().unwrap();
    let output = output(args, directory.path());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// All commands that `--help` lists.
fn commands() -> Vec<String> {
    let help = stdout(&["--help"]);
    let listed = help.lines().take_while(|line| *line != "Options:").filter_map(|line| line.strip_prefix("  "));
    let names: Vec<_> = listed
        .filter_map(|line| Some(line.split_once("  ")?.0.to_owned()))
        .filter(|name| !name.is_empty() && name != "help")
        .collect();
    assert!(names.len() > 12 && names.contains(&"logs".to_owned()), "{names:?}");
    names
}

/// The long flags that a help text names.
fn flags(help: &str) -> BTreeSet<String> {
    let words = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let flags = words.flat_map(|line| line.split([' ', ',', '=', '[']).filter(|word| word.starts_with("--")));
    flags.map(str::to_owned).collect()
}

#[test]
fn every_command_and_flag_is_in_the_documentation() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md")).unwrap();
    for command in commands() {
        let heading = format!("\n## herd {command}\n");
        let section = text.split_once(&*heading).unwrap_or_else(|| panic!("docs/cli.md has no `## herd {command}`")).1;
        let section = section.split("\n## ").next().unwrap();
        assert!(section.contains("```"), "herd {command} has no example");
        let everywhere = ["--help", "--version", "--color", "--socket"];
        // They share most of them, which are told once.
        let section = if matches!(&*command, "serve" | "run" | "start") { &*text } else { section };
        for flag in flags(&stdout(&[&command, "--help"])) {
            let known = everywhere.contains(&&*flag) || section.contains(&format!("`{flag}"));
            assert!(known, "docs/cli.md does not tell {flag} of `herd {command}`");
        }
    }
    for flag in ["--color", "--socket", "--help", "--version", "HERD_SOCKET", "NO_COLOR"] {
        assert!(text.contains(flag), "{flag}");
    }
}

#[test]
fn every_command_has_a_page_of_the_manual_without_warnings() {
    let directory = TempDir::new().unwrap();
    let pages = directory.path().join("man");
    assert!(output(&["man", "--dir", pages.to_str().unwrap()], directory.path()).status.success());
    let mut expected: Vec<_> = commands().iter().map(|name| format!("herd-{name}.1")).collect();
    expected.push("herd.1".to_owned());
    expected.sort();
    let mut found: Vec<_> =
        fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    assert_eq!(found, expected);
    for name in found {
        let file = fs::File::open(pages.join(&name)).unwrap();
        let groff = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).stdin(file).output();
        let groff = groff.expect("groff checks the pages; install the Debian package groff-base");
        let warnings = String::from_utf8(groff.stderr).unwrap();
        assert!(groff.status.success() && warnings.is_empty(), "{name}: {warnings}");
        let text = fs::read_to_string(pages.join(&name)).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}: {text}");
    }
    assert!(failure(&["man", "--dir", "/dev/null/man"], 1).contains("cannot make the directory /dev/null/man"));
    for (args, page) in [(&["man"][..], "herd.1"), (&["man", "ps"], "herd-ps.1")] {
        let there = TempDir::new().unwrap();
        let printed = herd(args, there.path()).current_dir(&there).output().unwrap();
        let written = fs::read(pages.join(page)).unwrap();
        assert!(printed.status.success() && printed.stdout == written, "{printed:?}");
        assert_eq!(fs::read_dir(there.path()).unwrap().count(), 0, "{args:?} writes no files");
    }
    let refused = failure(&["man", "banana"], 1);
    assert!(refused.contains("no command `banana`") && refused.contains("--dir DIR"), "{refused}");
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let directory = TempDir::new().unwrap();
    let coloured = |args: &[&str], variable: Option<(&str, &str)>| {
        let mut command = crate::daemon::herd(args, directory.path());
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env("TERM", "xterm").envs(variable);
        let output = command.stdin(Stdio::null()).output().unwrap();
        [output.stdout, output.stderr].concat().contains(&0x1b)
    };
    assert!(!coloured(&["--help"], None));
    assert!(coloured(&["--help", "--color", "always"], None));
    assert!(coloured(&["--color=always", "--help"], None));
    assert!(!coloured(&["--help", "--color", "never"], Some(("CLICOLOR_FORCE", "1"))));
    assert!(!coloured(&["banana"], Some(("NO_COLOR", "1"))));
}
