//! Which core runs what, so that a proxy is measured and not the scheduler.

use std::{fmt, str::FromStr};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Cores by number, written `0,2,3`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Cores(Vec<usize>);

/// How the machine's cores are shared between the measured proxy and everything that loads it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Placement {
    /// The proxies have the last core to themselves; the load generator and the workers have the others
    Apart,
    /// Everything is on the last core
    Together,
    /// Wherever the kernel likes
    Free,
}

#[derive(Clone, Debug)]
pub(crate) struct Layout {
    placement: Placement,
    /// Every core that this process may use.
    pub(crate) all: Cores,
    /// The core of the proxies, which take turns on it.
    pub(crate) proxy: Cores,
    /// The cores of the load generator and the workers.
    pub(crate) load: Cores,
}

impl Layout {
    pub(crate) fn of_this_machine(placement: Placement) -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot read which cores may be used")?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
        // The proxies get the last one, because interrupts tend to land on the first.
        let (others, last) = all.split_at(all.len().saturating_sub(1));
        let (proxy, load) = match placement {
            Placement::Apart if !others.is_empty() => (last.to_vec(), others.to_vec()),
            Placement::Apart | Placement::Together => (last.to_vec(), last.to_vec()),
            Placement::Free => (all.clone(), all.clone()),
        };
        Ok(Self { placement, proxy: Cores(proxy), load: Cores(load), all: Cores(all) })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { placement, all: _, proxy, load } = self;
        match placement {
            Placement::Free => f.write_str("wherever the kernel likes"),
            _ if proxy == load => write!(f, "everything on core {proxy}"),
            _ => write!(
                f,
                "each proxy with all its threads on core {proxy}; the load generator and the workers on core {load}"
            ),
        }
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
