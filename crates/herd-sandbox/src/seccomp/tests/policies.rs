use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    super::{parse::Test, table},
    emulator::{Call, NATIVE, Outcome},
    *,
};

const EPERM: Outcome = Outcome::Fails(libc::EPERM);
const ENOSYS: Outcome = Outcome::Fails(libc::ENOSYS);

fn outcome(profile: Seccomp, name: &str, arguments: &[u64]) -> Outcome {
    Call::new(name, arguments).outcome(filters(profile, false))
}

/// What a person who reads the policy expects of a call, worked out without compiling anything.
fn expected(profile: Seccomp, call: &Call) -> Outcome {
    if call.architecture != NATIVE {
        return ENOSYS;
    }
    let Some(name) = table::all().iter().find(|(_, number)| **number == Some(call.number)).map(|(name, _)| *name)
    else {
        return ENOSYS;
    };
    let rules: Vec<&Rule> = policy(profile).flat_map(|group| &group.rules).filter(|rule| rule.call == name).collect();
    let holds = |rule: &&Rule| {
        rule.conditions.iter().all(|condition| {
            let argument = call.arguments[usize::from(condition.argument)];
            let low = argument as u32;
            match &condition.test {
                Test::Among(values) => values.contains(&low),
                Test::Without(values) => !values.contains(&low),
                Test::Masked(mask, values) if *mask > u64::from(u32::MAX) => {
                    values.iter().any(|value| argument & mask == u64::from(*value))
                }
                Test::Masked(mask, values) => values.iter().any(|value| u64::from(low) & mask == u64::from(*value)),
            }
        })
    };
    match rules.iter().find(|rule| holds(rule)).map(|rule| rule.verdict) {
        Some(Verdict::Allow) => Outcome::Carried,
        Some(Verdict::Absent) => ENOSYS,
        Some(Verdict::Refuse) | None => EPERM,
    }
}

#[test]
fn somebody_decided_about_every_call_that_there_is() {
    for profile in [Seccomp::Default, Seccomp::Browser] {
        let decided: BTreeSet<&str> = policy(profile).flat_map(|group| &group.rules).map(Rule::call).collect();
        let undecided: Vec<&str> = table::all().keys().copied().filter(|name| !decided.contains(name)).collect();
        assert!(undecided.is_empty(), "{profile:?}: {undecided:?}");
    }
}

#[test]
fn every_group_has_a_reason() {
    for group in policy(Seccomp::Browser) {
        assert!(group.reason.ends_with('.'), "{group:?}");
    }
}

#[test]
fn what_nothing_should_need_is_refused() {
    let everywhere = [
        "mount",
        "umount2",
        "pivot_root",
        "move_mount",
        "open_tree",
        "open_tree_attr",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "mount_setattr",
        "setns",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "process_madvise",
        "kexec_load",
        "kexec_file_load",
        "bpf",
        "perf_event_open",
        "keyctl",
        "add_key",
        "request_key",
        "init_module",
        "finit_module",
        "delete_module",
        "userfaultfd",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "settimeofday",
        "clock_settime",
        "clock_adjtime",
        "adjtimex",
        "open_by_handle_at",
        "name_to_handle_at",
        "swapon",
        "swapoff",
        "reboot",
        "acct",
        "quotactl",
        "quotactl_fd",
        "syslog",
        "lookup_dcookie",
        "nfsservctl",
        "kcmp",
        "fanotify_init",
        "move_pages",
        "mbind",
        "migrate_pages",
        "pidfd_getfd",
        "sethostname",
        "setdomainname",
        "vhangup",
    ];
    for name in everywhere {
        for arguments in [[0; 6], [u64::MAX; 6]] {
            assert_eq!(outcome(Seccomp::Default, name, &arguments), EPERM, "{name}");
            assert_eq!(outcome(Seccomp::Browser, name, &arguments), EPERM, "{name} for a browser");
        }
    }
    for name in ["unshare", "chroot"] {
        assert_eq!(outcome(Seccomp::Default, name, &[0; 6]), EPERM, "{name}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_processors_old_interfaces_are_refused() {
    for name in ["iopl", "ioperm", "modify_ldt", "uselib"] {
        assert_eq!(outcome(Seccomp::Default, name, &[0; 6]), EPERM, "{name}");
    }
}

#[test]
fn a_browser_may_do_three_things_more() {
    let differ = |name: &str| {
        let ask = |profile, argument| outcome(profile, name, &[argument; 6]);
        let arguments = [0].into_iter().chain((0..64).map(|bit| 1 << bit));
        arguments.into_iter().any(|it| ask(Seccomp::Default, it) != ask(Seccomp::Browser, it))
    };
    let here = table::all().iter().filter(|(_, number)| number.is_some()).map(|(name, _)| *name);
    let different: Vec<&str> = here.filter(|name| differ(name)).collect();
    assert_eq!(different, ["chroot", "clone", "unshare"]);
}

#[test]
fn a_clone_has_no_namespace_of_its_own() {
    let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    let namespaces = [
        (libc::CLONE_NEWCGROUP, EPERM),
        (libc::CLONE_NEWIPC, EPERM),
        (libc::CLONE_NEWNET, Outcome::Carried),
        (libc::CLONE_NEWNS, EPERM),
        (libc::CLONE_NEWPID, Outcome::Carried),
        (libc::CLONE_NEWUSER, Outcome::Carried),
        (libc::CLONE_NEWUTS, EPERM),
    ];
    for flags in [libc::SIGCHLD, thread, libc::CLONE_VFORK | libc::CLONE_VM] {
        let bits = |flags: i32| u64::from(flags.cast_unsigned());
        assert_eq!(outcome(Seccomp::Default, "clone", &[bits(flags)]), Outcome::Carried);
        for (namespace, for_a_browser) in namespaces {
            // The kernel drops the upper half of the flags, so it must not matter.
            for upper in [0, 1 << 32, u64::MAX << 32] {
                let flags = [upper | bits(flags | namespace)];
                assert_eq!(outcome(Seccomp::Default, "clone", &flags), EPERM, "{flags:x?}");
                assert_eq!(outcome(Seccomp::Browser, "clone", &flags), for_a_browser, "{flags:x?}");
            }
        }
    }
    assert_eq!(outcome(Seccomp::Default, "clone3", &[0; 6]), ENOSYS);
    assert_eq!(outcome(Seccomp::Browser, "clone3", &[0; 6]), ENOSYS);
}

#[test]
fn a_browser_unshares_three_kinds_of_namespaces_and_nothing_that_is_not_known_today() {
    let one = |bit: u32| outcome(Seccomp::Browser, "unshare", &[1 << bit]);
    let allowed: BTreeSet<u32> = (0..64).filter(|bit| one(*bit) == Outcome::Carried).collect();
    let namespaces = [libc::CLONE_NEWUSER, libc::CLONE_NEWPID, libc::CLONE_NEWNET];
    assert_eq!(allowed, namespaces.iter().map(|flag| flag.trailing_zeros()).collect());
}

#[test]
fn sockets_are_of_a_few_families_and_never_raw() {
    let socket = |domain: i32, kind: i32, protocol: i32| {
        let arguments = [domain, kind, protocol].map(|number| u64::from(number.cast_unsigned()));
        outcome(Seccomp::Default, "socket", &arguments)
    };
    /// The old way to a packet socket, which socket(2) calls obsolete.
    const PACKET: i32 = 10;
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    for domain in [libc::AF_INET, libc::AF_INET6] {
        for flags in [0, flags] {
            assert_eq!(socket(domain, libc::SOCK_STREAM | flags, 0), Outcome::Carried);
            assert_eq!(socket(domain, libc::SOCK_STREAM | flags, libc::IPPROTO_TCP), Outcome::Carried);
            assert_eq!(socket(domain, libc::SOCK_DGRAM | flags, 0), Outcome::Carried);
            assert_eq!(socket(domain, libc::SOCK_DGRAM | flags, libc::IPPROTO_UDP), Outcome::Carried);
            for kind in [libc::SOCK_RAW, PACKET, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP] {
                assert_eq!(socket(domain, kind | flags, 0), EPERM, "type {kind}");
            }
            for protocol in [libc::IPPROTO_SCTP, libc::IPPROTO_MPTCP, libc::IPPROTO_UDPLITE, libc::IPPROTO_RAW] {
                assert_eq!(socket(domain, libc::SOCK_STREAM | flags, protocol), EPERM, "protocol {protocol}");
                assert_eq!(socket(domain, libc::SOCK_DGRAM | flags, protocol), EPERM, "protocol {protocol}");
            }
        }
    }
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        assert_eq!(socket(libc::AF_UNIX, kind | flags, 0), Outcome::Carried);
    }
    assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW | flags, libc::NETLINK_ROUTE), Outcome::Carried);
    for protocol in 1..64 {
        assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol), EPERM, "netlink {protocol}");
    }
    for family in (0..256).filter(|it| ![libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].contains(it)) {
        for kind in 0..16 {
            assert_eq!(socket(family, kind, 0), EPERM, "family {family}");
        }
        let pair = [u64::from(family.cast_unsigned()), 1];
        assert_eq!(outcome(Seccomp::Default, "socketpair", &pair), EPERM, "family {family}");
    }
}

#[test]
fn a_firewalls_tables_are_not_replaced_through_a_socket() {
    let set = |level: i32, name: u32| {
        outcome(Seccomp::Browser, "setsockopt", &[3, u64::from(level.cast_unsigned()), u64::from(name)])
    };
    for level in [libc::SOL_IP, libc::SOL_IPV6] {
        for name in [64, 65, 96, 97, 128, 129] {
            assert_eq!(set(level, name), EPERM, "{level} {name}");
        }
        assert_eq!(set(level, 1), Outcome::Carried);
    }
    assert_eq!(set(libc::SOL_SOCKET, 64), Outcome::Carried);
}

#[test]
fn nothing_is_typed_into_a_terminal() {
    for command in [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCCONS, libc::TIOCSETD] {
        for upper in [0, 1 << 32] {
            assert_eq!(outcome(Seccomp::Default, "ioctl", &[0, upper | command]), EPERM, "{command:#x}");
        }
    }
    for command in [libc::TCGETS, libc::TIOCGWINSZ, libc::FIONBIO, libc::FIONREAD, libc::TIOCSCTTY] {
        assert_eq!(outcome(Seccomp::Default, "ioctl", &[0, command]), Outcome::Carried, "{command:#x}");
    }
}

#[test]
fn no_subvolume_is_made_that_outlives_its_workspace() {
    for command in [0x5000_9401, 0x5000_940e, 0x5000_9417, 0x5000_9418] {
        assert_eq!(outcome(Seccomp::Default, "ioctl", &[0, command]), EPERM, "{command:#x}");
    }
}

#[test]
fn nothing_is_encrypted_by_the_file_system_and_no_key_is_left_with_it() {
    for command in [0x800c_6613, 0xc050_6617] {
        assert_eq!(outcome(Seccomp::Default, "ioctl", &[0, command]), EPERM, "{command:#x}");
    }
}

#[test]
fn init_is_not_slowed_down_and_others_are() {
    let by_number = ["sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity", "prlimit64"];
    for upper in [0, 1 << 32, u64::MAX << 32] {
        for profile in [Seccomp::Default, Seccomp::Browser] {
            for name in by_number {
                assert_eq!(outcome(profile, name, &[upper | 1]), EPERM, "{name}");
            }
            for (name, kinds) in [("setpriority", [0, 1]), ("ioprio_set", [1, 2])] {
                for kind in kinds {
                    assert_eq!(outcome(profile, name, &[upper | kind, upper | 1]), EPERM, "{name} {kind}");
                }
            }
        }
    }
    for other in [0, 2, 1000] {
        for name in by_number {
            assert_eq!(outcome(Seccomp::Default, name, &[other]), Outcome::Carried, "{name}");
        }
        // A process, its group, and all processes of a user, of which init may be one.
        for (kind, expected) in [(0, Outcome::Carried), (1, Outcome::Carried), (2, EPERM)] {
            assert_eq!(outcome(Seccomp::Default, "setpriority", &[kind, other]), expected, "{kind}");
            assert_eq!(outcome(Seccomp::Default, "ioprio_set", &[kind + 1, other]), expected, "{kind}");
        }
    }
}

#[test]
fn the_machines_asynchronous_requests_are_not_there_to_be_taken() {
    for name in ["io_setup", "io_submit", "io_getevents", "io_destroy", "io_cancel", "io_pgetevents"] {
        assert_eq!(outcome(Seccomp::Default, name, &[1]), ENOSYS, "{name}");
    }
}

#[test]
fn a_personality_is_reset_or_asked_for() {
    for persona in (0..32).map(|bit| 1 << bit) {
        assert_eq!(outcome(Seccomp::Default, "personality", &[persona]), EPERM, "{persona:#x}");
    }
    assert_eq!(outcome(Seccomp::Default, "personality", &[0]), Outcome::Carried);
    assert_eq!(outcome(Seccomp::Default, "personality", &[0xffff_ffff]), Outcome::Carried);
}

#[test]
fn devices_are_not_made() {
    for (kind, expected) in [
        (libc::S_IFCHR, EPERM),
        (libc::S_IFBLK, EPERM),
        (libc::S_IFIFO, Outcome::Carried),
        (libc::S_IFREG, Outcome::Carried),
        (libc::S_IFSOCK, Outcome::Carried),
    ] {
        assert_eq!(outcome(Seccomp::Default, "mknodat", &[0, 0, u64::from(kind | 0o666)]), expected, "{kind:o}");
    }
}

#[test]
fn dangerous_settings_of_a_process_are_refused() {
    const SET_IO_FLUSHER: i32 = 57;
    const SET_SYSCALL_USER_DISPATCH: i32 = 59;
    let set = |option: i32| outcome(Seccomp::Default, "prctl", &[u64::from(option.cast_unsigned())]);
    for option in [
        libc::PR_SET_MM,
        libc::PR_TASK_PERF_EVENTS_ENABLE,
        SET_IO_FLUSHER,
        libc::PR_SCHED_CORE,
        libc::PR_SET_MEMORY_MERGE,
        SET_SYSCALL_USER_DISPATCH,
        1234,
    ] {
        assert_eq!(set(option), EPERM, "{option}");
    }
    assert_eq!(set(libc::PR_SET_NAME), Outcome::Carried);
}

#[test]
fn foreign_calls_do_not_exist() {
    const I386: u32 = 0x4000_0003;
    const ARM: u32 = 0x4000_0028;
    const X32: u32 = 0x4000_0000;
    for number in 0..1024 {
        for architecture in [I386, ARM] {
            let call = Call { number, architecture, arguments: [0; 6] };
            assert_eq!(call.outcome(filters(Seccomp::Browser, true)), ENOSYS, "{call:?}");
        }
        let call = Call { number: number | X32, architecture: NATIVE, arguments: [0; 6] };
        assert_eq!(call.outcome(filters(Seccomp::Browser, true)), ENOSYS, "{call:?}");
    }
}

#[test]
fn filters_do_what_the_policy_says_for_every_call_and_simple_arguments() {
    for profile in [Seccomp::Default, Seccomp::Browser] {
        for number in 0..600 {
            for argument in [0, 1, 2, 3, 16, 0x8000, 0x5412, 0x1000_0000, 0xffff_ffff, u64::MAX] {
                let call = Call { number, architecture: NATIVE, arguments: [argument; 6] };
                for log in [false, true] {
                    assert_eq!(call.outcome(filters(profile, log)), expected(profile, &call), "{profile:?} {call:x?}");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn filters_do_what_the_policy_says(
        number in prop_oneof![0_u32..500, any::<u32>()],
        foreign in prop::bool::weighted(0.05),
        // Small numbers, single bits and all ones are what conditions are about.
        arguments in prop::array::uniform6(prop_oneof![
            0_u64..80,
            (0_u32..64, 0_u64..64).prop_map(|(bit, low)| (1 << bit) | low),
            Just(0xffff_ffff_u64),
            any::<u64>(),
        ]),
        browser: bool,
        log: bool,
    ) {
        let profile = if browser { Seccomp::Browser } else { Seccomp::Default };
        let architecture = if foreign { 0x4000_0003 } else { NATIVE };
        let call = Call { number, architecture, arguments };
        prop_assert_eq!(call.outcome(filters(profile, log)), expected(profile, &call));
    }
}

#[test]
fn without_a_filter_there_is_nothing_to_tell() {
    assert_eq!(policy(Seccomp::Off).count(), 0);
    assert!(filters(Seccomp::Off, true).is_empty());
}
