//! Dispute: a partner's numbers beside ours, and which differences of method explain the distance.
//!
//! ```text
//! their file ─▶ theirs ──────────────┐
//! silver ─▶ ours ─▶ cube ─▶ causes ──┴─▶ compare ─▶ rank ─▶ Dispute ─▶ page
//! ```
//! Our side is counted again, event by event, under each hypothesis ("their days begin two hours earlier", "they
//! count every repeat click") and under pairs of them; a hypothesis is as good as the distance that is left.
//! Guarantees: without a hypothesis our side is exactly what the runs say; nothing is estimated but what a free
//! factor (another currency) fits, and it is said. Never: writes to the lake; mixes currencies; uses a float.

pub mod causes;
mod compare;
mod cube;
mod fields;
mod ours;
pub mod page;
mod rank;
mod report;
mod sheet;
mod theirs;
mod when;

use lake::LakeRoot;
use shared::money::Currency;
use shared::price::PriceBook;
use shared::time::Day;

use crate::error::Error;
pub use causes::Cause;
pub use fields::Mapping;
pub use report::{Dispute, Hypothesis, LineDifference, Standing, Summary, Total};
pub use sheet::Sheet;
pub use theirs::{Grain, Reading, Theirs, Unit};
pub use when::Zone;

/// The version of the report's form.
pub const SCHEMA_VERSION: u32 = 1;
/// The tolerance of the trade (IAB, 4A's): 10 %, in parts per million.
pub const TRADE_TOLERANCE_PPM: u64 = 100_000;

/// What is compared with what.
pub struct Request<'a> {
    /// The lake with our runs.
    pub lake: LakeRoot,
    /// The data root with our settlements.
    pub data: LakeRoot,
    /// Prices, for what an event we do not bill would cost.
    pub prices: &'a PriceBook,
    /// The settled version that is disputed; otherwise the newest of each day.
    pub settled: Option<(Day, u32)>,
    /// The currency of their amounts, where the file does not say.
    pub currency: Option<Currency>,
    /// How far two numbers may lie apart, in parts per million of ours.
    pub tolerance_ppm: u64,
}

/// Compares `theirs` with ours and tests every hypothesis.
///
/// # Errors
/// [`Error::Invalid`] when the file cannot be compared (a day without a run, several currencies in one amount);
/// those of the lake.
pub async fn run(request: &Request<'_>, theirs: &Theirs) -> Result<Dispute, Error> {
    let ours = ours::read(request, theirs).await?;
    let board = compare::Board::new(theirs, &ours);
    let ranked = rank::rank(&board, &ours)?;
    report::write(request, theirs, &ours, &board, ranked)
}
