//! `SECURITY.md` says what these tests show, no more and no less.

use std::{fs, path::PathBuf};

use libtest_mimic::Failed;

use crate::table::DEEDS;

const BEGIN: &str = "<!-- The table of deeds, as crates/herd-sandbox/tests/deeds/table.rs has it. -->\n";
const END: &str = "<!-- End of the table. -->\n";

/// The lines of the table are those of [`DEEDS`].
pub(crate) fn shows_the_table() -> Result<(), Failed> {
    let document = document();
    let table = document.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let (table, _) = table.ok_or_else(|| format!("no table between {BEGIN:?} and {END:?}"))?;
    let expected = table_of_deeds();
    if table.trim() == expected.trim() {
        return Ok(());
    }
    Err(format!("SECURITY.md has another table. This is the right one:\n{expected}").into())
}

fn table_of_deeds() -> String {
    let mut text = String::from("| deed | what it tries | what stops it | tried as |\n| --- | --- | --- | --- |\n");
    for deed in DEEDS {
        let places: Vec<_> = deed.places().iter().map(|(name, _)| *name).collect();
        let (name, tries, stopped_by) = (deed.name, deed.tries, deed.stopped_by);
        text += &format!("| `{name}` | {tries} | {stopped_by} | {} |\n", places.join(", "));
    }
    text
}

/// Every `FILE::TEST` that the document names in its other tables is a function in that file.
pub(crate) fn names_tests_that_exist() -> Result<(), Failed> {
    let document = document();
    let mut named = 0;
    for part in document.split('`').skip(1).step_by(2) {
        let Some((file, test)) = part.split_once(".rs::") else { continue };
        let path = repository().join(format!("{file}.rs"));
        let source = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if !source.contains(&format!("fn {test}(")) {
            return Err(format!("{} has no test {test}", path.display()).into());
        }
        named += 1;
    }
    if named == 0 { Err("no test is named".into()) } else { Ok(()) }
}

fn document() -> String {
    let path = repository().join("SECURITY.md");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
