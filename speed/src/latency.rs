//! How old events are when they become visible: the 95th percentile from ingest to flush, over the last five
//! minutes, for a worker and for its busiest campaigns.
//! Bounded: an even sample of at most [`PER_FLUSH`] events a flush. Not saved: a restart begins afresh.

use std::collections::{BTreeMap, VecDeque};

use shared::id::CampaignId;
use shared::time::{MINUTE, Timestamp};

/// The most events sampled between two flushes.
const PER_FLUSH: usize = 512;
/// How long a sample counts, microseconds.
const MEMORY: i64 = 5 * MINUTE;
/// How many campaigns are told apart.
const CAMPAIGNS: usize = 20;
/// The fewest samples from which a campaign's percentile is told.
const LEAST: usize = 5;

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Percentiles {
    pub(crate) all: u64,
    pub(crate) campaigns: BTreeMap<CampaignId, u64>,
}

/// Samples of one worker.
#[derive(Debug)]
pub(crate) struct Latency {
    /// Every `stride`-th event is taken.
    stride: u64,
    seen: u64,
    waiting: Vec<(CampaignId, Timestamp)>,
    /// When they were flushed, and campaign and milliseconds of each.
    flushed: VecDeque<(Timestamp, Vec<(CampaignId, u64)>)>,
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self { stride: 1, seen: 0, waiting: Vec::new(), flushed: VecDeque::new() }
    }

    /// Whether the next event is one to sample; call once per counted event.
    pub(crate) fn wants(&mut self) -> bool {
        self.seen += 1;
        self.seen.is_multiple_of(self.stride)
    }

    /// Takes the sample that was wanted.
    pub(crate) fn add(&mut self, campaign: CampaignId, ingest: Timestamp) {
        if self.waiting.len() >= PER_FLUSH {
            // Twice as many events as planned: keep every other sample, take every other event from now on.
            let mut keep = false;
            self.waiting.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride *= 2;
        }
        self.waiting.push((campaign, ingest));
    }

    /// Takes note that everything added so far is visible since `now`.
    pub(crate) fn flushed(&mut self, now: Timestamp) {
        let visible = std::mem::take(&mut self.waiting);
        self.flushed.push_back((now, visible.into_iter().map(|(c, t)| (c, millis(t, now))).collect()));
        let is_old = |at: &Timestamp| now.since(*at) > MEMORY;
        while self.flushed.front().is_some_and(|(at, _)| is_old(at)) {
            self.flushed.pop_front();
        }
        self.stride = 1;
    }

    /// The percentiles as they are if everything becomes visible at `now`.
    pub(crate) fn percentiles(&self, now: Timestamp) -> Percentiles {
        let mut by_campaign = BTreeMap::<&CampaignId, Vec<u64>>::new();
        for (campaign, ms) in self.flushed.iter().flat_map(|(_, samples)| samples) {
            by_campaign.entry(campaign).or_default().push(*ms);
        }
        for (campaign, ingest) in &self.waiting {
            by_campaign.entry(campaign).or_default().push(millis(*ingest, now));
        }
        let all = p95(by_campaign.values().flatten().copied().collect());
        let mut busiest: Vec<_> = by_campaign.into_iter().filter(|(_, ms)| ms.len() >= LEAST).collect();
        busiest.sort_by_key(|(_, ms)| std::cmp::Reverse(ms.len()));
        busiest.truncate(CAMPAIGNS);
        Percentiles { all, campaigns: busiest.into_iter().map(|(c, ms)| (c.clone(), p95(ms))).collect() }
    }
}

fn millis(ingest: Timestamp, visible: Timestamp) -> u64 {
    u64::try_from(visible.since(ingest) / 1_000).unwrap_or(0)
}

/// The smallest value that 95 % do not exceed; 0 of nothing.
fn p95(mut values: Vec<u64>) -> u64 {
    let rank = (values.len() * 95).div_ceil(100).saturating_sub(1);
    if values.is_empty() {
        return 0;
    }
    let (_, value, _) = values.select_nth_unstable(rank);
    *value
}

#[cfg(test)]
mod tests {
    use shared::time::SECOND;

    use super::*;

    fn campaign(n: usize) -> CampaignId {
        CampaignId::new(format!("c{n}")).unwrap()
    }

    #[test]
    fn the_95th_percentile_is_that_of_the_events_and_old_flushes_are_forgotten() {
        let mut latency = Latency::new();
        for n in 1..=100 {
            assert!(latency.wants());
            latency.add(campaign(0), Timestamp(1_000 * SECOND - n * SECOND));
        }
        assert_eq!(latency.percentiles(Timestamp(1_000 * SECOND)).all, 95_000);
        latency.flushed(Timestamp(1_000 * SECOND));
        assert_eq!(latency.percentiles(Timestamp(1_100 * SECOND)).campaigns, BTreeMap::from([(campaign(0), 95_000)]));
        latency.flushed(Timestamp(1_301 * SECOND));
        assert_eq!(latency.percentiles(Timestamp(1_301 * SECOND)), Percentiles::default());
    }

    #[test]
    fn many_events_are_sampled_evenly_within_bounds() {
        let mut latency = Latency::new();
        for n in 0..1_000_000 {
            if latency.wants() {
                latency.add(campaign(n % 30), Timestamp(i64::try_from(n).unwrap()));
            }
        }
        assert!(latency.waiting.len() <= PER_FLUSH);
        // Ages run evenly from 0 to 1,000 ms.
        let all = latency.percentiles(Timestamp(1_000_000)).all;
        assert!((940..=960).contains(&all), "{all}");
        assert!(latency.percentiles(Timestamp(1_000_000)).campaigns.len() <= CAMPAIGNS);
    }
}
