//! Settlement files: the same lines as Parquet and as gzipped CSV, byte for byte the same for the same lines.
//! Owns: file names. Pure: lines in, bytes out, and back as cells of text for whoever compares.
//! Never: writes a time or a name of a machine into a file.

pub(crate) mod csv;
pub(crate) mod parquet;
pub(crate) mod sheet;

use shared::time::Day;

use crate::lines::Line;

/// The cells of one row, in the order of `lines::COLUMNS`.
pub(crate) type Cells = Vec<String>;

/// A form of settlement file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Parquet,
    Csv,
}

impl Form {
    pub(crate) const ALL: [Self; 2] = [Self::Parquet, Self::Csv];

    fn ending(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv.gz",
        }
    }

    /// The name of the `part`th file.
    pub(crate) fn name(self, part: usize) -> String {
        format!("lines-{part:04}.{}", self.ending())
    }

    /// The form of a file by its name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| name.starts_with("lines-") && name.ends_with(form.ending()))
    }

    /// The file's bytes.
    pub(crate) fn write(self, day: Day, version: u32, lines: &[Line]) -> Result<Vec<u8>, String> {
        match self {
            Self::Parquet => parquet::write(day, version, lines),
            Self::Csv => csv::write(day, version, lines),
        }
    }

    /// Calls `each` with every row in a file's bytes.
    pub(crate) fn read(self, bytes: bytes::Bytes, each: &mut dyn FnMut(Cells)) -> Result<(), String> {
        match self {
            Self::Parquet => parquet::read(bytes, each),
            Self::Csv => csv::read(&bytes, each),
        }
    }
}

#[cfg(test)]
mod tests;
