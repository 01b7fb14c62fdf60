//! Tables: with lines and colours on a terminal, and as plain stable columns everywhere else.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, CellAlignment, Color, ContentArrangement, LineStyle, TableStyle};

use crate::cli::error::escape_controls;

/// What a text wants to say by its colour. The text says it too: colours are not seen by everybody, nor everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Look at this.
    Warn,
    /// Something is wrong.
    Bad,
    /// Of little interest.
    Faint,
    /// A heading, a name.
    Strong,
}

impl Tone {
    /// Puts the escape sequences around a text.
    pub(super) fn paint(self, text: &str) -> String {
        let code = match self {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    fn apply(self, cell: comfy_table::Cell) -> comfy_table::Cell {
        match self {
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::Green),
            Tone::Warn => cell.fg(Color::Yellow),
            Tone::Bad => cell.fg(Color::Red),
            Tone::Faint => cell.add_attribute(Attribute::Dim),
            Tone::Strong => cell.add_attribute(Attribute::Bold),
        }
    }
}

/// A column: its heading, and on which side its cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    title: &'static str,
    right: bool,
}

impl Column {
    /// A column of text.
    pub fn text(title: &'static str) -> Self {
        Column { title, right: false }
    }

    /// A column of numbers.
    pub fn number(title: &'static str) -> Self {
        Column { title, right: true }
    }
}

/// A cell. Line feeds in its text begin a new line of the cell on a terminal, and are `, ` elsewhere, where a row is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with that text.
    pub fn new(text: impl Into<String>) -> Self {
        Cell { text: text.into(), tone: Tone::Plain }
    }

    /// Gives it a tone.
    #[must_use]
    pub fn tone(self, tone: Tone) -> Self {
        Cell { tone, ..self }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::new(text)
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: impl Into<Vec<Column>>) -> Self {
        Table { columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the table: for a terminal, as wide as that is, or as plain columns.
    pub fn render(&self, terminal: bool, colour: bool) -> String {
        let mut out = comfy_table::Table::new();
        if terminal {
            out.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
            out.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            // Never wrapped: whoever reads a pipe wants a row to be a line.
            out.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
        }
        if colour {
            out.enforce_styling();
        }
        let heading = |column: &Column| {
            let cell = comfy_table::Cell::new(column.title);
            if colour { Tone::Strong.apply(cell) } else { cell }
        };
        out.set_header(self.columns.iter().map(heading).collect::<Vec<_>>());
        for row in &self.rows {
            let cells = row.iter().map(|cell| {
                let lines: Vec<String> = cell.text.split('\n').map(escape_controls).collect();
                let text = comfy_table::Cell::new(lines.join(if terminal { "\n" } else { ", " }));
                if colour { cell.tone.apply(text) } else { text }
            });
            out.add_row(cells.collect::<Vec<_>>());
        }
        for (i, column) in self.columns.iter().enumerate() {
            if let Some(out) = out.column_mut(i) {
                out.set_cell_alignment(if column.right { CellAlignment::Right } else { CellAlignment::Left });
                if !terminal {
                    out.set_padding((0, 2));
                }
            }
        }
        // Blanks at the end of a line are nothing but a nuisance in a diff.
        let lines: Vec<String> = out.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
        lines.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table = Table::new([Column::text("VOLUME"), Column::number("SIZE"), Column::text("USED BY")]);
        table.row([Cell::new("db").tone(Tone::Bad), "1.5 GiB".into(), "pg (running)\nbackup".into()]);
        table.row(["a\x1b[2J".into(), "2 B".into(), "".into()]);
        table
    }

    #[test]
    fn plain_columns_are_stable() {
        let text = example().render(false, false);
        let expected = "\
VOLUME         SIZE  USED BY
db          1.5 GiB  pg (running), backup
a\\u{1b}[2J      2 B
";
        assert_eq!(text, expected);
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        assert!(example().render(true, true).contains("\x1b["));
        let text = example().render(true, false);
        assert!(!text.contains('\x1b') && text.contains('─'), "{text}");
    }
}
