//! What contributors run: `cargo xtask bench`.
#![forbid(unsafe_code)]

mod bench;

use clap::Parser;

/// What contributors run.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    #[command(flatten)]
    Bench(bench::Task),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Bench(task) => bench::run(&task),
    }
}
