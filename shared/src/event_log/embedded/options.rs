//! What an operator may choose about an embedded log. Every limit has a name and a unit.

use serde::{Deserialize, Serialize};

use crate::config::{ByteSize, Problem, Span};

/// The most partitions a log may have: each costs 8 bytes in every index entry and in every commit.
pub const MAX_PARTITIONS: u32 = 1_024;
/// The largest record any setting may allow.
pub const MAX_RECORD_BYTES: ByteSize = ByteSize::mib(64);

/// The settings of an embedded log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How many partitions; fixed when the log is made.
    pub partitions: u32,
    /// When a segment is full and the next one begins; retention forgets whole segments.
    pub segment_bytes: ByteSize,
    /// How long appends that keep arriving may gather before they are synced together.
    pub commit_interval: Span,
    /// The largest payload taken.
    pub max_record_bytes: ByteSize,
    /// How many records may wait to be written; further appends wait for room.
    pub queue_records: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            partitions: 8,
            segment_bytes: ByteSize::mib(128),
            commit_interval: Span::millis(2),
            max_record_bytes: ByteSize::mib(1),
            queue_records: 65_536,
        }
    }
}

impl Options {
    /// Everything that cannot be used, by the name of the field.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |holds: bool, field: &str, why: String| {
            if !holds {
                problems.push(Problem::new(field, why));
            }
        };
        let Self { partitions, segment_bytes, commit_interval, max_record_bytes, queue_records } = self;
        check((1..=MAX_PARTITIONS).contains(partitions), "partitions", format!("must be 1 to {MAX_PARTITIONS}"));
        check(segment_bytes.0 > 0, "segment_bytes", "must be more than 0".to_owned());
        check(*commit_interval <= Span::secs(1), "commit_interval", "must be at most 1s".to_owned());
        let sizes = 1..=MAX_RECORD_BYTES.0;
        check(sizes.contains(&max_record_bytes.0), "max_record_bytes", format!("must be 1B to {MAX_RECORD_BYTES}"));
        check(*queue_records > 0, "queue_records", "must be at least 1".to_owned());
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_used_and_every_problem_is_told_at_once() {
        assert_eq!(Options::default().problems(), Vec::new());
        let bad = Options {
            partitions: 0,
            segment_bytes: ByteSize(0),
            commit_interval: Span::secs(2),
            max_record_bytes: ByteSize(0),
            queue_records: 0,
        };
        assert_eq!(bad.problems().len(), 5);
    }
}
