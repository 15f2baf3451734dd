//! `cargo xtask proto`: generates the control plane's code from its schema.
//!
//! What is generated is committed, so that whoever builds herd needs neither a compiler of schemas nor what it takes to
//! build one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The schema, and beside it what is generated from it.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/herd/proto")
}

/// Generates everything anew.
///
/// # Errors
/// If the schema has mistakes, or the files cannot be written.
pub(crate) fn generate() -> Result<()> {
    generate_into(&directory())
}

/// Makes `herd.v1.rs`, the messages and the service, and `herd.v1.bin`, the descriptor set with its comments that
/// reflection answers from.
fn generate_into(output: &Path) -> Result<()> {
    let schema = directory();
    let mut compiler = protox::Compiler::new([&schema])?;
    compiler.include_imports(true).include_source_info(true).open_file("herd.proto")?;
    let descriptors = output.join("herd.v1.bin");
    std::fs::write(&descriptors, compiler.encode_file_descriptor_set())
        .with_context(|| format!("cannot write {}", descriptors.display()))?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .out_dir(output)
        .compile_fds(compiler.file_descriptor_set())
        .context("cannot generate code from the schema")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_committed_is_what_the_schema_generates() {
        let anew = tempfile::tempdir().unwrap();
        generate_into(anew.path()).unwrap();
        let mut compared = 0;
        for file in fs::read_dir(anew.path()).unwrap() {
            let file = file.unwrap();
            let committed = directory().join(file.file_name());
            assert!(
                fs::read(&committed).ok() == Some(fs::read(file.path()).unwrap()),
                "{} is not what the schema generates; run: cargo xtask proto",
                committed.display()
            );
            compared += 1;
        }
        assert_eq!(compared, 2, "the code and the descriptor set");
    }
}
