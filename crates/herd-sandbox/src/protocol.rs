//! What the launching process and its inits say to each other: one packet per message, the first byte tells which.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use crate::{
    Failure, Report, Signal, Usage,
    codec::{Decoder, Encoder, Malformed},
};

/// Both sides must be built from the same protocol. A helper binary may be older or newer than the launching program,
/// and a program on disk may be replaced while it runs.
pub(crate) const VERSION: u32 = 3;

/// The longest packet, in bytes. Plans are larger; they travel in a memory file.
pub(crate) const MAX_PACKET: usize = 8 * 1024;

/// How much of each of a failure's texts is sent, in bytes. Both together stay below the 4 KiB that any pipe holds.
const MAX_TEXT: usize = 1536;

/// From the launching process to init.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    /// Start the worker. The plan of this many bytes, of this version, is in the first descriptor that comes with the
    /// packet; the others are the worker's standard output, its standard error, its cgroup's directory if the plan
    /// has one, and its listening sockets.
    Plan { version: u32, length: u64 },
    /// Send this signal to the worker's process group.
    Signal(Signal),
    /// Send this signal to the worker's process group, and kill the tree if the worker lives on after the grace.
    Stop { signal: Signal, grace: Duration },
    /// Kill the worker's tree now.
    Kill,
    /// Make this many TCP sockets in the worker's network namespace, for IPv6 or for IPv4.
    Sockets { count: u8, v6: bool },
    /// Run a further command in the worker's sandbox, of this number. Its plan of this many bytes is in the first
    /// descriptor that comes with the packet; the others are its standard streams, unless it gets a terminal.
    Execute { id: u32, length: u64 },
    /// Send this signal to that command's process group.
    SignalExecution { id: u32, signal: Signal },
    /// Kill that command.
    EndExecution { id: u32 },
}

/// From init to the launching process.
#[derive(Debug)]
pub(crate) enum Reply {
    /// This process is an init and speaks this version.
    Hello { version: u32 },
    /// Init goes on as another process, a child of the launching process with this number.
    Moved { pid: u32 },
    /// Who sends this is the worker's process: its number is among the credentials that come with the packet.
    Announced,
    /// The sockets that were asked for are with the packet; fewer than that if there was this error.
    Sockets { errno: i32 },
    /// Who sends this is in the worker's router; the sockets on which names are asked for there are with the packet, for
    /// datagrams and for streams.
    Router,
    /// Who sends this is the process of a further command, of this number; this side of its terminal is with the packet
    /// if it has one.
    Begun { id: u32 },
    /// That command's program runs.
    Executed { id: u32 },
    /// What became of the worker, or of a further command.
    Report(Report),
}

const PLAN: u8 = 1;
const SIGNAL: u8 = 2;
const STOP: u8 = 3;
const KILL: u8 = 4;
const SOCKETS: u8 = 5;
const EXECUTE: u8 = 6;
const SIGNAL_EXECUTION: u8 = 7;
const END_EXECUTION: u8 = 8;

const HELLO: u8 = 1;
const READY: u8 = 2;
const FAILED: u8 = 3;
const EXITED: u8 = 4;
const MOVED: u8 = 5;
const ANNOUNCED: u8 = 6;
const SOCKETS_MADE: u8 = 7;
const ROUTER: u8 = 8;
const BEGUN: u8 = 9;
const EXECUTED: u8 = 10;
const EXECUTION_FAILED: u8 = 11;
const EXECUTION_ENDED: u8 = 12;

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        match self {
            Self::Plan { version, length } => {
                out.u8(PLAN);
                out.u32(*version);
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
            Self::Sockets { count, v6 } => {
                out.u8(SOCKETS);
                out.u8(*count);
                out.bool(*v6);
            }
            Self::Execute { id, length } => {
                out.u8(EXECUTE);
                out.u32(*id);
                out.u64(*length);
            }
            Self::SignalExecution { id, signal } => {
                out.u8(SIGNAL_EXECUTION);
                out.u32(*id);
                out.i32(signal.number());
            }
            Self::EndExecution { id } => {
                out.u8(END_EXECUTION);
                out.u32(*id);
            }
        }
        out.finish()
    }

    pub(crate) fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut packet = Decoder::new(packet);
        let request = match packet.u8()? {
            PLAN => Self::Plan { version: packet.u32()?, length: packet.u64()? },
            SIGNAL => Self::Signal(signal(&mut packet)?),
            STOP => Self::Stop { signal: signal(&mut packet)?, grace: Duration::from_nanos(packet.u64()?) },
            KILL => Self::Kill,
            SOCKETS => Self::Sockets { count: packet.u8()?, v6: packet.bool()? },
            EXECUTE => Self::Execute { id: packet.u32()?, length: packet.u64()? },
            SIGNAL_EXECUTION => Self::SignalExecution { id: packet.u32()?, signal: signal(&mut packet)? },
            END_EXECUTION => Self::EndExecution { id: packet.u32()? },
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
            Self::Moved { pid } => {
                out.u8(MOVED);
                out.u32(*pid);
            }
            Self::Announced => out.u8(ANNOUNCED),
            Self::Sockets { errno } => {
                out.u8(SOCKETS_MADE);
                out.i32(*errno);
            }
            Self::Report(Report::Ready { pid }) => {
                out.u8(READY);
                out.u32(*pid);
            }
            Self::Report(Report::Failed(reason)) => {
                out.u8(FAILED);
                failure(&mut out, reason);
            }
            Self::Report(Report::Exited { status, usage }) => {
                out.u8(EXITED);
                out.i32(status.into_raw());
                duration(&mut out, usage.user);
                duration(&mut out, usage.system);
                out.u64(usage.max_rss);
            }
            Self::Begun { id } => {
                out.u8(BEGUN);
                out.u32(*id);
            }
            // Init tells it without the number and the terminal, which the command's own process has told.
            Self::Executed { id } | Self::Report(Report::Executed { id, .. }) => {
                out.u8(EXECUTED);
                out.u32(*id);
            }
            Self::Report(Report::ExecutionFailed { id, failure: reason }) => {
                out.u8(EXECUTION_FAILED);
                out.u32(*id);
                failure(&mut out, reason);
            }
            Self::Report(Report::ExecutionEnded { id, status }) => {
                out.u8(EXECUTION_ENDED);
                out.u32(*id);
                out.i32(status.into_raw());
            }
            // Sent without the descriptors, which are no part of the message.
            Self::Router | Self::Report(Report::Router { .. }) => out.u8(ROUTER),
            Self::Report(Report::Sockets { errno, .. }) => {
                out.u8(SOCKETS_MADE);
                out.i32(errno.unwrap_or(0));
            }
        }
        out.finish()
    }

    pub(crate) fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut packet = Decoder::new(packet);
        let reply = match packet.u8()? {
            HELLO => Self::Hello { version: packet.u32()? },
            MOVED => Self::Moved { pid: packet.u32()? },
            ANNOUNCED => Self::Announced,
            ROUTER => Self::Router,
            SOCKETS_MADE => Self::Sockets { errno: packet.i32()? },
            READY => Self::Report(Report::Ready { pid: packet.u32()? }),
            FAILED => Self::Report(Report::Failed(read_failure(&mut packet)?)),
            BEGUN => Self::Begun { id: packet.u32()? },
            EXECUTED => Self::Executed { id: packet.u32()? },
            EXECUTION_FAILED => {
                Self::Report(Report::ExecutionFailed { id: packet.u32()?, failure: read_failure(&mut packet)? })
            }
            EXECUTION_ENDED => {
                Self::Report(Report::ExecutionEnded { id: packet.u32()?, status: ExitStatus::from_raw(packet.i32()?) })
            }
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

fn failure(out: &mut Encoder, Failure { step, errno, hint }: &Failure) {
    out.i32(errno.unwrap_or(0));
    out.bytes(shorten(step).as_bytes());
    out.bytes(shorten(hint).as_bytes());
}

fn read_failure(packet: &mut Decoder<'_>) -> Result<Failure, Malformed> {
    Ok(Failure {
        errno: Some(packet.i32()?).filter(|errno| *errno != 0),
        step: String::from_utf8_lossy(packet.bytes()?).into_owned(),
        hint: String::from_utf8_lossy(packet.bytes()?).into_owned(),
    })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requests() -> impl Strategy<Value = Request> {
        let signal = || (1..=64).prop_filter_map("a signal", Signal::new);
        prop_oneof![
            any::<(u32, u64)>().prop_map(|(version, length)| Request::Plan { version, length }),
            signal().prop_map(Request::Signal),
            (signal(), any::<u64>())
                .prop_map(|(signal, nanos)| Request::Stop { signal, grace: Duration::from_nanos(nanos) }),
            Just(Request::Kill),
            any::<(u8, bool)>().prop_map(|(count, v6)| Request::Sockets { count, v6 }),
            any::<(u32, u64)>().prop_map(|(id, length)| Request::Execute { id, length }),
            (any::<u32>(), signal()).prop_map(|(id, signal)| Request::SignalExecution { id, signal }),
            any::<u32>().prop_map(|id| Request::EndExecution { id }),
        ]
    }

    fn replies() -> impl Strategy<Value = Reply> {
        let report = prop_oneof![
            any::<u32>().prop_map(|pid| Report::Ready { pid }),
            (".{0,40}", 1..200, ".{0,4000}").prop_map(|(step, errno, hint)| Report::Failed(Failure {
                step,
                errno: Some(errno),
                hint
            })),
            (any::<i32>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(status, user, system, max_rss)| {
                let usage = Usage { user: Duration::from_nanos(user), system: Duration::from_nanos(system), max_rss };
                Report::Exited { status: ExitStatus::from_raw(status), usage }
            }),
            (any::<u32>(), ".{0,40}", 1..200, ".{0,4000}").prop_map(|(id, step, errno, hint)| {
                Report::ExecutionFailed { id, failure: Failure { step, errno: Some(errno), hint } }
            }),
            any::<(u32, i32)>()
                .prop_map(|(id, status)| Report::ExecutionEnded { id, status: ExitStatus::from_raw(status) }),
        ];
        prop_oneof![
            any::<u32>().prop_map(|version| Reply::Hello { version }),
            any::<u32>().prop_map(|pid| Reply::Moved { pid }),
            Just(()).prop_map(|()| Reply::Announced),
            Just(()).prop_map(|()| Reply::Router),
            any::<i32>().prop_map(|errno| Reply::Sockets { errno }),
            any::<u32>().prop_map(|id| Reply::Begun { id }),
            any::<u32>().prop_map(|id| Reply::Executed { id }),
            report.prop_map(Reply::Report),
        ]
    }

    proptest! {
        #[test]
        fn requests_arrive_as_they_were_sent(request in requests()) {
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }

        #[test]
        fn replies_arrive_as_they_were_sent(reply in replies()) {
            let mut sent = reply;
            let report = if let Reply::Report(report) = &mut sent { Some(report) } else { None };
            if let Some(Report::Failed(failure) | Report::ExecutionFailed { failure, .. }) = report {
                failure.hint.truncate(failure.hint.floor_char_boundary(MAX_TEXT));
            }
            let received = Reply::decode(&sent.encode());
            prop_assert_eq!(format!("{:?}", received), format!("{:?}", Ok::<_, Malformed>(sent)));
        }

        #[test]
        fn every_packet_fits(reply in replies()) {
            prop_assert!(reply.encode().len() <= MAX_PACKET);
            // What the worker's process says of its start goes through a pipe, in one piece.
            prop_assert!(reply.encode().len() <= libc::PIPE_BUF);
        }

        #[test]
        fn a_packet_that_is_cut_or_too_long_is_malformed(request in requests(), reply in replies()) {
            let packet = request.encode();
            for length in 0..packet.len() {
                prop_assert_eq!(Request::decode(&packet[..length]), Err(Malformed));
            }
            prop_assert_eq!(Request::decode(&[packet, vec![0]].concat()), Err(Malformed));
            let packet = reply.encode();
            for length in 0..packet.len() {
                prop_assert!(Reply::decode(&packet[..length]).is_err());
            }
            prop_assert!(Reply::decode(&[packet, vec![0]].concat()).is_err());
        }

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 0..=EXECUTION_ENDED) {
            let _ = (Request::decode(&bytes), Reply::decode(&bytes));
            // Again with a beginning that leads further in.
            let bytes = [vec![tag], bytes].concat();
            let _ = (Request::decode(&bytes), Reply::decode(&bytes));
        }
    }
}
