//! What a daemon answers.

use hyper::{StatusCode, body::Bytes};
use serde_json::Value;

use crate::console;

/// What a daemon answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// A daemon answered that it cannot give what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.explain())]
pub(crate) struct Refused {
    pub(super) path: String,
    /// Why it may not have understood.
    pub(super) doubt: Option<String>,
    pub(crate) answer: Answer,
}

impl Refused {
    fn explain(&self) -> String {
        let Self { path, doubt, answer } = self;
        // Other refusals are about the world, and a daemon of any version may be right about it.
        let is_baffled =
            matches!(answer.kind().as_str(), "" | "no-such-page" | "method-not-allowed" | "bad-query" | "bad-body");
        match doubt {
            Some(doubt) if is_baffled => format!("{doubt} (it answered {} to {path})", answer.status),
            _ => format!("the daemon answered {} to {path}: {}", answer.status, answer.detail()),
        }
    }
}

impl Answer {
    /// What a problem document says, or nothing.
    pub(crate) fn detail(&self) -> String {
        self.field("detail").unwrap_or_else(|| "it gives no reason".to_owned())
    }

    /// What is wrong, for programs; empty: it is no problem of herd's.
    pub(crate) fn kind(&self) -> String {
        let kind = self.field("type").unwrap_or_default();
        kind.strip_prefix("urn:herd:problem:").unwrap_or_default().to_owned()
    }

    /// Prints the problem for programs that read standard output.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(problem) => console::print_json(&problem),
            // It is another program's, and the error says its status.
            Err(_) => Ok(()),
        }
    }

    fn field(&self, name: &str) -> Option<String> {
        let problem: Value = serde_json::from_slice(&self.body).ok()?;
        Some(problem.get(name)?.as_str()?.to_owned())
    }
}
