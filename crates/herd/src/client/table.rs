//! Tables that fit the terminal.

use std::fmt;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::{
    console::{printable, strong},
    prose::terminal_width,
};

/// A column that shrinks keeps at least this many characters.
const LEAST_WIDTH: usize = 8;
/// Between two columns.
const GAP: usize = 2;

/// Rows of text under headings.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
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

/// A text in a table, which holds nothing that a terminal obeys but its colour.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    style: Option<fn(&str) -> String>,
}

impl Cell {
    pub(crate) fn styled(text: &str, style: fn(&str) -> String) -> Self {
        Self { text: printable(text), style: Some(style) }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text: printable(&text), style: None }
    }
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

    /// As wide as a terminal of so many columns.
    #[cfg(test)]
    pub(crate) fn within(self, width: usize) -> Self {
        Self { width: Some(width), ..self }
    }

    /// Adds a row; it has as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item: Into<Cell>>) {
        let cells: Vec<_> = cells.into_iter().map(Into::into).collect();
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The columns that are shown and how wide each is.
    fn layout(&self) -> Vec<(usize, usize)> {
        let natural = |index: usize| {
            let cells = self.rows.iter().map(|row| row[index].text.width());
            cells.chain([self.columns[index].heading.len()]).max().unwrap_or(0)
        };
        let mut shown: Vec<_> = (0..self.columns.len()).map(|index| (index, natural(index))).collect();
        let Some(width) = self.width else { return shown };
        let total = |shown: &[(usize, usize)]| shown.iter().map(|(_, width)| width + GAP).sum::<usize>() - GAP;
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
        let headings = self.columns.iter().map(|column| Cell::styled(column.heading, strong)).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            // Spaces at the end of a line would be seen where lines are cut or copied.
            let mut pending = 0;
            for (position, (index, width)) in layout.iter().enumerate() {
                let Cell { text, style } = &row[*index];
                let text = cut(text, *width);
                let space = width - text.width();
                let (before, after) = if self.columns[*index].to_the_right { (space, 0) } else { (0, space) };
                pending += before + if position > 0 { GAP } else { 0 };
                if text.is_empty() {
                    pending += after;
                    continue;
                }
                line.extend(std::iter::repeat_n(' ', pending));
                line += &style.map_or_else(|| text.clone(), |style| style(&text));
                pending = after;
            }
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// As much of the text as fits, by the columns that a terminal needs: some characters need two, and some none.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut taken = 0;
    for c in text.chars() {
        taken += c.width().unwrap_or(0);
        if taken >= width {
            break;
        }
        kept.push(c);
    }
    kept + "…"
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    fn table(width: Option<usize>) -> String {
        let columns = [Column::text("NAME").shrinks(), Column::number("SIZE"), Column::text("NOTE").dispensable(1)];
        let mut table = Table { width, ..Table::new(columns) };
        table.row(["a-rather-long-name".to_owned(), "5".to_owned(), "hello".to_owned()]);
        table.row(["b\u{1b}[31m".to_owned(), "12345".to_owned(), String::new()]);
        strip_str(&table.to_string()).to_string()
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

    #[test]
    fn wide_characters_are_counted_as_a_terminal_shows_them() {
        let mut table = Table { width: Some(16), ..Table::new([Column::text("A").shrinks(), Column::number("N")]) };
        for text in ["漢字漢字漢字漢字", "e\u{301}e\u{301}e\u{301}", "🦀🦀", "plain"] {
            table.row([text.to_owned(), "1234".to_owned()]);
        }
        let text = strip_str(&table.to_string()).to_string();
        for line in text.lines() {
            assert_eq!(line.width(), 16, "{line:?}");
        }
        assert!(text.contains("漢字漢字…  "), "{text}");
    }

    #[test]
    fn colours_take_no_room_and_end_with_their_cell() {
        let mut table = Table { width: None, ..Table::new([Column::text("A"), Column::text("B")]) };
        table.row([Cell::styled("ab", strong), "c".to_owned().into()]);
        assert_eq!(table.to_string().lines().nth(1), Some("\u{1b}[1mab\u{1b}[0m  c"));
    }
}
