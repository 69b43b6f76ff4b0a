//! The settings of a batch run. None of them changes a result: only how long it takes and what it may use.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shared::config::{ByteSize, Problem, Span};

/// The least memory a run can work with.
const MIN_MEMORY: ByteSize = ByteSize::mib(64);

/// How a day is recomputed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long after its end a day closes: until then it is not ready.
    pub close_delay: Span,
    /// Threads that compute; 0 takes every core.
    pub threads: usize,
    /// About how much memory a run may hold; beyond it, it reads again or spills.
    pub memory_limit: ByteSize,
    /// Rows of a silver file, about: what is judged at once. Changes how silver is cut into files, never a row.
    pub silver_file_rows: u64,
    /// Where it spills; empty takes `state/spill` of the data folder.
    pub spill_dir: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            close_delay: Span::secs(2 * 3_600),
            threads: 0,
            memory_limit: ByteSize::mib(1_024),
            silver_file_rows: 1 << 19,
            spill_dir: PathBuf::new(),
        }
    }
}

impl Settings {
    /// All problems at once.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.close_delay > Span::secs(30 * 86_400) {
            problems.push(Problem::new("batch.close_delay", "more than 30 days: no day would ever be settled in time"));
        }
        if self.threads > 1_024 {
            problems.push(Problem::new("batch.threads", "more than 1024; 0 takes every core"));
        }
        if !(1_000..=1 << 24).contains(&self.silver_file_rows) {
            problems.push(Problem::new("batch.silver_file_rows", "not between 1000 and 16777216"));
        }
        if self.memory_limit < MIN_MEMORY {
            problems.push(Problem::new("batch.memory_limit", format!("less than {MIN_MEMORY}")));
        }
        problems
    }

    /// How many threads to use.
    #[must_use]
    pub fn workers(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            n => n,
        }
    }

    /// Where to spill; the system's folder for temporary files where the caller has no data folder.
    #[must_use]
    pub fn spill_folder(&self) -> PathBuf {
        if self.spill_dir.as_os_str().is_empty() { std::env::temp_dir() } else { self.spill_dir.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named_at_once() {
        assert_eq!(Settings::default().problems(), []);
        let bad = Settings { threads: 5_000, memory_limit: ByteSize(1), ..Settings::default() };
        let fields: Vec<_> = bad.problems().into_iter().map(|p| p.field).collect();
        assert_eq!(fields, ["batch.threads", "batch.memory_limit"]);
    }
}
