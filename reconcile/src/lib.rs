//! Reconcile: gold → serving, and what finance pulls.
//!
//! ```text
//! runs ─▶ gold (files of one run, by checksum)
//!           │ hour by hour                        ┌─▶ reports/drift/day=….json
//!           ├─▶ compare ─▶ correct ─▶ serving ────┤   reports/calibration.json (calibrate)
//!           └─▶ lines ─▶ staging ─▶ sequence (manifest, signature) ─▶ settlement/day=…/v=N/ (manifest last)
//! ```
//! [`worker::run`] is one job per day: it measures the drift, makes every hour exact and owned, and publishes the
//! settlement. [`rebuild::run`] fills an empty serving store. [`verify::verify`] needs only a settlement folder.
//! [`prove::prove`] proves that one event is billed, or that it is not; a [`proof::Proof`] needs only the manifest.
//! [`dispute::run`] holds a partner's numbers beside ours.
//!
//! Guarantees: exact beats approximate for ever (hours are owned); a second run changes nothing; nothing is
//! overwritten or published when a sum does not balance; a published settlement never changes, and a restatement is
//! a new version. On crash: run again; every step is repeatable. There is no queue and no task of its own here.

mod adjusted;
mod attachments;
mod balance;
pub mod calibrate;
pub mod causes;
mod checksum;
mod columns;
pub mod compare;
pub mod correct;
pub mod days;
mod deltas;
pub mod dispute;
pub mod download;
pub mod drift;
mod error;
pub mod gold;
pub mod keys;
pub mod ledger;
mod line_file;
mod lines;
pub mod locate;
pub mod manifest;
mod notice;
mod object_file;
mod old_lines;
pub mod proof;
pub mod prove;
pub mod publish;
pub mod rebuild;
pub mod report;
pub mod runs;
mod sequence;
mod settings;
pub mod settlements;
pub mod signature;
pub mod verify;
pub mod waterfall;
pub mod worker;

pub use adjusted::{Adjusted, AdjustmentTotal};
pub use causes::{Candidates, Explanation, ShownBy};
pub use deltas::DeltaTotal;
pub use drift::{Distance, Distances, Pair};
pub use error::Error;
pub use settings::Settings;
pub use signature::{PublicKey, Signer};
pub use worker::{Deps, Outcome, Progress, Request, run};
