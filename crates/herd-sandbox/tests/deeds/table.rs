//! Every deed: what it tries, what stops it, and where else it is tried to show that the test can tell.

use rustix::io::Errno;

use crate::{
    attempt::Attempt,
    deed::{files, identity, init, ipc, kernel, limits, mounts, network, processes},
    life,
    place::{Means, Place},
    scene::Scene,
    target::Target,
};

/// Something that a hostile worker may try, and that has to fail.
#[derive(Debug)]
pub(crate) struct Deed {
    pub(crate) name: &'static str,
    /// In the words of `SECURITY.md`.
    pub(crate) tries: &'static str,
    /// The layers in its way, any of which stops it or a part of it.
    pub(crate) stopped_by: &'static str,
    /// What it may be refused with.
    pub(crate) refusals: &'static [Errno],
    /// Where it is done without a sandbox, and succeeds.
    pub(crate) control: Result<Place, &'static str>,
    /// Whether bubblewrap stops it too, with what it has.
    pub(crate) oracle: bool,
    /// Whether it is stopped where user namespaces are forbidden, too.
    pub(crate) fallback: bool,
    /// Whether it is stopped without root.
    pub(crate) rootless: bool,
    pub(crate) act: Act,
}

/// How a deed is done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// By a worker.
    Inside(fn(&Target) -> Attempt),
    /// By a worker whose standard error is a terminal of the host.
    AtTerminal(fn(&Target) -> Attempt),
    /// By a worker, on the program that starts workers; what counts is whether that is as before.
    OnProgram { act: fn(&Target) -> Attempt, by_script: bool },
    /// By what a worker leaves behind: seen from outside.
    Around(fn(&mut Scene) -> Attempt),
}

/// The deed with this name.
pub(crate) fn deed(name: &str) -> &'static Deed {
    DEEDS.iter().find(|deed| deed.name == name).unwrap_or_else(|| panic!("no deed is called {name}"))
}

impl Deed {
    const fn new(name: &'static str, tries: &'static str, stopped_by: &'static str, act: Act) -> Self {
        Self {
            name,
            tries,
            stopped_by,
            refusals: ABSENT,
            control: Ok(Place::Host),
            oracle: true,
            fallback: true,
            rootless: true,
            act,
        }
    }

    const fn refused(mut self, with: &'static [Errno]) -> Self {
        self.refusals = with;
        self
    }

    const fn control(mut self, place: Place) -> Self {
        self.control = Ok(place);
        self
    }

    const fn no_control(mut self, why: &'static str) -> Self {
        self.control = Err(why);
        self
    }

    const fn no_oracle(mut self) -> Self {
        self.oracle = false;
        self
    }

    const fn no_fallback(mut self) -> Self {
        self.fallback = false;
        self
    }

    const fn root_only(self) -> Self {
        Self { rootless: false, oracle: false, ..self }
    }

    /// How often it is tried, by the names of the tests: in every place, and in herd's sandbox by a further command too.
    pub(crate) fn trials(&self) -> Vec<(String, Place, Means)> {
        let by_worker = self.places().into_iter().map(|(name, place)| (name.to_owned(), place, Means::Worker));
        let by_command = self.places().into_iter().filter_map(|(name, place)| {
            let is_tried = match self.act {
                // It sees the worker beside it, and may.
                _ if self.name == "see_processes_of_others" => false,
                Act::Inside(_) | Act::AtTerminal(_) | Act::OnProgram { .. } => place.is_herds(),
                // Who did it makes no difference to what is left of it.
                Act::Around(_) => false,
            };
            is_tried.then(|| (format!("{name}-command"), place, Means::Command))
        });
        by_worker.chain(by_command).collect()
    }

    /// The places where it is tried, by the names of the tests.
    pub(crate) fn places(&self) -> Vec<(&'static str, Place)> {
        let control = self.control.iter().map(|place| ("control", *place));
        let oracle = self.oracle.then_some(("bwrap", Place::Bwrap));
        let rootless = self.rootless.then_some(("rootless", Place::Rootless));
        // What nothing else stops is not stopped without it.
        let unfiltered = self.rootless && self.stopped_by != "seccomp";
        let unfiltered = unfiltered.then_some(("unfiltered", Place::Unfiltered));
        let fallback = (self.rootless && self.fallback).then_some(("fallback", Place::Fallback));
        let root = std::iter::once(("root", Place::Root));
        control.chain(oracle).chain(root).chain(rootless).chain(unfiltered).chain(fallback).collect()
    }
}

/// What is not in the sandbox does not exist.
const ABSENT: &[Errno] = &[Errno::NOENT];
const DENIED: &[Errno] = &[Errno::ACCESS, Errno::PERM];
const NOT_PERMITTED: &[Errno] = &[Errno::PERM];
/// A call that is not permitted, or that the filter hides.
const NO_CALL: &[Errno] = &[Errno::PERM, Errno::NOSYS];
const NO_PROCESS: &[Errno] = &[Errno::SRCH, Errno::NOENT, Errno::PERM];

use Act::{Around, AtTerminal, Inside, OnProgram};

/// All of them, by what they are aimed at.
#[rustfmt::skip]
pub(crate) const DEEDS: &[Deed] = &[
    // Files.
    Deed::new("read_another_workspace", "read a file in another worker's workspace", "own root",
        Inside(files::read_another_workspace)),
    Deed::new("write_another_workspace", "change a file there, or add one", "own root",
        Inside(files::write_another_workspace)),
    Deed::new("list_another_workspace", "list it", "own root",
        Inside(files::list_another_workspace)),
    Deed::new("climb_out_of_the_workspace", "leave its own workspace by `..`", "own root",
        Inside(files::climb_out_of_the_workspace)),
    Deed::new("follow_a_symbolic_link_out", "leave it by a symbolic link", "own root, init not dumpable",
        Inside(files::follow_a_symbolic_link_out))
        .refused(&[Errno::NOENT, Errno::ACCESS, Errno::PERM]),
    Deed::new("link_a_file_into_the_workspace", "make a hard link to a file outside", "own root, mounts of their own",
        Inside(files::link_a_file_into_the_workspace))
        .refused(&[Errno::NOENT, Errno::XDEV, Errno::PERM, Errno::ACCESS]),
    Deed::new("read_temporary_files_of_the_host", "read files in the host's `/tmp`, `/dev/shm` and `/var/tmp`", "own root",
        Inside(files::read_temporary_files_of_the_host)),
    Deed::new("read_temporary_files_of_another_worker", "read those of another worker", "own root",
        Inside(files::read_temporary_files_of_another_worker)).no_fallback(),
    Deed::new("see_files_of_the_daemon", "see herd's configuration, state or control socket", "own root",
        Inside(files::see_files_of_the_daemon)).no_fallback(),
    Deed::new("read_accounts_and_logs_of_the_host", "read the host's accounts, passwords, logs and homes", "own root",
        Inside(files::read_accounts_and_logs_of_the_host))
        .refused(&[Errno::NOENT, Errno::ACCESS]).no_fallback(),
    Deed::new("write_outside_the_workspace", "create or write anything, anywhere but in `/workspace`, `/tmp` and `/dev/shm`",
        "own root, read-only mounts, Landlock", Inside(files::write_outside_the_workspace)),
    Deed::new("read_what_is_hidden", "read what the configuration calls hidden", "own root",
        Inside(files::read_what_is_hidden))
        .refused(&[Errno::NOENT, Errno::ACCESS]).no_oracle().no_fallback(),
    Deed::new("open_a_device_of_the_host", "open disks, memory and other devices", "own `/dev`",
        Inside(files::open_a_device_of_the_host)),
    Deed::new("make_a_device_node", "make a device node", "no capabilities, user namespace, seccomp",
        Inside(files::make_a_device_node))
        .refused(NOT_PERMITTED).control(Place::Apart),
    Deed::new("gain_by_the_mode_of_a_program", "run a setuid-root program, and one with file capabilities",
        "`no_new_privs`, `nosuid` mounts, user namespace, empty bounding set", Inside(files::gain_by_the_mode_of_a_program))
        .refused(NOT_PERMITTED).control(Place::User),

    // Mounts.
    Deed::new("mount_a_file_system", "mount a file system", "no capabilities, seccomp",
        Inside(mounts::mount_a_file_system))
        .refused(NO_CALL).control(Place::Apart),
    Deed::new("bind_a_directory", "bind a directory to another place", "no capabilities, seccomp",
        Inside(mounts::bind_a_directory))
        .refused(NO_CALL).control(Place::Apart),
    Deed::new("unmount", "unmount what covers something", "no capabilities, seccomp",
        Inside(mounts::unmount))
        .refused(NO_CALL).control(Place::Apart),
    Deed::new("remount_to_write", "make a read-only mount writable", "no capabilities, seccomp",
        Inside(mounts::remount_to_write))
        .refused(NO_CALL).control(Place::Apart),
    Deed::new("mount_by_descriptor", "do so with open_tree(2), fsopen(2), fspick(2) and mount_setattr(2)",
        "no capabilities, seccomp", Inside(mounts::mount_by_descriptor))
        .refused(NO_CALL).control(Place::Apart),
    Deed::new("change_the_root", "chroot(2), with which one leaves a root", "no capabilities, seccomp",
        Inside(mounts::change_the_root))
        .refused(NO_CALL).control(Place::Apart),
    Deed::new("pivot_the_root", "pivot_root(2)", "no capabilities, seccomp",
        Inside(mounts::pivot_the_root))
        .refused(NO_CALL).control(Place::Apart),

    // Processes.
    Deed::new("see_processes_of_others", "see processes of the host or of another worker", "PID namespace, own `/proc`",
        Inside(processes::see_processes_of_others)).no_fallback(),
    Deed::new("signal_processes_of_others", "send them a signal", "PID namespace",
        Inside(processes::signal_processes_of_others))
        .refused(&[Errno::SRCH]),
    Deed::new("trace_processes_of_others", "trace them", "PID namespace, seccomp",
        Inside(processes::trace_processes_of_others))
        .refused(NO_PROCESS),
    Deed::new("read_memory_of_the_host", "read the memory of a process of the host, or its environment", "PID namespace, seccomp",
        Inside(processes::read_memory_of_the_host))
        .refused(NO_PROCESS),
    Deed::new("read_memory_of_another_worker", "the same of another worker", "PID namespace, seccomp",
        Inside(processes::read_memory_of_another_worker))
        .refused(NO_PROCESS),
    Deed::new("take_a_descriptor_of_another_process", "take a descriptor out of another process, or out of init",
        "PID namespace, init not dumpable, seccomp", Inside(processes::take_a_descriptor_of_another_process))
        .refused(&[Errno::SRCH, Errno::PERM, Errno::NOSYS, Errno::INVAL]).no_oracle(),
    Deed::new("inherit_the_environment", "find a variable of the daemon's environment", "environment of its own",
        Inside(processes::inherit_the_environment)),
    Deed::new("inherit_a_descriptor", "find a descriptor that the daemon had open", "closed descriptors",
        Inside(processes::inherit_a_descriptor)).no_oracle(),

    // Init.
    Deed::new("trace_init", "trace init", "init not dumpable, seccomp",
        Inside(init::trace_init))
        .refused(NO_CALL).control(Place::Apart).no_oracle().no_fallback(),
    Deed::new("read_memory_of_init", "read init's memory, maps or environment", "init not dumpable",
        Inside(init::read_memory_of_init))
        .refused(DENIED).control(Place::Apart).no_oracle().no_fallback(),
    Deed::new("follow_links_of_init", "follow `/proc/1/{cwd,root,exe,fd,ns}`", "init not dumpable",
        Inside(init::follow_links_of_init))
        .refused(DENIED).control(Place::Apart).no_oracle().no_fallback(),
    Deed::new("enter_the_namespaces_of_init", "enter init's namespaces", "init not dumpable, no capabilities, seccomp",
        Inside(init::enter_the_namespaces_of_init))
        .refused(&[Errno::ACCESS, Errno::PERM, Errno::NOSYS]).control(Place::Apart).no_oracle().no_fallback(),
    Deed::new("learn_from_the_arguments_of_init", "learn something from init's arguments", "arguments of its own",
        Inside(init::learn_from_the_arguments_of_init)).control(Place::Apart).no_oracle().no_fallback(),
    Deed::new("stop_or_kill_init", "stop or kill init", "PID namespace",
        Inside(init::stop_or_kill_init)).no_control("the kernel protects every PID 1 in the same way").no_fallback(),
    Deed::new("slow_init_down", "give init less of the processor than others, so that it ends nothing", "seccomp",
        Inside(init::slow_init_down))
        .refused(NOT_PERMITTED).control(Place::Apart).no_oracle().no_fallback(),
    Deed::new("change_the_program_of_init", "change herd's program by `/proc/1/exe`", "init not dumpable, own user or sealed copy",
        OnProgram { act: init::change_the_program_of_init, by_script: false })
        .no_control("no other PID 1 runs that program").no_oracle().no_fallback(),
    Deed::new("change_the_program_that_starts_workers",
        "change it by a script that has `/proc/self/exe` as its interpreter (CVE-2019-5736)", "sealed copy, own user, Landlock",
        OnProgram { act: init::change_the_program_that_starts_workers, by_script: true })
        .control(Place::User).no_oracle(),

    // Network.
    Deed::new("connect_to_ports_of_the_host", "connect to the gateway and the admin port", "network namespace",
        Inside(network::connect_to_ports_of_the_host))
        .refused(&[Errno::CONNREFUSED, Errno::NETUNREACH, Errno::ADDRNOTAVAIL]),
    Deed::new("connect_to_a_port_of_another_worker", "connect to another worker's port", "network namespace",
        Inside(network::connect_to_a_port_of_another_worker))
        .refused(&[Errno::CONNREFUSED, Errno::NETUNREACH]).no_fallback(),
    Deed::new("reach_the_internet", "reach any other address, metadata services among them", "network namespace",
        Inside(network::reach_the_internet))
        .refused(&[Errno::NETUNREACH, Errno::ADDRNOTAVAIL]).no_control("tests reach nothing outside"),
    Deed::new("connect_to_the_control_socket", "connect to the control socket", "own root",
        Inside(network::connect_to_the_control_socket)).no_fallback(),
    Deed::new("connect_to_an_abstract_socket_of_the_host", "connect to an abstract socket of the host",
        "network namespace, Landlock", Inside(network::connect_to_an_abstract_socket_of_the_host))
        .refused(&[Errno::CONNREFUSED, Errno::PERM]),
    Deed::new("connect_to_an_abstract_socket_of_another_worker", "connect to one of another worker",
        "network namespace, Landlock", Inside(network::connect_to_an_abstract_socket_of_another_worker))
        .refused(&[Errno::CONNREFUSED, Errno::PERM]),
    Deed::new("open_a_raw_socket", "open a raw or packet socket", "no capabilities, seccomp",
        Inside(network::open_a_raw_socket))
        .refused(&[Errno::PERM, Errno::ACCESS]).control(Place::Apart),
    Deed::new("open_a_socket_of_another_kind", "open a socket of a family that a network namespace does not hold, or that is rarely used",
        "seccomp", Inside(network::open_a_socket_of_another_kind))
        .refused(&[Errno::PERM, Errno::ACCESS, Errno::AFNOSUPPORT]).no_oracle(),
    Deed::new("change_the_network", "change a network interface", "no capabilities",
        Inside(network::change_the_network))
        .refused(NOT_PERMITTED).control(Place::Apart),

    // IPC.
    Deed::new("attach_shared_memory_of_the_host", "attach System V shared memory of the host, or list it", "IPC namespace",
        Inside(ipc::attach_shared_memory_of_the_host)).no_fallback(),
    Deed::new("open_a_message_queue_of_the_host", "open a POSIX message queue of the host", "IPC namespace",
        Inside(ipc::open_a_message_queue_of_the_host)),

    // The kernel.
    Deed::new("make_a_user_namespace", "make a user namespace", "seccomp",
        Inside(kernel::make_a_user_namespace))
        .refused(&[Errno::PERM, Errno::NOSYS, Errno::NOSPC]).control(Place::Apart),
    Deed::new("make_other_namespaces", "make a namespace of another kind", "no capabilities, seccomp",
        Inside(kernel::make_other_namespaces))
        .refused(NOT_PERMITTED).control(Place::Apart),
    Deed::new("use_the_keyring", "use the kernel's keyrings", "seccomp",
        Inside(kernel::use_the_keyring))
        .refused(NO_CALL).no_oracle(),
    Deed::new("write_settings_of_the_kernel", "write to `/proc/sys`", "read-only mounts, no capabilities, Landlock",
        Inside(kernel::write_settings_of_the_kernel))
        .refused(&[Errno::ROFS, Errno::ACCESS, Errno::PERM]).no_oracle(),
    Deed::new("trigger_system_requests", "write to `/proc/sysrq-trigger`", "masked, Landlock",
        Inside(kernel::trigger_system_requests))
        .refused(&[Errno::ROFS, Errno::ACCESS, Errno::PERM, Errno::NOENT]).no_control("not every kernel has it"),
    Deed::new("read_secrets_of_the_kernel", "read `/proc/kcore`, `/proc/keys`, `/proc/timer_list` and the like", "masked",
        Inside(kernel::read_secrets_of_the_kernel))
        .refused(&[Errno::ACCESS, Errno::PERM, Errno::NOENT]).no_oracle().no_fallback(),
    Deed::new("write_to_the_rest_of_proc", "write to `/proc/{bus,fs,irq,…}`", "read-only mounts, masked, Landlock",
        Inside(kernel::write_to_the_rest_of_proc))
        .refused(&[Errno::ROFS, Errno::ACCESS, Errno::PERM, Errno::NOENT, Errno::IO]),
    Deed::new("look_into_sys", "look into `/sys`", "own root",
        Inside(kernel::look_into_sys))
        .refused(&[Errno::NOENT, Errno::ACCESS]),
    Deed::new("write_files_of_a_cgroup", "write to files of a cgroup, or make one", "own root",
        Inside(kernel::write_files_of_a_cgroup))
        .refused(&[Errno::NOENT, Errno::ACCESS, Errno::ROFS]),
    Deed::new("learn_the_name_of_its_cgroup", "learn the name of its cgroup", "cgroup namespace",
        Inside(kernel::learn_the_name_of_its_cgroup))
        .no_control("the test itself may be in the topmost cgroup").no_fallback(),
    Deed::new("set_the_clock", "set the clock", "no capabilities, seccomp",
        Inside(kernel::set_the_clock))
        .refused(NOT_PERMITTED).no_control("the host has no other clock"),
    Deed::new("set_the_name_of_the_host", "set the host's name", "no capabilities, seccomp",
        Inside(kernel::set_the_name_of_the_host))
        .refused(NOT_PERMITTED).control(Place::Apart),
    Deed::new("learn_names_of_the_host", "learn the host's name, its resolver or the names that it knows",
        "UTS namespace, own `/etc`", Inside(kernel::learn_names_of_the_host)).no_fallback(),
    Deed::new("make_privileged_calls", "load a module or a kernel, use swapon(2), acct(2), syslog(2), reboot(2)",
        "no capabilities, seccomp", Inside(kernel::make_privileged_calls))
        .refused(NO_CALL).no_control("they change the host"),
    Deed::new("make_calls_with_a_history", "use perf_event_open(2), bpf(2), userfaultfd(2), io_uring_setup(2), personality(2)", "seccomp",
        Inside(kernel::make_calls_with_a_history))
        .refused(NO_CALL).no_oracle(),
    Deed::new("open_a_file_by_its_handle", "open a file by its handle, past all mounts", "no capabilities, seccomp",
        Inside(kernel::open_a_file_by_its_handle))
        .refused(NO_CALL).no_control("not every file system has handles that can be guessed"),
    Deed::new("type_into_the_terminal", "put key strokes into a terminal of the host (TIOCSTI, TIOCLINUX)",
        "session of its own, seccomp", AtTerminal(kernel::type_into_the_terminal))
        .refused(&[Errno::PERM, Errno::IO, Errno::NOTTY]),
    Deed::new("write_a_core_dump", "leave a core dump", "rlimits",
        Inside(kernel::write_a_core_dump)).no_oracle(),
    Deed::new("escape_the_killer_of_processes", "be spared when memory is short", "no capabilities",
        Inside(kernel::escape_the_killer_of_processes))
        .refused(DENIED).no_control("root of a container may not do it either"),

    // Identity.
    Deed::new("hold_a_capability", "hold a capability, in any of the five sets", "no capabilities",
        Inside(identity::hold_a_capability)).no_fallback(),
    Deed::new("find_a_lock_open", "find `no_new_privs` unset or a securebit unlocked", "no capabilities",
        Inside(identity::find_a_lock_open)).no_oracle().no_fallback(),
    Deed::new("run_without_a_filter_of_system_calls", "make system calls without a filter", "seccomp",
        Inside(identity::run_without_a_filter_of_system_calls)).no_oracle(),
    Deed::new("belong_to_a_group_of_the_launcher", "belong to a supplementary group of the daemon's", "own user",
        Inside(identity::belong_to_a_group_of_the_launcher)).root_only(),
    Deed::new("become_another_user", "become another user, or give a file to one", "no capabilities, user namespace",
        Inside(identity::become_another_user))
        .refused(&[Errno::PERM, Errno::INVAL]).control(Place::Apart),
    Deed::new("take_a_higher_priority", "take a higher priority than others", "no capabilities, rlimits",
        Inside(identity::take_a_higher_priority))
        .refused(DENIED),

    // Limits.
    Deed::new("fill_the_temporary_directory", "fill `/tmp` beyond its size", "`tmp_limit`",
        Inside(limits::fill_the_temporary_directory))
        .refused(&[Errno::NOSPC]).no_fallback(),
    Deed::new("fill_the_shared_memory", "fill `/dev/shm` beyond its size", "`shm_limit`",
        Inside(limits::fill_the_shared_memory))
        .refused(&[Errno::NOSPC]).no_fallback(),
    Deed::new("fill_the_temporary_directory_with_empty_files", "create empty files in `/tmp` without end", "`tmp_limit`",
        Inside(limits::fill_the_temporary_directory_with_empty_files))
        .refused(&[Errno::NOSPC]).no_oracle().no_fallback(),
    Deed::new("open_too_many_files", "open more files than it may", "rlimits",
        Inside(limits::open_too_many_files))
        .refused(&[Errno::MFILE]).no_oracle(),
    Deed::new("take_terminals_from_others", "open pseudo-terminals until the host has none left", "own `/dev/pts`",
        Inside(limits::take_terminals_from_others))
        .refused(&[Errno::NOSPC]).no_oracle().no_fallback(),
    Deed::new("raise_its_own_limits", "raise its own limits", "no capabilities",
        Inside(limits::raise_its_own_limits))
        .refused(NOT_PERMITTED).no_control("root of a container may not do it either"),
    Deed::new("start_too_many_processes", "start processes without end", "rlimits, cgroup limits",
        Inside(limits::start_too_many_processes))
        .refused(&[Errno::AGAIN]).no_oracle(),

    // Life.
    Deed::new("outlive_the_end_of_the_session",
        "stay when the session ends: by daemonizing, by ignoring signals, by stopping itself", "PID namespace",
        Around(life::outlive_the_end_of_the_session)),
    Deed::new("outlive_init", "stay when init is killed", "PID namespace",
        Around(life::outlive_init)).no_fallback(),
    Deed::new("outlive_the_daemon", "stay when the daemon is killed with -9", "PID namespace, dead-man's switch",
        Around(life::outlive_the_daemon)),
];
