//! Printing: tables for people, JSON and CSV for programs, progress on stderr.

use std::io::{IsTerminal, Write};

use comfy_table::{Cell, CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::cli::Output;

/// Rows with named columns, printable in every form.
#[derive(Debug, Default)]
pub struct Report {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Report {
    /// An empty report with these columns.
    #[must_use]
    pub fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: one value per column.
    pub fn row(&mut self, values: impl IntoIterator<Item = Value>) {
        self.rows.push(values.into_iter().collect());
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the report to stdout.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn print(&self, output: Output) -> std::io::Result<()> {
        self.write(&mut std::io::stdout().lock(), output)
    }

    /// Writes the report.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write(&self, out: &mut dyn Write, output: Output) -> std::io::Result<()> {
        match output {
            Output::Table => writeln!(out, "{}", self.table()),
            Output::Json => {
                let object = |row: &Vec<Value>| -> Value {
                    self.columns
                        .iter()
                        .map(|c| (*c).to_owned())
                        .zip(row.iter().cloned())
                        .collect::<serde_json::Map<_, _>>()
                        .into()
                };
                writeln!(out, "{}", Value::Array(self.rows.iter().map(object).collect()))
            }
            Output::Csv => {
                let mut csv = csv::Writer::from_writer(out);
                csv.write_record(&self.columns)?;
                for row in &self.rows {
                    csv.write_record(row.iter().map(text))?;
                }
                csv.flush()
            }
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(&self.columns);
        for row in &self.rows {
            table.add_row(row.iter().map(|v| {
                let align = if v.is_number() { CellAlignment::Right } else { CellAlignment::Left };
                Cell::new(text(v)).set_alignment(align)
            }));
        }
        table
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The one JSON line a job prints last on stdout (Airflow reads it).
///
/// # Errors
/// When stdout is closed.
pub fn last_line(value: &Value) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{value}")
}

/// A progress bar on stderr; silent when stderr is not a terminal. `total` 0 shows a spinner.
#[must_use]
pub fn progress(what: &str, total: u64) -> ProgressBar {
    let bar = if !std::io::stderr().is_terminal() {
        ProgressBar::hidden()
    } else if total == 0 {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::new(total)
    };
    let template = if total == 0 {
        "{msg} {spinner} {human_pos} {elapsed}"
    } else {
        "{msg} {bar:32} {human_pos}/{human_len} {per_sec} eta {eta}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_report_prints_in_every_form() {
        let mut report = Report::new(&["day", "clicks"]);
        report.row([json!("2026-01-05"), json!(7)]);
        let print = |output| {
            let mut out = Vec::new();
            report.write(&mut out, output).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(print(Output::Json), "[{\"clicks\":7,\"day\":\"2026-01-05\"}]\n");
        assert_eq!(print(Output::Csv), "day,clicks\n2026-01-05,7\n");
        assert!(print(Output::Table).contains("2026-01-05"));
    }
}
