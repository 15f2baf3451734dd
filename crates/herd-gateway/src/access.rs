use std::{fmt, sync::Arc, time::Duration};

use herd_pool::{SessionId, Tenant};
use hyper::{
    HeaderMap, Request, Uri,
    header::{AUTHORIZATION, Entry, HeaderValue, REFERER},
    http::uri::PathAndQuery,
};

use crate::{failure::Failure, query, session_key::Named};

/// Decides who may use a [`Gateway`](crate::Gateway), and whose sessions a caller reaches.
///
/// It is asked about each request before anything else is done for it, on a serving thread: it must answer at once, and
/// must not block.
pub trait Access: Send + Sync {
    /// Lets the request in, or says why not.
    ///
    /// The fields are as the client sent them: a field may come more than once.
    ///
    /// # Errors
    /// [`Refusal`] becomes a response with 401 or 429, and the request costs the pool nothing.
    fn admit(&self, headers: &HeaderMap, uri: &Uri) -> Result<Admission, Refusal>;

    /// The query parameter that may carry a credential, as it reads when it is percent-decoded; by default none.
    ///
    /// Browsers repeat the address of a page in the field `referer` of the requests that the page makes, whatever those
    /// show themselves, so the gateway takes the parameter out of that field of every request.
    fn query_parameter(&self) -> Option<&str> {
        None
    }
}

/// What an implementation knows is secret, so nothing of it is shown.
impl fmt::Debug for dyn Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access")
    }
}

/// What a request that was let in may do. The default is whatever callers may do where nobody is asked who they are.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Whose session it is. The same session ID names another session for each tenant, and for callers without one.
    pub tenant: Option<Tenant>,
    /// The only session that the caller may use. A request that names another one is refused with 403, and one that
    /// names none means this one.
    pub session: Option<SessionId>,
    /// What logs call the caller; nothing of the credential.
    pub caller: Option<Arc<str>>,
    /// What the gateway takes out of the request, before anything else of it is read.
    pub credential: Credential,
}

/// Where a request carries what its caller was recognised by.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Credential {
    /// Nowhere, or where workers may see it.
    #[default]
    None,
    /// In the field `authorization`. All fields of that name go.
    Authorization,
    /// In the query parameter of this name, as it reads when it is percent-decoded. All parameters of that name go, those
    /// in the field `referer` included.
    Query(Arc<str>),
}

/// Why a request is not let in.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// It says nothing of who sent it. Answered with 401.
    #[error("the request has no credentials")]
    NoCredentials,
    /// Its credentials are not believed, for this reason, which the client is told. Answered with 401.
    #[error("the credentials are not accepted: {0}")]
    Invalid(&'static str),
    /// Its credentials were good once. Answered with 401.
    #[error("the credentials have expired")]
    Expired,
    /// Its tenant sends more requests than it may. Answered with 429.
    #[error("the tenant sends more requests than it may")]
    TooManyRequests {
        /// When another request may be let in. It is rounded up to whole seconds.
        retry_after: Duration,
        /// What logs call the caller; nothing of the credential.
        caller: Option<Arc<str>>,
    },
}

impl Admission {
    /// Takes the credential out of the request, so that neither the worker nor a log ever sees it. `parameter` is the one
    /// that may carry a credential, whether or not it did so here.
    pub(crate) fn strip<B>(&self, request: &mut Request<B>, parameter: Option<&str>) {
        match &self.credential {
            Credential::None => {}
            Credential::Authorization => {
                request.headers_mut().remove(AUTHORIZATION);
            }
            Credential::Query(name) => {
                let target = request.uri().path_and_query();
                if let Some(left) = target.and_then(|target| query::without(target, name)) {
                    set_target(request, left);
                }
                strip_referer(request.headers_mut(), name);
            }
        }
        if let Some(name) = parameter {
            strip_referer(request.headers_mut(), name);
        }
    }

    /// The session that the request names, as the one it is for this caller.
    pub(crate) fn bind(&self, mut named: Named) -> Result<Named, Failure> {
        if self.session.as_ref().is_some_and(|only| only.as_str() != named.session.as_str()) {
            return Err(Failure::ForbiddenSession);
        }
        if let Some(tenant) = &self.tenant {
            named.session = named.session.of(tenant);
        }
        Ok(named)
    }
}

/// Takes the parameter out of the addresses from which requests come. The field goes if it cannot be read.
fn strip_referer(headers: &mut HeaderMap, name: &str) {
    let Entry::Occupied(mut referers) = headers.entry(REFERER) else { return };
    let mut unreadable = false;
    for referer in referers.iter_mut() {
        // An address is ASCII (RFC 3986 §1.2.1). `to_str` refuses more than that, such as tabs, and nothing else passes.
        let Ok(address) = referer.to_str() else {
            unreadable = true;
            break;
        };
        if let Some(left) = query::without_in_address(address, name) {
            *referer = HeaderValue::try_from(left).expect("a part of a field value is one");
        }
    }
    if unreadable {
        referers.remove_entry_mult();
    }
}

/// Gives the request another path and query, and leaves the rest of its target as it is.
pub(crate) fn set_target<B>(request: &mut Request<B>, target: PathAndQuery) {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.path_and_query = Some(target);
    *request.uri_mut() = Uri::from_parts(parts).expect("a target stays one with another path");
}
