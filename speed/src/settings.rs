//! What can be set in the speed layer, and what is wrong with a set of settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shared::config::{Problem, Span};
use shared::verdict::Counting;

use crate::dedup::shelf::{Folder, Shelf};

/// At most so many times as many ids as in memory are on disk, since each sixteenth of those in memory is a bucket.
const MOST_ON_DISK: u64 = 1_000;

/// Settings of the speed layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The partitions to own; empty means all of the log's. Give each process its own.
    pub partitions: Vec<u32>,
    /// Where checkpoints live: `s3://bucket/path`, `gs://…`, `az://…` or `file:///shared/folder`, reached as
    /// `[object_store]` says; empty: the data folder. Elsewhere any machine can go on with a partition.
    pub state_url: String,
    /// This worker's name in the consumer group that deals the partitions, one for each process and the same after every
    /// restart; empty: `partitions` says. State must be where every worker reaches it.
    pub group_member: String,
    /// How often changed rows go to the serving store.
    pub flush_interval: Span,
    /// How often state and positions are saved: what a restart reads again at most.
    pub checkpoint_interval: Span,
    /// How far events of one partition may come out of order: the watermark stays this far behind the newest.
    pub out_of_orderness: Span,
    /// How far behind the watermark an event is still counted here; later ones are `late` and left to batch.
    pub allowed_lateness: Span,
    /// After this long without a record a partition no longer holds the combined watermark back.
    pub idle_after: Span,
    /// How long an event id is remembered at least.
    pub dedup_window: Span,
    /// The most event ids this process keeps in memory (about 24 bytes each); the oldest of more are on disk. Clicks
    /// remembered for repeat clicks have the same limit (about 36 bytes each), and beyond it are forgotten early.
    pub max_dedup_ids: u64,
    /// The most event ids this process keeps on disk, in the data folder (at most 30 bytes each there, 2 in memory);
    /// beyond it, or a thousand times those in memory, the oldest are forgotten early. 0: none.
    pub max_dedup_ids_on_disk: u64,
    /// The most rows kept open in this process (about 150 bytes each, with users up to 4 KiB); beyond it the oldest
    /// minutes close early.
    pub max_open_rows: u64,
    /// The most records taken in one poll.
    pub poll_records: usize,
    /// How long a poll waits for the first record.
    pub poll_wait: Span,
    /// The most records held in memory that the serving store does not show yet; beyond it polling stops.
    pub max_unflushed_records: u64,
    /// Where checkpoints live, one folder per partition. Set by the wiring.
    #[serde(skip)]
    pub state_dir: PathBuf,
    /// The counting rules, the same for all layers. Set by the wiring.
    #[serde(skip)]
    pub counting: Counting,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            partitions: Vec::new(),
            state_url: String::new(),
            group_member: String::new(),
            flush_interval: Span::secs(10),
            checkpoint_interval: Span::secs(30),
            out_of_orderness: Span::secs(30),
            allowed_lateness: Span::secs(3_600),
            idle_after: Span::secs(30),
            dedup_window: Span::secs(24 * 3_600),
            max_dedup_ids: 50_000_000,
            max_dedup_ids_on_disk: 150_000_000,
            max_open_rows: 20_000_000,
            poll_records: 8_192,
            poll_wait: Span::millis(200),
            max_unflushed_records: 2_000_000,
            state_dir: PathBuf::new(),
            counting: Counting::default(),
        }
    }
}

impl Settings {
    /// All problems at once.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let day = Span::secs(86_400);
        let hour = Span::secs(3_600);
        let spans = [
            ("flush_interval", self.flush_interval, Span::millis(1), hour),
            ("checkpoint_interval", self.checkpoint_interval, Span::millis(1), hour),
            ("out_of_orderness", self.out_of_orderness, Span::millis(0), day),
            ("allowed_lateness", self.allowed_lateness, Span::millis(0), Span::secs(7 * 86_400)),
            ("idle_after", self.idle_after, Span::millis(1), day),
            ("dedup_window", self.dedup_window, Span::secs(60), Span::secs(7 * 86_400)),
            ("poll_wait", self.poll_wait, Span::millis(1), Span::secs(10)),
        ];
        let counts = [
            ("max_dedup_ids", self.max_dedup_ids, 1_000),
            ("max_open_rows", self.max_open_rows, 1_000),
            ("poll_records", self.poll_records as u64, 1),
            ("max_unflushed_records", self.max_unflushed_records, 1_000),
        ];
        let mut problems: Vec<Problem> = spans
            .into_iter()
            .filter(|(_, value, least, most)| value < least || value > most)
            .map(|(name, value, least, most)| {
                Problem::new(format!("speed.{name}"), format!("{value} is not between {least} and {most}"))
            })
            .collect();
        problems.extend(counts.into_iter().filter(|(_, value, least)| value < least).map(|(name, value, least)| {
            Problem::new(format!("speed.{name}"), format!("{value} is less than {least}"))
        }));
        let mut partitions = self.partitions.clone();
        partitions.sort_unstable();
        if partitions.windows(2).any(|pair| pair.first() == pair.last()) {
            problems.push(Problem::new("speed.partitions", "names a partition twice"));
        }
        if !self.group_member.is_empty() {
            if !self.group_member.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)) {
                problems.push(Problem::new("speed.group_member", "use a-z A-Z 0-9 . _ -"));
            }
            if self.state_url.is_empty() {
                let why = "needs speed.state_url: another worker must reach the state of a partition that moves";
                problems.push(Problem::new("speed.group_member", why));
            }
            if !self.partitions.is_empty() {
                problems.push(Problem::new("speed.partitions", "are dealt by the group: empty it"));
            }
        }
        problems
    }

    /// How many ids may be on disk.
    pub(crate) fn ids_on_disk(&self) -> usize {
        let most = self.max_dedup_ids.saturating_mul(MOST_ON_DISK);
        usize::try_from(self.max_dedup_ids_on_disk.min(most)).unwrap_or(usize::MAX)
    }

    /// Where ids go that are too many for memory; `None` when they are forgotten instead.
    pub(crate) fn shelf(&self) -> Option<Box<dyn Shelf>> {
        let is_wanted = self.max_dedup_ids_on_disk > 0 && !self.state_dir.as_os_str().is_empty();
        is_wanted.then(|| Box::new(Folder(self.state_dir.clone())) as _)
    }

    /// The settings of one of `partitions`: the process's limits are divided among them.
    pub(crate) fn share_of(&self, partitions: usize) -> Self {
        let partitions = partitions.max(1) as u64;
        Self {
            max_dedup_ids: self.max_dedup_ids / partitions,
            max_dedup_ids_on_disk: self.max_dedup_ids_on_disk / partitions,
            max_open_rows: self.max_open_rows / partitions,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_fine_and_survive_a_file() {
        let settings = Settings::default();
        assert_eq!(settings.problems(), []);
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), settings);
        assert!(toml::from_str::<Settings>("flush_intervall = \"10s\"").is_err());
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let settings = Settings {
            flush_interval: Span::millis(0),
            dedup_window: Span::secs(30 * 86_400),
            poll_records: 0,
            partitions: vec![3, 1, 3],
            ..Settings::default()
        };
        let fields: Vec<String> = settings.problems().into_iter().map(|p| p.field).collect();
        assert_eq!(fields, ["speed.flush_interval", "speed.dedup_window", "speed.poll_records", "speed.partitions"]);
    }

    #[test]
    fn a_group_deals_the_partitions_and_needs_state_that_can_move() {
        let mut settings = Settings { group_member: "a 1".into(), partitions: vec![1], ..Settings::default() };
        let fields: Vec<String> = settings.problems().into_iter().map(|p| p.field).collect();
        assert_eq!(fields, ["speed.group_member", "speed.group_member", "speed.partitions"]);
        settings = Settings { group_member: "a-1".into(), state_url: "s3://bucket".into(), ..Settings::default() };
        assert_eq!(settings.problems(), []);
    }
}
