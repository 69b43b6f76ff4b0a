//! The settings of a batch run. None of them changes a result: only how long it takes and what it may use.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shared::config::{ByteSize, Problem, Span};

/// The least memory a run can work with.
const MIN_MEMORY: ByteSize = ByteSize::mib(64);

/// Where buckets are judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// In the process of the run.
    #[default]
    Local,
    /// On a Ballista cluster.
    Ballista,
}

/// A Ballista cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ballista {
    /// The scheduler's URL.
    pub scheduler_url: String,
    /// How long a run waits while no bucket gets done.
    pub patience: Span,
    /// How old the newest object of a killed run's scratch must be before another run removes it: longer than any
    /// bucket takes.
    pub scratch_age: Span,
}

impl Default for Ballista {
    fn default() -> Self {
        Self {
            scheduler_url: "http://127.0.0.1:50050".to_owned(),
            patience: Span::secs(15 * 60),
            scratch_age: Span::secs(86_400),
        }
    }
}

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
    /// Where buckets are judged.
    pub engine: Engine,
    /// Where it spills; empty takes `state/spill` of the data folder.
    pub spill_dir: PathBuf,
    /// The cluster of the engine `ballista`.
    pub ballista: Ballista,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            close_delay: Span::secs(2 * 3_600),
            threads: 0,
            memory_limit: ByteSize::mib(1_024),
            silver_file_rows: 1 << 19,
            engine: Engine::default(),
            spill_dir: PathBuf::new(),
            ballista: Ballista::default(),
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
        if self.engine == Engine::Ballista && !cfg!(feature = "ballista") {
            problems.push(Problem::new("batch.engine", "this program was built without the feature ballista"));
        }
        if !self.ballista.scheduler_url.starts_with("http://") {
            problems.push(Problem::new("batch.ballista.scheduler_url", "not an http:// URL"));
        }
        if self.ballista.patience < Span::secs(1) {
            problems.push(Problem::new("batch.ballista.patience", "less than a second"));
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
