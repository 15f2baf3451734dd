//! From the groups of a policy to what the kernel runs.
//!
//! The kernel runs all filters of a process at each call, the latest first, and of equal actions takes the one it met
//! first; see seccomp(2). A filter of seccompiler tells only two kinds of calls apart, so three of them are stacked:
//! 1. what is not allowed gives EPERM,
//! 2. what no rule names gives ENOSYS, which is met before the EPERM of the first,
//! 3. what is to look absent gives ENOSYS, too, and is not logged: libraries try such calls all the time.

use std::{collections::BTreeMap, env};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use super::{
    Group, Verdict,
    parse::{Condition, Test},
    table,
};

/// The filters in the order in which they are installed.
///
/// # Errors
/// If they are too long for the kernel, or the architecture is none that seccompiler knows.
pub(super) fn compile(groups: &[Group]) -> Result<Vec<Vec<u8>>, BackendError> {
    let rules = |wanted: &[Verdict]| {
        let rules = groups.iter().flat_map(|group| &group.rules);
        rules.filter(|rule| wanted.contains(&rule.verdict)).collect::<Vec<_>>()
    };
    let number = |name| table::all().find(|call| call.name == name)?.number;

    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut unconditional = Vec::new();
    for rule in rules(&[Verdict::Allow]) {
        let Some(number) = number(rule.call).map(i64::from) else { continue };
        let alternatives = allowed.entry(number).or_default();
        if rule.conditions.is_empty() {
            unconditional.push(number);
        }
        for conditions in alternatives_of(&rule.conditions)? {
            alternatives.push(SeccompRule::new(conditions)?);
        }
    }
    // No rule means no condition.
    allowed.extend(unconditional.into_iter().map(|number| (number, Vec::new())));

    let names = |verdicts: &[Verdict]| {
        rules(verdicts).iter().filter_map(|rule| Some((i64::from(number(rule.call)?), Vec::new()))).collect()
    };
    Ok(vec![
        filter(allowed, SeccompAction::Allow, SeccompAction::Errno(EPERM))?,
        filter(
            names(&[Verdict::Allow, Verdict::Refuse, Verdict::Absent]),
            SeccompAction::Allow,
            SeccompAction::Errno(ENOSYS),
        )?,
        filter(names(&[Verdict::Absent]), SeccompAction::Errno(ENOSYS), SeccompAction::Allow)?,
    ])
}

const EPERM: u32 = libc::EPERM as u32;
const ENOSYS: u32 = libc::ENOSYS as u32;

fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    on_match: SeccompAction,
    otherwise: SeccompAction,
) -> Result<Vec<u8>, BackendError> {
    let filter = SeccompFilter::new(rules, otherwise, on_match, env::consts::ARCH.try_into()?)?;
    let mut program: BpfProgram = filter.try_into()?;
    soften_foreign_calls(&mut program);
    Ok(program.iter().flat_map(bytes).collect())
}

/// What all alternatives of a call's conditions are, each a list of comparisons that must all hold.
fn alternatives_of(conditions: &[Condition]) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
    if conditions.is_empty() {
        return Ok(Vec::new());
    }
    conditions.iter().try_fold(vec![Vec::new()], |alternatives, condition| {
        let choices = choices_of(condition)?;
        let extended = alternatives.iter().flat_map(|before| {
            choices.iter().map(move |choice| before.iter().chain(choice).cloned().collect::<Vec<SeccompCondition>>())
        });
        Ok(extended.collect())
    })
}

/// What holds if one condition holds: one of these lists of comparisons.
fn choices_of(condition: &Condition) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
    let compare =
        |operator, length, value: u32| SeccompCondition::new(condition.argument, length, operator, value.into());
    match &condition.test {
        Test::Among(values) => {
            values.iter().map(|value| Ok(vec![compare(SeccompCmpOp::Eq, SeccompCmpArgLen::Dword, *value)?])).collect()
        }
        Test::Without(values) => {
            let all = values.iter().map(|value| compare(SeccompCmpOp::Ne, SeccompCmpArgLen::Dword, *value));
            Ok(vec![all.collect::<Result<_, _>>()?])
        }
        Test::Masked(mask, values) => {
            let wide = *mask > u64::from(u32::MAX);
            let length = if wide { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
            let masked = |value: &u32| Ok(vec![compare(SeccompCmpOp::MaskedEq(*mask), length.clone(), *value)?]);
            values.iter().map(masked).collect()
        }
    }
}

/// A call by another architecture's numbers gives ENOSYS, too. seccompiler lets it kill the process, which tells nobody
/// why: its programs begin with a comparison of the architecture and an instruction that kills.
fn soften_foreign_calls(program: &mut [sock_filter]) {
    if let Some(instruction) = program.get_mut(2)
        && (instruction.code, instruction.k) == (RETURN, libc::SECCOMP_RET_KILL_PROCESS)
    {
        instruction.k = SeccompAction::Errno(ENOSYS).into();
    }
}

const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// As the kernel's `struct sock_filter` lies in memory.
fn bytes(instruction: &sock_filter) -> [u8; 8] {
    let [code_0, code_1] = instruction.code.to_ne_bytes();
    let [k_0, k_1, k_2, k_3] = instruction.k.to_ne_bytes();
    [code_0, code_1, instruction.jt, instruction.jf, k_0, k_1, k_2, k_3]
}
