//! `herd completions`.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use clap_complete::{
    CompleteEnv,
    env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh},
};

use super::help;
use crate::console;

/// The variable with which a shell asks this program to complete a command line.
const VARIABLE: &str = "HERD_COMPLETE";

#[derive(Args, Debug)]
#[command(after_help = "\
In bash:        source <(herd completions bash)
In zsh:         source <(herd completions zsh)
In fish:        herd completions fish | source
In elvish:      eval (herd completions elvish | slurp)
In PowerShell:  herd completions powershell | Out-String | Invoke-Expression

The shell asks herd itself as you type, which asks the running daemon for its sessions, workers and pools.")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Elvish,
    Powershell,
}

impl Shell {
    fn completer(self) -> &'static dyn EnvCompleter {
        match self {
            Self::Bash => &Bash,
            Self::Zsh => &Zsh,
            Self::Fish => &Fish,
            Self::Elvish => &Elvish,
            Self::Powershell => &Powershell,
        }
    }
}

/// Prints what makes a shell ask this program.
///
/// # Errors
/// If it cannot be printed.
pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let completer = args.shell.completer();
    completer.write_registration(VARIABLE, "herd", "herd", "herd", &mut script)?;
    let script = String::from_utf8(script).context("the script is no text")?;
    console::print_exactly(script.trim_start())
}

/// If a shell asks, answers it and ends the program.
pub(crate) fn answer_shell() {
    CompleteEnv::with_factory(|| help::parser(clap::ColorChoice::Never)).var(VARIABLE).bin("herd").complete();
}
