//! What a request wants of its session besides an answer from the session's worker.

use hyper::{
    Method, Request,
    header::{Entry, HeaderName, HeaderValue},
};

use crate::{admit::Survey, failure::Failure};

/// In a request, what its client wants of the session; in a response, what became of it.
pub(crate) const HERD_SESSION: HeaderName = HeaderName::from_static("herd-session");

/// What a request says in `herd-session`.
///
/// No form and no link of a page can send the field, so a browser asks before it sends it to another origin.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Wish {
    /// Nothing: the session answers, and is started if there is none.
    #[default]
    Serve,
    /// The session answers if it is there, and is not started otherwise.
    Resume,
    /// The session ends.
    End,
}

impl Wish {
    /// Reads the field and takes it out of the request: it is for the gateway alone.
    pub(crate) fn take<B>(request: &mut Request<B>, survey: &Survey) -> Result<Self, Failure> {
        // Few requests have a field whose name begins like this one's.
        if !survey.own {
            return Ok(Self::Serve);
        }
        let is_delete = request.method() == Method::DELETE;
        let Entry::Occupied(entry) = request.headers_mut().entry(HERD_SESSION) else { return Ok(Self::Serve) };
        let mut values = entry.remove_entry_mult().1;
        match (values.next().as_ref().map(HeaderValue::as_bytes), values.next()) {
            (Some(b"resume"), None) => Ok(Self::Resume),
            (Some(b"end"), None) if is_delete => Ok(Self::End),
            (Some(b"end"), None) => Err(Failure::Wish("`end` needs the method DELETE")),
            (_, None) => Err(Failure::Wish("its value can be `resume` or `end`")),
            (_, Some(_)) => Err(Failure::Wish("it comes more than once")),
        }
    }

    /// Why the session was not found, as the end of a sentence.
    pub(crate) fn not_found(self) -> &'static str {
        match self {
            Self::Serve => "this gateway starts none",
            Self::Resume => "the request is to start none",
            Self::End => "so none to end",
        }
    }
}
