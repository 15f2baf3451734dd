//! Cgroups on a kernel that has all the controllers, in a virtual machine: what the limits do, what is killed, what is
//! left, and where they may not be had.
//!
//! Each test is run in a process of its own that is alone in a delegated cgroup, like a service of systemd with
//! `Delegate=yes`. It may divide that, and leave there what it likes. This binary is also the workers and the other
//! daemons of its tests, and the init of those that launch one.

mod birth;
mod end;
mod limit;
mod place;
mod role;
mod stage;
mod sweep;

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
    herd_sandbox::enter_init();
    if let Some(code) = role::play() {
        return code;
    }
    let trials = trials![
        limit::memory_over_the_limit_kills_the_whole_worker_and_is_counted,
        limit::memory_below_the_limit_kills_nobody,
        limit::memory_over_the_limit_is_not_swapped_out,
        limit::cpu_time_over_the_limit_is_waited_for,
        limit::a_fork_bomb_stops_at_the_limit_of_processes,
        limit::all_limits_are_in_force_before_the_first_process,
        limit::a_limit_that_cannot_be_set_is_an_error_and_leaves_nothing,
        limit::what_workers_use_is_told_one_by_one,
        end::kill_ends_all_even_those_that_left_the_session,
        end::kill_ends_what_is_stopped_and_what_is_frozen,
        end::without_cgroup_kill_each_process_is_killed,
        end::an_empty_cgroup_is_removed_with_those_below,
        end::a_populated_cgroup_is_removed_once_its_last_process_ends,
        end::waiting_for_processes_that_stay_ends_in_time,
        end::a_dropped_cgroup_is_killed_and_removed,
        end::the_last_handle_removes_all,
        end::names_are_checked_and_cannot_be_used_twice,
        sweep::leftovers_of_a_killed_daemon_are_swept,
        sweep::a_living_daemons_workers_are_spared,
        sweep::of_two_that_sweep_at_once_one_removes_and_both_succeed,
        place::a_delegated_cgroup_is_divided_and_its_process_moved_to_a_leaf,
        place::a_second_look_finds_the_same_cgroup,
        place::a_cgroup_without_the_right_to_write_is_refused,
        place::a_cgroup_that_was_delegated_to_a_user_works_without_root,
        place::a_named_cgroup_out_of_a_users_reach_is_refused,
        place::a_unit_of_systemd_needs_its_mark,
        place::the_top_of_the_hierarchy_is_refused_to_root,
        place::missing_controllers_are_named,
        place::other_processes_are_named_and_nothing_is_changed,
        place::what_was_begun_is_undone_if_it_cannot_be_finished,
        place::a_containers_processes_are_moved_along,
        place::a_read_only_hierarchy_is_refused,
        place::a_named_cgroup_works_from_elsewhere,
        birth::init_and_its_worker_are_born_into_the_cgroup,
        birth::without_root_they_are_born_into_a_delegated_one,
        birth::the_limit_of_processes_counts_from_init_on,
        birth::a_worker_out_of_memory_is_killed_with_its_init_and_told_by_its_cgroup,
        birth::what_a_worker_leaves_behind_dies_with_its_cgroup,
    ];
    let mut arguments = Arguments::from_args();
    // Each changes the cgroup of the whole process.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}
