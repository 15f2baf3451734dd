//! Waits until a worker that is starting is ready.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use herd_pool::ExitStatus;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use crate::{
    Connector, Stream,
    execution::ExecCommand,
    factory::Shared,
    listener::Holder,
    notify::NotifySocket,
    options::{Listen, Ready},
    probe,
    process::Process,
    template::{Template, Values},
};

/// How long one question to a worker may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a worker may leave a question open before that is worth telling.
const SILENCE: Duration = Duration::from_secs(1);

/// How long one run of a readiness command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause between two looks at a worker begins with the first of these and grows to the second, in the first second
/// only to the third unless each look takes a process. After that it is a twentieth of the time since the first look, so
/// that no start takes noticeably longer for it and a worker that starts for long is not asked a thousand times.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_EARLY_PAUSE: Duration = Duration::from_millis(50);
const PAUSES_PER_WAIT: u32 = 20;

/// What helps when a worker answers, but not as one that is ready.
const REMEDY: &str = "name another path with health_path / --health-path, or use ready: tcp";

/// Ways in which the worker itself says that it is ready.
pub(crate) struct Signs {
    pub(crate) notify: Option<NotifySocket>,
    pub(crate) line: Option<oneshot::Receiver<()>>,
}

/// Somebody else listens on the worker's port.
pub(crate) struct PortLost;

/// Looks at a worker that is starting.
pub(crate) struct Watch<'a> {
    shared: &'a Shared,
    /// Where readiness commands run.
    process: &'a Process,
    values: &'a Values,
    connector: &'a Connector,
    seen: Mutex<Seen>,
}

/// What a worker has shown of itself.
#[derive(Default)]
struct Seen {
    /// What the last look found.
    last: Option<String>,
    /// When the worker was asked what it has not answered yet.
    asked: Option<Instant>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(shared: &'a Shared, process: &'a Process, values: &'a Values, connector: &'a Connector) -> Self {
        Self { shared, process, values, connector, seen: Mutex::default() }
    }

    /// Resolves when the worker is ready.
    pub(crate) async fn until_ready(&self, signs: &mut Signs) -> Result<(), PortLost> {
        let options = &self.shared.options;
        sleep(options.start_health_check_delay).await;
        match &options.ready {
            Ready::Http(path) => return self.poll(longest_pause, || self.look_at_http(path)).await,
            Ready::Tcp | Ready::Socket => return self.poll(longest_pause, || self.look_at_listener()).await,
            Ready::Command(command) => self.poll(|_| LONGEST_PAUSE, || self.run(command)).await?,
            Ready::Stdout(_) => {
                self.see("no such line");
                if let Some(line) = &mut signs.line
                    && line.await.is_err()
                {
                    self.see("the end of its standard output");
                    std::future::pending::<()>().await;
                }
            }
            Ready::Notify => {
                self.see("no notification");
                if let Some(notify) = &signs.notify
                    && let Err(error) = notify.ready(|status| self.see(status)).await
                {
                    self.see(format!("an error of its notification socket: {error}"));
                    std::future::pending::<()>().await;
                }
            }
        }
        // It says that it is ready; it has to be reachable, too.
        self.poll(longest_pause, || self.look_for_listener()).await
    }

    /// Looks again and again until the worker is ready.
    async fn poll<F: Future<Output = Look>>(
        &self,
        longest: impl Fn(Duration) -> Duration,
        look: impl Fn() -> F,
    ) -> Result<(), PortLost> {
        let began = Instant::now();
        let mut pauses = Pauses::default();
        loop {
            match look().await {
                Look::Ready => return Ok(()),
                Look::PortLost => return Err(PortLost),
                Look::NotYet(what) => self.see(what),
            }
            sleep(pauses.next().min(longest(began.elapsed()))).await;
        }
    }

    fn see(&self, what: impl Into<String>) {
        *self.seen() = Seen { last: Some(what.into()), asked: None };
    }

    /// What the worker showed last, for an error.
    pub(crate) fn last_seen(&self) -> String {
        let seen = self.seen();
        match (&seen.last, seen.asked) {
            // A question that was asked just before the end says less than the answer before it.
            (Some(last), asked) if asked.is_none_or(|asked| asked.elapsed() < SILENCE) => last.clone(),
            (_, Some(_)) => "a connection, but no answer yet".to_owned(),
            _ => "nothing".to_owned(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_at_http(&self, path: &str) -> Look {
        let stream = match self.connect().await {
            Ok(stream) => stream,
            Err(look) => return look,
        };
        self.seen().asked = Some(Instant::now());
        match timeout(PROBE_TIMEOUT, probe::status(self.connector, stream, path)).await {
            Ok(Ok(status)) if status.is_success() => Look::Ready,
            Ok(Ok(status)) => Look::NotYet(format!("status {} ({})", status.as_u16(), self.remedy())),
            Ok(Err(error)) => Look::NotYet(error),
            Err(_) => Look::NotYet(format!("no answer within {PROBE_TIMEOUT:?}")),
        }
    }

    fn remedy(&self) -> String {
        match self.shared.options.listen {
            Listen::Socket => REMEDY.replace("tcp", "socket"),
            Listen::Port | Listen::Inherit => REMEDY.to_owned(),
        }
    }

    async fn look_at_listener(&self) -> Look {
        self.connect().await.map_or_else(|look| look, |_| Look::Ready)
    }

    /// For a worker that says itself that it is ready: whether it can be reached too.
    async fn look_for_listener(&self) -> Look {
        match self.shared.options.listen {
            Listen::Inherit => Look::Ready,
            Listen::Socket => self.look_at_listener().await,
            Listen::Port if self.connector.own_port().is_some() => self.look_at_holder().await,
            Listen::Port => self.look_at_listener().await,
        }
    }

    async fn look_at_holder(&self) -> Look {
        let Some(port) = self.connector.own_port() else { return Look::Ready };
        match port.holder().await {
            Ok(Holder::Worker) => Look::Ready,
            Ok(Holder::Nobody) => Look::NotYet(format!("that, but nobody listens on port {}", port.number())),
            Ok(Holder::Somebody) => Look::PortLost,
            Err(error) => Look::NotYet(format!("that, but who listens cannot be told: {error}")),
        }
    }

    /// Connects to the worker, and makes sure that it is the worker.
    async fn connect(&self) -> Result<Stream, Look> {
        let stream = match timeout(PROBE_TIMEOUT, self.connector.connect_to_anybody()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Look::NotYet(probe::describe_connect(&error))),
            Err(_) => return Err(Look::NotYet(format!("no connection within {PROBE_TIMEOUT:?}"))),
        };
        match self.look_at_holder().await {
            Look::Ready => Ok(stream),
            other => Err(other),
        }
    }

    /// Runs the readiness command once, in the worker's sandbox.
    async fn run(&self, command: &[Template]) -> Look {
        let mut words = command.iter().map(|word| word.expand(self.values));
        let mut command = ExecCommand::new(words.next().unwrap_or_default());
        command.args = words.collect();
        let ran = timeout(COMMAND_TIMEOUT, self.process.run(command));
        match ran.await {
            Ok(Ok(ExitStatus::Code(0))) => Look::Ready,
            Ok(Ok(status)) => Look::NotYet(status.to_string()),
            Ok(Err(error)) => Look::NotYet(error.to_string()),
            Err(_) => Look::NotYet(format!("no end of the command within {COMMAND_TIMEOUT:?}")),
        }
    }
}

/// What one look at a worker finds.
enum Look {
    Ready,
    NotYet(String),
    PortLost,
}

/// The longest pause between two cheap looks after waiting for so long.
fn longest_pause(waited: Duration) -> Duration {
    (waited / PAUSES_PER_WAIT).clamp(LONGEST_EARLY_PAUSE, LONGEST_PAUSE)
}

/// 1 ms twice, then twice as much each time.
#[derive(Default)]
struct Pauses(Option<Duration>);

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = self.0.unwrap_or(FIRST_PAUSE);
        self.0 = Some(if self.0.is_none() { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) });
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_begin_with_a_millisecond_and_stay_short() {
        let mut pauses = Pauses::default();
        let millis: Vec<_> = (0..12).map(|_| pauses.next().as_millis()).collect();
        assert_eq!(millis, [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 500, 500]);
    }

    #[test]
    fn a_worker_that_starts_for_long_is_looked_at_less_and_less() {
        let looks_until = |end| {
            let (mut pauses, mut waited, mut looks) = (Pauses::default(), Duration::ZERO, 0);
            while waited < end {
                looks += 1;
                let pause = pauses.next().min(longest_pause(waited));
                assert!(pause <= LONGEST_EARLY_PAUSE || pause <= waited / PAUSES_PER_WAIT, "{pause:?}");
                waited += pause;
            }
            looks
        };
        assert_eq!(looks_until(Duration::from_secs(1)), 26);
        assert_eq!(looks_until(Duration::from_secs(30)), 113);
    }

    #[test]
    fn a_worker_that_listens_after_3_ms_is_seen_after_4() {
        let mut pauses = Pauses::default();
        let mut look = Duration::ZERO;
        while look < Duration::from_millis(3) {
            look += pauses.next();
        }
        assert_eq!(look, Duration::from_millis(4));
    }
}
