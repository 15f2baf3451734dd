//! `${VAR}`, `${VAR:-default}` and `${file:/path}` in the values of a file.
//!
//! Values are filled in after the file was parsed, so that what comes out of a variable never changes the structure of
//! the document. It may be a secret: nothing here, and nobody after, quotes it.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use super::{
    mistake::{Mistake, Mistakes, Origin, Position, Written},
    yaml::{Kind, Node},
};

/// The largest file whose content can be a value, in bytes.
const LARGEST_FILE: u64 = 64 << 10;
/// How many bytes variables and files may add in all.
const LARGEST_SUM: usize = 1 << 20;

/// What variables are: `std::env::var_os`, or what a test makes up.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Fills in every value of the document, and answers with the files that were read for it and where they are named. A
/// value that cannot be filled in is a mistake, and broken from then on.
pub(super) fn fill(root: &mut Node, variables: Variables<'_>, mistakes: &mut Mistakes) -> Vec<Written<PathBuf>> {
    let mut filling = Filling { variables, left: LARGEST_SUM, files: Vec::new(), read: Vec::new(), mistakes };
    filling.node(root, "");
    filling.files
}

struct Filling<'a> {
    variables: Variables<'a>,
    left: usize,
    files: Vec<Written<PathBuf>>,
    /// The files of the value that is being filled in.
    read: Vec<PathBuf>,
    mistakes: &'a mut Mistakes,
}

/// What is wrong with a value, and what to do.
struct Unfilled(String, String);

impl Unfilled {
    fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self(problem.into(), remedy.into())
    }
}

const SYNTAX: &str = "write ${NAME}, ${NAME:-default} or ${file:/path}, or $${ for the two characters";

impl Filling<'_> {
    fn node(&mut self, node: &mut Node, name: &str) {
        match &mut node.kind {
            Kind::Map(entries) => {
                for entry in entries {
                    self.key(&entry.key, entry.key_at);
                    let name = if name.is_empty() { entry.key.clone() } else { format!("{name}.{}", entry.key) };
                    self.node(&mut entry.value, &name);
                }
            }
            Kind::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.node(item, &format!("{name}[{index}]"));
                }
            }
            Kind::Broken => {}
            Kind::Scalar { text, filled, .. } if text.contains("${") => match self.text(text) {
                Ok((new, is_filled)) => {
                    let origin = || Origin::key(name, node.at);
                    self.files.extend(self.read.drain(..).map(|value| Written { value, origin: origin() }));
                    let written = std::mem::replace(text, new);
                    *filled = is_filled.then_some(written);
                }
                Err(Unfilled(problem, remedy)) => {
                    self.read.clear();
                    let origin = Origin::key(name, node.at).text(text);
                    self.mistakes.push(Mistake::new(origin, problem, remedy));
                    node.kind = Kind::Broken;
                }
            },
            Kind::Scalar { .. } => {}
        }
    }

    /// A key with `${` in it is some name that nobody knows, and that alone would not say why.
    fn key(&mut self, key: &str, at: Position) {
        if key.contains("${") {
            let problem = "has a `${`, and keys are not filled in";
            self.mistakes.push(Mistake::new(Origin::key("", at).text(key), problem, "write the key itself"));
        }
    }

    /// The text with everything filled in, and whether anything was.
    fn text(&mut self, text: &str) -> Result<(String, bool), Unfilled> {
        let mut filled = String::new();
        let mut is_filled = false;
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            filled.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("$${") {
                filled.push_str("${");
                rest = after;
            } else if let Some(after) = rest.strip_prefix("${") {
                let end = after.find('}').ok_or_else(|| Unfilled::new("has a `${` without a `}`", SYNTAX))?;
                let value = self.reference(&after[..end])?;
                self.left = self.left.checked_sub(value.len()).ok_or_else(|| {
                    let problem = format!("makes what variables and files add more than {LARGEST_SUM} bytes");
                    Unfilled::new(problem, "let the worker read such a file itself")
                })?;
                filled.push_str(&value);
                is_filled = true;
                rest = &after[end + 1..];
            } else {
                filled.push('$');
                rest = &rest[1..];
            }
        }
        filled.push_str(rest);
        Ok((filled, is_filled))
    }

    /// What `body` of `${body}` stands for.
    fn reference(&mut self, body: &str) -> Result<String, Unfilled> {
        if body.contains("${") {
            return Err(Unfilled::new("has a `${` within another", "write one after the other; there is no nesting"));
        }
        if let Some(path) = body.strip_prefix("file:").filter(|path| !path.starts_with('-')) {
            self.read.push(PathBuf::from(path));
            return content(Path::new(path));
        }
        let (name, default) = match body.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (body, None),
        };
        let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !begins_well || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Unfilled::new("has a `${` that names no variable", SYNTAX));
        }
        let value = match (self.variables)(name) {
            Some(value) if !value.is_empty() || default.is_none() => value,
            _ => {
                return default.map(str::to_owned).ok_or_else(|| {
                    let problem = format!("needs the environment variable {name}, which is not set");
                    Unfilled::new(problem, format!("set it where herd is started, or write ${{{name}:-default}}"))
                });
            }
        };
        value.into_string().map_err(|_| {
            Unfilled::new(format!("needs the environment variable {name}, which is no UTF-8 text"), "set it to a text")
        })
    }
}

/// What is in the file, without the line break at its end.
fn content(path: &Path) -> Result<String, Unfilled> {
    if !path.is_absolute() {
        return Err(Unfilled::new("names a file by a path that is not absolute", "write ${file:/path}"));
    }
    let refuse = |problem: &str, remedy: &str| Unfilled::new(format!("names a file that {problem}"), remedy);
    let cannot = |error: io::Error| refuse(&format!("cannot be read: {error}"), "check its path and permissions");
    // A pipe without a writer would be waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| cannot(error.into()))?;
    let file = File::from(file);
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(refuse("is no regular file", "name a file with the value in it"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LARGEST_FILE {
        let remedy = "name a file with only the value in it";
        return Err(refuse(&format!("has more than {LARGEST_FILE} bytes"), remedy));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| refuse("is no UTF-8 text", "save it as UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
