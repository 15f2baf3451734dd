use herd_pool::ExitStatus;
use proptest::prelude::*;

use super::*;

/// A frame as RFC 6455 §5.2 lays it out.
fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        len @ 0..126 => frame.push(masked | len as u8),
        len @ 126..65536 => {
            frame.push(masked | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(masked | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(mask.as_ref().map_or(&[][..], |mask| mask));
    frame.extend_from_slice(payload);
    frame
}

proptest! {
    #[test]
    fn boundaries_are_found_wherever_the_stream_is_cut(
        messages in prop::collection::vec(
            (0_u8..8, prop_oneof![0_usize..130, 65_530_usize..65_540], prop::option::of(any::<[u8; 4]>())), 1..6),
        cuts in prop::collection::vec(1_usize..5000, 1..8),
    ) {
        let mut stream = Vec::new();
        let mut boundaries = vec![0];
        for (opcode, len, mask) in messages {
            stream.extend(frame(opcode, &vec![0x88; len], mask));
            boundaries.push(stream.len());
        }
        let (mut frames, mut at) = (Frames::default(), 0);
        for cut in cuts.iter().cycle() {
            prop_assert_eq!(frames.at_boundary(), boundaries.contains(&at), "at {}", at);
            if at == stream.len() {
                break;
            }
            let end = stream.len().min(at + cut);
            frames.read(&stream[at..end]);
            at = end;
        }
    }

    #[test]
    fn no_bytes_whatever_make_the_tracker_fail(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..32)) {
        let mut whole = Frames::default();
        whole.read(&chunks.concat());
        let mut split = Frames::default();
        for chunk in &chunks {
            split.read(chunk);
        }
        prop_assert_eq!(whole, split);
    }
}

#[test]
fn nothing_may_follow_a_close_frame() {
    let mut frames = Frames::default();
    frames.read(&frame(1, b"hi", None));
    assert!(frames.at_boundary());
    frames.read(&frame(8, &[3, 232], None));
    assert!(!frames.at_boundary());
}

#[test]
fn the_longest_length_there_is_does_not_overflow() {
    let mut frames = Frames::default();
    frames.read(&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
    assert!(!frames.at_boundary());
}

#[test]
fn a_goodbye_is_one_unmasked_close_frame_with_the_reason() {
    let goodbye = close_frame(EndReason::Crashed(ExitStatus::Signal(11)));
    assert_eq!(goodbye, frame(8, b"\x0f\xa5crashed", None));
    let mut frames = Frames::default();
    frames.read(&goodbye);
    assert!(frames.closed);
}

#[test]
fn every_reason_has_a_code_of_its_own_in_the_private_range() {
    let reasons = [
        EndReason::Released,
        EndReason::Idle,
        EndReason::MaxLifetime,
        EndReason::Evicted,
        EndReason::Killed,
        EndReason::Crashed(ExitStatus::Code(1)),
        EndReason::OutOfMemory,
        EndReason::Unhealthy,
        EndReason::ClientStreamClosed,
        EndReason::Drained,
        EndReason::Shutdown,
    ];
    for (number, reason) in reasons.into_iter().enumerate() {
        assert_eq!(usize::from(close_code(reason)), 4000 + number);
    }
}
