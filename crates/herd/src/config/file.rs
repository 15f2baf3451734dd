//! Reads a configuration file: from YAML nodes to [`Raw`], with every mistake on the way.

use super::{
    Mode, access,
    fields::{About, Fields, about},
    interpolation::{self, Variables},
    mistake::{Mistake, Mistakes, Origin, Position},
    network, pools,
    raw::Raw,
    routes, telemetry, tenants, webhooks, yaml,
};

/// Larger files, in bytes, are refused before they are parsed.
pub(super) const LARGEST_FILE: usize = 1 << 20;

/// Reads the text of a configuration file. What could be read is in the answer, what could not is in `mistakes`.
pub(super) fn read(text: &[u8], mode: Mode, variables: Variables<'_>, mistakes: &mut Mistakes) -> Raw {
    let mut raw = Raw { mode, ..Raw::default() };
    let start = Position { line: 1, column: 1 };
    if text.len() > LARGEST_FILE {
        mistakes.push(Mistake::new(
            Origin::key("", start),
            format!("the file has more than {LARGEST_FILE} bytes"),
            "is it the right file?",
        ));
        return raw;
    }
    let text = match std::str::from_utf8(text) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let before = String::from_utf8_lossy(&text[..error.valid_up_to()]);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
            mistakes.push(Mistake::new(
                Origin::key("", Position { line, column }),
                "the file is not UTF-8 text",
                "save it as UTF-8",
            ));
            return raw;
        }
    };
    let mut root = match yaml::parse(text) {
        Ok(Some(root)) => root,
        Ok(None) => return raw,
        Err(error) => {
            let (problem, remedy) = match bare_template(text, error.at.line) {
                Some(template) => (
                    format!("the file has `{template}` outside of quotes, where braces are maps for YAML"),
                    format!("quote it: \"{template}\"; the rest is checked afterwards"),
                ),
                None => {
                    (format!("the file {}", error.problem), "correct it; the rest is checked afterwards".to_owned())
                }
            };
            mistakes.push(Mistake::new(Origin::key("", error.at), problem, remedy));
            return raw;
        }
    };
    let filled = match mode {
        Mode::Serve => interpolation::fill(&mut root, variables, mistakes),
        Mode::Start => Vec::new(),
    };
    let Some(mut fields) = Fields::of(root, "", mistakes) else { return raw };
    raw = Raw { mode, filled, ..document(&mut fields) };
    fields.finish();
    raw
}

/// Everything that a file may say.
pub(super) fn document(f: &mut Fields<'_>) -> Raw {
    let top_level_pool = ["worker", "resources", "sandbox"].iter().find_map(|section| f.place(section));
    Raw {
        network: section(
            f,
            "network",
            about("Where herd listens, and how requests name their session."),
            network::read,
        ),
        pool: pools::read(f),
        top_level_pool,
        pools: pools::read_named(f),
        routes: routes::read(f),
        access: access::read(f),
        tenants: section(f, "tenants", about("What tenants may have at once, over all pools."), tenants::read),
        webhooks: webhooks::read(f),
        telemetry: section(f, "telemetry", about("Logs, metrics and traces."), telemetry::read),
        mode: Mode::Serve,
        filled: Vec::new(),
    }
}

/// A section that means the same if it is left out and if it is empty.
pub(super) fn section<T: Default>(
    f: &mut Fields<'_>,
    key: &'static str,
    about: About,
    read: impl Fn(&mut Fields<'_>) -> T,
) -> T {
    f.section(key, about, read).map(|written| written.value).unwrap_or_default()
}

/// The word of this line (from 1) that has a template such as `{{.Port}}` or `${VAR}` in it and stands outside of quotes:
/// for YAML its braces are maps.
fn bare_template(text: &str, line: usize) -> Option<&str> {
    let line = text.lines().nth(line.checked_sub(1)?)?;
    let mut quote = None;
    let mut word = 0;
    for (at, char) in line.char_indices() {
        match quote {
            Some(open) if char == open => quote = None,
            Some(_) => {}
            None if line[at..].starts_with("{{.") || line[at..].starts_with("${") => {
                let braces = if char == '$' { "}" } else { "}}" };
                let end = at + line[at..].find(braces)? + braces.len();
                let rest = line[end..].find([' ', ',', ']', '}', '\t']).unwrap_or(line.len() - end);
                return Some(&line[word..end + rest]);
            }
            None if char == '"' || char == '\'' => quote = Some(char),
            None if " \t,[".contains(char) => word = at + char.len_utf8(),
            None => {}
        }
    }
    None
}
