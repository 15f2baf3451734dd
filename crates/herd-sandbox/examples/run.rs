//! Runs one command under an init of its own: `cargo run -p herd-sandbox --example run -- COMMAND ARG…`
//!
//! Kill this process, even with -9, and nothing that the command has started lives on.

use std::{
    env, io,
    os::unix::process::ExitStatusExt,
    process::{ExitCode, ExitStatus},
};

use herd_sandbox::{Init, Report, Spec};
use rustix::{
    event::{PollFd, PollFlags, poll},
    stdio::{stderr, stdout},
};

fn main() -> ExitCode {
    herd_sandbox::enter_init();
    match run() {
        Ok(status) => ExitCode::from(exit_code(status)),
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a program says why it failed")]
            {
                eprintln!("run: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitStatus, Box<dyn std::error::Error>> {
    let mut args = env::args_os().skip(1);
    let mut spec = Spec::new(args.next().ok_or("usage: run COMMAND ARG…")?);
    spec.args = args.collect();
    spec.env = env::vars_os().collect();
    spec.stdout = Some(rustix::io::dup(stdout())?);
    spec.stderr = Some(rustix::io::dup(stderr())?);

    let init = Init::launch(spec)?;
    let mut status = ExitStatus::default();
    loop {
        match init.recv() {
            Ok(Some(Report::Ready { .. })) => {}
            Ok(Some(Report::Failed(failure))) => return Err(failure.into()),
            Ok(Some(Report::Exited { status: ended, .. })) => status = ended,
            Ok(Some(_)) => {}
            // Nothing of the command is left.
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(&init, PollFlags::IN)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    init.reap()?;
    Ok(status)
}

/// As shells give it: 128 and the signal for a command that a signal ended.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
