//! The report: tables for people, in Markdown that can be read as it is.

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
};

/// One part of the benchmark with its results.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    /// What was measured, and how.
    pub(crate) text: String,
    pub(crate) table: Table,
}

/// An aim of the project and what was measured of it.
#[derive(Debug)]
pub(crate) struct Aim {
    pub(crate) what: String,
    pub(crate) aim: String,
    pub(crate) measured: String,
    pub(crate) met: bool,
}

#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(titles: &[&str]) -> Self {
        Self { rows: vec![titles.iter().map(|&title| title.to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn of_aims(aims: &[Aim]) -> Self {
        let mut table = Self::new(&["what", "aim", "measured", ""]);
        for Aim { what, aim, measured, met } in aims {
            let verdict = if *met { "met" } else { "**missed**" };
            table.row([what.clone(), aim.clone(), measured.clone(), verdict.to_owned()]);
        }
        table
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|at| {
                self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for (number, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!(" {cell:<width$} |"));
            writeln!(f, "|{}", cells.collect::<String>())?;
            if number == 0 {
                let rule = widths.iter().map(|width| format!("{:-<1$}|", "", width + 2));
                writeln!(f, "|{}", rule.collect::<String>())?;
            }
        }
        Ok(())
    }
}

/// The whole report. `preamble` tells when and on what it was measured.
pub(crate) fn write(preamble: &str, sections: &[Section], aims: &[Aim]) -> String {
    let mut text = preamble.to_owned();
    if !aims.is_empty() {
        let missed = aims.iter().filter(|aim| !aim.met).count();
        let _ = write!(
            text,
            "\n## Aims\n\n{} of {} met. Ratios are of medians, herd's first.\n\n{}",
            aims.len() - missed,
            aims.len(),
            Table::of_aims(aims)
        );
    }
    for Section { title, text: how, table } in sections {
        let _ = write!(text, "\n## {title}\n\n{how}\n\n{table}");
    }
    text
}

/// Tells on stderr what goes on.
pub(crate) fn progress(text: &str) {
    let _ = writeln!(io::stderr(), "bench: {text}");
}
