//! What becomes of a record in the speed layer: exactly one outcome each, so that the sums conserve.

use std::collections::BTreeMap;

/// What became of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It is in the rows.
    Counted,
    /// Its id was seen within the dedup window (contract 2.2: duplicate or conflict).
    Duplicate,
    /// A click too close to the one before it on the same impression.
    RepeatClick,
    /// Invalid traffic.
    Invalid,
    /// Its window is closed; only the exact path counts it.
    Late,
    /// The bytes are not an event; the lake keeps them.
    DeadLetter,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Counted, Self::Duplicate, Self::RepeatClick, Self::Invalid, Self::Late, Self::DeadLetter];

    /// The word used in metrics and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Duplicate => "duplicate",
            Self::RepeatClick => "repeat_click",
            Self::Invalid => "invalid",
            Self::Late => "late",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// How many records had which outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally([u64; 6]);

impl Tally {
    /// One more.
    pub fn add(&mut self, outcome: Outcome) {
        self.add_many(outcome, 1);
    }

    /// `n` more.
    pub fn add_many(&mut self, outcome: Outcome, n: u64) {
        if let Some(count) = self.0.get_mut(outcome as usize) {
            *count += n;
        }
    }

    /// How many had `outcome`.
    #[must_use]
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.0.get(outcome as usize).copied().unwrap_or(0)
    }

    /// How many records there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        Outcome::ALL.into_iter().for_each(|outcome| self.add_many(outcome, other.of(outcome)));
        self
    }

    /// What came on top of `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut delta = Self::default();
        for outcome in Outcome::ALL {
            delta.add_many(outcome, self.of(outcome).saturating_sub(earlier.of(outcome)));
        }
        delta
    }

    /// By word, every outcome present.
    #[must_use]
    pub fn by_word(&self) -> BTreeMap<String, u64> {
        Outcome::ALL.into_iter().map(|o| (o.as_str().to_owned(), self.of(o))).collect()
    }
}
