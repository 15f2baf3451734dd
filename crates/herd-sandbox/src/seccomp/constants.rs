//! The values that conditions of a policy name.

/// The value of a name, or a number as it is written, decimal or hexadecimal.
pub(super) fn value(word: &str) -> Option<u32> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    };
    number.or_else(|| FROM_LIBC.iter().chain(FROM_THE_KERNEL).find(|(name, _)| *name == word).map(|(_, value)| *value))
}

/// Values of the C library, which differ between architectures where the kernel's do.
macro_rules! from_libc {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), libc::$name as u32)),*] };
}

const FROM_LIBC: &[(&str, u32)] = from_libc![
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_UNIX,
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    NETLINK_ROUTE,
    PRIO_PGRP,
    PRIO_PROCESS,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    PR_CAP_AMBIENT,
    PR_GET_CHILD_SUBREAPER,
    PR_GET_DUMPABLE,
    PR_GET_KEEPCAPS,
    PR_GET_MDWE,
    PR_GET_NAME,
    PR_GET_NO_NEW_PRIVS,
    PR_GET_PDEATHSIG,
    PR_GET_SECCOMP,
    PR_GET_SECUREBITS,
    PR_GET_THP_DISABLE,
    PR_GET_TID_ADDRESS,
    PR_GET_TIMERSLACK,
    PR_GET_TIMING,
    PR_GET_TSC,
    PR_MCE_KILL,
    PR_MCE_KILL_GET,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_KEEPCAPS,
    PR_SET_MDWE,
    PR_SET_NAME,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    PR_SET_PTRACER,
    PR_SET_SECCOMP,
    PR_SET_SECUREBITS,
    PR_SET_THP_DISABLE,
    PR_SET_TIMERSLACK,
    PR_SET_TSC,
    PR_SET_VMA,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_IP,
    SOL_IPV6,
    S_IFIFO,
    S_IFMT,
    S_IFREG,
    S_IFSOCK,
    TIOCCONS,
    TIOCLINUX,
    TIOCSETD,
    TIOCSTI,
];

/// Values that the C library's bindings lack, from the kernel's headers that are named.
const FROM_THE_KERNEL: &[(&str, u32)] = &[
    // arch/x86/include/uapi/asm/prctl.h. Other architectures lack the call.
    ("ARCH_SET_GS", 0x1001),
    ("ARCH_SET_FS", 0x1002),
    ("ARCH_GET_FS", 0x1003),
    ("ARCH_GET_GS", 0x1004),
    ("ARCH_GET_CPUID", 0x1011),
    ("ARCH_SET_CPUID", 0x1012),
    ("ARCH_GET_XCOMP_SUPP", 0x1021),
    ("ARCH_GET_XCOMP_PERM", 0x1022),
    ("ARCH_REQ_XCOMP_PERM", 0x1023),
    ("ARCH_CET_STATUS", 0x3001),
    ("ARCH_SHSTK_ENABLE", 0x5001),
    ("ARCH_SHSTK_DISABLE", 0x5002),
    ("ARCH_SHSTK_LOCK", 0x5003),
    ("ARCH_SHSTK_UNLOCK", 0x5004),
    ("ARCH_SHSTK_STATUS", 0x5005),
    // linux/btrfs.h
    ("BTRFS_IOC_SNAP_CREATE", 0x5000_9401),
    ("BTRFS_IOC_SUBVOL_CREATE", 0x5000_940e),
    ("BTRFS_IOC_SNAP_CREATE_V2", 0x5000_9417),
    ("BTRFS_IOC_SUBVOL_CREATE_V2", 0x5000_9418),
    // linux/fscrypt.h
    ("FS_IOC_SET_ENCRYPTION_POLICY", 0x800c_6613),
    ("FS_IOC_ADD_ENCRYPTION_KEY", 0xc050_6617),
    // linux/ioprio.h
    ("IOPRIO_WHO_PROCESS", 1),
    ("IOPRIO_WHO_PGRP", 2),
    // linux/netfilter_{ipv4/ip,ipv6/ip6,arp/arp}_tables.h and netfilter_bridge/ebtables.h. IPv6's are as IPv4's.
    ("IPT_SO_SET_REPLACE", 64),
    ("IPT_SO_SET_ADD_COUNTERS", 65),
    ("ARPT_SO_SET_REPLACE", 96),
    ("ARPT_SO_SET_ADD_COUNTERS", 97),
    ("EBT_SO_SET_ENTRIES", 128),
    ("EBT_SO_SET_COUNTERS", 129),
    // linux/personality.h. The query is how personality(2) asks for the present one.
    ("PER_LINUX", 0),
    ("PER_QUERY", 0xffff_ffff),
    // linux/prctl.h
    ("PR_SVE_SET_VL", 50),
    ("PR_SVE_GET_VL", 51),
    ("PR_GET_SPECULATION_CTRL", 52),
    ("PR_SET_SPECULATION_CTRL", 53),
    ("PR_PAC_RESET_KEYS", 54),
    ("PR_SET_TAGGED_ADDR_CTRL", 55),
    ("PR_GET_TAGGED_ADDR_CTRL", 56),
    ("PR_PAC_SET_ENABLED_KEYS", 60),
    ("PR_PAC_GET_ENABLED_KEYS", 61),
    ("PR_SME_SET_VL", 63),
    ("PR_SME_GET_VL", 64),
    ("PR_GET_SHADOW_STACK_STATUS", 74),
    ("PR_SET_SHADOW_STACK_STATUS", 75),
    ("PR_LOCK_SHADOW_STACK_STATUS", 76),
    ("PR_GET_AUXV", 0x4155_5856),
    // include/linux/net.h: the rest of socket(2)'s type are flags.
    ("SOCK_TYPE_MASK", 0xf),
];
