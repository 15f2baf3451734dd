use std::{io, sync::mpsc as blocking, thread};

use tokio::sync::{mpsc, oneshot};

use super::interpreter::{Answer, Interpreter};

/// How many scripts may wait in the queue itself; those who send more wait in line, first come, first served.
const QUEUE: usize = 16;

/// Scripts recurse on the native stack. This much is address space, not memory, until it is used.
const STACK: usize = 16 << 20;

/// The thread that evaluates scripts, one after the other. Clones share it.
///
/// It is a thread and not a task so that a script that runs for an hour does not delay a health check by a microsecond.
#[derive(Clone)]
pub(super) struct Evaluator {
    queue: mpsc::Sender<Job>,
}

struct Job {
    script: String,
    client: Client,
    answer: oneshot::Sender<Answer>,
}

/// Tells whether somebody still waits for a script's answer. Nothing is ever sent: it disconnects when they leave.
pub(super) type Client = blocking::Receiver<()>;

impl Evaluator {
    /// Starts the thread, which ends with the last clone.
    pub(super) fn start() -> io::Result<Self> {
        let (queue, mut jobs) = mpsc::channel::<Job>(QUEUE);
        thread::Builder::new().name("evaluator".into()).stack_size(STACK).spawn(move || {
            let mut interpreter = Interpreter::new();
            while let Some(job) = jobs.blocking_recv() {
                // It is no error if nobody takes the answer: then the client left.
                let _ = job.answer.send(interpreter.evaluate(&job.script, job.client));
            }
        })?;
        Ok(Self { queue })
    }

    /// Evaluates `script` after those that came before it. `None` means that the thread died.
    ///
    /// Dropping the future cancels the script, wherever it is.
    pub(super) async fn evaluate(&self, script: String) -> Option<Answer> {
        let (_present, client) = blocking::channel();
        let (answer, answered) = oneshot::channel();
        self.queue.send(Job { script, client, answer }).await.ok()?;
        answered.await.ok()
    }

    /// Resolves when the thread has died of a panic.
    pub(super) async fn died(&self) {
        self.queue.closed().await;
    }
}
