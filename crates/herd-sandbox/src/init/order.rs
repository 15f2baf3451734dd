use std::{io, os::fd::OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};

use super::{execution, failed, failure};
use crate::{
    Failure,
    channel::Channel,
    plan::{Plan, Step},
    protocol::{Request, VERSION},
    sys::memory::Mapping,
};

/// What the launching process wants done.
#[derive(Debug)]
pub(super) struct Order {
    plan: Mapping,
    descriptors: Vec<OwnedFd>,
}

/// What the worker's standard output, standard error and further descriptors become, and the cgroup that it is born
/// into.
#[derive(Debug)]
pub(super) struct Belongings {
    /// `None` is `/dev/null`.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) cgroup: Option<OwnedFd>,
    pub(super) listen: Vec<OwnedFd>,
    /// What init holds until nothing of the worker is left.
    pub(super) kept: Vec<OwnedFd>,
}

impl Order {
    /// Waits for it. `None` if the launching process is gone or has changed its mind.
    pub(super) fn wait(channel: &Channel) -> Result<Option<Self>, Failure> {
        loop {
            let packet = match channel.recv() {
                Ok(Some(packet)) => packet,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // An interrupted wait is followed by another look.
                    let _ = poll(&mut [PollFd::new(channel, PollFlags::IN)], None);
                    continue;
                }
                Ok(None) | Err(_) => return Ok(None),
            };
            match Request::decode(&packet.bytes) {
                Ok(Request::Plan { version: VERSION, .. }) if packet.is_short => {
                    let hint = "not all that came with it could be kept; raise the limit of open files of the launching \
                                process";
                    return Err(failure("plan", Some(libc::EMFILE), hint));
                }
                Ok(Request::Plan { version: VERSION, length }) => {
                    return Self::new(length, packet.descriptors).map(Some);
                }
                Ok(Request::Plan { version, .. }) => {
                    let hint = format!(
                        "init speaks version {VERSION} of the protocol, its launcher {version}: build both alike"
                    );
                    return Err(failure("init", None, &hint));
                }
                // There is nobody yet to get a signal.
                Ok(Request::Signal(_) | Request::Sockets { .. }) => {}
                Ok(Request::Execute { id, .. }) => execution::refuse(channel, id),
                Ok(Request::SignalExecution { .. } | Request::EndExecution { .. }) => {}
                Ok(Request::Stop { .. } | Request::Kill) | Err(_) => return Ok(None),
            }
        }
    }

    fn new(length: u64, mut descriptors: Vec<OwnedFd>) -> Result<Self, Failure> {
        if descriptors.is_empty() {
            return Err(failure("plan", None, "it came without a memory file"));
        }
        let memory = descriptors.remove(0);
        let plan = Mapping::new(&memory, length).map_err(|error| failed("plan", &error, "it cannot be mapped"))?;
        Ok(Self { plan, descriptors })
    }

    /// The plan as it came, and its descriptors.
    pub(super) fn split(self) -> (Mapping, Vec<OwnedFd>) {
        (self.plan, self.descriptors)
    }
}

/// Whether the launching process still wants the worker whose order it has given.
pub(super) fn is_wanted(channel: &Channel) -> bool {
    loop {
        let packet = match channel.recv() {
            Ok(Some(packet)) => packet,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            Ok(None) => return false,
        };
        match Request::decode(&packet.bytes) {
            // There is nobody yet to get a signal.
            Ok(Request::Signal(_) | Request::Sockets { .. }) => {}
            Ok(Request::Execute { id, .. }) => execution::refuse(channel, id),
            Ok(Request::SignalExecution { .. } | Request::EndExecution { .. }) => {}
            _ => return false,
        }
    }
}

pub(super) fn decode(plan: &Mapping) -> Result<Plan<'_>, Failure> {
    Plan::decode(plan.bytes())
        .map_err(|_| failure("plan", None, "it is malformed: is the helper binary of the same version?"))
}

impl Belongings {
    /// From what came with the plan.
    pub(super) fn new(descriptors: Vec<OwnedFd>, plan: &Plan<'_>) -> Result<Self, Failure> {
        let missing = || failure("plan", None, "it came without its descriptors");
        let has_cgroup = plan.steps.iter().any(|step| matches!(step, Step::Birth { cgroup: true, .. }));
        let mut descriptors = descriptors.into_iter();
        let stdout = descriptors.next().ok_or_else(missing)?;
        let stderr = descriptors.next().ok_or_else(missing)?;
        let cgroup = if has_cgroup { Some(descriptors.next().ok_or_else(missing)?) } else { None };
        let counted = plan.steps.iter().map(|step| match step {
            Step::Descriptors { listen } => i64::from(*listen),
            // Those that are made in the worker's network did not come from outside.
            Step::Listen { ports } => -i64::try_from(ports.len()).unwrap_or(i64::MAX),
            _ => 0,
        });
        let listening = usize::try_from(counted.sum::<i64>()).unwrap_or(0);
        let listen = descriptors.by_ref().take(listening).collect();
        Ok(Self { stdin: None, stdout, stderr, cgroup, listen, kept: descriptors.collect() })
    }
}
