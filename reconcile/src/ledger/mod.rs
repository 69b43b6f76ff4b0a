//! The ledger: corrections that people sign, and double-entry postings of everything that was ever settled.
//!
//! ```text
//! a file: rows ────┐
//!                  ├─▶ adjustment ─▶ ledger/adjustments ─▶ the day's next settlement ─▶ ledger/postings
//! a topic: inbox ──┘               (one commit, by id)    (adjustments.csv)            (one per sequence)
//! ```
//! Guarantee: both tables only grow; an adjustment counts once whoever sends it how often and in whatever order; the
//! postings of every transaction sum to zero in every currency; postings are a function of the published folders.
//! On crash: an import is one commit; settlements without postings are posted by whoever settles next.

pub mod adjustment;
mod book;
mod inbox;
pub mod postings;
mod rows;
mod sheet;
mod stored;

pub use crate::checksum::sha256;
pub use adjustment::{Adjustment, Reason, Signed};
pub use book::{AdjustmentBook, Imported};
pub use inbox::{Received, receive};
pub use postings::{Posting, catch_up, postings};
pub(crate) use rows::lines;
pub use rows::{BadRow, Format, Row, read_rows};
pub(crate) use sheet::{adjustments_csv, read_adjustments};
