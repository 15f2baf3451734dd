//! The section `webhooks`.

use std::{net::IpAddr, time::Duration};

use hyper::Uri;

use super::{
    fields::{Fields, about},
    form::{EVENT, HOOK_URL, POSITIVE, POSITIVE_DURATION, SECRET_FILE},
    mistake::{Mistake, Mistakes, Written},
    raw::RawWebhook,
    resolve::or,
    settings::Webhook,
};

pub(super) fn read(f: &mut Fields<'_>) -> Vec<Written<RawWebhook>> {
    let list = f.sections("webhooks", about("Where events of sessions and workers are posted."), |f| RawWebhook {
        url: f.required("url", HOOK_URL, about("The receiver: an http or https URL without a user and a password.")),
        secret_file: f.nullable(
            "secret_file",
            SECRET_FILE,
            about("A file with the key that signs what is posted (HMAC-SHA256). null: it is not signed.")
                .default("null"),
        ),
        events: f.list("events", EVENT, about("Which kinds of events; an empty list is all.").default("[]")),
        timeout: f.value(
            "timeout",
            POSITIVE_DURATION,
            about("How long the receiver may take to answer.").default(r#""10s""#),
        ),
        max_queue: f.value(
            "max_queue",
            POSITIVE,
            about("How many events may wait for the receiver; beyond that the oldest are dropped and counted.")
                .default("1000"),
        ),
        give_up_after: f.value(
            "give_up_after",
            POSITIVE_DURATION,
            about("For how long an event that was not taken is tried again.").default(r#""24h""#),
        ),
    });
    or(list, Vec::new())
}

pub(super) fn resolve(raw: Vec<Written<RawWebhook>>, mistakes: &mut Mistakes) -> Vec<Webhook> {
    for (index, hook) in raw.iter().enumerate() {
        let Some(url) = &hook.value.url else { continue };
        let same =
            |other: &&Written<RawWebhook>| other.value.url.as_ref().is_some_and(|other| other.value == url.value);
        if let Some(first) = raw[..index].iter().find(same) {
            let problem = format!("is the receiver of {} as well, and would get events twice", first.origin.name);
            mistakes.push(Mistake::new(url.origin.clone(), problem, "keep one of them").unquoted());
        }
    }
    let resolve = |hook: Written<RawWebhook>| {
        let RawWebhook { url, secret_file, events, timeout, max_queue, give_up_after } = hook.value;
        Some(Webhook {
            url: url?.value,
            secret_file: or(secret_file, None),
            events: or(events, Vec::new()).into_iter().map(|written| written.value).collect(),
            timeout: or(timeout, Duration::from_secs(10)),
            max_queue: or(max_queue, 1000),
            give_up_after: or(give_up_after, Duration::from_secs(24 * 60 * 60)),
        })
    };
    raw.into_iter().filter_map(resolve).collect()
}

/// What is no mistake and hardly wanted.
pub(super) fn warnings(raw: &[Written<RawWebhook>]) -> impl Iterator<Item = Mistake> {
    raw.iter().filter_map(|hook| {
        let url = hook.value.url.as_ref()?;
        let uri: Uri = url.value.parse().ok()?;
        let travels = uri.scheme_str() == Some("http") && !uri.host().is_some_and(is_loopback);
        let problem = "events travel in the clear beyond this host";
        travels.then(|| Mistake::warning(url.origin.clone(), problem, "use https"))
    })
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}
