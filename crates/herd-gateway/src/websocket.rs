//! As much of WebSocket (RFC 6455) as it takes to tell a client why its session ended.

use herd_pool::EndReason;

/// Follows the frames of one direction of a WebSocket connection, to know when one may be added.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Frames {
    /// The head of the frame that has begun, as far as it came.
    head: [u8; 14],
    head_len: usize,
    /// Bytes of payload to come.
    payload: u64,
    closed: bool,
}

impl Frames {
    /// Reads on.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = bytes.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
                self.payload -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head[self.head_len] = bytes[0];
            self.head_len += 1;
            bytes = &bytes[1..];
            if let Some(payload) = self.payload_len() {
                // A close frame has the opcode 8; after it, a peer sends nothing more.
                self.closed |= self.head[0] & 0x0f == 8;
                (self.payload, self.head_len) = (payload, 0);
            }
        }
    }

    /// Whether a control frame may be sent now: the last frame is complete, and it was not the goodbye.
    pub(crate) fn at_boundary(&self) -> bool {
        self.head_len == 0 && self.payload == 0 && !self.closed
    }

    /// The payload's length once the head is complete (RFC 6455 §5.2).
    fn payload_len(&self) -> Option<u64> {
        let head = &self.head[..self.head_len];
        let [_, second, rest @ ..] = head else { return None };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let (len_bytes, short) = match second & 0x7f {
            126 => (2, None),
            127 => (8, None),
            short => (0, Some(u64::from(short))),
        };
        if rest.len() < len_bytes + mask {
            return None;
        }
        let long = || rest[..len_bytes].iter().fold(0, |len, byte| len << 8 | u64::from(*byte));
        Some(short.unwrap_or_else(long))
    }
}

/// The close frame that tells a client why its session ended: a code that is private to herd, and the reason's name.
pub(crate) fn close_frame(reason: EndReason) -> Vec<u8> {
    let name = reason.name();
    let payload = u8::try_from(2 + name.len()).expect("reasons have short names");
    let mut frame = vec![0x88, payload];
    frame.extend_from_slice(&close_code(reason).to_be_bytes());
    frame.extend_from_slice(name.as_bytes());
    frame
}

/// The WebSocket close code with which a client is told that its session ended.
///
/// | code | reason |
/// | --- | --- |
/// | 4000 | released |
/// | 4001 | idle |
/// | 4002 | max-lifetime |
/// | 4003 | evicted |
/// | 4004 | killed |
/// | 4005 | crashed |
/// | 4006 | out-of-memory |
/// | 4007 | unhealthy |
/// | 4008 | client-stream-closed |
/// | 4009 | drained |
/// | 4010 | shutdown |
///
/// They lie in the range that RFC 6455 §7.4.2 leaves to private use. The frame's text is the reason's name.
#[must_use]
pub fn close_code(reason: EndReason) -> u16 {
    match reason {
        EndReason::Released => 4000,
        EndReason::Idle => 4001,
        EndReason::MaxLifetime => 4002,
        EndReason::Evicted => 4003,
        EndReason::Killed => 4004,
        EndReason::Crashed(_) => 4005,
        EndReason::OutOfMemory => 4006,
        EndReason::Unhealthy => 4007,
        EndReason::ClientStreamClosed => 4008,
        EndReason::Drained => 4009,
        EndReason::Shutdown => 4010,
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
