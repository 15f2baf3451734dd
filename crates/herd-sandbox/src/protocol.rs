//! What the launching process and its inits say to each other: one packet per message, the first byte tells which.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use crate::{
    Failure, Report, Signal, Usage,
    codec::{Decoder, Encoder, Malformed},
};

/// Both sides must be built from the same protocol. A helper binary may be older or newer than the launching program,
/// and a program on disk may be replaced while it runs.
pub(crate) const VERSION: u32 = 1;

/// The longest packet, in bytes. Plans are larger; they travel in a memory file.
pub(crate) const MAX_PACKET: usize = 8 * 1024;

/// How much of each of a failure's texts is sent, in bytes. Both together stay below the 4 KiB that any pipe holds.
const MAX_TEXT: usize = 1536;

/// From the launching process to init.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    /// Start the worker. The plan of this many bytes is in the first descriptor that comes with the packet.
    Plan { length: u64 },
    /// Send this signal to the worker's process group.
    Signal(Signal),
    /// Send this signal to the worker's process group, and kill the tree if the worker lives on after the grace.
    Stop { signal: Signal, grace: Duration },
    /// Kill the worker's tree now.
    Kill,
}

/// From init to the launching process.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// This process is an init and speaks this version.
    Hello { version: u32 },
    /// What became of the worker.
    Report(Report),
}

const PLAN: u8 = 1;
const SIGNAL: u8 = 2;
const STOP: u8 = 3;
const KILL: u8 = 4;

const HELLO: u8 = 1;
const READY: u8 = 2;
const FAILED: u8 = 3;
const EXITED: u8 = 4;

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        match self {
            Self::Plan { length } => {
                out.u8(PLAN);
                out.u64(*length);
            }
            Self::Signal(signal) => {
                out.u8(SIGNAL);
                out.i32(signal.number());
            }
            Self::Stop { signal, grace } => {
                out.u8(STOP);
                out.i32(signal.number());
                duration(&mut out, *grace);
            }
            Self::Kill => out.u8(KILL),
        }
        out.finish()
    }

    pub(crate) fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut packet = Decoder::new(packet);
        let request = match packet.u8()? {
            PLAN => Self::Plan { length: packet.u64()? },
            SIGNAL => Self::Signal(signal(&mut packet)?),
            STOP => Self::Stop { signal: signal(&mut packet)?, grace: Duration::from_nanos(packet.u64()?) },
            KILL => Self::Kill,
            _ => return Err(Malformed),
        };
        packet.finish()?;
        Ok(request)
    }
}

impl Reply {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        match self {
            Self::Hello { version } => {
                out.u8(HELLO);
                out.u32(*version);
            }
            Self::Report(Report::Ready { pid }) => {
                out.u8(READY);
                out.u32(*pid);
            }
            Self::Report(Report::Failed(Failure { step, errno, hint })) => {
                out.u8(FAILED);
                out.i32(errno.unwrap_or(0));
                out.bytes(shorten(step).as_bytes());
                out.bytes(shorten(hint).as_bytes());
            }
            Self::Report(Report::Exited { status, usage }) => {
                out.u8(EXITED);
                out.i32(status.into_raw());
                duration(&mut out, usage.user);
                duration(&mut out, usage.system);
                out.u64(usage.max_rss);
            }
        }
        out.finish()
    }

    pub(crate) fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut packet = Decoder::new(packet);
        let reply = match packet.u8()? {
            HELLO => Self::Hello { version: packet.u32()? },
            READY => Self::Report(Report::Ready { pid: packet.u32()? }),
            FAILED => Self::Report(Report::Failed(Failure {
                errno: Some(packet.i32()?).filter(|errno| *errno != 0),
                step: String::from_utf8_lossy(packet.bytes()?).into_owned(),
                hint: String::from_utf8_lossy(packet.bytes()?).into_owned(),
            })),
            EXITED => Self::Report(Report::Exited {
                status: ExitStatus::from_raw(packet.i32()?),
                usage: Usage {
                    user: Duration::from_nanos(packet.u64()?),
                    system: Duration::from_nanos(packet.u64()?),
                    max_rss: packet.u64()?,
                },
            }),
            _ => return Err(Malformed),
        };
        packet.finish()?;
        Ok(reply)
    }
}

fn signal(packet: &mut Decoder<'_>) -> Result<Signal, Malformed> {
    Signal::new(packet.i32()?).ok_or(Malformed)
}

/// In nanoseconds. A duration beyond 584 years becomes that.
fn duration(out: &mut Encoder, duration: Duration) {
    out.u64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
}

fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}
