use anyhow::Result;
use super::{proxy::Bench, report::{Aim, Section}};
pub(crate) fn measure(_: &Bench) -> Result<(Section, Vec<Aim>)> { anyhow::bail!("x") }
