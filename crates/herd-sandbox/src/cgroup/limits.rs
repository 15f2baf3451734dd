use std::fmt;

use super::CgroupError;

/// What all of a worker's processes may use together, its init included. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Memory in bytes, page cache included; above 0. The kernel rounds it down to whole pages. There is no swap beside
    /// it. A worker that needs more and can give nothing back is killed, all of its processes at once.
    pub memory: Option<u64>,
    /// CPU time for each time that passes, in cores: 0.5 is half a core, 2 is two whole ones. At least 0.01, which is
    /// the least that the kernel can do. A worker that wants more is made to wait.
    pub cpu: Option<f64>,
    /// Processes and threads; above 0. Init is one of them. Starting one more fails with `EAGAIN`.
    pub pids: Option<u64>,
}

/// A part of the kernel that limits and counts one kind of resource.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Controller {
    /// CPU time.
    Cpu,
    /// Memory and swap.
    Memory,
    /// Numbers of processes and threads.
    Pids,
}

impl Controller {
    /// All that are needed.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    /// The kernel's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One line for one file of a cgroup.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Setting {
    pub(super) file: &'static str,
    pub(super) value: String,
    /// What writing it is called in errors.
    pub(super) step: &'static str,
}

impl Limits {
    /// The period over which CPU time is shared out, in microseconds: the kernel's default.
    const PERIOD: f64 = 100_000.0;

    /// The least CPU time in a period that the kernel accepts, in microseconds.
    const LEAST_QUOTA: f64 = 1_000.0;

    /// The most cores that can be asked for: beyond any machine, and far below what the kernel's numbers can hold.
    const MOST_CORES: f64 = 1_000_000.0;

    /// What to write where. All that is here must be written, but for the limit of swap: see `Cgroup`.
    pub(super) fn settings(&self) -> Result<Vec<Setting>, CgroupError> {
        let mut settings = Vec::new();
        let mut set = |file, value, step| settings.push(Setting { file, value, step });
        if let Some(memory) = self.memory {
            above_zero("the memory limit", memory)?;
            set("memory.max", memory.to_string(), "set the memory limit");
            set(SWAP, "0".to_owned(), "set the swap limit");
        }
        // With a limit of its own or without: where memory runs out further up, half a worker is of no use either.
        set("memory.oom.group", "1".to_owned(), "have a worker out of memory killed as a whole");
        if let Some(cores) = self.cpu {
            let quota = quota(cores)?;
            set("cpu.max", format!("{quota} {}", Self::PERIOD), "set the CPU limit");
        }
        if let Some(pids) = self.pids {
            above_zero("the limit of processes", pids)?;
            set("pids.max", pids.to_string(), "set the limit of processes");
        }
        Ok(settings)
    }
}

/// Missing where the kernel does not count swap.
pub(super) const SWAP: &str = "memory.swap.max";

fn above_zero(what: &'static str, value: u64) -> Result<(), CgroupError> {
    if value > 0 {
        return Ok(());
    }
    Err(CgroupError::Invalid { what, value: value.to_string(), reason: "it must be above 0" })
}

/// Microseconds of CPU time in a period.
fn quota(cores: f64) -> Result<u64, CgroupError> {
    let invalid = |reason| CgroupError::Invalid { what: "the CPU limit", value: cores.to_string(), reason };
    let quota = (cores * Limits::PERIOD).round();
    if cores.is_nan() || quota < Limits::LEAST_QUOTA {
        return Err(invalid("it must be at least 0.01 cores"));
    }
    if cores > Limits::MOST_CORES {
        return Err(invalid("no machine has a million cores"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both bounds were checked above")]
    Ok(quota as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(limits: Limits) -> Vec<(&'static str, String)> {
        let settings = limits.settings().expect("these limits can be");
        settings.into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    fn refusal(limits: Limits) -> String {
        limits.settings().expect_err("these limits cannot be").to_string()
    }

    #[test]
    fn every_limit_has_its_file() {
        let limits = Limits { memory: Some(512 << 20), cpu: Some(0.5), pids: Some(100) };
        assert_eq!(
            lines(limits),
            [
                ("memory.max", "536870912".to_owned()),
                ("memory.swap.max", "0".to_owned()),
                ("memory.oom.group", "1".to_owned()),
                ("cpu.max", "50000 100000".to_owned()),
                ("pids.max", "100".to_owned()),
            ]
        );
    }

    #[test]
    fn a_worker_dies_as_a_whole_even_without_limits() {
        assert_eq!(lines(Limits::default()), [("memory.oom.group", "1".to_owned())]);
    }

    #[test]
    fn limits_of_nothing_are_refused() {
        let none = Limits::default();
        assert_eq!(refusal(Limits { memory: Some(0), ..none }), "the memory limit cannot be 0: it must be above 0");
        assert_eq!(refusal(Limits { pids: Some(0), ..none }), "the limit of processes cannot be 0: it must be above 0");
    }

    #[test]
    fn cpu_limits_that_the_kernel_cannot_do_are_refused() {
        for cores in [0.0, -1.0, 0.009, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e9] {
            let refusal = refusal(Limits { cpu: Some(cores), ..Limits::default() });
            assert!(refusal.starts_with("the CPU limit cannot be "), "{refusal}");
        }
        assert_eq!(lines(Limits { cpu: Some(0.01), ..Limits::default() })[1].1, "1000 100000");
    }

    proptest! {
        #[test]
        fn a_cpu_limit_is_written_to_the_hundred_thousandth(cores in 0.01..1024.0_f64) {
            let quota = quota(cores).expect("the limit can be");
            let written = Limits { cpu: Some(cores), ..Limits::default() };
            prop_assert_eq!(&lines(written)[1].1, &format!("{quota} 100000"));
            prop_assert!((f64::from(u32::try_from(quota).expect("it is small")) / 100_000.0 - cores).abs() <= 0.000_005_1);
        }
    }
}
