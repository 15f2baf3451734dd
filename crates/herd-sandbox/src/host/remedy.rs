//! Why a step fails on this host, as far as the host tells, and what helps.

use std::{fs, path::Path};

use rustix::{
    fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx},
    thread::CapabilitySet,
};

use super::{Host, Layer, Obstacle};
use crate::Failure;

/// The first kernel with mount_setattr(2), without which a tree of mounts cannot be made read-only at once.
const FILES: (u32, u32) = (5, 12);

/// What a kernel of this version lacks.
pub(super) fn kernel(version: (u32, u32)) -> Option<(Layer, Obstacle)> {
    let (major, minor) = version;
    let reason = format!("Linux {major}.{minor} has no mount_setattr(2)");
    (version < FILES).then(|| (Layer::Files, Obstacle::known("new root", reason, "use Linux 5.12 or newer")))
}

/// What a way out of a private network takes, and is not there.
pub(super) fn egress(pasta: Option<&Path>, has_tun: bool) -> Option<(Layer, Obstacle)> {
    let obstacle = match (pasta, has_tun) {
        (None, _) => ("there is no program pasta", "install the package passt"),
        (Some(_), false) => {
            ("there is no /dev/net/tun", "load the kernel's module tun, or give the container that device")
        }
        (Some(_), true) => return None,
    };
    let (reason, remedy) = obstacle;
    Some((Layer::Egress, Obstacle::known("outlet", reason.to_owned(), remedy)))
}

/// What a root lacks whose user namespace knows no user but itself; see user_namespaces(7), "User and group ID mappings".
pub(super) fn lone_root(uid_map: &str) -> Option<(Layer, Obstacle)> {
    let count = |line: &str| line.split_whitespace().nth(2)?.parse::<u64>().ok();
    let users: u64 = uid_map.lines().filter_map(count).sum();
    let reason = "this root is that of a user namespace that knows no other user".to_owned();
    (users == 1).then(|| {
        let remedy = "run herd as root of the host, as an ordinary user, or in a namespace with a range of users";
        (Layer::Identity, Obstacle::known("own user", reason, remedy))
    })
}

/// What a root lacks that was left without some of its capabilities, as containers and service managers do.
pub(super) fn weak_root(lacking: CapabilitySet) -> Option<(Layer, Obstacle)> {
    let names: Vec<_> = lacking.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    let names = names.join(", ");
    (!names.is_empty()).then(|| {
        let reason = format!("this root lacks {names}, so its workers would be root as well");
        let remedy = "give it these capabilities, or run herd as an ordinary user";
        (Layer::Identity, Obstacle::known("own user", reason, remedy))
    })
}

/// The layer that a failed step stands for. All namespaces but the user namespace are made by one call: without root it
/// fails for lack of capabilities in the user namespace; with root, one after the other is suspected.
pub(super) fn culprit(layer: Layer, failure: &Failure, host: &Host) -> Layer {
    if failure.step != "namespaces" {
        return layer;
    }
    let suspects = [Layer::PidNamespace, Layer::Files, Layer::Ipc, Layer::HostName, Layer::Network];
    let ground = (!host.root).then_some(Layer::UserNamespace);
    let mut suspects = ground.into_iter().chain(suspects);
    suspects.find(|suspect| !host.obstacles.contains_key(suspect)).unwrap_or(layer)
}

/// The reason and the remedy for a step that was tried and failed.
pub(super) fn obstacle(layer: Layer, failure: &Failure) -> Obstacle {
    let (reason, remedy) = explain(layer, failure);
    Obstacle { step: failure.step.clone(), errno: failure.errno, reason, remedy }
}

fn explain(layer: Layer, failure: &Failure) -> (String, String) {
    let said = |reason: &str, remedy: &str| (reason.to_owned(), remedy.to_owned());
    if setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1)
        && matches!(layer, Layer::UserNamespace | Layer::PidNamespace | Layer::Network | Layer::Files | Layer::HostName)
    {
        // A user namespace is made, but without capabilities, so that a later step fails: Ubuntu 23.10 and newer.
        return said(
            "AppArmor restricts unprivileged user namespaces (kernel.apparmor_restrict_unprivileged_userns = 1)",
            "run herd as root, install an AppArmor profile for herd with `userns,`, or set \
             kernel.apparmor_restrict_unprivileged_userns=0 with sysctl",
        );
    }
    if layer == Layer::UserNamespace {
        if setting("kernel/unprivileged_userns_clone") == Some(0) {
            return said(
                "unprivileged user namespaces are off (kernel.unprivileged_userns_clone = 0)",
                "set kernel.unprivileged_userns_clone=1 with sysctl, or run herd as root",
            );
        }
        if setting("user/max_user_namespaces") == Some(0) {
            return said(
                "user namespaces are off (user.max_user_namespaces = 0)",
                "set user.max_user_namespaces to 10000 or more with sysctl",
            );
        }
    }
    if layer == Layer::UserNamespace && failure.errno == Some(libc::ENOSPC) {
        return said(
            "the limit of user namespaces is reached (user.max_user_namespaces, here or in a namespace around this one)",
            "raise user.max_user_namespaces with sysctl",
        );
    }
    let is_forbidden = matches!(failure.errno, Some(libc::EPERM | libc::EACCES));
    if let Some(container) = container().filter(|_| is_forbidden) {
        let options = if layer == Layer::Files { "systempaths=unconfined" } else { "apparmor=unconfined" };
        return (
            format!("{}; this looks like a container of {container}, which forbids it by default", failure.hint),
            format!(
                "if it is one, give it --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt {options}, or \
                 run herd outside of it"
            ),
        );
    }
    let is_refused = |step: &str, errno: i32| failure.step == step && failure.errno == Some(errno);
    let is_no_mount = root_is_mount() == Some(false);
    if is_refused("private mounts", libc::EINVAL)
        || is_refused("pivot root", libc::EINVAL)
        || (is_no_mount && layer == Layer::UserNamespace && is_forbidden)
    {
        let reason =
            if is_no_mount { "`/` is no mount point, as in a chroot" } else { "`/` looks like that of a chroot" };
        return said(
            reason,
            "enter that root with pivot_root(8), as systemd-nspawn and containers do, or run herd outside of the chroot",
        );
    }
    match (layer, failure.errno) {
        (Layer::Identity, _) => said(
            "this root may not become another user, as in a user namespace that knows root alone",
            "run herd as root of the host, or as an ordinary user",
        ),
        (Layer::UserNamespace, Some(libc::EPERM)) => {
            said("this process may not make a user namespace", "run herd as root, and not in a chroot")
        }
        (Layer::Files, Some(libc::EPERM)) => {
            (failure.hint.clone(), "run herd where /proc is not covered in parts, and not in a chroot".to_owned())
        }
        (Layer::Seccomp, _) => {
            said("the kernel has no seccomp filters", "use a kernel that was built with CONFIG_SECCOMP_FILTER")
        }
        (Layer::Egress, Some(libc::EOPNOTSUPP)) => {
            (failure.hint.clone(), "load the kernel's module veth, or use network: private".to_owned())
        }
        (Layer::Network, _) => (failure.hint.clone(), "use a kernel that was built with CONFIG_NET_NS".to_owned()),
        _ => (failure.hint.clone(), "run herd as root, or on a host that allows it".to_owned()),
    }
}

/// Whether the root of this process is the root of a mount, as that of a mount namespace always is and that of a chroot
/// need not be. `None` if the kernel does not tell (before 5.8); see statx(2).
fn root_is_mount() -> Option<bool> {
    let status = statx(CWD, "/", AtFlags::empty(), StatxFlags::empty()).ok()?;
    let is_told = status.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
    is_told.then(|| status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// A number under `/proc/sys`.
fn setting(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok()
}

/// The kind of container that this process is in, as far as that can be told.
fn container() -> Option<&'static str> {
    if fs::exists("/.dockerenv").unwrap_or(false) {
        return Some("Docker");
    }
    if fs::exists("/run/.containerenv").unwrap_or(false) {
        return Some("Podman");
    }
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Some("Kubernetes");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_that_fail_are_suspected_one_after_the_other() {
        let failure = Failure { step: "namespaces".to_owned(), errno: Some(libc::EPERM), hint: String::new() };
        let mut host = Host { root: false, ..Host::unknown() };
        assert_eq!(culprit(Layer::PidNamespace, &failure, &host), Layer::UserNamespace);
        host.root = true;
        for suspect in [Layer::PidNamespace, Layer::Files, Layer::Ipc, Layer::HostName, Layer::Network] {
            assert_eq!(culprit(Layer::PidNamespace, &failure, &host), suspect);
            host.obstacles.insert(suspect, obstacle(suspect, &failure));
        }
        let failure = Failure { step: "loopback".to_owned(), ..failure };
        assert_eq!(culprit(Layer::Network, &failure, &host), Layer::Network);
    }

    #[test]
    fn in_a_chroot_it_is_not_root_that_is_missing() {
        for step in ["private mounts", "pivot root"] {
            let failure = Failure { step: step.to_owned(), errno: Some(libc::EINVAL), hint: String::new() };
            for layer in [Layer::Files, Layer::UserNamespace] {
                let obstacle = obstacle(layer, &failure);
                assert!(obstacle.reason.contains("chroot") && obstacle.remedy.contains("pivot_root(8)"), "{obstacle}");
                assert!(!obstacle.remedy.contains("as root"), "{obstacle}");
            }
        }
        assert_eq!(root_is_mount(), Some(true), "no test runs in a chroot");
    }

    #[test]
    fn without_pasta_there_is_no_way_out() {
        let obstacle = |pasta: Option<&str>, has_tun| egress(pasta.map(Path::new), has_tun);
        let (layer, missing) = obstacle(None, true).expect("it is missing");
        assert_eq!(layer, Layer::Egress);
        assert!(missing.remedy.contains("passt"), "{missing}");
        assert!(obstacle(Some("/usr/bin/pasta"), false).expect("tun is missing").1.reason.contains("/dev/net/tun"));
        assert_eq!(obstacle(Some("/usr/bin/pasta"), true), None);
    }

    #[test]
    fn a_root_that_knows_nobody_else_gives_nobody_a_user() {
        assert_eq!(lone_root("         0          0 4294967295\n"), None);
        assert_eq!(lone_root("0 1000 1\n1 100000 65536\n"), None);
        assert_eq!(lone_root(""), None);
        assert_eq!(lone_root("0 1000 1\n").expect("it is alone").0, Layer::Identity);
    }

    #[test]
    fn a_root_without_all_of_its_capabilities_gives_nobody_a_user() {
        assert_eq!(weak_root(CapabilitySet::empty()), None);
        let (layer, obstacle) = weak_root(CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN).expect("it is weak");
        assert_eq!(layer, Layer::Identity);
        assert!(obstacle.reason.contains("lacks CAP_NET_ADMIN, CAP_SYS_ADMIN,"), "{obstacle}");
    }

    #[test]
    fn an_old_kernel_has_no_root_of_the_workers_own() {
        assert_eq!(kernel((5, 12)), None);
        assert_eq!(kernel((6, 1)), None);
        let (layer, obstacle) = kernel((5, 10)).expect("it is too old");
        assert_eq!(layer, Layer::Files);
        assert!(obstacle.reason.contains("5.10") && obstacle.remedy.contains("5.12"), "{obstacle}");
    }
}
