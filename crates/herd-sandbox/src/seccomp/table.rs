//! Which system calls there are, and their numbers.

use std::{collections::BTreeMap, sync::OnceLock};

/// The column of this architecture in the table, after that of the names. A port adds one.
#[cfg(target_arch = "x86_64")]
const COLUMN: usize = 1;
#[cfg(target_arch = "aarch64")]
const COLUMN: usize = 2;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("seccomp/calls.table has no numbers of system calls for this architecture");

/// The calls of all architectures, with the number on this one, if it has the call.
pub(super) fn all() -> &'static BTreeMap<&'static str, Option<u32>> {
    static TABLE: OnceLock<BTreeMap<&str, Option<u32>>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let calls = include_str!("calls.table").lines().filter(|line| !line.starts_with('#'));
        let fields = calls.map(|line| line.split(' ').collect::<Vec<_>>());
        fields.map(|fields| (fields[0], fields.get(COLUMN).and_then(|number| number.parse().ok()))).collect()
    })
}

/// What this architecture calls a call by.
pub(super) fn number(name: &str) -> Option<u32> {
    *all().get(name)?
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_line_of_the_table_is_a_name_and_two_numbers() {
        let lines: Vec<Vec<&str>> = include_str!("calls.table")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(' ').collect())
            .collect();
        for fields in &lines {
            let [name, numbers @ ..] = fields.as_slice() else { panic!("an empty line") };
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                "{name}"
            );
            assert_eq!(numbers.len(), 2, "{name}");
            assert!(numbers.iter().all(|number| *number == "-" || number.parse::<u32>().is_ok()), "{name}");
        }
        assert!(lines.is_sorted_by(|one, other| one[0] < other[0]), "names are sorted, and none is there twice");
    }

    #[test]
    fn no_number_of_an_architecture_is_there_twice() {
        for column in [1, 2] {
            let mut numbers: Vec<u32> = include_str!("calls.table")
                .lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(|line| line.split(' ').nth(column)?.parse().ok())
                .collect();
            let listed = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), listed, "column {column}");
        }
    }

    #[test]
    fn numbers_are_those_of_the_c_library() {
        macro_rules! known {
            ($($constant:ident),* $(,)?) => {
                [$((stringify!($constant).trim_start_matches("SYS_"), libc::$constant)),*]
            };
        }
        let known = known![
            SYS_accept4,
            SYS_bpf,
            SYS_chroot,
            SYS_clone,
            SYS_clone3,
            SYS_close,
            SYS_execve,
            SYS_exit_group,
            SYS_futex,
            SYS_getrandom,
            SYS_io_uring_setup,
            SYS_ioctl,
            SYS_kexec_load,
            SYS_keyctl,
            SYS_landlock_restrict_self,
            SYS_mount,
            SYS_mount_setattr,
            SYS_openat,
            SYS_perf_event_open,
            SYS_personality,
            SYS_pidfd_getfd,
            SYS_pivot_root,
            SYS_prctl,
            SYS_process_vm_writev,
            SYS_ptrace,
            SYS_read,
            SYS_seccomp,
            SYS_setns,
            SYS_socket,
            SYS_umount2,
            SYS_unshare,
            SYS_userfaultfd,
            SYS_write,
        ];
        for (name, number) in known {
            assert_eq!(super::number(name).map(i64::from), Some(number), "{name}");
        }
    }
}
