//! Which system calls a worker may make: everything is refused but what a policy allows, with a reason.
//!
//! The policies are the files `default.policy` and `browser.policy` beside this one. They are compiled in the launching
//! process; the worker's process only installs what came out, as the last thing before its program.

mod compile;
mod constants;
mod parse;
mod table;
#[cfg(test)]
mod tests;

use std::{fmt, io, sync::OnceLock};

use crate::{Seccomp, sys};

/// System calls that are treated in the same way for the same reason.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Group {
    /// What the calls have in common.
    pub name: String,
    /// Why they are treated as they are.
    pub reason: String,
    /// The calls.
    pub rules: Vec<Rule>,
}

/// What becomes of one system call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    verdict: Verdict,
    call: &'static str,
    condition: String,
    conditions: Vec<parse::Condition>,
}

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    /// It is carried out.
    Allow,
    /// It fails with `EPERM`.
    Refuse,
    /// It fails with `ENOSYS`, as if the kernel did not have it.
    Absent,
}

impl Rule {
    /// The call's name.
    #[must_use]
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// What becomes of the call.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What its arguments must be, as the policy's file has it. Where a call has several rules, one of them must hold;
    /// where none holds, the call fails with `EPERM`.
    #[must_use]
    pub fn condition(&self) -> Option<&str> {
        (!self.condition.is_empty()).then_some(&self.condition)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Refuse => "refuse",
            Self::Absent => "absent",
        })
    }
}

/// What becomes of which system call under a profile, and why. Calls that no group has fail with `ENOSYS`. For
/// [`Seccomp::Off`] there is nothing to tell.
pub fn policy(profile: Seccomp) -> impl Iterator<Item = &'static Group> {
    groups(profile).iter()
}

/// The filters of a profile, for [`install`]. Each is a list of instructions as the kernel's `struct sock_filter` lies
/// in memory.
pub(crate) fn filters(profile: Seccomp, log: bool) -> &'static [Vec<u8>] {
    static DEFAULT: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    static BROWSER: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    // Nothing of this depends on where it runs: the tests see whatever could fail.
    let compile = || compile::compile(groups(profile)).expect("the policies that come with this crate compile");
    let filters = match profile {
        Seccomp::Default => DEFAULT.get_or_init(compile),
        Seccomp::Browser => BROWSER.get_or_init(compile),
        Seccomp::Off => return &[],
    };
    // The last one changes nothing but what is logged.
    if log { filters } else { &filters[..1] }
}

/// Puts filters over all system calls that the calling thread and its descendants will make. `no_new_privs` must be
/// set. `log` makes the kernel log what they refuse, but for what the last one does: libraries try calls that are absent
/// all the time. It is the same that [`filters`] was given.
///
/// # Errors
/// Those of seccomp(2). Some of the filters may be in place then.
pub(crate) fn install<T: AsRef<[u8]>>(filters: &[T], log: bool) -> io::Result<()> {
    let last = filters.len().saturating_sub(1);
    filters
        .iter()
        .enumerate()
        .try_for_each(|(index, filter)| sys::seccomp::install(filter.as_ref(), log && index < last))
}

fn groups(profile: Seccomp) -> &'static [Group] {
    static DEFAULT: OnceLock<Vec<Group>> = OnceLock::new();
    static BROWSER: OnceLock<Vec<Group>> = OnceLock::new();
    let read = |text| parse::parse(text).expect("the policies that come with this crate can be read");
    let default = || DEFAULT.get_or_init(|| read(include_str!("default.policy")));
    match profile {
        Seccomp::Default => default(),
        Seccomp::Browser => BROWSER.get_or_init(|| extend(default(), &read(include_str!("browser.policy")))),
        Seccomp::Off => &[],
    }
}

/// What is allowed in addition is no longer refused.
fn extend(base: &[Group], additions: &[Group]) -> Vec<Group> {
    let overruled = |rule: &Rule| {
        let mut added = additions.iter().flat_map(|group| &group.rules);
        rule.verdict != Verdict::Allow && added.any(|other| other.call == rule.call)
    };
    let kept = base.iter().map(|group| {
        let rules = group.rules.iter().filter(|rule| !overruled(rule)).cloned().collect();
        Group { name: group.name.clone(), reason: group.reason.clone(), rules }
    });
    kept.chain(additions.iter().cloned()).collect()
}
