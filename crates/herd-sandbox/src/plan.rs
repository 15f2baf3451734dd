//! What init does in the worker's process between fork and exec, in order, as pure data.
//!
//! This file is the one place that decides the order; each step carries its reason.

use std::{
    borrow::Cow,
    ffi::{CStr, CString, NulError, OsStr},
    os::unix::ffi::OsStrExt,
};

use crate::{
    Limit, Spec, SpecError,
    codec::{Decoder, Encoder, Malformed},
};

/// The steps from a fresh child of init to the worker's program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Plan<'a> {
    pub(crate) steps: Vec<Step<'a>>,
}

/// One step. Texts are borrowed from the received plan in init, so that no copy of a secret stays there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Step<'a> {
    /// A new session and process group, without a terminal.
    Session,
    /// The worker's main process dies with init.
    ParentDeath,
    /// Standard streams, then this many listening sockets, then nothing.
    Descriptors { listen: u32 },
    /// The working directory.
    Directory(Cow<'a, CStr>),
    /// The file mode creation mask.
    Umask(u32),
    /// A limit of the process, soft and hard.
    Limit(Limit, u64),
    /// The number of open files, soft and hard.
    OpenFiles(u64),
    /// No program that it starts gains privileges.
    NoNewPrivileges,
    /// Default dispositions, nothing blocked.
    Signals,
    /// The program.
    Execute { program: Cow<'a, CStr>, args: Vec<Cow<'a, CStr>>, env: Vec<Cow<'a, CStr>>, listen: u32 },
}

impl Plan<'static> {
    /// Decides the steps and their order.
    pub(crate) fn new(spec: &Spec) -> Result<Self, SpecError> {
        spec.validate()?;
        let cwd = match &spec.cwd {
            Some(cwd) => cwd.clone(),
            None => std::env::current_dir().map_err(|error| SpecError::NoDirectory { reason: error.to_string() })?,
        };
        let listen = u32::try_from(spec.listen.len()).unwrap_or(u32::MAX);

        let mut steps = vec![
            // First of all, so that from its first moment no signal to init's group or from a terminal reaches it, and
            // all that it starts can be found by its session.
            Step::Session,
            // Early, so that a death of init during the steps below is noticed.
            Step::ParentDeath,
            // Before the limits: a low limit of open files would forbid the numbers that descriptors pass through.
            Step::Descriptors { listen },
            Step::Directory(c_string("the working directory", cwd.as_os_str())?),
            Step::Umask(spec.umask),
            // Late, so that they bind the worker and not these steps.
            Step::OpenFiles(spec.open_files),
        ];
        steps.extend(spec.limits.iter().map(|(limit, value)| Step::Limit(*limit, *value)));
        // After all that may need privileges.
        steps.push(Step::NoNewPrivileges);
        // Up to here all signals are blocked, so none of init's ignored ones is lost or handled by init's code.
        steps.push(Step::Signals);
        // Last: there is no code of ours after it.
        steps.push(Step::Execute {
            program: c_string("the program", &spec.program)?,
            args: spec.args.iter().map(|arg| c_string("an argument", arg)).collect::<Result<_, _>>()?,
            env: spec.env.iter().map(|(name, value)| variable(name, value)).collect::<Result<_, _>>()?,
            listen,
        });
        Ok(Self { steps })
    }
}

impl<'a> Plan<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.length(self.steps.len());
        for step in &self.steps {
            step.encode(&mut out);
        }
        out.finish()
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut bytes = Decoder::new(bytes);
        let steps = (0..bytes.length()?).map(|_| Step::decode(&mut bytes)).collect::<Result<_, _>>()?;
        bytes.finish()?;
        Ok(Self { steps })
    }
}

const SESSION: u8 = 1;
const PARENT_DEATH: u8 = 2;
const DESCRIPTORS: u8 = 3;
const DIRECTORY: u8 = 4;
const UMASK: u8 = 5;
const LIMIT: u8 = 6;
const OPEN_FILES: u8 = 7;
const NO_NEW_PRIVILEGES: u8 = 8;
const SIGNALS: u8 = 9;
const EXECUTE: u8 = 10;

impl<'a> Step<'a> {
    /// How reports call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::ParentDeath => "parent death signal",
            Self::Descriptors { .. } => "descriptors",
            Self::Directory(_) => "working directory",
            Self::Umask(_) => "umask",
            Self::Limit(..) => "limit",
            Self::OpenFiles(_) => "open files",
            Self::NoNewPrivileges => "no new privileges",
            Self::Signals => "signals",
            Self::Execute { .. } => "exec",
        }
    }

    fn encode(&self, out: &mut Encoder) {
        match self {
            Self::Session => out.u8(SESSION),
            Self::ParentDeath => out.u8(PARENT_DEATH),
            Self::Descriptors { listen } => {
                out.u8(DESCRIPTORS);
                out.u32(*listen);
            }
            Self::Directory(path) => {
                out.u8(DIRECTORY);
                out.c_string(path);
            }
            Self::Umask(mask) => {
                out.u8(UMASK);
                out.u32(*mask);
            }
            Self::Limit(limit, value) => {
                out.u8(LIMIT);
                out.u8(limit_code(*limit));
                out.u64(*value);
            }
            Self::OpenFiles(value) => {
                out.u8(OPEN_FILES);
                out.u64(*value);
            }
            Self::NoNewPrivileges => out.u8(NO_NEW_PRIVILEGES),
            Self::Signals => out.u8(SIGNALS),
            Self::Execute { program, args, env, listen } => {
                out.u8(EXECUTE);
                out.c_string(program);
                for list in [args, env] {
                    out.length(list.len());
                    list.iter().for_each(|text| out.c_string(text));
                }
                out.u32(*listen);
            }
        }
    }

    fn decode(bytes: &mut Decoder<'a>) -> Result<Self, Malformed> {
        Ok(match bytes.u8()? {
            SESSION => Self::Session,
            PARENT_DEATH => Self::ParentDeath,
            DESCRIPTORS => Self::Descriptors { listen: bytes.u32()? },
            DIRECTORY => Self::Directory(Cow::Borrowed(bytes.c_string()?)),
            UMASK => Self::Umask(bytes.u32()?),
            LIMIT => Self::Limit(limit_from_code(bytes.u8()?)?, bytes.u64()?),
            OPEN_FILES => Self::OpenFiles(bytes.u64()?),
            NO_NEW_PRIVILEGES => Self::NoNewPrivileges,
            SIGNALS => Self::Signals,
            EXECUTE => Self::Execute {
                program: Cow::Borrowed(bytes.c_string()?),
                args: c_strings(bytes)?,
                env: c_strings(bytes)?,
                listen: bytes.u32()?,
            },
            _ => return Err(Malformed),
        })
    }
}

const LIMITS: &[(Limit, u8)] = &[
    (Limit::AddressSpace, 1),
    (Limit::CoreDump, 2),
    (Limit::CpuTime, 3),
    (Limit::Data, 4),
    (Limit::FileSize, 5),
    (Limit::LockedMemory, 6),
    (Limit::Processes, 7),
    (Limit::Stack, 8),
];

fn limit_code(limit: Limit) -> u8 {
    match limit {
        Limit::AddressSpace => 1,
        Limit::CoreDump => 2,
        Limit::CpuTime => 3,
        Limit::Data => 4,
        Limit::FileSize => 5,
        Limit::LockedMemory => 6,
        Limit::Processes => 7,
        Limit::Stack => 8,
    }
}

fn limit_from_code(code: u8) -> Result<Limit, Malformed> {
    LIMITS.iter().find(|(_, known)| *known == code).map(|(limit, _)| *limit).ok_or(Malformed)
}

fn c_strings<'a>(bytes: &mut Decoder<'a>) -> Result<Vec<Cow<'a, CStr>>, Malformed> {
    (0..bytes.length()?).map(|_| bytes.c_string().map(Cow::Borrowed)).collect()
}

fn c_string(field: &str, text: &OsStr) -> Result<Cow<'static, CStr>, SpecError> {
    CString::new(text.as_bytes()).map(Cow::Owned).map_err(|error| nul_byte(field, &error))
}

fn variable(name: &OsStr, value: &OsStr) -> Result<Cow<'static, CStr>, SpecError> {
    let text = [name.as_bytes(), b"=", value.as_bytes()].concat();
    CString::new(text).map(Cow::Owned).map_err(|error| nul_byte("an environment variable", &error))
}

fn nul_byte(field: &str, _: &NulError) -> SpecError {
    SpecError::NulByte { field: field.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use proptest::prelude::*;

    use super::*;

    fn full_spec() -> Spec {
        let mut spec = Spec::new("program");
        spec.args = vec!["one".into(), "".into()];
        spec.env = vec![("NAME".into(), "value".into()), ("EMPTY".into(), "".into())];
        spec.cwd = Some("/directory".into());
        spec.limits.push((Limit::Stack, u64::MAX));
        spec.listen = vec![File::open("/dev/null").unwrap().into()];
        spec
    }

    #[test]
    fn the_order_of_steps_is_this() {
        let plan = Plan::new(&full_spec()).unwrap();
        let steps: Vec<String> = plan.steps.iter().map(|step| format!("{}: {step:?}", step.name())).collect();
        assert_eq!(
            steps,
            [
                "session: Session",
                "parent death signal: ParentDeath",
                "descriptors: Descriptors { listen: 1 }",
                "working directory: Directory(\"/directory\")",
                "umask: Umask(63)",
                "open files: OpenFiles(4096)",
                "limit: Limit(CoreDump, 0)",
                "limit: Limit(Stack, 18446744073709551615)",
                "no new privileges: NoNewPrivileges",
                "signals: Signals",
                "exec: Execute { program: \"program\", args: [\"one\", \"\"], env: [\"NAME=value\", \"EMPTY=\"], listen: 1 }",
            ]
        );
    }

    #[test]
    fn a_plan_arrives_as_it_was_sent() {
        let plan = Plan::new(&full_spec()).unwrap();
        assert_eq!(Plan::decode(&plan.encode()), Ok(plan));
    }

    #[test]
    fn every_limit_arrives_as_it_was_sent() {
        for (limit, code) in LIMITS {
            assert_eq!((limit_code(*limit), limit_from_code(*code)), (*code, Ok(*limit)));
        }
        assert_eq!(limit_from_code(0), Err(Malformed));
    }

    #[test]
    fn a_plan_that_is_cut_or_too_long_is_malformed() {
        let bytes = Plan::new(&full_spec()).unwrap().encode();
        for length in 0..bytes.len() {
            assert_eq!(Plan::decode(&bytes[..length]), Err(Malformed), "{length}");
        }
        assert_eq!(Plan::decode(&[bytes, vec![0]].concat()), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_spec_that_is_valid_arrives(
            program in "[^\\x00]{1,20}",
            args in prop::collection::vec("[^\\x00]{0,20}", 0..5),
            env in prop::collection::hash_map("[^=\\x00]{1,8}", "[^\\x00]{0,20}", 0..5),
        ) {
            let mut spec = Spec::new(program);
            spec.args = args.into_iter().map(Into::into).collect();
            spec.env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            let plan = Plan::new(&spec).unwrap();
            let bytes = plan.encode();
            prop_assert_eq!(Plan::decode(&bytes), Ok(plan));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Plan::decode(&bytes);
        }

        /// Bytes that are nearly right lead further in than random ones.
        #[test]
        fn no_change_makes_the_decoder_panic(changes in prop::collection::vec(any::<(usize, u8)>(), 1..4)) {
            let mut bytes = Plan::new(&full_spec()).unwrap().encode();
            for (place, value) in changes {
                let length = bytes.len();
                bytes[place % length] = value;
            }
            let _ = Plan::decode(&bytes);
        }
    }
}
