use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::run::cargo;

/// The test targets that need the virtual machine: package and target. They bring their own `main`, which takes the
/// arguments of libtest. nextest leaves them out by the `default-filter` of `.config/nextest.toml`, which says the same.
const IN_MACHINE: &[(&str, &str)] = &[("xtask", "vm"), ("herd-sandbox", "cgroup"), ("herd", "limits")];

/// What the workspace's tests consist of, built.
#[derive(Debug)]
pub(super) struct Targets {
    targets: Vec<Target>,
}

/// A program that Cargo built for the tests.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) program: PathBuf,
    /// The directory of its package, which has the package's name.
    pub(super) directory: PathBuf,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// A target of tests alone.
    Test,
    /// What the tests of its package start.
    Program,
    Other,
}

impl Targets {
    /// Builds what nextest would, so that both share it.
    pub(super) fn build() -> Result<Self> {
        let mut command = cargo();
        command.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
        let output = command.stdin(Stdio::null()).stderr(io::stderr()).output().context("cannot start cargo")?;
        ensure!(output.status.success(), "the tests cannot be built");
        let messages = String::from_utf8(output.stdout).context("Cargo's messages are no text")?;
        let targets = messages.lines().filter_map(|message| Target::parse(message).transpose());
        Ok(Self { targets: targets.collect::<Result<_>>()? })
    }

    /// Those that need the virtual machine, as far as there are any.
    pub(super) fn in_machine(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().filter(|target| target.is_in_machine())
    }

    /// The names of the others that hold nothing but tests.
    pub(super) fn on_host(&self) -> impl Iterator<Item = &str> {
        let on_host = self.targets.iter().filter(|target| target.kind == Kind::Test && !target.is_in_machine());
        on_host.map(|target| target.name.as_str())
    }

    /// The programs of a target's package.
    pub(super) fn programs(&self, of: &Target) -> impl Iterator<Item = &Path> {
        let programs = self.targets.iter().filter(|target| target.kind == Kind::Program);
        programs.filter(|target| target.directory == of.directory).map(|target| target.program.as_path())
    }
}

impl Target {
    /// One line of what Cargo prints, if it is about a program.
    fn parse(message: &str) -> Result<Option<Self>> {
        let message: Message = serde_json::from_str(message).context("Cargo's messages are not understood")?;
        let Message::CompilerArtifact { manifest_path, target, profile, executable: Some(program) } = message else {
            return Ok(None);
        };
        let kind = match (target.kind.first().map(String::as_str), profile.test) {
            (Some("test"), _) => Kind::Test,
            (Some("bin"), false) => Kind::Program,
            _ => Kind::Other,
        };
        let directory = manifest_path.parent().context("a manifest is in no directory")?.to_owned();
        Ok(Some(Self { name: target.name, program, directory, kind }))
    }

    fn package(&self) -> &str {
        self.directory.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    fn is_in_machine(&self) -> bool {
        self.kind == Kind::Test && IN_MACHINE.contains(&(self.package(), self.name.as_str()))
    }

    /// As nextest names it.
    pub(super) fn id(&self) -> String {
        format!("{}::{}", self.package(), self.name)
    }
}

/// What Cargo tells with `--message-format=json`, as far as it is of use here:
/// <https://doc.rust-lang.org/cargo/reference/external-tools.html#json-messages>.
#[derive(Debug, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        manifest_path: PathBuf,
        target: Artifact,
        profile: Profile,
        executable: Option<PathBuf>,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Artifact {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::test::repository;

    fn artifact(kind: &str, test: bool) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"path+file:///repo/crates/herd#0.5.0",
            "manifest_path":"/repo/crates/herd/Cargo.toml","target":{{"kind":["{kind}"],"name":"limits","edition":"2024"}},
            "profile":{{"opt_level":"0","test":{test}}},"executable":"/repo/target/debug/deps/limits-1","fresh":true}}"#
        )
    }

    #[test]
    fn a_target_of_the_list_needs_the_machine_and_only_as_a_target_of_tests() {
        let parse = |kind, test| Target::parse(&artifact(kind, test)).unwrap().unwrap();
        assert!(parse("test", true).is_in_machine());
        assert_eq!(parse("test", true).id(), "herd::limits");
        assert!(!parse("bin", true).is_in_machine());
        assert!(!parse("bin", false).is_in_machine());
        assert_eq!(parse("bin", false).kind, Kind::Program);
    }

    #[test]
    fn messages_about_anything_else_are_passed_over() {
        let library = artifact("lib", false).replace(r#""/repo/target/debug/deps/limits-1""#, "null");
        assert!(Target::parse(&library).unwrap().is_none());
        assert!(Target::parse(r#"{"reason":"build-finished","success":true}"#).unwrap().is_none());
    }

    #[test]
    fn nextest_leaves_out_exactly_the_targets_of_the_list() {
        let ids: Vec<_> = IN_MACHINE.iter().map(|(package, target)| format!("{package}::{target}")).collect();
        let line = format!(r#"default-filter = "not binary_id(/^({})$/)""#, ids.join("|"));
        let path = repository().join(".config/nextest.toml");
        let configuration = fs::read_to_string(&path).unwrap();
        assert!(configuration.lines().any(|other| other == line), "{} needs this line:\n{line}", path.display());
    }
}
