//! How far a run is, for the bars of the command line. Never: decides anything.

use std::fmt;
use std::sync::Arc;

use shared::time::Day;

/// What a run does, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Looks for clicks that may repeat others.
    FindClicks,
    /// Looks for ids that occur more than once in the archive.
    FindDuplicates,
    /// Gives every event its verdict and writes silver.
    Judge,
    /// Sums up gold.
    Aggregate,
    /// Checks that the books balance.
    Audit,
    /// Makes the result visible.
    Publish,
}

impl Step {
    /// For a person.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FindClicks => "finding repeat clicks",
            Self::FindDuplicates => "finding duplicates",
            Self::Judge => "judging events",
            Self::Aggregate => "summing up",
            Self::Audit => "checking the books",
            Self::Publish => "publishing",
        }
    }
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The day.
    pub day: Day,
    /// What it is doing.
    pub step: Step,
    /// Parts of the step that are done.
    pub done: u64,
    /// Parts of the step.
    pub total: u64,
}

/// Who wants to know; called from any thread.
pub type Listener = Arc<dyn Fn(Progress) + Send + Sync>;

/// A listener that does not listen.
#[must_use]
pub fn silent() -> Listener {
    Arc::new(|_| {})
}

/// A listener for one day.
#[derive(Clone)]
pub(crate) struct Report {
    /// The day.
    pub(crate) day: Day,
    /// Who listens.
    pub(crate) listener: Listener,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Report({})", self.day)
    }
}

impl Report {
    pub(crate) fn step(&self, step: Step, done: u64, total: u64) {
        (self.listener)(Progress { day: self.day, step, done, total });
    }
}
