use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use rustix::{
    fs::{Access, AtFlags, CWD, accessat, getxattr},
    io::Errno,
};

use super::{
    CgroupError,
    directory::Directory,
    text::{self, Membership, Mount},
};

/// A cgroup that this process may divide, and nothing changed yet.
///
/// [`find`](Self::find) decides like this, from `/proc/self/cgroup` and `/proc/self/mountinfo`:
/// - The cgroup is this process's own. If systemd put the process into a subgroup of a delegated unit
///   (`DelegateSubgroup=`), or this process went into one named `herd-daemon` before, it is the one above.
/// - It is not the top of the host's hierarchy, root or not: what is there belongs to the system. A container's own
///   top, which is the root of its cgroup namespace, is as good as any.
/// - Where it is a unit of systemd, systemd must have marked it as delegated (the extended attributes
///   `trusted.delegate` and `user.delegate`): from others systemd takes controllers away again, and limits with them.
/// - It must be writable, have all the controllers, and no processes beside this one. In a container's own top all
///   processes are the container's, and are moved along.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delegation {
    path: PathBuf,
    pub(super) seat: Seat,
}

/// Where the launching process is, as seen from the delegated cgroup.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Seat {
    /// In it, so that it must move into one of its own.
    Inside,
    /// In it as the top of a container, with the container's other processes.
    Container,
    /// In one of its cgroups, or somewhere else.
    Apart,
}

/// The cgroup that the launching process moves to.
pub(super) const DAEMON: &str = "herd-daemon";

impl Delegation {
    /// Finds the cgroup that is delegated to this process.
    ///
    /// # Errors
    /// [`CgroupError`], with what is in the way and what to do about it.
    pub fn find() -> Result<Self, CgroupError> {
        Situation::current()?.find()
    }

    /// Takes the directory of a cgroup that somebody made for this, instead of looking for one. It is not asked whether
    /// systemd knows of it.
    ///
    /// # Errors
    /// As [`find`](Self::find). Without root it must be below a cgroup whose `cgroup.procs` this user may write and in
    /// which this process is too, as processes cannot be put into it otherwise.
    pub fn at(path: impl AsRef<Path>) -> Result<Self, CgroupError> {
        let path = path.as_ref();
        let directory = Directory::open(path).map_err(CgroupError::io("open the cgroup", path))?;
        if !directory.is_cgroup().map_err(CgroupError::io("open the cgroup", path))? {
            return Err(CgroupError::NoCgroup { path: path.to_owned() });
        }
        let path = fs::canonicalize(path).map_err(CgroupError::io("open the cgroup", path))?;
        Situation::current()?.at(&path)
    }

    /// The directory of the cgroup.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What the decision depends on, beside the hierarchy itself.
#[derive(Debug)]
struct Situation {
    /// `/proc/self/mountinfo`.
    mountinfo: Vec<u8>,
    /// `/proc/self/cgroup`.
    membership: Vec<u8>,
    /// `/proc/cgroups`, empty where there is none.
    kernel: String,
    root: bool,
    pid: u32,
    /// Whether the manager of the host marked a cgroup as delegated.
    mark: fn(&Path) -> bool,
}

impl Situation {
    fn current() -> Result<Self, CgroupError> {
        let read = |path: &str| fs::read(path).map_err(CgroupError::io("find the cgroup v2 hierarchy", path));
        Ok(Self {
            mountinfo: read("/proc/self/mountinfo")?,
            membership: read("/proc/self/cgroup")?,
            // It improves an error and decides nothing.
            kernel: fs::read_to_string("/proc/cgroups").unwrap_or_default(),
            root: rustix::process::geteuid().is_root(),
            pid: process::id(),
            mark: is_delegated_by_systemd,
        })
    }

    fn find(&self) -> Result<Delegation, CgroupError> {
        let own = self.own()?;
        let (path, seat) = self.choose(&own);
        let delegation = Delegation { path, seat };
        if is_top(&delegation.path) {
            return Err(CgroupError::Top { path: delegation.path });
        }
        self.ask_systemd(&delegation, &own)?;
        self.check(&delegation)?;
        Ok(delegation)
    }

    fn at(&self, path: &Path) -> Result<Delegation, CgroupError> {
        let own = self.own()?;
        let seat = match () {
            () if path != own.directory => Seat::Apart,
            () if own.is_namespace_root() => Seat::Container,
            () => Seat::Inside,
        };
        let delegation = Delegation { path: path.to_owned(), seat };
        if is_top(path) {
            return Err(CgroupError::Top { path: delegation.path });
        }
        self.check(&delegation)?;
        // To put a process from one cgroup into another takes the right to write to the innermost above both.
        let above = path.ancestors().find(|above| own.directory.starts_with(above));
        let above = above.filter(|above| above.starts_with(&own.mount.point));
        let above = above.ok_or_else(|| CgroupError::Invisible { cgroup: path.display().to_string() })?;
        self.may_write(above, "cgroup.procs")?;
        Ok(delegation)
    }

    /// Where this process is.
    fn own(&self) -> Result<Own, CgroupError> {
        let mounts = Mount::all(&self.mountinfo);
        let membership = Membership::parse(&self.membership);
        let (Some(cgroup), false) = (membership.unified, mounts.is_empty()) else {
            return Err(CgroupError::NoHierarchy);
        };
        if !membership.v1.is_empty() {
            return Err(CgroupError::Hybrid { controllers: membership.v1 });
        }
        let located = mounts.into_iter().filter_map(|mount| {
            let directory = mount.locate(&cgroup)?;
            // Something else may have been mounted on top.
            directory.join("cgroup.controllers").exists().then_some(Own { mount, cgroup: cgroup.clone(), directory })
        });
        let own = located.min_by_key(|own| own.mount.read_only);
        let own = own.ok_or_else(|| CgroupError::Invisible { cgroup: cgroup.display().to_string() })?;
        if own.mount.read_only {
            return Err(CgroupError::ReadOnly { path: own.mount.point });
        }
        Ok(own)
    }

    fn choose(&self, own: &Own) -> (PathBuf, Seat) {
        let directory = || own.directory.clone();
        if self.is_marked(&own.directory) {
            return (directory(), Seat::Inside);
        }
        if let Some(above) = own.above()
            && (self.is_marked(above) || own.cgroup.ends_with(DAEMON))
            && !is_top(above)
        {
            return (above.to_owned(), Seat::Apart);
        }
        (directory(), if own.is_namespace_root() { Seat::Container } else { Seat::Inside })
    }

    /// What systemd has not delegated is its own.
    fn ask_systemd(&self, delegation: &Delegation, own: &Own) -> Result<(), CgroupError> {
        let path = &delegation.path;
        // At the root of a namespace the name is hidden, and was made for this namespace.
        if *path == own.mount.point || !text::is_unit(path) || self.is_marked(path) {
            return Ok(());
        }
        // A systemd before version 251 leaves no mark that a user could see. That of the user's own manager, which is
        // always delegated, tells whether this one does.
        let above = path.ancestors().skip(1).take_while(|above| above.starts_with(&own.mount.point));
        if self.root || above.into_iter().any(|above| self.is_marked(above)) {
            return Err(CgroupError::NotDelegated { path: path.clone(), root: self.root, source: None });
        }
        Ok(())
    }

    fn check(&self, delegation: &Delegation) -> Result<(), CgroupError> {
        let path = &delegation.path;
        for file in [".", "cgroup.procs", "cgroup.subtree_control"] {
            self.may_write(path, file)?;
        }
        let read = |file: &str| {
            let file = path.join(file);
            fs::read_to_string(&file).map_err(CgroupError::io("look at the delegated cgroup", file))
        };
        let missing = text::missing(&read("cgroup.controllers")?);
        if !missing.is_empty() {
            let disabled = text::disabled(&self.kernel).into_iter().filter(|one| missing.contains(one)).collect();
            return Err(CgroupError::MissingControllers { path: path.clone(), missing, disabled });
        }
        let mut pids = text::pids(&read("cgroup.procs")?);
        match delegation.seat {
            Seat::Inside => pids.retain(|pid| *pid != self.pid),
            Seat::Container => pids.clear(),
            Seat::Apart => {}
        }
        if pids.is_empty() { Ok(()) } else { Err(CgroupError::OtherProcesses { path: path.clone(), pids }) }
    }

    fn may_write(&self, cgroup: &Path, file: &str) -> Result<(), CgroupError> {
        let path = cgroup.join(file);
        match accessat(CWD, &path, Access::WRITE_OK, AtFlags::EACCESS) {
            Ok(()) => Ok(()),
            Err(Errno::ROFS) => Err(CgroupError::ReadOnly { path: cgroup.to_owned() }),
            Err(Errno::ACCESS | Errno::PERM) => {
                let source = Some(io::Error::from(Errno::ACCESS));
                Err(CgroupError::NotDelegated { path: cgroup.to_owned(), root: self.root, source })
            }
            Err(error) => Err(CgroupError::io("look at the delegated cgroup", path)(error.into())),
        }
    }

    fn is_marked(&self, directory: &Path) -> bool {
        (self.mark)(directory)
    }
}

/// Where this process is.
#[derive(Debug)]
struct Own {
    mount: Mount,
    /// As `/proc/self/cgroup` names it.
    cgroup: PathBuf,
    directory: PathBuf,
}

impl Own {
    fn is_namespace_root(&self) -> bool {
        self.cgroup == Path::new("/")
    }

    /// The directory of the cgroup above, if that is to be seen.
    fn above(&self) -> Option<&Path> {
        self.directory.parent().filter(|above| above.starts_with(&self.mount.point))
    }
}

/// Whether a cgroup is the top of the host's hierarchy: that one never empties, so it has no file that tells when.
fn is_top(directory: &Path) -> bool {
    !directory.join("cgroup.events").exists()
}

/// Whether systemd has marked a cgroup as delegated. The first of the two is for root's eyes alone.
fn is_delegated_by_systemd(directory: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].into_iter().any(|name| {
        let mut value = [0; 8];
        getxattr(directory, name, &mut value).is_ok_and(|length| value[..length] == *b"1")
    })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const OWN: u32 = 4711;
    const ALL: &str = "cpuset cpu io memory hugetlb pids rdma misc\n";

    /// A hierarchy made of plain files, and a process in it.
    struct Host {
        root: TempDir,
        situation: Situation,
    }

    impl Host {
        fn new(cgroup: &str) -> Self {
            let root = TempDir::new().expect("a temporary directory can be made");
            let situation = Situation {
                mountinfo: format!(
                    "31 22 0:26 / {} rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
                    root.path().display()
                )
                .into_bytes(),
                membership: format!("0::{cgroup}\n").into_bytes(),
                kernel: String::new(),
                root: true,
                pid: OWN,
                mark: |directory| directory.join("marked").exists(),
            };
            let host = Self { root, situation };
            host.put("/", "cgroup.controllers", ALL);
            host.put("/", "cgroup.procs", "1\n2\n");
            host.put("/", "cgroup.subtree_control", ALL);
            host
        }

        /// With a cgroup and all that are above it.
        fn cgroup(self, cgroup: &str, pids: &[u32]) -> Self {
            let above: Vec<_> = Path::new(cgroup).ancestors().filter(|path| *path != Path::new("/")).collect();
            for path in above.into_iter().rev() {
                let path = path.to_str().expect("the path is plain");
                if !self.path(path).exists() {
                    self.fill(path, &[]);
                }
            }
            self.fill(cgroup, pids);
            self
        }

        fn fill(&self, cgroup: &str, pids: &[u32]) {
            let pids: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
            self.put(cgroup, "cgroup.controllers", ALL);
            self.put(cgroup, "cgroup.procs", &pids);
            self.put(cgroup, "cgroup.subtree_control", "\n");
            self.put(cgroup, "cgroup.events", "populated 1\nfrozen 0\n");
        }

        fn put(&self, cgroup: &str, file: &str, text: &str) {
            let directory = self.path(cgroup);
            fs::create_dir_all(&directory).expect("the directory can be made");
            fs::write(directory.join(file), text).expect("the file can be written");
        }

        fn marked(self, cgroup: &str) -> Self {
            self.put(cgroup, "marked", "");
            self
        }

        fn user(mut self) -> Self {
            self.situation.root = false;
            self
        }

        fn path(&self, cgroup: &str) -> PathBuf {
            self.root.path().join(cgroup.trim_start_matches('/'))
        }

        fn finds(&self, cgroup: &str, seat: Seat) {
            let expected = Delegation { path: self.path(cgroup), seat };
            assert_eq!(self.situation.find().expect("a cgroup is delegated"), expected);
        }

        fn refusal(&self) -> CgroupError {
            self.situation.find().expect_err("no cgroup is delegated")
        }
    }

    const SERVICE: &str = "/system.slice/herd.service";
    const SCOPE: &str = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-r5.scope";

    #[test]
    fn a_delegated_service_is_divided() {
        Host::new(SERVICE).cgroup(SERVICE, &[OWN]).marked(SERVICE).finds(SERVICE, Seat::Inside);
    }

    #[test]
    fn a_delegated_scope_of_a_user_is_divided() {
        Host::new(SCOPE).cgroup(SCOPE, &[OWN]).marked(SCOPE).user().finds(SCOPE, Seat::Inside);
    }

    #[test]
    fn a_service_that_is_not_delegated_is_left_alone_even_by_root() {
        let refusal = Host::new(SERVICE).cgroup(SERVICE, &[OWN]).refusal();
        assert!(matches!(refusal, CgroupError::NotDelegated { root: true, source: None, .. }), "{refusal:?}");
        assert!(refusal.remedy().contains("Delegate=yes"), "{}", refusal.remedy());
    }

    #[test]
    fn a_users_scope_is_left_alone_if_systemd_marks_others() {
        let host = || Host::new(SCOPE).cgroup(SCOPE, &[OWN]).user();
        let refusal = host().marked("/user.slice/user-1000.slice/user@1000.service").refusal();
        assert!(matches!(refusal, CgroupError::NotDelegated { root: false, source: None, .. }), "{refusal:?}");
        assert!(refusal.remedy().contains("systemd-run --user --scope -p Delegate=yes"), "{}", refusal.remedy());
        // An older systemd marks none for users.
        host().finds(SCOPE, Seat::Inside);
    }

    #[test]
    fn in_a_subgroup_of_a_delegated_service_the_service_is_divided() {
        let supervisor = format!("{SERVICE}/supervisor");
        Host::new(&supervisor).cgroup(&supervisor, &[OWN, 9]).marked(SERVICE).finds(SERVICE, Seat::Apart);
    }

    #[test]
    fn where_a_daemon_moved_before_the_same_cgroup_is_found_again() {
        let daemon = format!("/lxc/herd/{DAEMON}");
        Host::new(&daemon).cgroup(&daemon, &[OWN]).finds("/lxc/herd", Seat::Apart);
    }

    #[test]
    fn a_container_is_divided_with_all_that_is_in_it() {
        Host::new("/").cgroup("/", &[1, OWN]).finds("/", Seat::Container);
    }

    #[test]
    fn the_top_of_the_hosts_hierarchy_is_left_alone_even_by_root() {
        let refusal = Host::new("/").refusal();
        assert!(matches!(refusal, CgroupError::Top { .. }), "{refusal:?}");
        for way in ["Delegate=yes", "systemd-run --scope", "+cpu +memory +pids"] {
            assert!(refusal.remedy().contains(way), "{}", refusal.remedy());
        }
        // A cgroup with the daemon's name is no way up.
        let daemon = format!("/{DAEMON}");
        Host::new(&daemon).cgroup(&daemon, &[OWN]).finds(&daemon, Seat::Inside);
    }

    #[test]
    fn a_cgroup_that_others_are_in_is_not_divided() {
        let refusal = Host::new("/lxc/herd").cgroup("/lxc/herd", &[7, OWN, 0]).refusal();
        let CgroupError::OtherProcesses { pids, .. } = &refusal else { panic!("{refusal:?}") };
        assert_eq!(*pids, [7, 0]);
        assert!(refusal.to_string().ends_with(": 7, one of another PID namespace"), "{refusal}");
        let divided = format!("{SERVICE}/supervisor");
        let host = Host::new(&divided).cgroup(&divided, &[OWN]).cgroup(SERVICE, &[8]).marked(SERVICE);
        assert!(matches!(host.refusal(), CgroupError::OtherProcesses { .. }));
    }

    #[test]
    fn missing_controllers_are_named() {
        let mut host = Host::new("/lxc/herd").cgroup("/lxc/herd", &[OWN]);
        host.put("/lxc/herd", "cgroup.controllers", "cpuset io pids\n");
        let refusal = host.refusal();
        assert!(refusal.to_string().ends_with("lacks the controllers cpu, memory"), "{refusal}");
        assert!(refusal.remedy().contains("Delegate=cpu memory pids"), "{}", refusal.remedy());
        host.situation.kernel = "#subsys_name hierarchy num_cgroups enabled\nmemory 0 1 0\n".into();
        let remedy = host.refusal().remedy();
        assert!(remedy.contains("cgroup_enable=memory to it"), "{remedy}");
    }

    #[test]
    fn a_hybrid_host_is_told_from_one_without_version_2() {
        let mut host = Host::new("/");
        host.situation.membership = b"8:pids:/\n4:memory:/x\n1:cpu,cpuacct:/\n0::/\n".to_vec();
        let refusal = host.refusal();
        assert!(refusal.to_string().starts_with("cgroup v1 holds the controllers pids, memory, cpu"), "{refusal}");
        assert!(refusal.remedy().contains("systemd.unified_cgroup_hierarchy=1"), "{}", refusal.remedy());
        host.situation.mountinfo = b"33 26 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n".to_vec();
        assert!(matches!(host.refusal(), CgroupError::NoHierarchy));
    }

    #[test]
    fn a_read_only_hierarchy_is_what_a_container_has_by_default() {
        let mut host = Host::new("/").cgroup("/", &[1, OWN]);
        let point = host.root.path().display().to_string();
        host.situation.mountinfo = format!("9 8 0:28 / {point} ro,nosuid - cgroup2 cgroup rw\n").into_bytes();
        let refusal = host.refusal();
        assert!(matches!(refusal, CgroupError::ReadOnly { .. }), "{refusal:?}");
        assert!(refusal.remedy().contains("writable-cgroups=true"), "{}", refusal.remedy());
    }

    #[test]
    fn of_two_mounts_the_writable_one_is_taken() {
        let mut host = Host::new("/lxc/herd").cgroup("/lxc/herd", &[OWN]);
        let mut mountinfo = format!("9 8 0:28 / {} ro - cgroup2 cgroup rw\n", host.root.path().display()).into_bytes();
        mountinfo.append(&mut host.situation.mountinfo);
        host.situation.mountinfo = mountinfo;
        host.finds("/lxc/herd", Seat::Inside);
    }

    #[test]
    fn a_cgroup_that_is_not_shown_is_not_guessed() {
        let host = Host::new("/../elsewhere").cgroup("/elsewhere", &[OWN]);
        assert!(matches!(host.refusal(), CgroupError::Invisible { .. }));
        let host = Host::new("/lxc/herd");
        assert!(matches!(host.refusal(), CgroupError::Invisible { .. }), "nothing is there");
    }

    #[test]
    fn a_cgroup_that_was_named_need_not_be_known_to_systemd() {
        let host = Host::new(SERVICE).cgroup(SERVICE, &[OWN]).cgroup("/herd.slice", &[]);
        let path = host.path("/herd.slice");
        let found = host.situation.at(&path).expect("the cgroup can be used");
        assert_eq!(found, Delegation { path, seat: Seat::Apart });
        let own = host.situation.at(&host.path(SERVICE)).expect("the cgroup can be used");
        assert_eq!(own.seat, Seat::Inside);
        assert!(matches!(host.situation.at(host.root.path()), Err(CgroupError::Top { .. })));
    }

    #[test]
    fn what_is_no_cgroup_is_not_taken_for_one() {
        let directory = TempDir::new().expect("a temporary directory can be made");
        assert!(matches!(Delegation::at(directory.path()), Err(CgroupError::NoCgroup { .. })));
        let missing = directory.path().join("missing");
        assert!(matches!(Delegation::at(&missing), Err(CgroupError::Io { step: "open the cgroup", .. })));
    }
}
