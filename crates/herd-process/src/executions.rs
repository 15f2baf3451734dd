//! What a worker's supervising task knows of further commands in the worker's sandbox.

use std::{collections::HashMap, io};

use herd_pool::ExitStatus;
use herd_sandbox::{ExecStreams, Failure, Init, Signal};
use rustix::io::Errno;
use tokio::sync::{oneshot, watch};

use crate::execution::{Begun, ExecError, Order, named};

/// The commands of one worker. Dropping it tells all that are left that they are gone.
#[derive(Debug, Default)]
pub(crate) struct Executions {
    running: HashMap<u32, Running>,
    /// Those that are to be killed, which init could not be told yet.
    to_end: Vec<u32>,
}

#[derive(Debug)]
struct Running {
    program: String,
    has_terminal: bool,
    /// Taken when init has told how the start went.
    begun: Option<oneshot::Sender<Result<Begun, ExecError>>>,
    ended: watch::Sender<Option<ExitStatus>>,
}

impl Executions {
    /// Has the init of a worker that runs begin a command.
    pub(crate) fn begin(&mut self, init: Option<&Init>, Order { id, spec, begun, ended }: Order) {
        let program = named(&spec.program);
        let has_terminal = matches!(spec.streams, ExecStreams::Terminal(_));
        let refused = match init {
            None => Some(ExecError::NotRunning),
            Some(_) if self.running.len() >= Init::MAX_EXECUTIONS => {
                Some(ExecError::TooMany { limit: Init::MAX_EXECUTIONS })
            }
            Some(init) => init.execute(id, spec).err().map(|source| match source.kind() {
                io::ErrorKind::BrokenPipe => ExecError::NotRunning,
                _ => ExecError::Resource { what: "order to the worker's init", source },
            }),
        };
        match refused {
            // It fails only if nobody waits for it any more.
            Some(error) => drop(begun.send(Err(error))),
            None => drop(self.running.insert(id, Running { program, has_terminal, begun: Some(begun), ended })),
        }
    }

    /// A command's program runs.
    pub(crate) fn begun(&mut self, init: &Init, id: u32, begun: Begun) {
        let Some(running) = self.running.get_mut(&id) else { return };
        let is_whole = !running.has_terminal || begun.terminal.is_some();
        let begun = if is_whole {
            Ok(begun)
        } else {
            Err(ExecError::Resource { what: "terminal", source: Errno::MFILE.into() })
        };
        let told = running.begun.take().is_some_and(|waiting| waiting.send(begun).is_ok());
        if !told || !is_whole {
            self.end(init, id);
        }
    }

    /// A command did not get as far as its program.
    pub(crate) fn failed(&mut self, id: u32, failure: Failure) {
        let Some(Running { program, begun, .. }) = self.running.remove(&id) else { return };
        let is_exhausted = [Errno::AGAIN, Errno::NOMEM].iter().any(|errno| failure.errno == Some(errno.raw_os_error()));
        let error = match &*failure.step {
            "worker" => ExecError::NotRunning,
            "executions" => ExecError::TooMany { limit: Init::MAX_EXECUTIONS },
            "fork" | "exec" if is_exhausted => ExecError::Exhausted(failure),
            _ => ExecError::Failed { program, failure },
        };
        // It fails only if nobody waits for it any more.
        let _ = begun.map(|begun| begun.send(Err(error)));
    }

    /// A command's main process has ended.
    pub(crate) fn ended(&mut self, id: u32, status: ExitStatus) {
        if let Some(Running { ended, .. }) = self.running.remove(&id) {
            ended.send_replace(Some(status));
        }
    }

    pub(crate) fn signal(&self, init: &Init, id: u32, signal: Signal) {
        if self.running.contains_key(&id) {
            // It fails if init is gone, or has not read for so long that the worker is about to be killed for it.
            let _ = init.signal_execution(id, signal);
        }
    }

    /// Kills a command. Its end is told as any other.
    pub(crate) fn end(&mut self, init: &Init, id: u32) {
        if !self.running.contains_key(&id) {
            return;
        }
        if let Err(error) = init.end_execution(id)
            && error.kind() == io::ErrorKind::WouldBlock
        {
            self.to_end.push(id);
        }
    }

    /// Whether init is still to be told something.
    pub(crate) fn is_behind(&self) -> bool {
        !self.to_end.is_empty()
    }

    /// Tells it, if init has room for it now.
    pub(crate) fn catch_up(&mut self, init: &Init) {
        for id in std::mem::take(&mut self.to_end) {
            self.end(init, id);
        }
    }
}
