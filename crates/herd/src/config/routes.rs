//! The section `routes`.

use super::{
    fields::{Fields, about},
    form::{BOOLEAN, HEADER, HOST_PATTERN, PATH_PREFIX, POOL_NAME},
    mistake::{Mistake, Mistakes, Origin, Written},
    raw::{RawPool, RawRoute},
    resolve::or,
    settings::{DEFAULT_POOL, Pool, Route},
    telemetry::HEALTH_PAGE,
    value::nearest,
};

pub(super) fn read(f: &mut Fields<'_>) -> Vec<Written<RawRoute>> {
    let text =
        "Which pool a request goes to: that of the first route that fits, else `default` if there is such a pool.";
    let list = f.sections("routes", about(text), |f| RawRoute {
        pool: f.required("pool", POOL_NAME, about("The pool's name.")),
        host: f.value(
            "host",
            HOST_PATTERN,
            about("The host that requests ask for, on any port; *.example.com is every name below."),
        ),
        path_prefix: f.value(
            "path_prefix",
            PATH_PREFIX,
            about("How their paths begin, in whole segments: /x fits /x and /x/y, and not /xy."),
        ),
        strip_prefix: f.value(
            "strip_prefix",
            BOOLEAN,
            about("Whether workers see paths without the prefix.").default("false"),
        ),
        header: f.value("header", HEADER, about("A header that they have: NAME with any value, or NAME=VALUE.")),
    });
    or(list, Vec::new())
}

/// `known` are the names of all pools, also of those with mistakes.
pub(super) fn resolve(
    raw: Vec<Written<RawRoute>>,
    known: &[&str],
    metrics_path: &str,
    mistakes: &mut Mistakes,
) -> Vec<Route> {
    let mut routes: Vec<(String, Route)> = Vec::new();
    for Written { value: RawRoute { pool, host, path_prefix, strip_prefix, header }, origin } in raw {
        if let Some(pool) = pool.as_ref().filter(|pool| !known.contains(&pool.value.as_str())) {
            let hint = match nearest(&pool.value, known).filter(|_| !pool.origin.is_filled) {
                Some(name) => format!("did you mean {name}? "),
                None => String::new(),
            };
            let remedy = format!("{hint}there are: {}", known.join(", "));
            mistakes.push(Mistake::new(pool.origin.clone(), "is no pool", remedy));
        }
        if let (Some(strip), None) = (strip_prefix.as_ref().filter(|strip| strip.value), &path_prefix) {
            let problem = "has no meaning without `path_prefix`";
            mistakes.push(Mistake::new(strip.origin.clone(), problem, "write one, or leave it out"));
        }
        if let Some(prefix) = &path_prefix
            && [metrics_path, HEALTH_PAGE].contains(&prefix.value.as_str())
        {
            let problem = "is a page of the gateway itself";
            mistakes.push(Mistake::new(prefix.origin.clone(), problem, "choose another path for one of the two"));
        }
        let route = Route {
            pool: pool.map_or(String::new(), |written| written.value),
            host: host.map(|written| written.value),
            path_prefix: path_prefix.map(|written| written.value),
            strip_prefix: or(strip_prefix, false),
            header: header.map(|written| written.value),
        };
        if let Some((first, _)) = routes.iter().find(|(_, first)| covers(first, &route)) {
            let problem = format!("is never reached, because {first} fits everything that this one does");
            mistakes.push(Mistake::new(origin.clone(), problem, "put the narrower one first, or remove one"));
        }
        routes.push((origin.name, route));
    }
    routes.into_iter().map(|(_, route)| route).collect()
}

/// Whether the first of two routes fits every request that the second one does.
fn covers(first: &Route, second: &Route) -> bool {
    let host = match (&first.host, &second.host) {
        (None, _) => true,
        (Some(first), Some(second)) => first == second || is_below(second, first),
        (Some(_), None) => false,
    };
    let path = match (&first.path_prefix, &second.path_prefix) {
        (None, _) => true,
        (Some(first), Some(second)) => {
            second.strip_prefix(first.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (Some(_), None) => false,
    };
    let header = match (&first.header, &second.header) {
        (None, _) => true,
        (Some((first, value)), Some((second, other))) => first == second && (value.is_none() || value == other),
        (Some(_), None) => false,
    };
    host && path && header
}

/// Whether the host, or all hosts of the pattern, are among those of the other pattern.
fn is_below(host: &str, pattern: &str) -> bool {
    let Some(parent) = pattern.strip_prefix('*') else { return false };
    host.strip_prefix('*').unwrap_or(host).ends_with(parent)
}

/// What is no mistake and hardly wanted.
pub(super) fn warnings(
    routes: &[Route],
    pools: &[Pool],
    names: &[(Written<String>, RawPool)],
    top_level: Option<&Origin>,
) -> Vec<Mistake> {
    let catches_all = |route: &Route| route.host.is_none() && route.path_prefix.is_none() && route.header.is_none();
    let falls_through = !routes.iter().any(catches_all);
    let is_reached = |pool: &Pool| {
        (pool.name == DEFAULT_POOL && falls_through) || routes.iter().any(|route| route.pool == pool.name)
    };
    let unreached = pools.iter().filter(|pool| !is_reached(pool));
    unreached
        .map(|pool| {
            let written = names.iter().find(|(name, _)| name.value == pool.name);
            let origin = written
                .map(|(name, _)| name.origin.clone())
                .or_else(|| top_level.cloned())
                .unwrap_or_else(|| Origin::flag(&format!("pools.{}", pool.name)));
            Mistake::warning(origin, "no route leads there, so that only the control plane starts sessions", "")
        })
        .collect()
}
