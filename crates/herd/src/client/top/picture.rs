//! What the daemon has told so far.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};

use super::rows::{End, Gone, Hello, Items, Session, SessionKey, Stats, Worker};
use crate::client::Frame;

/// Over how long the use of CPUs and the requests are averaged. The daemon looks at most once a second, so that less would
/// jump.
const WINDOW: Duration = Duration::from_secs(4);

/// All sessions and workers of a daemon.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    pub(super) sessions: HashMap<SessionKey, Rc<Session>>,
    pub(super) workers: HashMap<String, Rc<Worker>>,
    pub(super) stats: Stats,
    cpu: HashMap<String, Rate>,
    requests: Rate,
    /// Whether all was told once.
    whole: bool,
}

/// What a frame has changed.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Told {
    /// Something that is shown together with what follows.
    Part,
    /// The picture is one of a moment.
    Moment,
    /// Nothing comes any more, and why.
    End(String),
}

impl Picture {
    /// Takes a frame in. Those of a kind that is not known are left alone.
    ///
    /// # Errors
    /// If a frame is not what its name says.
    pub(super) fn take(&mut self, frame: &Frame, now: Instant) -> anyhow::Result<Told> {
        match frame.name.as_str() {
            "hello" => self.stats = frame.json::<Hello>()?.stats,
            "sessions" => {
                let sessions = frame.json::<Items<Session>>()?.items;
                self.sessions.extend(sessions.into_iter().map(|session| (session.key.clone(), Rc::new(session))));
            }
            "workers" => {
                let workers = frame.json::<Items<Worker>>()?.items;
                self.workers.extend(workers.into_iter().map(|worker| (worker.id.clone(), Rc::new(worker))));
            }
            "gone" => {
                let Gone { sessions, workers } = frame.json()?;
                for session in &sessions {
                    self.sessions.remove(session);
                }
                for worker in &workers {
                    self.workers.remove(worker);
                    self.cpu.remove(worker);
                }
            }
            "ready" => {
                self.whole = true;
                self.measure(now);
                return Ok(Told::Moment);
            }
            "stats" => {
                self.stats = frame.json()?;
                self.measure(now);
                // Before that the picture has holes.
                return Ok(if self.whole { Told::Moment } else { Told::Part });
            }
            "end" => return Ok(Told::End(frame.json::<End>().unwrap_or_default().reason)),
            _ => {}
        }
        Ok(Told::Part)
    }

    /// What goes on in time, whether the daemon has told it anew or not.
    fn measure(&mut self, now: Instant) {
        for (id, worker) in &self.workers {
            if let Some(spent) = worker.cpu_time_ms {
                self.cpu.entry(id.clone()).or_default().note(now, spent);
            }
        }
        self.requests.note(now, self.stats.sums.acquire_requests);
    }

    /// How much of a CPU a worker uses, in percent; `None` until that is known.
    pub(super) fn cpu_of(&self, worker: &str) -> Option<f64> {
        // A thousand milliseconds in a second is all of one.
        self.cpu.get(worker)?.per_second().map(|millis| millis / 10.0)
    }

    /// How much of a CPU all workers use, in percent.
    pub(super) fn cpu(&self) -> f64 {
        // Of nothing the sum is less than nothing: -0.0.
        self.cpu.values().filter_map(Rate::per_second).fold(0.0, |sum, rate| sum + rate) / 10.0
    }

    /// What all workers have of the memory, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.workers.values().filter_map(|worker| worker.memory_bytes).fold(0, u64::saturating_add)
    }

    /// Whether all was told once. Before that there may be more than is known.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    pub(super) fn requests_per_second(&self) -> Option<f64> {
        self.requests.per_second()
    }
}

/// A counter over a while.
#[derive(Clone, Debug, Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    fn note(&mut self, now: Instant, count: u64) {
        // A counter that falls counts something else now.
        if self.0.back().is_some_and(|(_, before)| *before > count) {
            self.0.clear();
        }
        self.0.push_back((now, count));
        while self.0.len() > 2 && now.duration_since(self.0[1].0) >= WINDOW {
            self.0.pop_front();
        }
    }

    fn per_second(&self) -> Option<f64> {
        let ((since, before), (until, after)) = (self.0.front()?, self.0.back()?);
        let seconds = until.duration_since(*since).as_secs_f64();
        (seconds > 0.0).then(|| (after - before) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str, data: &serde_json::Value) -> Frame {
        Frame { id: String::new(), name: name.to_owned(), data: data.to_string() }
    }

    #[test]
    fn a_worker_that_rests_uses_nothing_after_a_while() {
        let begin = Instant::now();
        let mut picture = Picture::default();
        let worker = |spent: u64| serde_json::json!({ "items": [{ "id": "worker-1", "cpu_time_ms": spent }] });
        let stats = || frame("stats", &serde_json::json!({ "acquire_requests": 7 }));
        for (second, spent) in [(0, Some(100)), (1, Some(1100)), (2, Some(2100)), (3, None), (4, None)] {
            if let Some(spent) = spent {
                picture.take(&frame("workers", &worker(spent)), begin).unwrap();
            }
            picture.take(&stats(), begin + Duration::from_secs(second)).unwrap();
        }
        assert_eq!(picture.cpu_of("worker-1"), Some(50.0));
        for second in 5..10 {
            picture.take(&stats(), begin + Duration::from_secs(second)).unwrap();
        }
        assert_eq!((picture.cpu_of("worker-1"), picture.cpu()), (Some(0.0), 0.0));
        assert_eq!(picture.requests_per_second(), Some(0.0));
    }

    #[test]
    fn what_is_gone_is_shown_no_more_and_unknown_frames_change_nothing() {
        let mut picture = Picture::default();
        let now = Instant::now();
        let sessions =
            serde_json::json!({ "items": [{ "pool": "a", "tenant": null, "id": "x" }, { "pool": "b", "id": "x" }] });
        assert_eq!(picture.take(&frame("sessions", &sessions), now).unwrap(), Told::Part);
        assert_eq!(picture.take(&frame("stats", &serde_json::json!({})), now).unwrap(), Told::Part, "it is not whole");
        assert_eq!(picture.take(&frame("ready", &serde_json::json!({})), now).unwrap(), Told::Moment);
        assert_eq!(picture.sessions.len(), 2);
        let gone =
            serde_json::json!({ "sessions": [{ "pool": "a", "tenant": null, "id": "x" }], "workers": ["worker-9"] });
        picture.take(&frame("gone", &gone), now).unwrap();
        assert_eq!(picture.sessions.keys().map(|key| key.pool.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(picture.take(&frame("weather", &serde_json::json!("fine")), now).unwrap(), Told::Part);
        let end = picture.take(&frame("end", &serde_json::json!({ "reason": "draining" })), now).unwrap();
        assert_eq!(end, Told::End("draining".to_owned()));
    }
}
