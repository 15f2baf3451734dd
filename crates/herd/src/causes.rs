//! Errors as those are told who see a sentence and no chain.

use std::error::Error;

/// The error and its causes in one sentence.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // An error that shows its cause's text as its own is not told twice.
        let text = error.to_string();
        if !sentence.ends_with(&text) {
            sentence = format!("{sentence}: {text}");
        }
        cause = error.source();
    }
    sentence
}
