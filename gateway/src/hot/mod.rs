//! Hot ads: an ad that is too much for one partition is spread over several, and no other ad is.
//!
//! Some events, chosen blindly, are counted by ad (`space_saving`). Once a window (`tick`) an ad whose share passed
//! `enter_percent` of what one partition should carry gets salts, as many as bring each of its parts below that again;
//! while it is hot their number only grows. It stays hot until its share has been below `leave_percent` for `leave_after`.
//!
//! Guarantees: an event comes to the same partition for as long as the map stands, so that its repetition does too; every
//! change of the map has a version of its own, greater than all before, also after a restart (unless the clock was set
//! back), and each record says by which it was placed. Bounded: ads counted, ads that are hot. A crash forgets the map: ads
//! are at home until they are found hot again. Rows of several partitions are summed where they are read, and batch looks at
//! no partition: exact numbers do not depend on any of this. Never: waits for a lock on the way of an event but to read the
//! map.

mod settings;
mod space_saving;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use shared::event::Event;
use shared::event_log::Delivered;
use shared::id::AdId;
use shared::partition::{partition_of, salted_partition_of};
use shared::telemetry::metric_names::{GATEWAY_APPENDED, GATEWAY_HOT_ADS, GATEWAY_SALT_MAP};
use shared::time::{SECOND, Timestamp};

pub use settings::Settings;
use space_saving::SpaceSaving;

/// One event in so many is counted.
const SAMPLED: u64 = 16;
/// Ads counted for each partition: the error of a count is then at most this part of a partition's fair share.
const COUNTED_PER_PARTITION: u32 = 16;
/// The most ads that are hot at once.
const MAX_HOT: usize = 1_024;

/// Which ads are spread over how many partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaltMap {
    version: u64,
    salts: BTreeMap<AdId, u32>,
}

impl SaltMap {
    /// Milliseconds since 1970 of the last change, or one more than the version before; 0 before the first change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Over how many partitions each hot ad is spread.
    #[must_use]
    pub fn salts(&self) -> &BTreeMap<AdId, u32> {
        &self.salts
    }

    /// Where an event belongs in a log of so many partitions.
    #[must_use]
    pub fn partition_of(&self, event: &Event, partitions: u32) -> u32 {
        let ad = event.ad_id.as_str();
        match self.salts.get(&event.ad_id) {
            None => partition_of(ad, partitions),
            Some(salts) => salted_partition_of(ad, event.event_id.as_str(), *salts, partitions),
        }
    }
}

/// The ads of one window, and since when hot ads have been calm.
struct Window {
    began: Timestamp,
    calm_since: BTreeMap<AdId, Timestamp>,
}

/// Finds hot ads and says where events belong.
pub struct HotAds {
    settings: Settings,
    partitions: u32,
    map: RwLock<Arc<SaltMap>>,
    passed: AtomicU64,
    counts: Mutex<SpaceSaving<AdId>>,
    window: Mutex<Window>,
    appended: Vec<AtomicU64>,
}

impl HotAds {
    /// Nothing is hot yet, in a log of so many partitions.
    #[must_use]
    pub fn new(settings: Settings, partitions: u32, now: Timestamp) -> Self {
        Self {
            settings,
            partitions,
            map: RwLock::default(),
            passed: AtomicU64::new(0),
            counts: Mutex::new(summary(partitions)),
            window: Mutex::new(Window { began: now, calm_since: BTreeMap::new() }),
            appended: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The map as it stands: take it once for the events of a request.
    #[must_use]
    pub fn map(&self) -> Arc<SaltMap> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Events of these ads have come; those that are duplicates too.
    pub fn pass<'a>(&self, ads: impl ExactSizeIterator<Item = &'a AdId>) {
        if !self.settings.enabled {
            return;
        }
        let first = self.passed.fetch_add(ads.len() as u64, Ordering::Relaxed);
        let mut sampled = (first..).zip(ads).filter(|(n, _)| is_sampled(*n)).map(|(_, ad)| ad).peekable();
        // Where somebody else is counting, these may as well be among those that are not.
        if sampled.peek().is_some()
            && let Ok(mut counts) = self.counts.try_lock()
        {
            sampled.for_each(|ad| counts.count(ad));
        }
    }

    /// Records were appended.
    pub fn appended(&self, delivered: &[Delivered]) {
        for at in delivered {
            if let Some(count) = usize::try_from(at.partition).ok().and_then(|p| self.appended.get(p)) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Looks, once a window, at who is hot; shows metrics. To be called on a timer.
    pub fn tick(&self, now: Timestamp) {
        self.look(now);
        let map = self.map();
        metrics::gauge!(GATEWAY_HOT_ADS).set(u32::try_from(map.salts.len()).unwrap_or(u32::MAX));
        #[allow(clippy::cast_precision_loss)] // milliseconds since 1970 fit
        metrics::gauge!(GATEWAY_SALT_MAP).set(map.version as f64);
        for (partition, count) in self.appended.iter().enumerate() {
            let counter = metrics::counter!(GATEWAY_APPENDED, "partition" => partition.to_string());
            counter.absolute(count.load(Ordering::Relaxed));
        }
    }

    fn look(&self, now: Timestamp) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let lasted = now.since(window.began);
        if !self.settings.enabled || (0..self.settings.window.as_micros()).contains(&lasted) {
            return;
        }
        window.began = now;
        let counts = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *counts, summary(self.partitions))
        };
        let old = self.map();
        let new = self.judge(&counts, lasted.max(SECOND), &old.salts, &mut window.calm_since, now);
        if new != old.salts {
            let version = u64::try_from(now.as_millis()).unwrap_or_default().max(old.version + 1);
            tracing::info!(salts = ?new, version, "the salt map changed");
            *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(SaltMap { version, salts: new });
        }
    }

    /// The salts after a window of `lasted` microseconds.
    fn judge(
        &self,
        counts: &SpaceSaving<AdId>,
        lasted: i64,
        old: &BTreeMap<AdId, u32>,
        calm_since: &mut BTreeMap<AdId, Timestamp>,
        now: Timestamp,
    ) -> BTreeMap<AdId, u32> {
        let mut new = old.clone();
        // So often a sampled ad brings its lowest rate; and the share of a partition in percent, times the total.
        let seconds = u64::try_from(lasted / SECOND).unwrap_or_default();
        let enough = self.settings.min_per_second.saturating_mul(seconds) / SAMPLED;
        let percent = |count: u64| count.saturating_mul(u64::from(self.partitions)).saturating_mul(100);
        let (enter, leave) = (self.settings.enter_percent * counts.seen(), self.settings.leave_percent * counts.seen());
        let mut busy = BTreeSet::new();
        for counted in counts.held() {
            if percent(counted.most) >= leave.max(1) {
                busy.insert(&counted.key);
            }
            let surely = beyond_chance(counted.least());
            if percent(surely) < enter.max(1) || surely < enough.max(1) {
                continue;
            }
            let parts = percent(surely).div_ceil(enter.max(1));
            let salts = u32::try_from(parts.next_power_of_two()).unwrap_or(u32::MAX).clamp(2, self.partitions.max(1));
            if new.contains_key(&counted.key) || new.len() < MAX_HOT {
                let has = new.entry(counted.key.clone()).or_default();
                *has = salts.max(*has);
            }
        }
        let leave_after = self.settings.leave_after.as_micros();
        calm_since.retain(|ad, _| new.contains_key(ad) && !busy.contains(ad));
        new.retain(|ad, _| busy.contains(ad) || now.since(*calm_since.entry(ad.clone()).or_insert(now)) < leave_after);
        new
    }
}

fn summary(partitions: u32) -> SpaceSaving<AdId> {
    SpaceSaving::new(usize::try_from(partitions.saturating_mul(COUNTED_PER_PARTITION)).unwrap_or(usize::MAX))
}

/// What a count of sampled events shows for certain: three standard deviations less.
fn beyond_chance(count: u64) -> u64 {
    count.saturating_sub(3 * count.isqrt())
}

/// Chooses one number in [`SAMPLED`], without a pattern that traffic could follow (SplitMix64).
fn is_sampled(number: u64) -> bool {
    let mut z = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z >> 32).is_multiple_of(SAMPLED)
}

#[cfg(test)]
mod tests;
