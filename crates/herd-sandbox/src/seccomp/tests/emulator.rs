//! Runs filters as the kernel would, so that every call with any arguments can be asked about without making it.

use super::super::table;

/// What a filter sees of a call: `struct seccomp_data` in seccomp(2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) architecture: u32,
    pub(super) arguments: [u64; 6],
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    Carried,
    Fails(i32),
}

/// This architecture's name in a filter, from linux/audit.h.
pub(super) const NATIVE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };

impl Call {
    pub(super) fn new(name: &str, arguments: &[u64]) -> Self {
        let number = table::number(name).unwrap_or_else(|| panic!("{name} is no call here"));
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        Self { number, architecture: NATIVE, arguments: all }
    }

    /// Under these filters, of which the last is run first, and the first of equal outcomes counts.
    pub(super) fn outcome(&self, filters: &[Vec<u8>]) -> Outcome {
        let outcomes = filters.iter().rev().map(|filter| self.run(filter));
        outcomes.reduce(|first, next| if first == Outcome::Carried { next } else { first }).unwrap_or(Outcome::Carried)
    }

    fn run(&self, filter: &[u8]) -> Outcome {
        let (instructions, []) = filter.as_chunks::<8>() else { panic!("half an instruction") };
        let mut accumulator = 0;
        let mut next = 0;
        // Jumps lead forwards only, so this ends.
        loop {
            let [code_0, code_1, jt, jf, k @ ..] = instructions[next];
            let (code, k) = (u32::from(u16::from_ne_bytes([code_0, code_1])), u32::from_ne_bytes(k));
            next += 1;
            let mut branch = |taken: bool| next += usize::from(if taken { jt } else { jf });
            const JUMP: u32 = libc::BPF_JMP | libc::BPF_K;
            const JUMP_ALWAYS: u32 = libc::BPF_JMP | libc::BPF_JA;
            const JUMP_EQUAL: u32 = JUMP | libc::BPF_JEQ;
            const JUMP_GREATER: u32 = JUMP | libc::BPF_JGT;
            const JUMP_GREATER_EQUAL: u32 = JUMP | libc::BPF_JGE;
            const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
            const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
            const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
            match code {
                LOAD => accumulator = self.word(k),
                AND => accumulator &= k,
                JUMP_ALWAYS => next += usize::try_from(k).expect("a small distance"),
                JUMP_EQUAL => branch(accumulator == k),
                JUMP_GREATER => branch(accumulator > k),
                JUMP_GREATER_EQUAL => branch(accumulator >= k),
                RETURN if k == libc::SECCOMP_RET_ALLOW => return Outcome::Carried,
                RETURN if k & !libc::SECCOMP_RET_DATA == libc::SECCOMP_RET_ERRNO => {
                    return Outcome::Fails((k & libc::SECCOMP_RET_DATA).cast_signed());
                }
                _ => panic!("instruction {code:#x} {k:#x}"),
            }
        }
    }

    fn word(&self, offset: u32) -> u32 {
        let halves = self.arguments.iter().flat_map(|argument| [*argument as u32, (argument >> 32) as u32]);
        let words: Vec<u32> = [self.number, self.architecture, 0, 0].into_iter().chain(halves).collect();
        assert!(offset.is_multiple_of(4), "the kernel takes no such filter");
        words[usize::try_from(offset / 4).expect("a small number")]
    }
}
