//! What contributors run: `cargo xtask test`, `cargo xtask bench`.
#![forbid(unsafe_code)]

mod bench;
mod test;

use clap::Parser;

/// What contributors run.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    #[command(flatten)]
    Bench(bench::Task),
    Test(test::Options),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Bench(task) => bench::run(&task),
        Task::Test(options) => test::run(&options),
    }
}
