//! Workers as a pool sees them: real processes under real inits.
//!
//! This binary is the daemon, the init and most of the workers of its own tests. Init needs the first call in `main`,
//! so the tests are listed here and run by libtest-mimic.

mod client;
mod end;
mod environment;
mod exec;
mod fallback;
mod fault;
mod fixture;
mod health;
mod kept;
mod leak;
mod limits;
mod output;
mod pool;
mod port;
mod program;
mod readiness;
mod role;
mod rootless;
mod sealed;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Names each test by its path, as the built-in harness does, and gives it a runtime like the daemon's.
macro_rules! trials {
    ($($module:ident :: $test:ident),* $(,)?) => {
        vec![$(Trial::test(concat!(stringify!($module), "::", stringify!($test)), || {
            fixture::runtime().block_on($module::$test());
            Ok(())
        })),*]
    };
}

/// The tests that run twice: as whoever runs this, and as a user without any privilege.
macro_rules! sealed {
    ($($module:ident :: $test:ident),* $(,)?) => {
        /// Each with its name.
        pub(crate) fn sealed_tests() -> Vec<(&'static str, fn())> {
            vec![$((concat!(stringify!($module), "::", stringify!($test)), || {
                fixture::runtime().block_on($module::$test());
            })),*]
        }
    };
}

sealed![
    limits::limits_are_kept_or_refused_in_every_sandbox,
    limits::a_worker_over_its_memory_limit_is_out_of_memory,
    limits::a_worker_that_is_out_of_memory_before_it_is_ready_is_told_so,
    limits::a_killed_worker_is_not_out_of_memory_and_its_cgroup_goes_with_it,
    limits::the_default_limit_of_processes_is_kept_or_missing,
    sealed::every_worker_has_the_same_port_in_a_network_of_its_own,
    sealed::another_port_can_be_chosen_and_is_what_the_worker_is_told,
    sealed::many_connections_at_once_all_reach_the_worker,
    sealed::a_worker_that_ended_refuses_connections,
    sealed::no_worker_reaches_the_hosts_network,
    sealed::the_hosts_network_can_be_asked_for,
    sealed::a_listening_socket_is_made_in_the_workers_own_network,
    sealed::a_unix_socket_has_a_short_path_inside,
    sealed::a_link_in_place_of_the_socket_is_not_followed,
    sealed::a_notification_from_inside_makes_it_ready,
    sealed::a_worker_that_says_it_is_ready_must_listen_in_its_own_network_too,
    sealed::a_command_that_makes_it_ready_sees_the_workers_files,
    sealed::a_command_that_makes_it_ready_reaches_the_workers_own_port,
    sealed::the_worker_is_told_of_its_places_as_it_sees_them,
    sealed::the_programs_file_and_the_working_directory_are_visible_and_their_surroundings_are_not,
    sealed::paths_can_be_shown_made_writable_and_hidden,
    sealed::what_is_herds_own_is_in_nothing_that_workers_see,
    sealed::what_is_hidden_is_so_by_every_name,
    sealed::a_path_that_is_not_there_cannot_be_shown,
    sealed::a_crash_inside_is_told_with_the_signal_and_the_last_words,
    sealed::close_leaves_no_process_whatever_the_worker_has_started,
    sealed::hostile_files_are_removed_with_the_worker_and_nothing_outside_is_touched,
    sealed::open_files_and_core_dumps_are_limited,
    sealed::the_layers_that_are_on_are_told,
    exec::a_command_is_in_all_namespaces_and_in_the_cgroup_of_the_worker,
    exec::a_command_has_the_workers_user_filters_and_no_capability,
    exec::a_command_has_the_workers_environment_and_directory_but_for_what_is_named,
    exec::a_command_holds_three_descriptors_and_nothing_of_the_daemon,
    exec::a_commands_end_is_told_and_does_not_end_the_worker,
    exec::input_reaches_the_command_up_to_its_end_and_all_output_can_be_read_after,
    exec::a_command_that_closes_its_streams_goes_on,
    exec::a_terminal_is_one_for_the_command_and_can_be_resized,
    exec::nothing_can_be_typed_into_a_terminal_by_a_program,
    exec::no_terminal_of_the_host_is_reached_from_a_command,
    exec::a_signal_reaches_the_commands_whole_group,
    exec::dropping_it_kills_all_of_its_session_and_nothing_else,
    exec::what_a_command_leaves_behind_ends_with_it,
    exec::the_workers_end_ends_a_command,
    exec::a_crash_of_the_worker_ends_a_command,
    exec::what_cannot_be_run_is_told,
    exec::so_many_commands_run_at_once_and_no_more,
    exec::a_worker_without_room_for_a_process_is_told_so,
    exec::a_start_that_nobody_waits_for_leaves_nothing,
];

fn main() -> ExitCode {
    herd_sandbox::enter_init();
    if let Some(code) = role::play() {
        return code;
    }
    let mut trials = trials![
        client::the_default_client_speaks_http,
        client::the_default_client_speaks_http_2,
        client::a_client_over_a_unix_socket_reaches_the_worker,
        client::a_client_of_any_type_is_made_from_the_connector,
        client::what_goes_wrong_is_told_by_type,
        end::close_asks_first_and_grants_the_grace,
        end::a_worker_that_ignores_the_stop_signal_is_killed_after_its_grace,
        end::kill_asks_nobody,
        end::another_stop_signal_can_be_chosen,
        end::close_ends_descendants_that_left_the_session,
        end::everything_is_reaped_and_removed_when_close_returns,
        end::a_dropped_worker_is_killed_and_reaped,
        end::a_dropped_close_still_ends_the_worker,
        end::a_crash_while_idle_is_told_with_its_last_words,
        end::exited_gives_the_same_answer_again_and_after_the_end,
        end::a_worker_that_stops_its_init_is_killed_unasked,
        end::a_worker_that_keeps_its_init_stopped_is_killed_all_the_same,
        end::a_killed_init_leaves_nothing_of_the_workers_group,
        end::a_worker_in_a_sandbox_ends_though_its_init_obeys_nothing,
        environment::the_worker_gets_nothing_of_the_daemons_environment,
        environment::configured_variables_replace_the_defaults,
        environment::templates_expand_in_arguments_environment_and_directory,
        environment::the_workspace_is_private_and_goes_with_the_worker,
        environment::open_files_are_limited,
        exec::without_a_sandbox_a_command_is_where_the_worker_is,
        exec::without_a_sandbox_a_terminal_is_the_hosts_and_the_commands_own,
        exec::what_a_worker_with_a_killed_init_had_is_not_running,
        fallback::what_is_required_and_cannot_be_had_is_refused_with_the_remedy,
        fallback::a_root_that_knows_no_other_user_says_so,
        fallback::at_best_effort_workers_run_and_what_is_missing_is_told,
        fault::a_program_that_does_not_exist_is_named,
        fault::a_program_that_is_not_executable_is_named,
        fault::a_working_directory_that_does_not_exist_is_told,
        fault::an_exit_during_the_start_fails_it_at_once_with_the_last_words,
        fault::a_crash_during_the_start_tells_the_signal,
        fault::a_worker_that_never_listens_is_given_up_after_the_timeout,
        fault::a_worker_that_answers_503_is_given_up_and_told,
        fault::a_worker_without_the_health_path_is_given_up_with_a_remedy,
        fault::garbage_on_the_health_path_is_told,
        fault::a_worker_that_never_answers_is_told,
        fault::a_program_that_is_no_init_is_found_out,
        fault::an_init_that_talks_nonsense_has_ended_when_the_spawn_fails,
        fault::a_dropped_spawn_leaves_no_process,
        fault::a_spawn_dropped_at_any_moment_leaves_no_process,
        fault::running_out_of_descriptors_fails_that_spawn_alone,
        health::a_worker_that_answers_is_healthy,
        health::a_worker_that_does_not_know_the_path_lives,
        health::a_worker_that_answers_500_is_not_healthy,
        health::a_worker_that_answers_garbage_is_not_healthy,
        health::a_worker_that_closed_its_listener_is_not_healthy,
        health::a_foreign_listener_on_the_workers_port_is_not_the_worker,
        health::a_worker_that_is_busy_for_long_lives,
        health::a_worker_that_hangs_is_not_healthy,
        health::a_worker_that_ended_is_not_healthy,
        kept::a_sessions_files_outlive_a_crash_the_session_and_the_daemon,
        kept::two_daemons_never_have_a_worker_in_one_workspace,
        kept::a_hostile_session_id_names_no_other_directory,
        kept::no_two_live_workers_have_the_same_user,
        kept::a_workers_init_holds_on_to_its_user,
        kept::a_range_of_users_that_this_process_does_not_know_is_refused,
        kept::a_range_with_users_that_others_have_is_refused,
        kept::a_working_directory_that_no_workers_user_may_enter_is_refused,
        leak::two_thousand_workers_that_come_and_go_leave_nothing,
        output::lines_of_both_streams_are_kept_in_order,
        output::hostile_bytes_are_made_printable,
        output::a_line_without_end_is_cut,
        output::a_flood_neither_grows_the_daemon_nor_stops_other_workers,
        output::the_log_is_limited_and_says_how_much_is_missing,
        output::a_follower_sees_lines_as_they_come_and_the_end,
        output::the_last_words_are_complete_when_the_exit_is_told,
        pool::a_session_keeps_its_process_and_shares_it_with_nobody,
        pool::a_crash_is_told_with_the_session_and_the_last_words_and_the_next_acquire_starts_anew,
        pool::a_pool_that_shuts_down_leaves_no_process_and_no_file,
        pool::a_closed_factory_leaves_nothing_and_starts_nothing_whoever_holds_it,
        pool::an_acquire_that_fails_tells_what_the_worker_said,
        pool::a_worker_that_dies_as_a_spare_is_replaced_unseen,
        port::workers_have_ports_of_their_own,
        port::a_port_that_another_program_took_is_replaced,
        port::what_answers_on_a_stolen_port_is_not_taken_for_the_worker,
        port::no_connection_goes_to_a_program_that_took_over_the_port_of_a_ready_worker,
        port::a_worker_that_replaces_its_listener_is_reached,
        port::a_worker_that_loses_every_port_is_given_up,
        port::a_conflict_about_another_port_is_the_workers_own_fault,
        port::a_listener_of_a_descendant_is_the_workers,
        program::pythons_web_server_is_a_worker,
        program::a_redis_server_is_a_worker_with_a_client_of_its_own,
        readiness::http_waits_for_a_2xx_answer,
        readiness::http_has_a_path_of_its_own,
        readiness::tcp_waits_for_a_connection,
        readiness::a_unix_socket_is_listened_on,
        readiness::a_line_on_stdout_makes_it_ready,
        readiness::a_notification_makes_it_ready,
        readiness::a_command_makes_it_ready,
        readiness::a_worker_that_says_it_is_ready_must_listen_too,
        readiness::a_listening_socket_is_inherited,
        readiness::readiness_is_noticed_within_milliseconds,
        readiness::the_first_look_can_be_delayed,
        readiness::many_workers_start_together,
    ];
    for (name, test) in sealed_tests() {
        let run = move || {
            test();
            Ok(())
        };
        trials.push(Trial::test(name, run));
        let run = move || {
            rootless::as_user(name);
            Ok(())
        };
        trials.push(Trial::test(format!("rootless::{name}"), run));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
