//! The hypotheses: differences of method between two counts of the same traffic, as they occur in the trade.
//! Each is a rule for counting our own events another way. Pure.

use serde::Serialize;
use shared::verdict::InvalidCode;

use super::when::Zone;

/// Windows for repeat clicks that others use, in seconds, ascending; 0 counts every click.
pub const WINDOWS: [i64; 8] = [0, 10, 60, 600, 1_800, 3_600, 6 * 3_600, 86_400];
/// How late an event may be and still be counted, elsewhere, in seconds, ascending.
pub const LATENESS: [i64; 4] = [300, 3_600, 6 * 3_600, 86_400];

/// One difference of method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Cause {
    /// Their days and hours are those of another time zone than the file is said to be in.
    TimeZone {
        /// Its offset from UTC, in minutes.
        offset_minutes: i32,
    },
    /// They take two clicks on one impression for one within another time than we do.
    RepeatWindow {
        /// That time, in seconds; 0 counts every click.
        seconds: i64,
    },
    /// They count traffic that we find invalid.
    InvalidCounted {
        /// Only this code; all of them where absent.
        code: Option<&'static str>,
    },
    /// They count an event each time it is sent.
    DuplicatesCounted,
    /// They do not count what comes later than this after it happened.
    LateNotCounted {
        /// In seconds.
        seconds: i64,
    },
    /// They count what came after our settlement.
    LateCounted,
    /// Their amounts are ours times a factor: another currency, a tax, a fee.
    Factor {
        /// The factor, in parts per million.
        ppm: i64,
    },
    /// They round each of their lines.
    Rounded {
        /// To so many decimals of the currency.
        decimals: u32,
    },
}

impl Cause {
    /// Two causes of one sort exclude each other.
    pub(super) fn sort(self) -> u8 {
        match self {
            Self::TimeZone { .. } => 0,
            Self::RepeatWindow { .. } => 1,
            Self::InvalidCounted { .. } => 2,
            Self::DuplicatesCounted => 3,
            Self::LateNotCounted { .. } => 4,
            Self::LateCounted => 5,
            Self::Factor { .. } => 6,
            Self::Rounded { .. } => 7,
        }
    }

    /// In words, for a person.
    #[must_use]
    pub fn sentence(self) -> String {
        match self {
            Self::TimeZone { offset_minutes } => format!("their days are those of {}", Zone(offset_minutes)),
            Self::RepeatWindow { seconds: 0 } => "they count every repeat click".to_owned(),
            Self::RepeatWindow { seconds } => {
                format!("they take clicks on one impression for one within {}, not within ours", span(seconds))
            }
            Self::InvalidCounted { code: None } => "they count traffic that we find invalid".to_owned(),
            Self::InvalidCounted { code: Some(code) } => format!("they count traffic that we find invalid:{code}"),
            Self::DuplicatesCounted => "they count an event each time it is sent".to_owned(),
            Self::LateNotCounted { seconds } => {
                format!("they do not count what arrives more than {} after it happened", span(seconds))
            }
            Self::LateCounted => "they count events that came after our settlement".to_owned(),
            Self::Factor { ppm } => format!(
                "their amounts are ours times {}.{:06}: another currency, a tax or a fee",
                ppm / 1_000_000,
                ppm % 1_000_000
            ),
            Self::Rounded { decimals } => format!("they round every line to {decimals} decimals"),
        }
    }
}

fn span(seconds: i64) -> String {
    match seconds {
        s if s % 3_600 == 0 => format!("{} h", s / 3_600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// A way of counting: ours, but for the causes in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Method {
    /// The index of the window in [`WINDOWS`]; our own where absent.
    pub(super) window: Option<usize>,
    /// Whether invalid traffic counts: none, one code (its place in [`InvalidCode::ALL`]), or all.
    pub(super) invalid: Invalid,
    /// Whether duplicates and conflicts count.
    pub(super) duplicates: bool,
    /// The index of the limit in [`LATENESS`] beyond which nothing counts.
    pub(super) lateness: Option<usize>,
    /// Whether what came after the settlement counts.
    pub(super) after: bool,
}

/// Which invalid traffic counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Invalid {
    #[default]
    None,
    Code(usize),
    All,
}

impl Method {
    /// Ours with these causes; those about time zones and amounts change nothing here.
    pub(super) fn of(causes: &[Cause]) -> Self {
        let mut method = Self::default();
        for cause in causes {
            match *cause {
                Cause::RepeatWindow { seconds } => method.window = WINDOWS.iter().position(|w| *w == seconds),
                Cause::InvalidCounted { code: None } => method.invalid = Invalid::All,
                Cause::InvalidCounted { code: Some(code) } => {
                    let place = InvalidCode::ALL.iter().position(|c| c.as_str() == code);
                    method.invalid = place.map_or(Invalid::None, Invalid::Code);
                }
                Cause::DuplicatesCounted => method.duplicates = true,
                Cause::LateNotCounted { seconds } => method.lateness = LATENESS.iter().position(|l| *l == seconds),
                Cause::LateCounted => method.after = true,
                Cause::TimeZone { .. } | Cause::Factor { .. } | Cause::Rounded { .. } => {}
            }
        }
        method
    }
}
