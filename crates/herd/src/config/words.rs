//! The words that stand for choices, each with what it means. The schema lists them as they are here.

use super::{
    settings::{
        IdleBy, JwtAlgorithm, Listen, LogFormat, LogLevel, NetworkMode, SandboxMode, Seccomp, WhenFull, Workspace,
    },
    value::Word,
};

impl Word for JwtAlgorithm {
    const WORDS: &'static [(&'static str, Self)] =
        &[("HS256", Self::Hs256), ("EdDSA", Self::EdDsa), ("RS256", Self::Rs256)];
}

impl Word for Listen {
    const WORDS: &'static [(&'static str, Self)] =
        &[("port", Self::Port), ("socket", Self::Socket), ("inherit", Self::Inherit)];
}

impl Word for IdleBy {
    const WORDS: &'static [(&'static str, Self)] = &[("lease", Self::Lease), ("bytes", Self::Bytes)];
}

impl Word for WhenFull {
    const WORDS: &'static [(&'static str, Self)] = &[("wait", Self::Wait), ("evict-idle", Self::EvictIdle)];
}

impl Word for SandboxMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("required", Self::Required), ("best-effort", Self::BestEffort), ("off", Self::Off)];
}

impl Word for NetworkMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("private", Self::Private), ("host", Self::Host), ("egress", Self::Egress)];
}

impl Word for Seccomp {
    const WORDS: &'static [(&'static str, Self)] =
        &[("default", Self::Default), ("browser", Self::Browser), ("off", Self::Off)];
}

impl Word for Workspace {
    const WORDS: &'static [(&'static str, Self)] = &[("ephemeral", Self::Ephemeral), ("persistent", Self::Persistent)];
}

impl Word for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("json", Self::Json), ("text", Self::Text)];
}

impl Word for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}
