//! Tables that fit the terminal.

use std::{fmt, io};

pub(super) use crate::console::printable;

/// A column that shrinks keeps at least this many characters.
const LEAST_WIDTH: usize = 8;
/// Between two columns.
const GAP: &str = "  ";

/// Rows of text under headings.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    /// `None`: as wide as it gets.
    width: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    heading: &'static str,
    to_the_right: bool,
    shrinks: bool,
    /// 0 is never left out; of the others the highest goes first.
    dispensable: u8,
}

impl Column {
    pub(crate) fn text(heading: &'static str) -> Self {
        Self { heading, to_the_right: false, shrinks: false, dispensable: 0 }
    }

    pub(crate) fn number(heading: &'static str) -> Self {
        Self { to_the_right: true, ..Self::text(heading) }
    }

    /// Its texts are cut where the terminal is too narrow.
    pub(crate) fn shrinks(self) -> Self {
        Self { shrinks: true, ..self }
    }

    /// It is left out where the terminal is too narrow; the highest number first.
    pub(crate) fn dispensable(self, order: u8) -> Self {
        Self { dispensable: order, ..self }
    }
}

impl Table {
    /// A table as wide as the terminal, if standard output is one.
    pub(crate) fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new(), width: terminal_width() }
    }

    /// Adds a row; it has as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<_> = cells.into_iter().map(|cell| printable(&cell)).collect();
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The columns that are shown and how wide each is.
    fn layout(&self) -> Vec<(usize, usize)> {
        let natural = |index: usize| {
            let cells = self.rows.iter().map(|row| row[index].chars().count());
            cells.chain([self.columns[index].heading.len()]).max().unwrap_or(0)
        };
        let mut shown: Vec<_> = (0..self.columns.len()).map(|index| (index, natural(index))).collect();
        let Some(width) = self.width else { return shown };
        let total =
            |shown: &[(usize, usize)]| shown.iter().map(|(_, width)| width + GAP.len()).sum::<usize>() - GAP.len();
        let least = |(index, width): (usize, usize)| {
            if self.columns[index].shrinks { (index, width.min(LEAST_WIDTH)) } else { (index, width) }
        };
        // First columns go, until shrinking the rest is enough.
        while total(&shown.iter().copied().map(least).collect::<Vec<_>>()) > width {
            let Some(last) = (0..shown.len())
                .filter(|at| self.columns[shown[*at].0].dispensable > 0)
                .max_by_key(|at| self.columns[shown[*at].0].dispensable)
            else {
                break;
            };
            shown.remove(last);
        }
        let mut excess = total(&shown).saturating_sub(width);
        while excess > 0 {
            let widest = shown.iter_mut().filter(|(index, width)| self.columns[*index].shrinks && *width > LEAST_WIDTH);
            let Some((_, widest)) = widest.max_by_key(|(_, width)| *width) else { break };
            *widest -= 1;
            excess -= 1;
        }
        shown
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layout = self.layout();
        let headings: Vec<_> = self.columns.iter().map(|column| column.heading.to_owned()).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for (position, (index, width)) in layout.iter().enumerate() {
                if position > 0 {
                    line.push_str(GAP);
                }
                let cell = cut(&row[*index], *width);
                if self.columns[*index].to_the_right {
                    line.push_str(&format!("{cell:>width$}"));
                } else {
                    line.push_str(&format!("{cell:<width$}"));
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// How many columns the terminal has, if standard output is one.
pub(super) fn terminal_width() -> Option<usize> {
    let width = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    width.filter(|width| *width > 0)
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(width: Option<usize>) -> String {
        let columns = [Column::text("NAME").shrinks(), Column::number("SIZE"), Column::text("NOTE").dispensable(1)];
        let mut table = Table { width, ..Table::new(columns) };
        table.row(["a-rather-long-name".to_owned(), "5".to_owned(), "hello".to_owned()]);
        table.row(["b\u{1b}[31m".to_owned(), "12345".to_owned(), String::new()]);
        table.to_string()
    }

    #[test]
    fn without_a_terminal_nothing_is_cut() {
        let expected =
            "NAME                 SIZE  NOTE\na-rather-long-name      5  hello\nb\u{fffd}[31m              12345\n";
        assert_eq!(table(None), expected);
    }

    #[test]
    fn a_narrow_terminal_cuts_texts_and_then_leaves_columns_out() {
        let fitting = table(Some(22));
        assert_eq!(fitting, "NAME       SIZE  NOTE\na-rathe…      5  hello\nb\u{fffd}[31m    12345\n");
        let narrow = table(Some(15));
        assert_eq!(narrow, "NAME       SIZE\na-rathe…      5\nb\u{fffd}[31m    12345\n");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 15..60 {
            for line in table(Some(width)).lines() {
                assert!(line.chars().count() <= width, "{width}: {line:?}");
            }
        }
    }
}
