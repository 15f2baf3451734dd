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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "group name\nbecause Reasons.\n";

    fn conditions(line: &str) -> Vec<Condition> {
        let groups = parse(&format!("{HEAD}{line}\n")).unwrap();
        groups[0].rules[0].conditions.clone()
    }

    fn problem(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn groups_have_a_reason_and_rules_in_their_order() {
        let text = "# comment\n\ngroup one thing\nbecause Of this\n and that.\nallow read write\nrefuse mount\nabsent bpf\n\
                    group another\nbecause Why not.\nallow close\n";
        let groups = parse(text).unwrap();
        let names: Vec<_> = groups.iter().map(|group| (group.name.as_str(), group.reason.as_str())).collect();
        assert_eq!(names, [("one thing", "Of this and that."), ("another", "Why not.")]);
        let rules: Vec<_> = groups[0].rules.iter().map(|rule| (rule.verdict, rule.call)).collect();
        let expected =
            [(Verdict::Allow, "read"), (Verdict::Allow, "write"), (Verdict::Refuse, "mount"), (Verdict::Absent, "bpf")];
        assert_eq!(rules, expected);
    }

    #[test]
    fn conditions_name_arguments_by_their_place() {
        let read = conditions("allow ioctl(fd, command) where command not in 0x5412, 7 and fd in 1");
        let expected = [
            Condition { argument: 1, test: Test::Without(vec![0x5412, 7]) },
            Condition { argument: 0, test: Test::Among(vec![1]) },
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn masks_are_unions_of_values_or_all_the_rest() {
        let read = conditions("allow clone(flags) where flags & CLONE_NEWNS | 1 in 0, 1");
        assert_eq!(read, [Condition { argument: 0, test: Test::Masked(0x2_0001, vec![0, 1]) }]);
        let read = conditions("allow clone(flags) where flags & ~(CLONE_NEWNS | 1) in 0");
        assert_eq!(read, [Condition { argument: 0, test: Test::Masked(0xffff_ffff_fffd_fffe, vec![0]) }]);
    }

    #[test]
    fn a_condition_is_shown_as_it_is_written() {
        let groups = parse(&format!("{HEAD}allow kill(pid) where pid in\n 1,\n 2\nallow read\n")).unwrap();
        let shown: Vec<_> = groups[0].rules.iter().map(Rule::condition).collect();
        assert_eq!(shown, [Some("pid in 1, 2"), None]);
    }

    #[test]
    fn a_line_that_cannot_be_understood_is_named() {
        let wrong = [
            ("allow raed", r#"line 3: "raed" is no system call that calls.table knows"#),
            ("permit read", r#"line 3: "permit" is none of group, because, allow, refuse and absent"#),
            ("allow", r#"line 3: nothing follows "allow""#),
            ("because Again.", "line 3: a second reason"),
            ("group name", r#"line 3: a second group "name""#),
            ("allow read read", "line 3: read is listed twice"),
            ("allow read\nrefuse read", "line 4: read is listed twice"),
            ("allow kill(pid) where pid in 1\nallow kill", "line 4: kill is listed twice"),
            ("allow kill\nallow kill(pid) where pid in 1", "line 4: kill is listed twice"),
            ("refuse kill(pid) where pid in 1", "line 3: only what is allowed has conditions"),
            ("allow kill(pid)", "line 3: a call with arguments reads CALL(ARG, ...) where ..."),
            ("allow kill(pid) where pid == 1", r#"line 3: "pid == 1" reads neither ARG in ... nor ARG not in ..."#),
            ("allow kill(pid) where sig in 1", r#"line 3: "sig" is none of the arguments pid"#),
            ("allow kill(pid) where pid in ONE", r#"line 3: "ONE" is no value that constants.rs knows, and no number"#),
            (
                "allow kill(pid) where pid in 4294967296",
                r#"line 3: "4294967296" is no value that constants.rs knows, and no number"#,
            ),
            ("allow kill(pid) where pid & 1 not in 1", "line 3: a masked argument cannot be compared by 'not in'"),
            ("allow kill(a, b, c, d, e, f, g) where g in 1", "line 3: a system call has at most 6 arguments"),
        ];
        for (line, expected) in wrong {
            assert_eq!(problem(&format!("{HEAD}{line}\n")), expected, "{line}");
        }
        assert_eq!(problem(" allow read"), "line 1: it continues nothing");
        assert_eq!(problem("allow read"), r#"line 1: "allow" before the first group"#);
        assert_eq!(problem("group name\nallow read"), r#"line 2: group "name" has calls before it has a reason"#);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = parse(&text);
        }

        #[test]
        fn any_mixture_of_a_policys_words_is_read_or_refused(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "group ", "because ", "allow ", "refuse ", "absent ", "read ", "clone", "(", "flags", ", ", ") where ",
                    " & ", "~(", ")", " | ", " in ", " not in ", " and ", "CLONE_NEWNS", "0x", "0", "\n", "\n ", "#", "\t",
                ]),
                0..40,
            ),
        ) {
            if let Ok(groups) = parse(&words.concat()) {
                // What can be read can be compiled, too.
                prop_assert!(super::super::compile::compile(&groups).is_ok());
            }
        }

        #[test]
        fn a_changed_policy_is_read_or_refused(at in 0_usize..10_000, with: char) {
            let text = include_str!("default.policy");
            let at = at.min(text.len());
            let changed: String = text.chars().take(at).chain([with]).chain(text.chars().skip(at + 1)).collect();
            if let Ok(groups) = parse(&changed) {
                prop_assert!(super::super::compile::compile(&groups).is_ok());
            }
        }
    }
}
