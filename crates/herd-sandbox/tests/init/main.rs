//! The init from outside: what it does to a worker, and what is left when it ends.
//!
//! This binary is the launching program, the init and most of the workers of its own tests. Init needs the first call
//! in `main`, so the tests are listed here and run by libtest-mimic.

mod dead_man;
mod end;
mod fallback;
mod fault;
mod leak;
mod role;
mod sealed;
mod stage;
mod start;
mod tree;

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
        start::the_worker_leads_its_own_session_and_group,
        start::init_has_a_session_of_its_own_and_stands_at_the_root,
        start::the_worker_gets_exactly_the_environment_of_its_spec,
        start::the_worker_inherits_no_descriptor,
        start::standard_input_is_dev_null,
        start::listening_sockets_arrive_as_descriptors_3_and_up,
        start::descriptors_arrive_whatever_their_numbers_were,
        start::limits_are_those_of_the_spec,
        start::umask_and_directory_are_those_of_the_spec,
        start::the_directory_defaults_to_the_launchers,
        start::no_signal_is_blocked_or_ignored,
        start::privileges_cannot_be_gained,
        start::a_program_is_found_in_the_path_of_the_worker,
        start::a_relative_program_is_found_from_the_working_directory,
        start::a_plan_larger_than_any_socket_buffer_arrives,
        start::init_is_found_after_its_file_was_removed,
        start::init_keeps_nothing_of_the_launcher_or_the_plan,
        start::init_is_not_dumpable,
        start::init_costs_less_than_a_mebibyte,
        end::an_exit_code_is_reported,
        end::a_signal_is_reported,
        end::what_the_worker_used_is_reported,
        end::stop_is_obeyed_within_its_grace,
        end::stop_wakes_a_stopped_worker,
        end::stop_kills_after_its_grace,
        end::a_second_stop_shortens_the_grace_and_never_extends_it,
        end::a_stop_right_after_the_launch_is_not_lost,
        end::a_signal_reaches_the_whole_group,
        end::kill_ends_the_worker_at_once,
        end::reports_wait_for_a_launcher_that_does_not_read,
        end::requests_never_block,
        tree::descendants_die_with_the_main_process,
        tree::kill_finds_those_that_left_the_session,
        tree::a_fork_bomb_is_killed,
        tree::a_chain_of_forks_is_killed,
        tree::orphans_are_reaped_as_they_die,
        dead_man::a_killed_daemon_leaves_no_process,
        dead_man::dropping_the_hold_kills_the_tree,
        dead_man::a_stopped_init_is_continued_to_kill,
        dead_man::a_killed_init_takes_the_main_process_along,
        dead_man::a_hang_up_before_the_plan_ends_init,
        dead_man::nonsense_on_the_socket_ends_init,
        dead_man::a_terminal_signal_does_not_reach_init,
        fault::a_missing_program_is_named,
        fault::a_program_that_is_not_executable_is_named,
        fault::a_directory_is_no_program,
        fault::a_missing_interpreter_is_named,
        fault::a_file_without_a_format_is_named,
        fault::a_missing_directory_is_named,
        fault::a_directory_that_the_workers_user_may_not_enter_names_the_user,
        fault::too_long_arguments_are_named,
        fault::a_limit_beyond_the_hard_limit_is_named,
        fault::a_helper_that_is_no_init_is_reported,
        fault::a_helper_that_does_not_exist_is_reported,
        fault::a_failed_start_leaves_nothing,
        leak::two_hundred_lives_leave_no_descriptor_and_no_zombie,
        leak::dropped_inits_are_reaped,
        leak::programs_started_meanwhile_get_no_descriptor,
        sealed::reported_numbers_are_those_of_the_launchers_namespace,
        sealed::a_worker_that_ends_at_once_is_reported_all_the_same,
        sealed::default_signal_handling_works_as_outside,
        sealed::orphans_are_reaped_by_init,
        sealed::sockets_of_its_network_reach_the_worker_and_nothing_else,
        sealed::two_workers_have_the_same_port,
        sealed::a_listening_port_of_its_network_is_passed_on,
        sealed::sockets_are_made_while_there_are_descriptors,
        sealed::kill_ends_all_in_the_namespace,
        sealed::init_keeps_no_capability_but_to_signal_its_worker,
        sealed::a_link_that_a_worker_made_is_not_mounted,
        sealed::mounts_and_covers_are_where_the_links_of_the_sandbox_lead,
        sealed::a_killed_init_takes_all_along,
        sealed::a_worker_cannot_end_or_stop_its_init,
        sealed::a_killed_daemon_leaves_no_process,
        sealed::lives_leave_no_descriptor_no_zombie_and_no_mount,
        sealed::dropped_at_any_moment_an_init_is_reaped,
        fallback::a_required_sandbox_is_refused_with_the_reason,
        fallback::landlock_guards_files_and_ports,
        fallback::seccomp_guards_system_calls,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
