//! WebSocket frames (RFC 6455 §5.2), as far as an echo needs them.

use anyhow::{Result, ensure};

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// The sample nonce of RFC 6455 §1.3 and what it must be answered with. The client of this benchmark always sends it,
/// so that neither side needs SHA-1.
pub(crate) const NONCE: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzhZRbK+xOo=";

const LARGEST: usize = 1 << 20;

/// One frame at the start of some bytes.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
    /// How many bytes it took, header included.
    pub(crate) length: usize,
}

/// Reads the frame at the start of `bytes`; `None` if it is not complete yet.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<Frame>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (payload, rest) = match (second & 0x7f, rest) {
        (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
        (126, _) => return Ok(None),
        (127, rest) => {
            let Some((size, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (usize::try_from(u64::from_be_bytes(*size))?, rest)
        }
        (short, rest) => (usize::from(short), rest),
    };
    ensure!(payload <= LARGEST, "a frame of {payload} bytes is more than this benchmark sends");
    ensure!(first & 0x80 != 0, "this benchmark sends no fragments");
    let (mask, rest) = match second & 0x80 {
        0 => ([0; 4], rest),
        _ => match rest.split_first_chunk() {
            Some((mask, rest)) => (*mask, rest),
            None => return Ok(None),
        },
    };
    let Some(masked) = rest.get(..payload) else { return Ok(None) };
    let length = bytes.len() - rest.len() + payload;
    let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    Ok(Some(Frame { opcode: first & 0x0f, payload, length }))
}

/// Appends a frame to `out`; a client's frames must be masked, a server's must not.
pub(crate) fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) {
    out.push(0x80 | opcode);
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        len @ 0..126 => out.push(masked | u8::try_from(len).expect("it is below 126")),
        len => match u16::try_from(len) {
            Ok(len) => {
                out.push(masked | 126);
                out.extend_from_slice(&len.to_be_bytes());
            }
            Err(_) => {
                out.push(masked | 127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        },
    }
    match mask {
        None => out.extend_from_slice(payload),
        Some(mask) => {
            out.extend_from_slice(&mask);
            out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_once_it_is_complete() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let payload: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
                let mut bytes = Vec::new();
                write(&mut bytes, TEXT, &payload, mask);
                assert!(read(&bytes[..bytes.len() - 1]).unwrap().is_none(), "{len}");
                bytes.push(0xff);
                let frame = read(&bytes).unwrap().unwrap();
                assert_eq!((frame.opcode, frame.length), (TEXT, bytes.len() - 1));
                assert_eq!(frame.payload, payload);
            }
        }
    }
}
