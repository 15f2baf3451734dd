//! The way out of a worker's network: real workers in a world of their own, with real pasta.
//!
//! The world is made of network namespaces, see [`world`]: no packet leaves this machine. It takes root to make one.
//!
//! This binary is the daemon, the init and the workers of its own tests, and whoever is outside. Init needs the first
//! call in `main`, so the tests are listed here and run by libtest-mimic.

mod fixture;
mod life;
mod names;
mod reach;
mod role;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Names each test by its path, as the built-in harness does, and gives it a runtime like the daemon's.
macro_rules! tests {
    ($($module:ident :: $test:ident),* $(,)?) => {
        /// Each with its name.
        pub(crate) fn tests() -> Vec<(&'static str, fn())> {
            vec![$((concat!(stringify!($module), "::", stringify!($test)), || {
                fixture::runtime().block_on($module::$test());
            })),*]
        }
    };
}

tests![
    reach::a_worker_reaches_public_addresses,
    reach::what_is_private_or_the_hosts_own_is_refused,
    reach::a_socket_that_ignores_routes_gets_no_further,
    reach::datagrams_are_not_passed_on,
    reach::nothing_comes_in,
    reach::one_range_can_be_allowed_and_opens_nothing_else,
    reach::what_is_allowed_by_name_is_open,
    reach::the_hosts_loopback_can_be_allowed,
    reach::many_connections_at_once_all_get_out,
    names::names_are_answered_by_the_hosts_name_servers,
    names::names_are_answered_over_streams,
    names::a_name_opens_no_address,
    life::pasta_ends_with_its_worker,
    life::pasta_ends_with_a_daemon_that_is_killed,
    life::a_worker_ends_with_its_pasta,
    life::a_dropped_spawn_leaves_no_pasta,
    life::a_pasta_that_cannot_begin_is_told,
    life::without_pasta_no_worker_is_promised_a_way_out,
];

/// Those that take root themselves, to put something in pasta's place.
const AS_ROOT: [&str; 2] =
    ["life::a_pasta_that_cannot_begin_is_told", "life::without_pasta_no_worker_is_promised_a_way_out"];

fn main() -> ExitCode {
    herd_sandbox::enter_init();
    if let Some(code) = role::play() {
        return code;
    }
    let mut args: Vec<_> = std::env::args_os().skip(1).collect();
    let staged = args.first().is_some_and(|word| word == "staged");
    let mut trials = Vec::new();
    for (name, test) in tests() {
        let run = move || {
            test();
            Ok(())
        };
        trials.push(Trial::test(name, run));
        if AS_ROOT.contains(&name) {
            continue;
        }
        let run = move || {
            fixture::as_user(name);
            Ok(())
        };
        trials.push(Trial::test(format!("rootless::{name}"), run));
    }
    if staged {
        args.remove(0);
        let _world = world::World::make();
        let args = [std::env::args_os().next().unwrap_or_default()].into_iter().chain(args);
        return libtest_mimic::run(&Arguments::from_iter(args), trials).exit_code();
    }
    if Arguments::from_args().list {
        return libtest_mimic::run(&Arguments::from_args(), trials).exit_code();
    }
    world::enter(&args)
}
