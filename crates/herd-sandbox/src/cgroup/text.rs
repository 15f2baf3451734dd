//! The kernel's texts: `/proc/self/mountinfo`, `/proc/self/cgroup`, `/proc/cgroups` and the files of a cgroup.
//!
//! All of them are read leniently: a line that is none of those looked for is passed over.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
};

use super::Controller;

/// A mounted hierarchy of version 2.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Mount {
    /// The cgroup that is seen at the mount point, as this process's cgroup namespace names it: with `/..` in front if
    /// it is above the namespace's root.
    pub(super) root: PathBuf,
    pub(super) point: PathBuf,
    pub(super) read_only: bool,
}

impl Mount {
    /// All of them in the order in which they were mounted, from `/proc/self/mountinfo`; see proc_pid_mountinfo(5).
    pub(super) fn all(mountinfo: &[u8]) -> Vec<Self> {
        mountinfo.split(|byte| *byte == b'\n').filter_map(Self::from_line).collect()
    }

    fn from_line(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
        // The mount's number, its parent's, and the device.
        let (root, point) = (fields.nth(3)?, fields.next()?);
        let options = fields.next()?;
        // Fields that are there or not, up to a lone hyphen.
        fields.find(|field| *field == b"-")?;
        if fields.next()? != b"cgroup2" {
            return None;
        }
        // The device's name, then what holds for all mounts of it.
        let super_options = fields.nth(1).unwrap_or_default();
        let read_only = |options: &[u8]| options.split(|byte| *byte == b',').any(|option| option == b"ro");
        let read_only = read_only(options) || read_only(super_options);
        Some(Self { root: unescape(root), point: unescape(point), read_only })
    }

    /// Where this mount shows the cgroup that `/proc/self/cgroup` calls `cgroup`.
    pub(super) fn locate(&self, cgroup: &Path) -> Option<PathBuf> {
        let below = cgroup.strip_prefix(&self.root).ok()?;
        // Above the root of the cgroup namespace names are hidden, so what is below is unknown.
        below.components().all(|part| matches!(part, Component::Normal(_))).then(|| {
            // Joining nothing would add a slash.
            if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) }
        })
    }
}

/// A space, a tab, a line feed and a backslash are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (first, after) {
            path.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
            rest = after;
        } else {
            path.push(*first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

/// In which cgroups a process is, from `/proc/PID/cgroup`; see cgroups(7).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Membership {
    /// In the hierarchy of version 2, if there is one.
    pub(super) unified: Option<PathBuf>,
    /// The controllers that hierarchies of version 1 hold, of those that are needed.
    pub(super) v1: Vec<Controller>,
}

impl Membership {
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut membership = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            let mut fields = line.splitn(3, |byte| *byte == b':');
            let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            if number == b"0" && controllers.is_empty() {
                membership.unified = Some(PathBuf::from(OsString::from_vec(path.to_vec())));
            }
            for controller in Controller::ALL {
                let held = controllers.split(|byte| *byte == b',').any(|name| name == controller.name().as_bytes());
                if held && !membership.v1.contains(&controller) {
                    membership.v1.push(controller);
                }
            }
        }
        membership
    }
}

/// The controllers that the kernel was told not to have when it was booted, from `/proc/cgroups`. Newer kernels do not
/// list those of version 2 there; then none is known.
pub(super) fn disabled(text: &str) -> Vec<Controller> {
    let is_disabled = |controller: &Controller| {
        text.lines().any(|line| {
            let mut fields = line.split_ascii_whitespace();
            fields.next() == Some(controller.name()) && fields.nth(2) == Some("0")
        })
    };
    Controller::ALL.into_iter().filter(is_disabled).collect()
}

/// Those of the needed controllers that a list such as `cgroup.controllers` does not name.
pub(super) fn missing(list: &str) -> Vec<Controller> {
    let is_missing = |controller: &Controller| !list.split_ascii_whitespace().any(|name| name == controller.name());
    Controller::ALL.into_iter().filter(is_missing).collect()
}

/// The number behind a key in a file of lines such as `oom_kill 3`.
pub(super) fn value(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim_ascii_end().parse().ok()
}

/// The PIDs of `cgroup.procs`; 0 is a process of a PID namespace that is not seen from here.
pub(super) fn pids(text: &str) -> Vec<u32> {
    text.lines().filter_map(|line| line.trim_ascii().parse().ok()).collect()
}

/// Whether `/proc/swaps` names any swap space below its heading.
pub(super) fn any_swap(text: &str) -> bool {
    text.lines().skip(1).any(|line| !line.trim_ascii().is_empty())
}

/// Whether a cgroup is named like one that systemd made for a unit.
pub(super) fn is_unit(cgroup: &Path) -> bool {
    let name = cgroup.file_name().unwrap_or_default().as_bytes();
    [&b".service"[..], b".scope", b".slice", b".socket", b".mount", b".swap"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PURE: &str = "\
22 28 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
23 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:13 - proc proc rw
28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
31 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";

    const HYBRID: &str = "\
26 19 0:23 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
27 26 0:24 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
28 26 0:25 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd
33 26 0:30 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:17 - cgroup cgroup rw,memory
";

    const V1: &str = "\
26 19 0:23 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
33 26 0:30 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:17 - cgroup cgroup rw,memory
";

    /// Docker with a cgroup namespace of the container's own, which is its default with version 2.
    const DOCKER: &str = "\
1270 1001 0:113 / / rw,relatime master:404 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/AB,upperdir=/x
1275 1273 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot
";

    /// Kubernetes on a node whose container runtime shares the host's cgroup namespace.
    const KUBERNETES: &str = "\
1275 1273 0:28 /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7f.slice/cri-containerd-0a.scope /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw
";

    fn mount(root: &str, point: &str, read_only: bool) -> Mount {
        Mount { root: root.into(), point: point.into(), read_only }
    }

    #[test]
    fn mounts_of_version_2_are_found_and_no_others() {
        assert_eq!(Mount::all(PURE.as_bytes()), [mount("/", "/sys/fs/cgroup", false)]);
        assert_eq!(Mount::all(HYBRID.as_bytes()), [mount("/", "/sys/fs/cgroup/unified", false)]);
        assert_eq!(Mount::all(V1.as_bytes()), []);
    }

    #[test]
    fn a_read_only_mount_of_a_writable_hierarchy_is_read_only() {
        assert_eq!(Mount::all(DOCKER.as_bytes()), [mount("/", "/sys/fs/cgroup", true)]);
    }

    #[test]
    fn a_cgroup_is_located_below_what_the_mount_shows() {
        let own = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7f.slice/cri-containerd-0a.scope";
        let mounts = Mount::all(KUBERNETES.as_bytes());
        assert_eq!(mounts[0].locate(Path::new(own)), Some("/sys/fs/cgroup".into()));
        assert_eq!(mounts[0].locate(&Path::new(own).join("init")), Some("/sys/fs/cgroup/init".into()));
        assert_eq!(mounts[0].locate(Path::new("/system.slice")), None);
        let whole = mount("/", "/sys/fs/cgroup", false);
        assert_eq!(whole.locate(Path::new("/")).map(PathBuf::into_os_string), Some("/sys/fs/cgroup".into()));
        let scope = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-r5.scope";
        assert_eq!(whole.locate(Path::new(scope)), Some(format!("/sys/fs/cgroup{scope}").into()));
    }

    #[test]
    fn what_a_cgroup_namespace_hides_is_not_guessed() {
        // The mount was made outside of the namespace.
        assert_eq!(mount("/../..", "/sys/fs/cgroup", false).locate(Path::new("/")), None);
        // The process was moved out of its namespace.
        assert_eq!(mount("/", "/sys/fs/cgroup", false).locate(Path::new("/../sibling")), None);
    }

    #[test]
    fn the_membership_tells_version_2_from_version_1() {
        let pure = Membership::parse(b"0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-r5.scope\n");
        assert_eq!(pure.v1, []);
        assert!(pure.unified.is_some_and(|path| path.ends_with("run-r5.scope")));

        let hybrid = Membership::parse(
            b"12:pids:/user.slice\n11:cpu,cpuacct:/\n7:memory:/user.slice\n3:cpuset:/\n1:name=systemd:/x\n0::/x\n",
        );
        assert_eq!(hybrid.unified.as_deref(), Some(Path::new("/x")));
        assert_eq!(hybrid.v1, [Controller::Pids, Controller::Cpu, Controller::Memory]);

        let v1 = Membership::parse(b"3:memory:/docker/0a:b\n");
        assert_eq!(v1, Membership { unified: None, v1: vec![Controller::Memory] });
    }

    #[test]
    fn controllers_that_were_disabled_at_boot_are_found() {
        let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t90\t1\nmemory\t0\t1\t0\npids\t0\t90\t1\n";
        assert_eq!(disabled(text), [Controller::Memory]);
        assert_eq!(disabled(""), []);
    }

    #[test]
    fn a_controller_is_found_by_its_whole_name() {
        assert_eq!(missing("cpuset cpu io memory hugetlb pids rdma misc\n"), []);
        assert_eq!(missing("cpuset io memory\n"), [Controller::Cpu, Controller::Pids]);
    }

    #[test]
    fn a_value_is_found_by_its_whole_key() {
        let text = "low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n";
        assert_eq!(value(text, "oom"), Some(1));
        assert_eq!(value(text, "oom_kill"), Some(3));
        assert_eq!(value(text, "oom_group"), None);
        assert_eq!(value("usage_usec nonsense\n", "usage_usec"), None);
    }

    #[test]
    fn swap_is_what_stands_below_the_heading() {
        assert!(!any_swap("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"));
        assert!(any_swap("Filename\tType\tSize\tUsed\tPriority\n/dev/zram0 partition\t8388604\t0\t100\n"));
    }

    #[test]
    fn units_of_systemd_are_told_by_their_names() {
        for unit in ["/system.slice/herd.service", "/user.slice", "/a/run-r5.scope"] {
            assert!(is_unit(Path::new(unit)), "{unit}");
        }
        for other in ["/", "/herd", "/docker/0a1b", "/a.service/daemon", "/openrc.herd"] {
            assert!(!is_unit(Path::new(other)), "{other}");
        }
    }

    /// As the kernel writes a path into `mountinfo`.
    fn escape(path: &[u8]) -> Vec<u8> {
        let escaped = |byte: &u8| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            other => vec![*other],
        };
        path.iter().flat_map(escaped).collect()
    }

    fn names() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(
            proptest::num::u8::ANY.prop_filter("no NUL, no slash", |b| !b"\0/".contains(b)),
            1..12,
        )
        .prop_filter("a name", |name| name != b"." && name != b"..")
    }

    proptest! {
        #[test]
        fn nonsense_is_passed_over(text in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = Mount::all(&text);
            let _ = Membership::parse(&text);
            let text = String::from_utf8_lossy(&text);
            let _ = (value(&text, "oom"), pids(&text), missing(&text), disabled(&text), any_swap(&text));
        }

        #[test]
        fn mount_points_are_read_whatever_their_names(point in proptest::collection::vec(names(), 0..4)) {
            let point = point.iter().fold(vec![b'/'], |mut path, name| {
                path.extend(name);
                path.push(b'/');
                path
            });
            let point = if point.len() > 1 { &point[..point.len() - 1] } else { &point[..] };
            let mut line = b"31 22 0:26 / ".to_vec();
            line.extend(escape(point));
            line.extend(b" rw,relatime shared:9 master:3 - cgroup2 none rw");
            let mounts = Mount::all(&line);
            prop_assert_eq!(mounts.len(), 1);
            prop_assert_eq!(mounts[0].point.as_os_str().as_bytes(), point);
            prop_assert!(!mounts[0].read_only);
        }

        #[test]
        fn what_is_located_is_below_the_mount(root in proptest::collection::vec(names(), 0..3),
                                              below in proptest::collection::vec(names(), 0..3)) {
            let path = |start: &Path, names: &[Vec<u8>]| {
                names.iter().fold(start.to_owned(), |path, name| path.join(OsString::from_vec(name.clone())))
            };
            let root = path(Path::new("/"), &root);
            let mount = Mount { root: root.clone(), point: "/sys/fs/cgroup".into(), read_only: false };
            prop_assert_eq!(mount.locate(&path(&root, &below)), Some(path(Path::new("/sys/fs/cgroup"), &below)));
        }

        #[test]
        fn values_are_read_back(values in proptest::collection::btree_map("[a-z_]{1,12}", proptest::num::u64::ANY, 0..8)) {
            let text: String = values.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
            for (key, expected) in &values {
                prop_assert_eq!(value(&text, key), Some(*expected));
            }
        }
    }
}
