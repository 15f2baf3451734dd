//! Which core runs what, so that a proxy is measured and not the scheduler.

use std::{fmt, str::FromStr};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Cores by number, written `0,2,3`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Cores(Vec<usize>);

/// How the machine's cores are shared between the measured proxy and everything that loads it.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Every core that this process may use.
    pub(crate) all: Cores,
    /// The core of the proxies, which take turns on it.
    pub(crate) proxy: Cores,
    /// The cores of the load generator and the workers.
    pub(crate) load: Cores,
}

impl Layout {
    /// The proxies get the last core for themselves and the load gets the others, because interrupts tend to land on
    /// the first. On a single core everything shares it.
    pub(crate) fn of_this_machine() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot read which cores may be used")?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
        let (proxy, load) = match all.as_slice() {
            [load @ .., proxy] if !load.is_empty() => (vec![*proxy], load.to_vec()),
            single => (single.to_vec(), single.to_vec()),
        };
        Ok(Self { all: Cores(all), proxy: Cores(proxy), load: Cores(load) })
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.proxy != self.load
    }
}

impl Cores {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Keeps the calling thread, and all that it starts from now on, on these cores.
    pub(crate) fn pin_this_thread(&self) -> Result<()> {
        let mut set = CpuSet::new();
        for &core in &self.0 {
            set.set(core);
        }
        sched_setaffinity(None, &set).with_context(|| format!("cannot move to the cores {self}"))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&numbers.join(","))
    }
}

impl FromStr for Cores {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let cores: Vec<usize> = text
            .split(',')
            .map(|number| number.parse().with_context(|| format!("`{number}` is no core's number")))
            .collect::<Result<_>>()?;
        ensure!(cores.iter().all(|&core| core < CpuSet::MAX_CPU), "cores are numbered up to {}", CpuSet::MAX_CPU - 1);
        Ok(Self(cores))
    }
}
