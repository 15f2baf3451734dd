//! What init does to the namespaces that it was born into, before the worker comes to be.

use std::{ffi::CStr, io};

use rustix::{
    mount::{MountPropagationFlags, mount_change},
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    system::{setdomainname, sethostname},
};

use super::{
    failed, failure, lossy,
    root::Root,
    router::{Design, Router},
};
use crate::{
    Failure, Identity,
    channel::Channel,
    plan::{Place, Plan, Step},
    sys::{network, process::unshare},
};

/// Does init's steps. `false` if the launching process wants no worker any more.
pub(super) fn perform(plan: &Plan<'_>, launcher: &Channel) -> Result<bool, Failure> {
    let (mut root, mut router) = (None, None);
    for step in plan.steps_of(Place::Init) {
        let is_wanted = match step {
            Step::Router { uid, gid, own, closed, open, loopback } => {
                let owner = own.then_some(Identity { uid: *uid, gid: *gid });
                router = Router::make(Design { owner, closed, open, loopback: *loopback }, launcher)?;
                router.is_some()
            }
            Step::Outlet {} => match router.take() {
                Some(router) => router.open(launcher)?,
                None => return Err(failure(step.name(), None, "there is no router")),
            },
            step => {
                apply(step, &mut root).map_err(|error| failed(step.name(), &error, &hint(step)))?;
                true
            }
        };
        if !is_wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

fn apply(step: &Step<'_>, root: &mut Option<Root>) -> io::Result<()> {
    match step {
        Step::CgroupNamespace {} => unshare(libc::CLONE_NEWCGROUP),
        Step::Loopback {} => {
            let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            network::raise_loopback(socket)
        }
        Step::HostName { name } => {
            setdomainname(b"")?;
            Ok(sethostname(name.to_bytes())?)
        }
        Step::PrivateMounts {} => Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?),
        Step::NewRoot {} => {
            *root = Some(Root::new()?);
            Ok(())
        }
        step => build(step, root.as_ref().ok_or(io::ErrorKind::InvalidInput)?),
    }
}

fn build(step: &Step<'_>, root: &Root) -> io::Result<()> {
    match step {
        Step::MakeDirectory { path } => root.make_directory(path).map(drop),
        Step::Link { path, target } => root.link(path, target),
        Step::WriteFile { path, text } => root.write_file(path, text.to_bytes()),
        Step::System { path } => root.mirror(path),
        Step::Bind { source, target, access, follow } => root.bind(source, target, *access, *follow),
        Step::Memory { path, size, files } => root.memory(path, *size, *files),
        Step::Terminals {} => root.terminals(),
        Step::Processes {} => root.processes(),
        Step::Freeze { path } => root.freeze(path),
        Step::Hide { path } => root.hide(path),
        Step::Pivot {} => root.pivot(),
        Step::FreezeRoot {} => root.freeze_top(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn hint(step: &Step<'_>) -> String {
    let path = |path: &CStr| lossy(path);
    match step {
        Step::Bind { source, follow: false, .. } => {
            format!("cannot mount {}; no symbolic link may lead there, since a worker could have made it", path(source))
        }
        Step::Bind { source, target, .. } if source == target => format!("cannot mount {}", path(source)),
        Step::Bind { source, target, .. } => format!("cannot mount {} at {}", path(source), path(target)),
        Step::MakeDirectory { path: place }
        | Step::Link { path: place, .. }
        | Step::WriteFile { path: place, .. }
        | Step::System { path: place }
        | Step::Memory { path: place, .. }
        | Step::Freeze { path: place }
        | Step::Hide { path: place } => path(place),
        Step::Processes {} => {
            "the kernel refuses a new /proc where parts of the present one are covered, as in most containers"
                .to_owned()
        }
        _ => String::new(),
    }
}
