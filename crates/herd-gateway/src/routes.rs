use std::{collections::HashSet, fmt, sync::Arc};

use herd_pool::{Pool, WorkerFactory};
use hyper::{
    HeaderMap, Request,
    header::{HOST, HeaderName, HeaderValue},
    http::uri::PathAndQuery,
};

use crate::{failure::Failure, prefix::Prefix};

/// The name of the pool where there is only one and nobody named it.
const ONLY: &str = "default";

/// The pools behind a [`Gateway`](crate::Gateway), and which requests go to which of them.
///
/// The first [`Rule`] that a request fits says its pool; a request that fits none goes to the default pool, and is
/// answered with 404 if there is none. A session belongs to its pool: the same ID names another one in each.
///
/// A single [`Pool`] is made into routes by `from`, and gets all requests.
pub struct Routes<F: WorkerFactory> {
    pub(crate) pools: Vec<(Arc<str>, Pool<F>)>,
    pub(crate) table: Table,
}

/// Which requests go to a pool: those that fit everything that is there. A rule without any condition fits all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rule {
    /// The pool's name.
    pub pool: String,
    /// The host that the request is for, in any case and without a port, or `*.example.com` for every name below
    /// `example.com`. It is the authority of the request's target or else its host field.
    pub host: Option<String>,
    /// The first segments of the path, for example `/api`, which `/api` and `/api/x` fit, but `/apis` does not. It is
    /// compared in its case, and percent-encoded characters count as what they stand for.
    ///
    /// A path that some servers would read as one with the prefix and others as one without is refused with 400, and so
    /// is one with dot segments or a stray percent sign: else a request could reach by one pool what the operator has
    /// sent to another.
    pub path_prefix: Option<String>,
    /// Whether workers do not see the prefix: `/api/x` becomes `/x`, and `/api` becomes `/`. A session key `path:N`
    /// counts the segments that are left.
    pub strip_prefix: bool,
    /// A field that the request has, and its value, unless any will do. Values are compared byte by byte; of a field
    /// that comes more than once, one value has to fit.
    pub header: Option<(String, Option<String>)>,
}

impl<F: WorkerFactory> Routes<F> {
    /// Routes to `pools`, each under a name of its own. `default` gets what no rule fits.
    ///
    /// Worker IDs should be unique over all pools, so that `herd-worker` tells which one answered: give the pools one
    /// source of them ([`PoolBuilder::worker_ids`](herd_pool::PoolBuilder::worker_ids)). Nothing else depends on it.
    ///
    /// # Errors
    /// [`InvalidRoutes`] if two pools have one name, a name cannot stand in a response's head, a rule or the default
    /// names no pool, or a rule could never be fitted.
    #[expect(clippy::needless_pass_by_value, reason = "it is a name as those of the pools are")]
    pub fn new(
        pools: Vec<(Arc<str>, Pool<F>)>,
        rules: Vec<Rule>,
        default: Option<Arc<str>>,
    ) -> Result<Self, InvalidRoutes> {
        let names: Vec<_> = pools.iter().map(|(name, _)| name.clone()).collect();
        let table = Table::new(&names, rules, default.as_deref())?;
        Ok(Self { pools, table })
    }
}

impl<F: WorkerFactory> From<Pool<F>> for Routes<F> {
    fn from(pool: Pool<F>) -> Self {
        Self { pools: vec![(ONLY.into(), pool)], table: Table { rules: Vec::new(), default: Some(0) } }
    }
}

impl<F: WorkerFactory> Clone for Routes<F> {
    fn clone(&self) -> Self {
        Self { pools: self.pools.clone(), table: self.table.clone() }
    }
}

impl<F: WorkerFactory> fmt::Debug for Routes<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.pools.iter().map(|(name, _)| name).collect();
        f.debug_struct("Routes").field("pools", &names).field("table", &self.table).finish()
    }
}

/// The rules, with the numbers of pools instead of their names.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    rules: Vec<Checked>,
    default: Option<usize>,
}

/// A rule that was found fit.
#[derive(Clone, Debug)]
struct Checked {
    pool: usize,
    host: Option<Host>,
    prefix: Option<Prefix>,
    strip: bool,
    header: Option<(HeaderName, Option<HeaderValue>)>,
}

/// Lower case, without a dot at the end.
#[derive(Clone, Debug)]
enum Host {
    Exactly(String),
    /// Every name that ends with this, which begins with a dot.
    Below(String),
}

/// Where a request goes.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Way {
    /// The number of the pool.
    pub(crate) pool: usize,
    /// The target without the prefix, if the worker is not to see it.
    pub(crate) target: Option<PathAndQuery>,
}

impl Table {
    pub(crate) fn new(pools: &[Arc<str>], rules: Vec<Rule>, default: Option<&str>) -> Result<Self, InvalidRoutes> {
        let mut seen = HashSet::new();
        for name in pools {
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(InvalidRoutes::PoolName { name: name.to_string() });
            }
            if !seen.insert(name) {
                return Err(InvalidRoutes::PoolTwice { name: name.to_string() });
            }
        }
        let number = |pool: &str| {
            let found = pools.iter().position(|name| **name == *pool);
            found.ok_or_else(|| InvalidRoutes::NoSuchPool { name: pool.to_owned() })
        };
        let rules = rules.into_iter().map(|rule| Checked::new(&rule, number(&rule.pool)?)).collect::<Result<_, _>>()?;
        Ok(Self { rules, default: default.map(number).transpose()? })
    }

    /// *route*: the pool that the request goes to.
    pub(crate) fn find<B>(&self, request: &Request<B>) -> Result<Way, Failure> {
        for rule in &self.rules {
            if let Some(target) = rule.fit(request)? {
                return Ok(Way { pool: rule.pool, target });
            }
        }
        let pool = self.default.ok_or(Failure::NoRoute)?;
        Ok(Way { pool, target: None })
    }
}

impl Checked {
    fn new(rule: &Rule, pool: usize) -> Result<Self, InvalidRoutes> {
        let Rule { pool: _, host, path_prefix, strip_prefix, header } = rule;
        let host = host.as_deref().map(Host::new).transpose()?;
        let prefix = path_prefix.as_deref().map(Prefix::new).transpose()?;
        let header = header.as_ref().map(|(name, value)| field(name, value.as_deref())).transpose()?;
        Ok(Self { pool, host, prefix, strip: *strip_prefix, header })
    }

    /// The target for the worker, if it is to be another one, of a request that the rule fits.
    fn fit<B>(&self, request: &Request<B>) -> Result<Option<Option<PathAndQuery>>, Failure> {
        if self.host.as_ref().is_some_and(|host| !host_of(request).is_some_and(|found| host.fits(found)))
            || self.header.as_ref().is_some_and(|(name, value)| !has_field(request.headers(), name, value.as_ref()))
        {
            return Ok(None);
        }
        let Some(prefix) = &self.prefix else { return Ok(Some(None)) };
        let Some(target) = request.uri().path_and_query() else { return Ok(None) };
        let Some(rest) = prefix.fit(target.path())? else { return Ok(None) };
        Ok(Some(self.strip.then(|| prefix.strip(target, rest))))
    }
}

impl Host {
    fn new(text: &str) -> Result<Self, InvalidRoutes> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        let is_address = name.starts_with('[') && name.ends_with(']');
        let is_name = name.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
        match (name.len() < lower.len(), is_name, is_address) {
            (true, true, _) => Ok(Self::Below(format!(".{name}"))),
            (false, true, _) | (false, _, true) => Ok(Self::Exactly(lower)),
            _ => Err(InvalidRoutes::Host { host: text.to_owned() }),
        }
    }

    fn fits(&self, found: &str) -> bool {
        match self {
            Self::Exactly(name) => found.eq_ignore_ascii_case(name),
            Self::Below(suffix) => found
                .len()
                .checked_sub(suffix.len())
                .filter(|at| *at > 0)
                .is_some_and(|at| found.as_bytes()[at..].eq_ignore_ascii_case(suffix.as_bytes())),
        }
    }
}

/// The host that the request is for, as it was written, without the port and without the dot that may end a name.
pub(crate) fn host_of<B>(request: &Request<B>) -> Option<&str> {
    let in_field = || request.headers().get(HOST).and_then(|value| value.to_str().ok());
    let host = request.uri().authority().map(|authority| authority.as_str()).or_else(in_field)?;
    if host.starts_with('[') {
        return host.find(']').map(|end| &host[..=end]);
    }
    let host = host.split_once(':').map_or(host, |(name, _)| name);
    Some(host.strip_suffix('.').unwrap_or(host))
}

fn field(name: &str, value: Option<&str>) -> Result<(HeaderName, Option<HeaderValue>), InvalidRoutes> {
    let invalid = || InvalidRoutes::Header { name: name.to_owned() };
    let value = value.map(|value| HeaderValue::from_str(value).map_err(|_| invalid())).transpose()?;
    Ok((HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?, value))
}

fn has_field(headers: &HeaderMap, name: &HeaderName, value: Option<&HeaderValue>) -> bool {
    match value {
        Some(value) => headers.get_all(name).iter().any(|found| found == value),
        None => headers.contains_key(name),
    }
}

/// Why pools and rules make no [`Routes`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRoutes {
    /// A response's head could not tell this name.
    #[error("{name:?} is no name for a pool: it needs visible ASCII characters without spaces")]
    PoolName {
        /// The name.
        name: String,
    },
    /// Two pools have the same name.
    #[error("two pools are named {name:?}; each needs a name of its own")]
    PoolTwice {
        /// The name.
        name: String,
    },
    /// A rule, or the default, names a pool that is not there.
    #[error("no pool is named {name:?}")]
    NoSuchPool {
        /// The name.
        name: String,
    },
    /// No request is for such a host.
    #[error("{host:?} is no host; write a name such as a.example.com, or *.example.com for all names below, no port")]
    Host {
        /// What was written.
        host: String,
    },
    /// No path begins so, or not beyond doubt.
    #[error(
        "{prefix:?} is no prefix of paths; it begins with a slash, and has no empty segment, dot segment, percent sign, \
         semicolon, backslash, or character that a path cannot have"
    )]
    PathPrefix {
        /// What was written.
        prefix: String,
    },
    /// No request has such a field.
    #[error("{name:?} is no name of a header, or its value could not be sent in one")]
    Header {
        /// The name that was written.
        name: String,
    },
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
