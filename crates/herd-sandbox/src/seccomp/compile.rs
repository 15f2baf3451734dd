//! From the groups of a policy to what the kernel runs.
//!
//! seccompiler turns the conditions of a call into instructions. Which call it is, it would find by comparing with one
//! after the other, and each worker would pay for that when it starts: the kernel tries every number in advance. So
//! the number is looked for by halving here, in runs of neighbours that are treated alike.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule, sock_filter,
};

use super::{
    Group, Verdict,
    parse::{Condition, Test},
    table,
};

/// The filters in the order in which they are installed: the whole policy, and then, for a policy that is logged, once
/// more that what is absent is absent. The kernel runs the latest first and of equal actions takes the one it met first,
/// see seccomp(2), so the last one decides on these calls, and alone on whether they are logged.
///
/// # Errors
/// If a condition is one that seccompiler does not take.
pub(super) fn compile(groups: &[Group]) -> Result<[Vec<u8>; 2], BackendError> {
    let mut calls: BTreeMap<u32, Treatment> = BTreeMap::new();
    for rule in groups.iter().flat_map(|group| &group.rules) {
        let Some(number) = table::number(rule.call) else { continue };
        let treatment = match rule.verdict {
            Verdict::Allow if rule.conditions.is_empty() => Treatment::Allow,
            Verdict::Allow => Treatment::AllowIf(alternatives(&rule.conditions)?),
            Verdict::Refuse => Treatment::Fail(libc::EPERM),
            Verdict::Absent => Treatment::Fail(libc::ENOSYS),
        };
        match (calls.get_mut(&number), treatment) {
            // Of several conditions one has to hold; a browser's may drop them.
            (Some(Treatment::Allow), _) => {}
            (Some(Treatment::AllowIf(earlier)), Treatment::AllowIf(later)) => earlier.extend(later),
            (_, treatment) => {
                calls.insert(number, treatment);
            }
        }
    }
    let absent = |treatment: &Treatment| *treatment == Treatment::Fail(libc::ENOSYS);
    let only_absent = calls.iter().filter(|(_, treatment)| absent(treatment)).map(|(call, how)| (*call, how.clone()));
    let quiet = program(&only_absent.collect(), &Treatment::Allow);
    Ok([encode(&program(&calls, &Treatment::Fail(libc::ENOSYS))), encode(&quiet)])
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq)]
enum Treatment {
    Allow,
    /// One of the rules has to hold, or it fails with EPERM.
    AllowIf(Vec<SeccompRule>),
    Fail(i32),
}

/// The calls that are listed, and how all others are treated. Those of another architecture fail with ENOSYS, whatever
/// their numbers; those of the x32 ABI have numbers that no list has.
fn program(calls: &BTreeMap<u32, Treatment>, others: &Treatment) -> BpfProgram {
    let mut runs: Vec<(u32, &Treatment)> = vec![(0, others)];
    for (number, treatment) in calls {
        runs.extend([(*number, treatment), (number + 1, others)]);
    }
    // Of two that begin at the same number the later one is meant, and one like its predecessor is no new one.
    runs.reverse();
    runs.dedup_by_key(|(start, _)| *start);
    runs.reverse();
    runs.dedup_by(|later, earlier| later.1 == earlier.1);

    let load = |offset: usize| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32);
    let mut program = vec![
        load(std::mem::offset_of!(libc::seccomp_data, arch)),
        jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0),
        fail(libc::ENOSYS),
        load(std::mem::offset_of!(libc::seccomp_data, nr)),
    ];
    program.extend(search(&runs));
    program
}

/// The part that finds one of the runs by the number that is loaded, and ends there. Each begins at a number and ends
/// where the next begins.
fn search(runs: &[(u32, &Treatment)]) -> BpfProgram {
    if let [(_, treatment)] = runs {
        return end(treatment);
    }
    let (low, high) = runs.split_at(runs.len() / 2);
    let Some((start, _)) = high.first() else { return Vec::new() };
    let (low, high) = (search(low), search(high));
    let over = match u8::try_from(low.len()) {
        Ok(length) => vec![jump(libc::BPF_JGE, *start, length, 0)],
        // A conditional jump reaches no further.
        Err(_) => vec![jump(libc::BPF_JGE, *start, 0, 1), statement(libc::BPF_JMP | libc::BPF_JA, low.len() as u32)],
    };
    [over, low, high].concat()
}

fn end(treatment: &Treatment) -> BpfProgram {
    let allow = || statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    match treatment {
        Treatment::Allow => vec![allow()],
        Treatment::Fail(errno) => vec![fail(*errno)],
        Treatment::AllowIf(rules) => {
            // Each falls through to its end if it holds, and else jumps past that.
            let mut program: BpfProgram =
                rules.iter().flat_map(|rule| BpfProgram::from(rule.clone()).into_iter().chain([allow()])).collect();
            program.push(fail(libc::EPERM));
            program
        }
    }
}

/// All alternatives of a call's conditions.
fn alternatives(conditions: &[Condition]) -> Result<Vec<SeccompRule>, BackendError> {
    let all = conditions.iter().try_fold(vec![Vec::new()], |alternatives, condition| {
        let choices = choices(condition)?;
        let extended = alternatives.iter().flat_map(|before| {
            choices.iter().map(move |choice| before.iter().chain(choice).cloned().collect::<Vec<SeccompCondition>>())
        });
        Ok(extended.collect())
    })?;
    all.into_iter().map(SeccompRule::new).collect()
}

/// What it means that one condition holds: that all comparisons of one of these lists do.
fn choices(condition: &Condition) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
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

/// What `struct seccomp_data` calls this architecture, from linux/audit.h.
const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };

fn fail(errno: i32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned())
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(comparison: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | comparison | libc::BPF_K) as u16, jt, jf, k }
}

/// As `struct sock_filter` lies in memory.
fn encode(program: &[sock_filter]) -> Vec<u8> {
    let bytes = |instruction: &sock_filter| {
        let [code_0, code_1] = instruction.code.to_ne_bytes();
        let [k_0, k_1, k_2, k_3] = instruction.k.to_ne_bytes();
        [code_0, code_1, instruction.jt, instruction.jf, k_0, k_1, k_2, k_3]
    };
    program.iter().flat_map(bytes).collect()
}
