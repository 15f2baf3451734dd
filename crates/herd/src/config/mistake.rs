//! What is wrong with a configuration: where, what, and what would be right.

use std::fmt;

use serde::Serialize;

/// A place in the file, both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Position {
    /// The place as the YAML parser tells it: lines from 1, columns from 0.
    pub(crate) fn new(line: usize, column_from_zero: usize) -> Self {
        Self { line, column: column_from_zero + 1 }
    }
}

/// Where a setting was written: under a key of the file, or as a flag.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    /// `resources.ttl`, or `--ttl`.
    pub(crate) name: String,
    /// Where in the file; a flag has none.
    pub(crate) position: Option<Position>,
    /// The value as it was written in the file, if it is a single one.
    pub(crate) text: Option<String>,
    /// Whether variables or files were filled in, so that the value may be a secret. Mistakes quote what was written.
    pub(crate) is_filled: bool,
}

impl Origin {
    /// A setting that came as this flag.
    pub(crate) fn flag(name: &str) -> Self {
        Self { name: name.to_owned(), position: None, text: None, is_filled: false }
    }

    /// The setting with this key at this place of the file.
    pub(crate) fn key(name: impl Into<String>, at: Position) -> Self {
        Self { name: name.into(), position: Some(at), text: None, is_filled: false }
    }

    /// What was written there.
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.text = Some(text.to_owned());
        self
    }

    /// What was written there, into which variables or files were filled.
    pub(crate) fn filled(self, written: &str) -> Self {
        Self { is_filled: true, ..self.text(written) }
    }

    /// How a value from here may be shown: as it is, unless something was filled in.
    pub(crate) fn shown(&self, value: impl fmt::Display) -> String {
        match &self.text {
            Some(written) if self.is_filled => written.clone(),
            _ => value.to_string(),
        }
    }
}

/// A value and where it was written.
#[derive(Clone)]
pub(crate) struct Written<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// What came out of a variable or a file is not shown.
impl<T: fmt::Debug> fmt::Debug for Written<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Written");
        match &self.origin.text {
            Some(written) if self.origin.is_filled => shown.field("value", written),
            _ => shown.field("value", &self.value),
        };
        shown.field("origin", &self.origin).finish()
    }
}

/// What kind of mistake it is, which decides exit codes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// It can never be right.
    Invalid,
    /// It is understood, but this version or host cannot do it.
    Unavailable,
    /// It is no mistake, and hardly what is wanted.
    Warning,
}

/// One mistake: `found` at `origin` has this `problem`, and `remedy` says what is allowed or what to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Mistake {
    pub(crate) origin: Origin,
    pub(crate) fault: Fault,
    pub(crate) found: Option<String>,
    pub(crate) problem: String,
    pub(crate) remedy: String,
}

impl Mistake {
    /// What is no mistake, and hardly what is wanted. A `remedy` may be empty, where the problem says what it could be.
    pub(crate) fn warning(origin: Origin, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { origin, fault: Fault::Warning, found: None, problem: problem.into(), remedy: remedy.into() }
    }

    /// A mistake that quotes what was written, if it is known.
    pub(crate) fn new(origin: Origin, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        let found = origin.text.clone();
        Self { origin, fault: Fault::Invalid, found, problem: problem.into(), remedy: remedy.into() }
    }

    /// Quotes this instead, unless variables or files were filled in.
    pub(crate) fn found(mut self, text: impl Into<String>) -> Self {
        if !self.origin.is_filled {
            self.found = Some(text.into());
        }
        self
    }

    /// Quotes nothing: what was written may hold a secret, or the problem quotes it already.
    pub(crate) fn unquoted(self) -> Self {
        Self { found: None, ..self }
    }

    /// Says less, if variables or files were filled in: whoever found it may have put their values into the sentence.
    pub(crate) fn without_values(self) -> Self {
        if !self.origin.is_filled {
            return self;
        }
        Self {
            found: self.origin.text.clone(),
            problem: "cannot be used, once it is filled in".to_owned(),
            remedy: "see to it that what the variables and files hold fits here".to_owned(),
            ..self
        }
    }

    /// Marks it as something that this version or host cannot do.
    pub(crate) fn unavailable(mut self) -> Self {
        self.fault = Fault::Unavailable;
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.origin.name.is_empty() {
            write!(f, "{}: ", self.origin.name)?;
        }
        if let Some(found) = &self.found {
            write!(f, "`{}` ", Quoted(found))?;
        }
        f.write_str(&self.problem)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// Text from a file on its way to a terminal: control characters are escaped and long text is cut.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 80;
        for char in self.0.chars().take(LONGEST) {
            if char.is_control() { write!(f, "{}", char.escape_default())? } else { write!(f, "{char}")? }
        }
        if self.0.chars().nth(LONGEST).is_some() { f.write_str("…") } else { Ok(()) }
    }
}

/// All mistakes of one configuration, in the order of the file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Mistakes {
    /// The file as it was named; `None` if the settings came as flags.
    pub(crate) file: Option<String>,
    pub(crate) all: Vec<Mistake>,
}

/// A mistake as `herd check --json` prints it.
#[derive(Debug, Serialize)]
struct MistakeRow<'a> {
    file: Option<&'a str>,
    line: Option<usize>,
    column: Option<usize>,
    key: &'a str,
    kind: Fault,
    found: Option<&'a str>,
    problem: &'a str,
    remedy: &'a str,
}

impl Mistakes {
    pub(crate) fn of_file(file: &str) -> Self {
        Self { file: Some(file.to_owned()), all: Vec::new() }
    }

    pub(crate) fn push(&mut self, mistake: Mistake) {
        self.all.push(mistake);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether each of them only asks for what this version or host cannot do.
    pub(crate) fn are_all_unavailable(&self) -> bool {
        self.all.iter().all(|mistake| mistake.fault == Fault::Unavailable)
    }

    /// Puts them in the order of the file.
    pub(crate) fn sort(&mut self) {
        self.all.sort_by_key(|mistake| mistake.origin.position);
    }

    /// Each as `file:line:column: key: …`.
    pub(crate) fn lines(&self) -> impl Iterator<Item = impl fmt::Display> {
        self.all.iter().map(move |mistake| {
            fmt::from_fn(move |f| {
                if let (Some(file), Some(at)) = (&self.file, mistake.origin.position) {
                    write!(f, "{file}:{}:{}: ", at.line, at.column)?;
                }
                write!(f, "{mistake}")
            })
        })
    }

    /// For programs: a list of objects.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let rows = self.all.iter().map(|mistake| MistakeRow {
            file: self.file.as_deref(),
            line: mistake.origin.position.map(|at| at.line),
            column: mistake.origin.position.map(|at| at.column),
            key: &mistake.origin.name,
            kind: mistake.fault,
            found: mistake.found.as_deref(),
            problem: &mistake.problem,
            remedy: &mistake.remedy,
        });
        rows.map(|row| serde_json::json!(row)).collect()
    }
}

impl fmt::Display for Mistakes {
    /// One line each, `file:line:column: key: …`, without a line break after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
