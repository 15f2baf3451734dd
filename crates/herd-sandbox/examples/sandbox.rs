//! Runs a command in a sandbox of its own: `cargo run -p herd-sandbox --example sandbox -- COMMAND ARG…`.
//!
//! As root the command runs as user `nobody`. Its output is this program's.

use std::{error::Error, io, os::fd::AsFd, time::Duration};

use herd_sandbox::{Identity, Init, Isolation, Mode, Report, Signal, Spec};
use rustix::event::{PollFd, PollFlags, poll};

fn main() -> Result<(), Box<dyn Error>> {
    herd_sandbox::enter_init();

    let mut args = std::env::args_os().skip(1);
    let mut spec = Spec::new(args.next().ok_or("name a command")?);
    spec.args = args.collect();
    spec.env = vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())];
    spec.stdout = Some(io::stdout().as_fd().try_clone_to_owned()?);
    spec.stderr = Some(io::stderr().as_fd().try_clone_to_owned()?);
    spec.isolation = Isolation::new(Mode::Required);
    if rustix::process::geteuid().is_root() {
        spec.isolation.identity = Some(Identity { uid: 65534, gid: 65534 });
    }
    let init = Init::launch(spec)?;
    loop {
        match init.recv() {
            Ok(Some(Report::Failed(failure))) => return Err(failure.into()),
            Ok(Some(Report::Exited { status, .. })) if !status.success() => return Err(status.to_string().into()),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(&init, PollFlags::IN)], None)?;
            }
            Err(error) => {
                init.stop(Signal::TERM, Duration::from_secs(1))?;
                return Err(error.into());
            }
        }
    }
}
