//! System V IPC and POSIX message queues.

use crate::{
    attempt::{Attempt, absent, any},
    raw::{Arg, call},
    target::Target,
};

pub(crate) fn attach_shared_memory_of_the_host(target: &Target) -> Attempt {
    let args = [Arg::Int(target.number("shared_memory_key")), Arg::Int(0), Arg::Int(0)];
    let by_key = call(libc::SYS_shmget, &args).map(|got| format!("{got:?}")).map_err(Into::into);
    let listed = std::fs::read_to_string("/proc/sysvipc/shm")?;
    // The first line names the columns.
    let listed = match listed.lines().nth(1) {
        Some(segment) => Ok(segment.to_owned()),
        None => Err(absent("no segment is listed")),
    };
    any([("by its key", by_key), ("listed", listed)])
}

pub(crate) fn open_a_message_queue_of_the_host(target: &Target) -> Attempt {
    let args = [Arg::Text(target.text("message_queue")), Arg::Int(libc::O_RDWR.into()), Arg::Int(0), Arg::Int(0)];
    Ok(format!("{:?}", call(libc::SYS_mq_open, &args)?))
}
