//! The lines of a published settlement, in order, one part of its files in memory at a time.
//! Reads: the Parquet files of the folder, against the checksums in its manifest. Writes: nothing.

use std::collections::VecDeque;

use crate::checksum::sha256;
use crate::error::Error;
use crate::line_file::Form;
use crate::lines::{Line, Printed};
use crate::manifest::{File, Manifest};
use crate::settlements::{Settlements, folder};

/// A pass over the lines.
pub(crate) struct OldLines<'a> {
    settlements: &'a Settlements,
    folder: String,
    parts: VecDeque<&'a File>,
    lines: VecDeque<Line>,
}

impl<'a> OldLines<'a> {
    /// The lines of `manifest`; none where there is no settlement.
    pub(crate) fn of(settlements: &'a Settlements, manifest: Option<&'a Manifest>) -> Self {
        let files = manifest.iter().flat_map(|m| &m.files);
        let parts = files.filter(|f| Form::of(&f.path) == Some(Form::Parquet)).collect();
        let folder = manifest.map(|m| folder(m.day, m.version)).unwrap_or_default();
        Self { settlements, folder, parts, lines: VecDeque::new() }
    }

    /// The next line without taking it.
    pub(crate) async fn peek(&mut self) -> Result<Option<&Line>, Error> {
        while self.lines.is_empty() {
            let Some(file) = self.parts.pop_front() else { return Ok(None) };
            self.load(file).await?;
        }
        Ok(self.lines.front())
    }

    /// The next line.
    pub(crate) async fn next(&mut self) -> Result<Option<Line>, Error> {
        self.peek().await?;
        Ok(self.lines.pop_front())
    }

    async fn load(&mut self, file: &File) -> Result<(), Error> {
        let name = format!("{}/{}", self.folder, file.path);
        let bytes = self.settlements.read(&name).await?.ok_or_else(|| Error::damaged(&name, "it is missing"))?;
        if sha256(&bytes) != file.sha256 {
            return Err(Error::damaged(name, "it is not the file that was published"));
        }
        let mut bad = None;
        let lines = &mut self.lines;
        let read = Form::Parquet.read(bytes, &mut |cells| match Printed::from_cells(&cells) {
            Ok(printed) => lines.push_back(printed.line),
            Err(why) => bad = Some(why),
        });
        match read.err().or(bad) {
            Some(why) => Err(Error::damaged(name, why)),
            None => Ok(()),
        }
    }
}
