//! What the daemon takes while it does nothing.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

use super::{
    accounting::{self, Memory},
    child::{Program, pause},
    proxy::{Bench, free_address},
    report::{Aim, Section, Table, progress},
    series::figure,
    sessions::spares,
};

const MIB: f64 = 1_048_576.0;
const DAEMON_AIM_MIB: f64 = 20.0;
const INIT_AIM_MIB: f64 = 1.0;
/// Enough for the daemon to have done all that it does after its start.
const SETTLE: Duration = Duration::from_secs(2);

#[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^52")]
pub(crate) fn measure(bench: &Bench) -> Result<(Section, Vec<Aim>)> {
    progress("idle daemon");
    let (address, admin) = (free_address()?, free_address()?);
    let socket = bench.directory.join("herd-idle.sock").display().to_string();
    let args = ["serve", "--listen", &address.to_string(), "--admin", &admin.to_string(), "--control-socket", &socket];
    let mut running = Program {
        name: "herd-idle",
        path: &bench.herd,
        args: args.into_iter().map(Into::into).collect(),
        cores: &bench.layout.all,
    }
    .start(&bench.directory)?;
    running.wait_for("a spare worker", || Ok((spares(admin)? >= 1).then_some(())))?;
    pause(SETTLE);
    let daemon = Memory::of(running.pid());
    let init = *accounting::children(running.pid()).first().context("the daemon has no init")?;
    let worker = *accounting::children(init).first().context("init has no worker")?;
    let mib = |bytes: u64| bytes as f64 / MIB;
    let resident = mib(daemon.resident()?);
    let init_private = mib(Memory::of(init).private()?);
    let mut table = Table::new(&["what", "MiB"]);
    let rows = [
        ("daemon, resident", resident),
        ("daemon, private", mib(daemon.private()?)),
        ("init of a worker, private", init_private),
        ("worker (the built-in REPL), private", mib(Memory::of(worker).private()?)),
        ("size of the program", mib(fs::metadata(&bench.herd)?.len())),
    ];
    for (what, size) in rows {
        table.row([what.to_owned(), figure(size)]);
    }
    let aims = vec![
        Aim {
            what: "resident memory of the idle daemon".to_owned(),
            aim: format!("≤ {DAEMON_AIM_MIB} MiB"),
            measured: format!("{} MiB", figure(resident)),
            met: resident <= DAEMON_AIM_MIB,
        },
        Aim {
            what: "private memory of one init".to_owned(),
            aim: format!("≤ {INIT_AIM_MIB} MiB"),
            measured: format!("{} MiB", figure(init_private)),
            met: init_private <= INIT_AIM_MIB,
        },
    ];
    let text = "`herd serve` with the built-in REPL and one spare, two seconds after the spare was ready. Private is \
                what is shared with no other process (`smaps_rollup`)."
        .to_owned();
    Ok((Section { title: "Idle daemon".to_owned(), text, table }, aims))
}
