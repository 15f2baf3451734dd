//! What the policies say, that the filters do what the policies say, and that programs live with it.

mod emulator;
mod kernel;
mod policies;
mod programs;

use std::thread;

use super::*;

/// Runs something under a profile: in a thread of its own, for good, with all that it starts.
fn confined<T: Send + 'static>(profile: Seccomp, log: bool, body: impl FnOnce() -> T + Send + 'static) -> T {
    let body = move || {
        rustix::thread::set_no_new_privs(true).expect("it needs no privilege");
        install(filters(profile, log), log).expect("the kernel takes the filters");
        body()
    };
    thread::spawn(body).join().expect("the body does not panic")
}
