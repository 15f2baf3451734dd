//! The pictures of the dashboard in the documentation. They are made anew by
//! `HERD_PICTURES=$PWD/docs/images cargo xtask test -- pictures`; without the variable they go nowhere, and are taken sooner.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hyper::Method;
use serde_json::{Value, json};

use super::tab::{SPEAKER, Tab, button, css, lines, role, row, status};
use crate::daemon::Daemon;

/// In bytes. Whoever reads the documentation loads all of them.
const LARGEST: u64 = 150_000;

const NOTEBOOKS: [&str; 9] = ["amelia", "bruno", "chioma", "dmitri", "esther", "farid", "greta", "hiroshi", "ines"];
const BROWSERS: [&str; 4] = ["checkout-7f3a", "crawl-0b91", "invoice-22d8", "signup-51ce"];

/// What the notebooks' workers write.
const OUTPUT: [&str; 6] = [
    "\x1b[32mINFO\x1b[0m  kernel ready, Python 3.13.5",
    "\x1b[32mINFO\x1b[0m  cell [1] import pandas as pd: 0.41 s",
    "\x1b[32mINFO\x1b[0m  cell [2] df = pd.read_parquet('orders.parquet'): 1.86 s, 412,907 rows",
    "\x1b[33mWARN\x1b[0m  cell [3] DtypeWarning: column 7 has mixed types",
    "\x1b[32mINFO\x1b[0m  cell [3] df.groupby('region').total.sum(): 0.12 s",
    "\x1b[31mERROR\x1b[0m cell [4] KeyError: 'regoin'",
];

fn configuration() -> String {
    let pool = |spare: usize, most: usize, ttl: &str| {
        format!(
            "{{worker: {{command: [/usr/bin/python3, {SPEAKER}], health_path: /}}, \
              resources: {{min_workers: 1, max_workers: {most}, spare: {spare}, ttl: {ttl}, max_lifetime: 8h}}, \
              sandbox: {{mode: best-effort, read_only: [{SPEAKER}]}}}}"
        )
    };
    format!(
        "pools:\n  notebooks: {}\n  browsers: {}\nroutes:\n  - {{pool: browsers, path_prefix: /browsers, strip_prefix: true}}\n  \
         - {{pool: notebooks}}\n",
        pool(2, 16, "15m"),
        pool(1, 6, "5m")
    )
}

async fn ask(daemon: &Daemon, session: &str, path: &str) {
    let answer = daemon.gateway.get(Some(session), path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Lets the sessions do something for as long as the small charts show.
async fn work(daemon: &Daemon, time: Duration) {
    let begun = Instant::now();
    let mut round = 0_usize;
    while begun.elapsed() < time {
        for (number, name) in NOTEBOOKS.iter().enumerate() {
            if (round + number * 3).is_multiple_of(4 + number % 3) {
                let seconds = 0.02 * f64::from(u32::try_from(1 + (number * 7 + round) % 6).unwrap());
                let grows = usize::from(round.is_multiple_of(5)) * (number % 4);
                ask(daemon, name, &format!("/work/{seconds}/{grows}")).await;
            }
        }
        if round.is_multiple_of(3) {
            ask(daemon, BROWSERS[round / 3 % BROWSERS.len()], "/browsers/work/0.05/1").await;
        }
        round += 1;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn picture(tab: &mut Tab, directory: &Path, name: &str) {
    let path = directory.join(format!("dashboard-{name}.png"));
    fs::create_dir_all(directory).unwrap();
    tab.screenshot(&path);
    let size = fs::metadata(&path).unwrap().len();
    assert!(size < LARGEST, "{}: {size} bytes", path.display());
}

#[tokio::test]
async fn pictures_for_the_documentation_can_be_taken() {
    let nowhere = tempfile::tempdir().unwrap();
    let wanted = env::var_os("HERD_PICTURES").map(PathBuf::from);
    let directory = wanted.as_deref().unwrap_or(nowhere.path());
    // Charts are to be full in the documentation alone.
    let time = Duration::from_secs(if wanted.is_some() { 75 } else { 3 });
    let daemon = Daemon::configured(&configuration());
    for name in NOTEBOOKS {
        ask(&daemon, name, "/").await;
    }
    for name in BROWSERS {
        ask(&daemon, name, "/browsers/").await;
    }
    for line in OUTPUT {
        let request = daemon.gateway.request(Method::POST, Some("chioma"), "/out", format!("{line}\n"));
        daemon.gateway.send(request).await;
    }
    let gateway = daemon.gateway;
    let held = tokio::spawn(async move { gateway.get(Some("esther"), "/hold").await });
    let wide = |scheme: &str| json!({ "viewport": { "width": 1200, "height": 760 }, "color_scheme": scheme });
    let mut light = Tab::open_with(daemon.admin, wide("light"));
    let mut dark = Tab::open_with(daemon.admin, wide("dark"));
    let narrow = json!({ "viewport": { "width": 360, "height": 720 }, "color_scheme": "light" });
    let mut narrow = Tab::open_with(daemon.admin, narrow);
    let mut session = Tab::open_with(daemon.admin, wide("light"));
    session.goto("#/sessions/notebooks//chioma");
    let mut pool = Tab::open_with(daemon.admin, wide("light"));
    pool.goto("#/pools/notebooks");
    for tab in [&mut light, &mut dark, &mut narrow, &mut session, &mut pool] {
        tab.says(&status(), "live");
        tab.evaluate("() => document.activeElement?.blur()", Value::Null);
    }
    work(&daemon, time).await;
    light.sees(&row("chioma"));
    light.sees(&role("heading", "Sessions"));
    picture(&mut light, directory, "light");
    picture(&mut dark, directory, "dark");
    picture(&mut narrow, directory, "narrow");
    session.sees(&lines().with("KeyError"));
    session.sees(&button("End session…"));
    picture(&mut session, directory, "session");
    pool.sees(&css(".histogram svg rect"));
    picture(&mut pool, directory, "pool");
    held.abort();
}
