//! What it costs to look at a token, and at a tenant's limits.

use std::{fs, net::SocketAddr};

use anyhow::{Context, Result, ensure};

use super::{
    accounting::running_time,
    proxy::Bench,
    report::{Aim, Section, Table, progress},
    requests::{Load, load_with},
    series::Series,
    served::{Served, Settings},
    turns,
};

const AIM_MICROSECONDS: f64 = 1.0;
/// Enough to keep the daemon busy, and few enough that each is in the caches: what is compared is small.
const CONNECTIONS: usize = 16;
/// One turn is short, so that what changes on the machine meanwhile hits all variants alike.
const TURN_SECONDS: u32 = 1;

const TOKEN: &str = "herd_this-is-the-token-of-the-benchmark-alone";
const JWT_KEY: &str = "the-key-of-the-benchmark-and-of-nothing-else";
/// `{"alg":"HS256","typ":"JWT"}` and `{"aud":"herd","exp":4000000000}`, signed with [`JWT_KEY`].
const JWT: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhdWQiOiJoZXJkIiwiZXhwIjo0MDAwMDAwMDAwfQ.\
                   Z-c8wl7pprEUlaQnKUOKYOABCAMsWchGtQj6KpgCN_Q";

/// A daemon that asks for something, and who has it.
#[derive(Debug)]
struct Variant {
    name: &'static str,
    daemon: Served,
    credential: Option<String>,
    rate: Series,
    /// Microseconds of processor time per request.
    cpu: Series,
    /// The same beyond what was spent in the same round where nothing is asked for.
    more: Series,
}

pub(crate) fn measure(bench: &Bench, rounds: usize) -> Result<(Section, Vec<Aim>)> {
    progress("access");
    let mut variants = variants(bench)?;
    for variant in &variants {
        variant.load(bench)?;
    }
    for round in 0..rounds {
        let mut spent = vec![f64::NAN; variants.len()];
        for turn in turns(variants.len(), round) {
            let variant = &mut variants[turn];
            let before = running_time(variant.daemon.pid())?;
            let load = variant.load(bench)?;
            let cpu = (running_time(variant.daemon.pid())? - before).as_secs_f64() * 1e6 / load.requests;
            variant.rate.push(load.rate);
            variant.cpu.push(cpu);
            spent[turn] = cpu;
        }
        for (variant, cpu) in variants.iter_mut().zip(&spent) {
            variant.more.push(cpu - spent[0]);
        }
    }
    Ok((section(&variants, rounds), aims(&variants)))
}

fn variants(bench: &Bench) -> Result<Vec<Variant>> {
    let token = bench.directory.join("access.token");
    let key = bench.directory.join("access.key");
    for (file, secret) in [(&token, TOKEN), (&key, JWT_KEY)] {
        fs::write(file, secret).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let known = |tenant| format!("access: {{tokens: [{{name: bench, {tenant}file: '{}'}}]}}", token.display());
    let signed = format!("access: {{jwt: {{algorithm: HS256, key_file: '{}', audience: herd}}}}", key.display());
    let limited = format!("{}\ntenants: {{default: {{requests_per_second: 10000000}}}}", known("tenant: acme, "));
    [
        ("no access control", "open", String::new(), None),
        ("bearer token", "token", known(""), Some(TOKEN)),
        ("JWT, verified before", "jwt", signed, Some(JWT)),
        ("bearer token with tenant and rate limit", "tenant", limited, Some(TOKEN)),
    ]
    .into_iter()
    .map(|(name, file, sections, credential)| {
        let settings = Settings { resources: "max_workers: 4", sections: &sections, ..Settings::default() };
        let daemon = Served::start(bench, &format!("herd-access-{file}"), settings)?;
        let credential = credential.map(|credential| format!("authorization: Bearer {credential}"));
        let [rate, cpu, more] = std::array::from_fn(|_| Series::default());
        let variant = Variant { name, daemon, credential, rate, cpu, more };
        variant.is_as_it_says(bench)?;
        Ok(variant)
    })
    .collect()
}

impl Variant {
    fn load(&self, bench: &Bench) -> Result<Load> {
        let load = self.load_with(bench, self.daemon.address, self.credential.as_deref())?;
        ensure!(load.failures == 0, "{}: {} requests have failed", self.name, load.failures);
        Ok(load)
    }

    fn load_with(&self, bench: &Bench, address: SocketAddr, credential: Option<&str>) -> Result<Load> {
        let fields: Vec<&str> = credential.into_iter().collect();
        load_with(bench, address, CONNECTIONS, TURN_SECONDS, &fields)
    }

    /// A daemon that lets everybody in would be cheap, and another one than was meant.
    fn is_as_it_says(&self, bench: &Bench) -> Result<()> {
        if self.credential.is_some() {
            let refused = self.load_with(bench, self.daemon.address, None)?;
            let [failures, requests] = [refused.failures as f64, refused.requests];
            ensure!(failures >= requests, "{}: it lets requests in that show nothing", self.name);
        }
        Ok(())
    }
}

fn section(variants: &[Variant], rounds: usize) -> Section {
    let mut table = Table::new(&["the gateway asks for", "requests/s", "CPU µs/request", "more than without, µs"]);
    for Variant { name, rate, cpu, more, .. } in variants {
        table.row([(*name).to_owned(), rate.spread(), cpu.spread(), more.spread()]);
    }
    Section {
        title: "Tokens and tenants".to_owned(),
        text: format!(
            "As in \"Small requests\" with {CONNECTIONS} connections, in {rounds} rounds of {TURN_SECONDS} s for each. \
             What is more than without is the difference within a round, of which the median counts. CPU is what the \
             daemon's threads have run (`/proc/PID/task/*/schedstat`). It includes a longer request, whose token is \
             read and taken out. The check alone is measured by a test, `a_check_takes_less_than_a_microsecond`."
        ),
        table,
    }
}

fn aims(variants: &[Variant]) -> Vec<Aim> {
    let asking = variants.iter().filter(|variant| variant.credential.is_some());
    asking
        .map(|Variant { name, more, .. }| Aim {
            what: format!("CPU for a request's {name}"),
            aim: format!("≤ {AIM_MICROSECONDS} µs"),
            measured: format!("{} µs", more.spread()),
            met: more.median() <= AIM_MICROSECONDS,
        })
        .collect()
}
