//! Maps of the file, from which keys are taken one by one, each with its place; or, if there is no file, are described.

use std::fmt::Display;

use super::{
    form::Form,
    mistake::{Mistake, Mistakes, Origin, Position, Written},
    raw::Maybe,
    schema::MapSchema,
    value::{Quote, Refusal, nearest},
    yaml::{Entry, Kind, Node},
};

/// What the schema says of a key besides how its value is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub(super) text: &'static str,
    /// As JSON. `None` where it depends on something.
    pub(super) default: Option<&'static str>,
}

pub(super) const fn about(text: &'static str) -> About {
    About { text, default: None }
}

impl About {
    /// The default, as JSON.
    pub(super) const fn default(self, json: &'static str) -> Self {
        Self { default: Some(json), ..self }
    }
}

/// One map of the file. What is left at the end is unknown.
///
/// The functions that read a map say of each key how it is written and what it means. So without a file they describe
/// the map, and a key that can be read cannot be missing in the schema.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// The key of the map itself; empty for the document.
    path: String,
    at: Position,
    entries: Vec<Entry>,
    known: Vec<&'static str>,
    pub(super) mistakes: &'a mut Mistakes,
    /// `Some`: nothing is read.
    description: Option<MapSchema>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(node: Node, path: impl Into<String>, mistakes: &'a mut Mistakes) -> Option<Self> {
        let path = path.into();
        let at = node.at;
        let entries = match node.kind {
            Kind::Map(entries) => entries,
            _ if node.is_null() => Vec::new(),
            Kind::Broken => return None,
            _ => {
                mistakes.push(wrong_kind(&path, &node, "a map of settings", "write `key: value` lines"));
                return None;
            }
        };
        Some(Self { path, at, entries, known: Vec::new(), mistakes, description: None })
    }

    /// No map, but the description of what may be in one.
    pub(super) fn described(path: &str, mistakes: &'a mut Mistakes) -> Self {
        Self {
            path: path.to_owned(),
            at: Position { line: 0, column: 0 },
            entries: Vec::new(),
            known: Vec::new(),
            mistakes,
            description: Some(MapSchema::new()),
        }
    }

    pub(super) fn into_description(self) -> MapSchema {
        self.description.unwrap_or_else(MapSchema::new)
    }

    /// Where the map itself is.
    pub(super) fn origin(&self) -> Origin {
        Origin::key(self.path.clone(), self.at)
    }

    pub(super) fn name(&self, key: impl Display) -> String {
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    /// Where the file has this key, unless it was taken.
    pub(super) fn place(&self, key: &str) -> Option<Origin> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(Origin::key(self.name(key), entry.key_at))
    }

    /// Takes the entry with this key; a second one is a mistake.
    fn take(&mut self, key: &'static str) -> Option<Entry> {
        self.known.push(key);
        let (mut found, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.entries).into_iter().partition(|e| e.key == key);
        self.entries = rest;
        let first = found.first().map(|entry| entry.key_at.line)?;
        for twice in found.drain(1..) {
            self.mistakes.push(Mistake::new(
                Origin::key(self.name(key), twice.key_at),
                format!("is written twice, first on line {first}"),
                "keep one of them",
            ));
        }
        found.pop()
    }

    /// A single value.
    pub(super) fn value<T>(&mut self, key: &'static str, form: Form<T>, about: About) -> Maybe<T> {
        if let Some(description) = &mut self.description {
            description.value(&self.path, key, form.shape, about);
        }
        let entry = self.take(key)?;
        self.scalar(self.name(key), &entry.value, form)
    }

    /// A single value without which the map means nothing.
    pub(super) fn required<T>(&mut self, key: &'static str, form: Form<T>, about: About) -> Maybe<T> {
        self.require(key);
        self.value(key, form, about)
    }

    /// Says that the key has to be there; to be called before the key is taken.
    pub(super) fn require(&mut self, key: &'static str) {
        if let Some(description) = &mut self.description {
            description.require(key);
        } else if self.place(key).is_none() {
            self.mistakes.push(Mistake::new(self.origin(), format!("has no `{key}`"), format!("write `{key}` too")));
        }
    }

    /// A single value, or `null` for none.
    pub(super) fn nullable<T>(&mut self, key: &'static str, form: Form<T>, about: About) -> Maybe<Option<T>> {
        if let Some(description) = &mut self.description {
            description.nullable(&self.path, key, form.shape, about);
        }
        let entry = self.take(key)?;
        let name = self.name(key);
        if entry.value.is_null() {
            return Some(Written { value: None, origin: Origin::key(name, entry.value.at) });
        }
        let written = self.scalar(name, &entry.value, form)?;
        Some(Written { value: Some(written.value), origin: written.origin })
    }

    pub(super) fn list<T>(&mut self, key: &'static str, form: Form<T>, about: About) -> Maybe<Vec<Written<T>>> {
        if let Some(description) = &mut self.description {
            description.list(&self.path, key, form.shape, about, false);
        }
        let entry = self.take(key)?;
        let name = self.name(key);
        let items = self.nodes(&name, &entry.value)?;
        self.items(&name, items, form).map(|value| Written { value, origin: Origin::key(name, entry.value.at) })
    }

    /// A list, or one value that stands for a list of one.
    pub(super) fn list_or_one<T>(&mut self, key: &'static str, form: Form<T>, about: About) -> Maybe<Vec<Written<T>>> {
        if let Some(description) = &mut self.description {
            description.list(&self.path, key, form.shape, about, true);
        }
        let entry = self.take(key)?;
        let name = self.name(key);
        if let Kind::List(items) = &entry.value.kind {
            return self
                .items(&name, items, form)
                .map(|value| Written { value, origin: Origin::key(name, entry.value.at) });
        }
        let one = self.scalar(name.clone(), &entry.value, form)?;
        Some(Written { value: vec![one], origin: Origin::key(name, entry.value.at) })
    }

    /// A map with keys of its own.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        about: About,
        read: impl Fn(&mut Fields<'_>) -> T,
    ) -> Maybe<T> {
        let name = self.name(key);
        if let Some(description) = &mut self.description {
            let mut inner = Fields::described(&name, self.mistakes);
            read(&mut inner);
            let inner = inner.into_description();
            description.section(&self.path, key, inner, about);
        }
        let entry = self.take(key)?;
        self.map(name, entry.key_at, entry.value, read)
    }

    /// A list of maps.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        about: About,
        read: impl Fn(&mut Fields<'_>) -> T,
    ) -> Maybe<Vec<Written<T>>> {
        let name = self.name(key);
        if let Some(description) = &mut self.description {
            let mut inner = Fields::described(&format!("{name}[]"), self.mistakes);
            read(&mut inner);
            let inner = inner.into_description();
            description.sections(&self.path, key, inner, about);
        }
        let entry = self.take(key)?;
        let origin = Origin::key(name.clone(), entry.value.at);
        if entry.value.is_null() {
            return Some(Written { value: Vec::new(), origin });
        }
        let items = self.nodes(&name, &entry.value)?.to_vec();
        let one = |(index, item): (usize, Node)| self.map(format!("{name}[{index}]"), item.at, item, &read);
        let value = items.into_iter().enumerate().filter_map(one).collect();
        Some(Written { value, origin })
    }

    /// A map of maps, under names that the operator chooses.
    pub(super) fn named<T>(
        &mut self,
        key: &'static str,
        names: Form<String>,
        about: About,
        read: impl Fn(&mut Fields<'_>) -> T,
    ) -> Maybe<Vec<(Written<String>, T)>> {
        let path = self.name(key);
        if let Some(description) = &mut self.description {
            let mut inner = Fields::described(&format!("{path}.NAME"), self.mistakes);
            read(&mut inner);
            let inner = inner.into_description();
            description.named(&self.path, key, names.shape, inner, about);
        }
        let entry = self.take(key)?;
        let origin = Origin::key(path.clone(), entry.value.at);
        let entries = match entry.value.kind {
            Kind::Map(entries) => entries,
            _ if entry.value.is_null() => Vec::new(),
            Kind::Broken => return None,
            _ => {
                let remedy = "write a line `name:` for each, with its settings below";
                self.mistakes.push(wrong_kind(&path, &entry.value, "a map of names", remedy));
                return None;
            }
        };
        let mut value: Vec<(Written<String>, T)> = Vec::new();
        for entry in entries {
            let origin = Origin::key(format!("{path}.{}", entry.key), entry.key_at);
            match (names.read)(&entry.key) {
                Err(refusal) => self.mistakes.push(
                    Mistake::new(Origin::key(path.clone(), entry.key_at), refusal.problem, refusal.remedy)
                        .found(entry.key.as_str()),
                ),
                Ok(name) => {
                    if let Some((first, _)) = value.iter().find(|(first, _)| first.value == name) {
                        let line = first.origin.position.map_or(0, |at| at.line);
                        let problem = format!("is written twice, first on line {line}");
                        self.mistakes.push(Mistake::new(origin, problem, "keep one of them"));
                    } else if let Some(inner) = self.map(origin.name.clone(), entry.key_at, entry.value, &read) {
                        value.push((Written { value: name, origin }, inner.value));
                    }
                }
            }
        }
        Some(Written { value, origin })
    }

    fn map<T>(&mut self, name: String, at: Position, node: Node, read: impl FnOnce(&mut Fields<'_>) -> T) -> Maybe<T> {
        let origin = Origin::key(name.clone(), at);
        let mut fields = Fields::of(node, name, self.mistakes)?;
        fields.at = at;
        let value = read(&mut fields);
        fields.finish();
        Some(Written { value, origin })
    }

    fn nodes<'n>(&mut self, name: &str, node: &'n Node) -> Option<&'n [Node]> {
        match &node.kind {
            Kind::List(items) => Some(items),
            Kind::Broken => None,
            _ => {
                let remedy = "write [one, two] or a line `- one` for each";
                self.mistakes.push(wrong_kind(name, node, "a list", remedy));
                None
            }
        }
    }

    /// `None` if nothing of a list that is not empty could be read: what is left of it would be another mistake.
    fn items<T>(&mut self, name: &str, items: &[Node], form: Form<T>) -> Option<Vec<Written<T>>> {
        let one = |(index, item): (usize, &Node)| self.scalar(format!("{name}[{index}]"), item, form);
        let values: Vec<_> = items.iter().enumerate().filter_map(one).collect();
        (items.is_empty() || !values.is_empty()).then_some(values)
    }

    fn scalar<T>(&mut self, name: String, node: &Node, form: Form<T>) -> Maybe<T> {
        let origin = Origin::key(name, node.at);
        let mistake = match &node.kind {
            Kind::Broken => return None,
            _ if node.is_null() => {
                Mistake::new(origin, "has no value", "write one, or leave the key out to get its default")
            }
            Kind::Scalar { text, plain, filled } => {
                let origin = match filled {
                    Some(written) => origin.filled(written),
                    None if form.secret => origin,
                    None => origin.text(text),
                };
                // In `{key: ${VAR}}` the braces are YAML's unless there are quotes.
                let must_lose_quotes = form.shape.is_plain() && !plain && filled.is_none();
                match (form.read)(text) {
                    Ok(value) if !must_lose_quotes => return Some(Written { value, origin }),
                    Ok(_) => Mistake::new(origin, "is a quoted text", "write it without quotes"),
                    Err(Refusal { problem, remedy, quote }) => {
                        // What is written without quotes then shall be right at once.
                        let remedy = if must_lose_quotes { format!("{remedy}, without quotes") } else { remedy };
                        let mistake = Mistake::new(origin, problem, remedy);
                        match quote {
                            Quote::All => mistake,
                            Quote::Part(part) => mistake.found(part),
                            Quote::Nothing => mistake.unquoted(),
                        }
                    }
                }
            }
            Kind::List(_) | Kind::Map(_) => wrong_kind(&origin.name, node, "a single value", "write one value"),
        };
        self.mistakes.push(mistake);
        None
    }

    /// Everything that nobody took is unknown.
    pub(super) fn finish(self) {
        for entry in &self.entries {
            let place = if self.path.is_empty() { "at the top level" } else { &format!("in `{}`", self.path) };
            let hint =
                nearest(&entry.key, &self.known).map_or(String::new(), |word| format!("did you mean `{word}`? "));
            let remedy = format!("{hint}known {place}: {}", self.known.join(", "));
            let origin = Origin::key(self.name(&entry.key), entry.key_at);
            self.mistakes.push(Mistake::new(origin, "is an unknown key", remedy));
        }
    }
}

/// The mistake of a node that is something else than `wanted`. A single value is quoted; of the rest it is said what it
/// is.
pub(super) fn wrong_kind(name: &str, node: &Node, wanted: &str, remedy: &str) -> Mistake {
    let origin = Origin::key(name, node.at);
    let is = match &node.kind {
        Kind::Scalar { text, filled, .. } => {
            let written = filled.as_deref().unwrap_or(text);
            return Mistake::new(origin, format!("is not {wanted}"), remedy).found(written);
        }
        Kind::List(_) => "a list",
        Kind::Map(_) => "a map",
        Kind::Broken => "a mistake",
    };
    Mistake::new(origin, format!("is {is} and not {wanted}"), remedy)
}
