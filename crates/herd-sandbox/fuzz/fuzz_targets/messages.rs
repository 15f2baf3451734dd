//! All decoders over the same bytes: `cargo +nightly fuzz run messages` in this crate's directory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| herd_sandbox::fuzzing::decode(bytes));
