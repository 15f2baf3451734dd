//! Mounts and roots.

use crate::{
    attempt::{Attempt, any},
    raw::{Arg, Call, call, calls},
    target::Target,
};

pub(crate) fn mount_a_file_system(_: &Target) -> Attempt {
    let mount = |kind| {
        let args = [Arg::Text("none"), Arg::Text("/tmp"), Arg::Text(kind), Arg::Int(0), Arg::Int(0)];
        Ok(format!("{:?}", call(libc::SYS_mount, &args)?))
    };
    any(["tmpfs", "proc", "sysfs", "cgroup2"].map(|kind| (kind, mount(kind))))
}

pub(crate) fn bind_a_directory(_: &Target) -> Attempt {
    let flags = Arg::Int((libc::MS_BIND | libc::MS_REC).cast_signed());
    let args = [Arg::Text("/"), Arg::Text("/tmp"), Arg::Int(0), flags, Arg::Int(0)];
    Ok(format!("{:?}", call(libc::SYS_mount, &args)?))
}

pub(crate) fn unmount(_: &Target) -> Attempt {
    let detach =
        |path| Ok(format!("{:?}", call(libc::SYS_umount2, &[Arg::Text(path), Arg::Int(libc::MNT_DETACH.into())])?));
    any(["/dev/shm", "/proc", "/usr", "/dev"].map(|path| (path, detach(path))))
}

pub(crate) fn remount_to_write(_: &Target) -> Attempt {
    let flags = Arg::Int((libc::MS_REMOUNT | libc::MS_BIND).cast_signed());
    let remount = |path| {
        let args = [Arg::Int(0), Arg::Text(path), Arg::Int(0), flags, Arg::Int(0)];
        Ok(format!("{:?}", call(libc::SYS_mount, &args)?))
    };
    any(["/", "/usr", "/dev/shm", "/proc"].map(|path| (path, remount(path))))
}

/// The calls of the newer interface, each of which is a way of its own.
pub(crate) fn mount_by_descriptor(_: &Target) -> Attempt {
    let here = Arg::Int(libc::AT_FDCWD.into());
    let open_tree = Call { number: libc::SYS_open_tree, args: &[here, Arg::Text("/"), Arg::Int(1)] };
    let fsopen = Call { number: libc::SYS_fsopen, args: &[Arg::Text("tmpfs"), Arg::Int(0)] };
    let fspick = Call { number: libc::SYS_fspick, args: &[here, Arg::Text("/"), Arg::Int(0)] };
    // struct mount_attr: set nothing, clear MOUNT_ATTR_RDONLY.
    let clear = [0, 1, 0, 0].map(u64::to_ne_bytes).concat();
    let args = [here, Arg::Text("/"), Arg::Int(0), Arg::Bytes(&clear), Arg::Int(32)];
    let mount_setattr = Call { number: libc::SYS_mount_setattr, args: &args };
    let tried = [("open_tree", open_tree), ("fsopen", fsopen), ("fspick", fspick), ("mount_setattr", mount_setattr)];
    any(tried.map(|(name, call)| (name, calls(&[call]).map(|got| format!("{got:?}")).map_err(Into::into))))
}

pub(crate) fn change_the_root(_: &Target) -> Attempt {
    Ok(format!("{:?}", call(libc::SYS_chroot, &[Arg::Text("/tmp")])?))
}

pub(crate) fn pivot_the_root(_: &Target) -> Attempt {
    // In a sandbox /tmp is a mount already; as a control it has to become one, as the call demands.
    let _ = mount_a_file_system(&Target::default());
    let pivot = [
        Call { number: libc::SYS_chdir, args: &[Arg::Text("/tmp")] },
        Call { number: libc::SYS_pivot_root, args: &[Arg::Text("."), Arg::Text(".")] },
    ];
    Ok(format!("{:?}", calls(&pivot)?))
}
