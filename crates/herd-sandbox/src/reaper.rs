//! Reaps the inits whose [`Init`](crate::Init) was dropped before they ended, so that none stays a zombie.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
    process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid},
};

use crate::{channel::Channel, protocol::Reply};

/// Waits for the process behind a pidfd as the options say.
pub(crate) fn wait(pidfd: BorrowedFd<'_>, options: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
    loop {
        match waitid(WaitId::PidFd(pidfd), options) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(None) => return Ok(None),
            Ok(Some(status)) => {
                let code = status.exit_status().map(|code| (code & 0xff) << 8);
                let raw = code.or_else(|| status.terminating_signal()).unwrap_or_default();
                return Ok(Some(ExitStatus::from_raw(raw)));
            }
        }
    }
}

/// A process that is about to end.
#[derive(Debug)]
pub(crate) struct Orphan {
    pidfd: Arc<OwnedFd>,
    /// Where it says whether it goes on as another child of this process, which is to be reaped then.
    channel: Option<Channel>,
}

impl Orphan {
    pub(crate) fn new(pidfd: Arc<OwnedFd>) -> Self {
        Self { pidfd, channel: None }
    }

    pub(crate) fn with_channel(pidfd: Arc<OwnedFd>, channel: &Channel) -> Self {
        // Without descriptors there is nothing to hold on to.
        Self { pidfd, channel: channel.try_clone().ok() }
    }

    /// Reaps it if it has ended. What is to be reaped instead of it, if anything.
    fn reap(self) -> Option<Self> {
        if let Ok(None) = wait(self.pidfd.as_fd(), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            return Some(self);
        }
        // It says so before it ends.
        while let Ok(Some(packet)) = self.channel.as_ref()?.recv() {
            if let Ok(Reply::Moved { pid }) = Reply::decode(&packet.bytes) {
                let pidfd = pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()?;
                return Self::new(Arc::new(pidfd)).reap();
            }
        }
        None
    }
}

/// The inits to reap, and the thread that does it: it exists while there are any.
static ORPHANS: Mutex<Orphans> = Mutex::new(Orphans { new: Vec::new(), wake: None });

struct Orphans {
    new: Vec<Orphan>,
    /// Wakes the thread; `None` while there is none.
    wake: Option<OwnedFd>,
}

/// Takes over an init that is about to end.
pub(crate) fn adopt(orphan: Orphan) {
    let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
    orphans.new.push(orphan);
    if let Some(wake) = &orphans.wake {
        // It fails only if the counter is full, and then the thread is awake.
        let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        return;
    }
    // Without a thread (the limit of threads or of descriptors is reached) the inits stay listed, and the next one
    // that is dropped tries again.
    let Ok((wake, woken)) = wake_pair() else { return };
    if thread::Builder::new().name("herd-reaper".to_owned()).stack_size(64 * 1024).spawn(move || reap(&woken)).is_ok() {
        orphans.wake = Some(wake);
    }
}

fn wake_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let woken = wake.try_clone()?;
    Ok((wake, woken))
}

fn reap(woken: &OwnedFd) {
    let mut waiting: Vec<Orphan> = Vec::new();
    loop {
        // Before the list is looked at, so that no wake-up for something that is not in it yet is lost.
        let _ = rustix::io::read(woken, &mut [0; 8]);
        {
            let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.append(&mut orphans.new);
            waiting = waiting.into_iter().filter_map(Orphan::reap).collect();
            if waiting.is_empty() {
                // Under the lock: who comes next finds no thread and starts one.
                orphans.wake = None;
                return;
            }
        }
        let mut ready: Vec<_> = waiting.iter().map(|orphan| PollFd::new(&*orphan.pidfd, PollFlags::IN)).collect();
        ready.push(PollFd::new(woken, PollFlags::IN));
        // An interrupted or failed poll is followed by another look, which is right in any case.
        let _ = poll(&mut ready, None);
    }
}
