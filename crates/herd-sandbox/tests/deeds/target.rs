//! What the deeds are aimed at: things of the host, and another worker.

use std::{collections::BTreeMap, fmt, fs, path::Path};

/// Where everything is, by the host's names. It travels as arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target(BTreeMap<String, String>);

impl Target {
    pub(crate) fn set(&mut self, name: &str, value: impl fmt::Display) {
        self.0.insert(name.to_owned(), value.to_string());
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    pub(crate) fn number(&self, name: &str) -> i64 {
        self.text(name).parse().expect("a number")
    }

    pub(crate) fn port(&self, name: &str) -> u16 {
        self.text(name).parse().expect("a port")
    }

    pub(crate) fn path(&self, name: &str) -> &Path {
        Path::new(self.text(name))
    }

    pub(crate) fn to_args(&self) -> Vec<String> {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    pub(crate) fn from_args<'a>(args: impl IntoIterator<Item = &'a str>) -> Self {
        let pair = |arg: &'a str| {
            let (name, value) = arg.split_once('=').expect("NAME=VALUE");
            (name.to_owned(), value.to_owned())
        };
        Self(args.into_iter().map(pair).collect())
    }
}

/// Files of the host of which the worker has its own version or none.
pub(crate) const ACCOUNTS: &[&str] = &["/etc/passwd", "/etc/group"];

/// The same for the names of machines.
pub(crate) const NAMES: &[&str] = &["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// A number by which the same content is recognized.
pub(crate) fn fingerprint(path: &str) -> Option<String> {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    let content = fs::read(path).ok().filter(|content| !content.is_empty())?;
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    Some(hasher.finish().to_string())
}
