//! From the text of a policy to its groups. `default.policy` says how such a text is written.

use super::{Group, Rule, Verdict, constants, table};

/// A line of a policy that cannot be understood.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(super) struct PolicyError {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) problem: String,
}

/// What one argument of a call must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Condition {
    /// Counted from 0.
    pub(super) argument: u8,
    pub(super) test: Test,
}

/// How an argument is compared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Test {
    /// It is one of these.
    Among(Vec<u32>),
    /// It is none of these.
    Without(Vec<u32>),
    /// Its bits under the mask are one of these. A mask of more than 32 bits looks at all 64.
    Masked(u64, Vec<u32>),
}

/// Reads a policy.
///
/// # Errors
/// For a line that is not of the form, a name that is unknown, a group without a reason, and a call that is treated in
/// two ways.
pub(super) fn parse(text: &str) -> Result<Vec<Group>, PolicyError> {
    let mut groups: Vec<Group> = Vec::new();
    for (line, statement) in statements(text)? {
        let at = |problem: String| PolicyError { line, problem };
        let (keyword, rest) = statement.split_once(' ').unwrap_or((&statement, ""));
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(at(format!("nothing follows {keyword:?}")));
        }
        if keyword == "group" {
            if groups.iter().any(|group| group.name == rest) {
                return Err(at(format!("a second group {rest:?}")));
            }
            groups.push(Group { name: rest.to_owned(), reason: String::new(), rules: Vec::new() });
            continue;
        }
        let Some(group) = groups.last_mut() else { return Err(at(format!("{keyword:?} before the first group"))) };
        let verdict = match keyword {
            "because" if group.reason.is_empty() => {
                rest.clone_into(&mut group.reason);
                continue;
            }
            "because" => return Err(at("a second reason".to_owned())),
            "allow" => Verdict::Allow,
            "refuse" => Verdict::Refuse,
            "absent" => Verdict::Absent,
            _ => return Err(at(format!("{keyword:?} is none of group, because, allow, refuse and absent"))),
        };
        if group.reason.is_empty() {
            return Err(at(format!("group {:?} has calls before it has a reason", group.name)));
        }
        for rule in rules(verdict, rest).map_err(at)? {
            let earlier = groups.iter().flat_map(|group| &group.rules).filter(|other| other.call == rule.call);
            // Several conditions are alternatives; anything else says the same twice, or two things.
            for earlier in earlier {
                if earlier.conditions.is_empty() || rule.conditions.is_empty() {
                    return Err(at(format!("{} is listed twice", rule.call)));
                }
            }
            groups.last_mut().into_iter().for_each(|group| group.rules.push(rule.clone()));
        }
    }
    Ok(groups)
}

/// The statements with the number of the line where each begins.
fn statements(text: &str) -> Result<Vec<(usize, String)>, PolicyError> {
    let mut statements: Vec<(usize, String)> = Vec::new();
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    for (number, line) in lines {
        if !line.starts_with(' ') {
            statements.push((number, line.trim_end().to_owned()));
        } else if let Some((_, statement)) = statements.last_mut() {
            statement.push(' ');
            statement.push_str(line.trim());
        } else {
            return Err(PolicyError { line: number, problem: "it continues nothing".to_owned() });
        }
    }
    Ok(statements)
}

/// Several calls, or one call with conditions.
fn rules(verdict: Verdict, text: &str) -> Result<Vec<Rule>, String> {
    let Some((call, rest)) = text.split_once('(') else {
        return text
            .split_ascii_whitespace()
            .map(|call| Ok(Rule { verdict, call: call_name(call)?, condition: String::new(), conditions: Vec::new() }))
            .collect();
    };
    if verdict != Verdict::Allow {
        return Err("only what is allowed has conditions".to_owned());
    }
    let call = call_name(call)?;
    let (arguments, condition) =
        rest.split_once(") where ").ok_or("a call with arguments reads CALL(ARG, ...) where ...")?;
    let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
    if arguments.len() > 6 {
        return Err("a system call has at most 6 arguments".to_owned());
    }
    let conditions = condition.split(" and ").map(|text| read_condition(&arguments, text)).collect::<Result<_, _>>()?;
    Ok(vec![Rule { verdict, call, condition: condition.to_owned(), conditions }])
}

fn call_name(word: &str) -> Result<&'static str, String> {
    let known = table::all().get_key_value(word);
    known.map(|(name, _)| *name).ok_or_else(|| format!("{word:?} is no system call that calls.table knows"))
}

fn read_condition(arguments: &[&str], text: &str) -> Result<Condition, String> {
    let (left, values, negated) = if let Some((left, values)) = text.split_once(" not in ") {
        (left, values, true)
    } else if let Some((left, values)) = text.split_once(" in ") {
        (left, values, false)
    } else {
        return Err(format!("{text:?} reads neither ARG in ... nor ARG not in ..."));
    };
    let (name, mask) = match left.split_once('&') {
        Some((name, mask)) => (name.trim(), Some(read_mask(mask.trim())?)),
        None => (left.trim(), None),
    };
    let argument = arguments
        .iter()
        .position(|argument| *argument == name)
        .and_then(|index| u8::try_from(index).ok())
        .ok_or_else(|| format!("{name:?} is none of the arguments {}", arguments.join(", ")))?;
    let values = values.split(',').map(|word| read_value(word.trim())).collect::<Result<_, _>>()?;
    let test = match (mask, negated) {
        (None, false) => Test::Among(values),
        (None, true) => Test::Without(values),
        (Some(mask), false) => Test::Masked(mask, values),
        (Some(_), true) => return Err("a masked argument cannot be compared by 'not in'".to_owned()),
    };
    Ok(Condition { argument, test })
}

fn read_mask(text: &str) -> Result<u64, String> {
    let union = |text: &str| text.split('|').try_fold(0, |mask, word| Ok::<_, String>(mask | read_value(word.trim())?));
    match text.strip_prefix("~(").and_then(|rest| rest.strip_suffix(')')) {
        Some(inverted) => Ok(!u64::from(union(inverted)?)),
        None => union(text).map(u64::from),
    }
}

fn read_value(word: &str) -> Result<u32, String> {
    constants::value(word).ok_or_else(|| format!("{word:?} is no value that constants.rs knows, and no number"))
}
