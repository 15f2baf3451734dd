//! The daemon where limits can be enforced: on a host with cgroup v2, which is what `cargo xtask test` boots a virtual
//! machine for.

#[path = "../cli/client.rs"]
mod client;
#[path = "../cli/daemon.rs"]
#[expect(dead_code, reason = "not all of what the other tests need is needed here")]
mod daemon;
mod delegated;
mod enforced;
mod leftovers;
mod usage;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Names each test by its path, as the built-in harness does.
macro_rules! trials {
    ($($module:ident :: $test:ident),* $(,)?) => {
        vec![$(Trial::test(concat!(stringify!($module), "::", stringify!($test)), || {
            $module::$test();
            Ok(())
        })),*]
    };
}

fn main() -> ExitCode {
    let trials = trials![
        enforced::a_worker_over_its_memory_limit_ends_as_out_of_memory_and_no_other_does,
        enforced::a_worker_gets_no_more_cpu_time_than_its_limit,
        enforced::a_worker_has_no_more_processes_than_its_limit,
        enforced::a_hundred_processes_is_the_limit_unless_another_is_written,
        leftovers::a_daemon_that_stops_leaves_no_cgroup,
        leftovers::what_a_killed_daemon_left_is_removed_by_the_next_one,
        usage::what_a_worker_uses_is_in_the_admin_api_and_the_metrics,
        usage::the_doctor_says_that_limits_can_be_had,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
