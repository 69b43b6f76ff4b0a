//! Synthetic traffic: what the world sends us on a bad day, from one seed.
//!
//! [`History`] writes days of NDJSON for `import`; [`Live`] answers "what is sent now" for a client that talks
//! HTTP. Both draw from one generator of cases (`traffic`), so that every clause of contract 2 occurs.
//! Guarantees: the same settings give the same bytes; the journal says what each item was meant to be.
//! Never: reads a clock, signs by itself (the caller brings a [`Signer`]), says what the verdict must be (that is
//! the oracle's work).

use std::collections::BTreeMap;
use std::io::{self, Write};

use shared::time::Timestamp;

mod dice;
mod draft;
mod history;
mod live;
mod odd;
mod poison;
mod settings;
mod traffic;
mod world;

pub use draft::{Draft, Proof, Signer};
pub use history::History;
pub use live::Live;
pub use settings::Settings;
pub use world::World;

/// What an item was meant to be: the journal's word for it, not a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// An ordinary event.
    Fresh,
    /// An event sent minutes to hours after it happened.
    Late,
    /// An event of a day that is closed when it arrives.
    LateAfterClose,
    /// An event time at or beyond a bound of the billing time.
    Clamped,
    /// An event time at the edge of a minute, an hour, a day or a price.
    Boundary,
    /// A client that names itself a robot.
    Bot,
    /// An id that differs from another one by very little.
    OddId,
    /// The same event again.
    Duplicate,
    /// The same event again on another day.
    CrossDayDuplicate,
    /// The same id with another payload.
    Conflict,
    /// Another click on the same impression.
    RepeatClick,
    /// A signature that is wrong, over, or of nobody's key.
    Forged,
    /// Bytes that are not an event.
    Poison,
}

impl Label {
    /// Every label.
    pub const ALL: [Self; 13] = [
        Self::Fresh,
        Self::Late,
        Self::LateAfterClose,
        Self::Clamped,
        Self::Boundary,
        Self::Bot,
        Self::OddId,
        Self::Duplicate,
        Self::CrossDayDuplicate,
        Self::Conflict,
        Self::RepeatClick,
        Self::Forged,
        Self::Poison,
    ];

    /// The word in the journal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Late => "late",
            Self::LateAfterClose => "late_after_close",
            Self::Clamped => "clamped",
            Self::Boundary => "boundary",
            Self::Bot => "bot",
            Self::OddId => "odd_id",
            Self::Duplicate => "duplicate",
            Self::CrossDayDuplicate => "cross_day_duplicate",
            Self::Conflict => "conflict",
            Self::RepeatClick => "repeat_click",
            Self::Forged => "forged",
            Self::Poison => "poison",
        }
    }
}

/// One thing to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it was meant to be.
    pub label: Label,
    /// When it is sent; in a history also its `ingestTime`.
    pub at: Timestamp,
    /// The event's id; poison has none.
    pub event_id: Option<String>,
    /// One JSON object without a line end (or, for poison, bytes that are none).
    pub body: Vec<u8>,
}

/// How many items of each label were made.
pub type Tally = BTreeMap<Label, u64>;

/// Writes a whole history to `lines`, one item a line, and to `journal` a CSV line per item (`line,label,at,eventId`;
/// lines count from 1). `progress` is told the number of lines after every thousand.
///
/// # Errors
/// When a writer fails.
pub fn write_history(
    history: History,
    lines: &mut dyn Write,
    journal: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Tally> {
    let mut tally = Tally::new();
    writeln!(journal, "line,label,at,eventId")?;
    for (number, item) in (1_u64..).zip(history) {
        lines.write_all(&item.body)?;
        lines.write_all(b"\n")?;
        let id = item.event_id.as_deref().unwrap_or_default();
        writeln!(journal, "{number},{},{},{id}", item.label.as_str(), item.at.0)?;
        *tally.entry(item.label).or_default() += 1;
        if number % 1_000 == 0 {
            progress(number);
        }
    }
    lines.flush()?;
    journal.flush()?;
    Ok(tally)
}

#[cfg(test)]
mod tests;
