//! Open windows: billable events summed into ad minutes, campaign minutes and campaign hours, in memory.
//! Pure: `flush` sends what changed, `checkpoint` saves all. Rows are absolute, so sending one twice is harmless.
//! On crash: rebuilt from the checkpoint and the records after it. Five minutes and the hours of an ad are merged
//! at read time from minutes. Never: drops a window with rows that were not flushed.

use std::collections::BTreeMap;

use hashbrown::HashTable;
use shared::event::{Country, DeviceType};
use shared::id::{AdId, CampaignId};
use shared::money::{Currency, Overflow};
use shared::rollup::{Counts, RollupKey, RollupRow};
use shared::sketch::Sketch;
use shared::time::{HOUR, MINUTE, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use crate::window::is_closed;

/// A billable event, as far as the windows care.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Billable<'a> {
    pub(crate) minute: Timestamp,
    pub(crate) hour: Timestamp,
    pub(crate) ad: &'a str,
    pub(crate) campaign: &'a str,
    pub(crate) country: Country,
    pub(crate) device: DeviceType,
    pub(crate) currency: Currency,
    pub(crate) user: Option<&'a str>,
    pub(crate) counts: Counts,
}

/// One ad in one minute. (Keys are ordered as [`RollupKey`] orders them.)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AdKey {
    pub(crate) ad: AdId,
    pub(crate) campaign: CampaignId,
    pub(crate) currency: Currency,
}

/// One campaign in one minute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct CampaignKey {
    campaign: CampaignId,
    currency: Currency,
}

/// One campaign in one hour, by dimension.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HourKey {
    pub(crate) campaign: CampaignId,
    pub(crate) country: Country,
    pub(crate) device: DeviceType,
    pub(crate) currency: Currency,
}

#[derive(Debug)]
struct Cell<K, X> {
    key: K,
    hash: u64,
    counts: Counts,
    extra: X,
    is_changed: bool,
}

/// The cells of one window, in the order in which they came, found by hash.
#[derive(Debug)]
struct Grid<K, X> {
    index: HashTable<u32>,
    cells: Vec<Cell<K, X>>,
    /// Which cells changed since the last flush.
    changed: Vec<u32>,
}

impl<K, X> Default for Grid<K, X> {
    fn default() -> Self {
        Self { index: HashTable::new(), cells: Vec::new(), changed: Vec::new() }
    }
}

impl<K, X: Default> Grid<K, X> {
    /// The cell with `hash` whose key `is` the wanted one, made if it is not there, marked as changed.
    /// `None` when it cannot be made: not a key, or 2³² cells.
    fn cell(
        &mut self,
        hash: u64,
        is: impl Fn(&K) -> bool,
        make: impl FnOnce() -> Option<K>,
    ) -> Option<&mut Cell<K, X>> {
        let Self { index, cells, changed } = self;
        let cell_at = |at: &u32| cells.get(*at as usize);
        let found = index.find(hash, |at| cell_at(at).is_some_and(|c| c.hash == hash && is(&c.key))).copied();
        let at = match found {
            Some(at) => at,
            None => {
                let at = u32::try_from(cells.len()).ok()?;
                let key = make()?;
                index.insert_unique(hash, at, |at| cell_at(at).map_or(0, |c| c.hash));
                cells.push(Cell { key, hash, counts: Counts::default(), extra: X::default(), is_changed: false });
                at
            }
        };
        let cell = cells.get_mut(at as usize)?;
        if !cell.is_changed {
            cell.is_changed = true;
            changed.push(at);
        }
        Some(cell)
    }

    /// The cells that changed since the last flush, by key. The first 16 bytes of its `text`, which the key begins
    /// with, nearly always decide, so the cells themselves are seldom looked at.
    fn changed(&self, text: impl Fn(&K) -> &str) -> impl Iterator<Item = &Cell<K, X>>
    where
        K: Ord,
    {
        let cells = self.changed.iter().filter_map(|at| self.cells.get(*at as usize));
        let mut sorted: Vec<_> = cells.map(|cell| (beginning(text(&cell.key)), cell)).collect();
        sorted.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.key.cmp(&y.key)));
        sorted.into_iter().map(|(_, cell)| cell)
    }

    fn mark_flushed(&mut self) {
        for at in std::mem::take(&mut self.changed) {
            if let Some(cell) = self.cells.get_mut(at as usize) {
                cell.is_changed = false;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Minute {
    ads: Grid<AdKey, ()>,
    campaigns: Grid<CampaignKey, ()>,
}

impl Minute {
    fn rows(&self) -> usize {
        self.ads.cells.len() + self.campaigns.cells.len()
    }
}

/// All open windows of one partition.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    minutes: BTreeMap<Timestamp, Minute>,
    hours: BTreeMap<Timestamp, Grid<HourKey, Sketch>>,
    /// How many rows there are, closed ones that wait for a flush included.
    rows: usize,
}

impl Windows {
    /// Adds one event to its three rows.
    ///
    /// # Errors
    /// [`Overflow`] when a sum does not fit; the event is then in none of the rows.
    pub(crate) fn add(&mut self, event: &Billable<'_>) -> Result<(), Overflow> {
        let campaign_hash = xxh3_64(event.campaign.as_bytes());
        let minute = self.minutes.entry(event.minute).or_default();
        let hours = self.hours.entry(event.hour).or_default();
        let before = minute.rows() + hours.cells.len();
        let ad = ad_cell(&mut minute.ads, event, campaign_hash).ok_or(Overflow)?;
        let ad_counts = ad.counts.merge(&event.counts)?;
        let campaign = campaign_cell(&mut minute.campaigns, event, campaign_hash).ok_or(Overflow)?;
        let campaign_counts = campaign.counts.merge(&event.counts)?;
        let hour = hour_cell(hours, event, campaign_hash).ok_or(Overflow)?;
        hour.counts = hour.counts.merge(&event.counts)?;
        campaign.counts = campaign_counts;
        ad.counts = ad_counts;
        if let Some(user) = event.user {
            hour.extra.add(Sketch::hash(user));
        }
        self.rows += minute.rows() + hours.cells.len() - before;
        Ok(())
    }

    /// The end of the oldest open minute, if more than `max` rows are open at `horizon`. (Closed windows that wait
    /// for a flush do not count, so that the answer depends on the records alone.)
    pub(crate) fn crowded(&self, max: usize, horizon: Timestamp) -> Option<Timestamp> {
        if self.rows <= max {
            return None;
        }
        let minutes = self.minutes.range(horizon.floor(MINUTE)..);
        let hours = self.hours.range(horizon.floor(HOUR)..).map(|(_, cells)| cells.cells.len());
        let rows = minutes.clone().map(|(_, minute)| minute.rows()).sum::<usize>() + hours.sum::<usize>();
        (rows > max).then(|| minutes.map(|(start, _)| start.plus(MINUTE)).next()).flatten()
    }

    /// Every row that changed since the last [`Windows::mark_flushed`], sorted by key.
    pub(crate) fn changed_rows(&self) -> Vec<RollupRow> {
        let mut rows = Vec::new();
        for (&minute, cells) in &self.minutes {
            rows.extend(cells.ads.changed(|key| key.ad.as_str()).map(|cell| {
                let AdKey { ad, campaign, currency } = cell.key.clone();
                let key = RollupKey::AdMinute { minute, ad_id: ad, campaign_id: campaign, currency };
                RollupRow { key, counts: cell.counts, uniques: None }
            }));
        }
        for (&minute, cells) in &self.minutes {
            rows.extend(cells.campaigns.changed(|key| key.campaign.as_str()).map(|cell| {
                let CampaignKey { campaign, currency } = cell.key.clone();
                let key = RollupKey::CampaignMinute { minute, campaign_id: campaign, currency };
                RollupRow { key, counts: cell.counts, uniques: None }
            }));
        }
        for (&hour, cells) in &self.hours {
            rows.extend(cells.changed(|key| key.campaign.as_str()).map(|cell| {
                let HourKey { campaign: campaign_id, country, device: device_type, currency } = cell.key.clone();
                let key = RollupKey::CampaignHour { hour, campaign_id, country, device_type, currency };
                RollupRow { key, counts: cell.counts, uniques: Some(cell.extra.clone()) }
            }));
        }
        rows
    }

    /// Takes note that the changed rows are in the store, and drops what is closed before `horizon`.
    pub(crate) fn mark_flushed(&mut self, horizon: Timestamp) {
        self.minutes.retain(|start, _| !is_closed(*start, MINUTE, horizon));
        self.hours.retain(|start, _| !is_closed(*start, HOUR, horizon));
        for minute in self.minutes.values_mut() {
            minute.ads.mark_flushed();
            minute.campaigns.mark_flushed();
        }
        self.hours.values_mut().for_each(Grid::mark_flushed);
        self.recount();
    }

    /// Brings the number of rows up to date.
    pub(crate) fn recount(&mut self) {
        let minutes = self.minutes.values().map(Minute::rows);
        self.rows = minutes.sum::<usize>() + self.hours.values().map(|cells| cells.cells.len()).sum::<usize>();
    }

    /// Every ad minute, minute by minute. (Campaign minutes are their sums.)
    pub(crate) fn ads(&self) -> impl Iterator<Item = (Timestamp, &AdKey, &Counts)> {
        self.minutes.iter().flat_map(|(start, m)| m.ads.cells.iter().map(|c| (*start, &c.key, &c.counts)))
    }

    /// Every campaign hour, hour by hour.
    pub(crate) fn hours(&self) -> impl Iterator<Item = (Timestamp, &HourKey, &Counts, &Sketch)> {
        self.hours.iter().flat_map(|(start, g)| g.cells.iter().map(|c| (*start, &c.key, &c.counts, &c.extra)))
    }

    /// Puts an ad minute back, and its share of the campaign minute; both count as changed.
    pub(crate) fn restore_ad(&mut self, minute: Timestamp, key: AdKey, counts: Counts) -> Result<(), Overflow> {
        let AdKey { ad, campaign, currency } = key;
        let hash = xxh3_64(campaign.as_str().as_bytes());
        let event = Billable {
            minute,
            hour: minute.floor(HOUR),
            ad: ad.as_str(),
            campaign: campaign.as_str(),
            country: Country::UNKNOWN,
            device: DeviceType::Other,
            currency,
            user: None,
            counts,
        };
        let minute = self.minutes.entry(minute).or_default();
        ad_cell(&mut minute.ads, &event, hash).ok_or(Overflow)?.counts = counts;
        let campaign = campaign_cell(&mut minute.campaigns, &event, hash).ok_or(Overflow)?;
        campaign.counts = campaign.counts.merge(&counts)?;
        Ok(())
    }

    /// Puts a campaign hour back; it counts as changed.
    pub(crate) fn restore_hour(&mut self, hour: Timestamp, key: HourKey, counts: Counts, users: Sketch) -> Option<()> {
        let HourKey { campaign, country, device, currency } = key;
        let hash = xxh3_64(campaign.as_str().as_bytes());
        let campaign = campaign.as_str();
        let event = Billable { minute: hour, hour, ad: "", campaign, country, device, currency, user: None, counts };
        let cell = hour_cell(self.hours.entry(hour).or_default(), &event, hash)?;
        cell.counts = counts;
        cell.extra = users;
        Some(())
    }
}

fn ad_cell<'g>(
    grid: &'g mut Grid<AdKey, ()>,
    event: &Billable<'_>,
    campaign_hash: u64,
) -> Option<&'g mut Cell<AdKey, ()>> {
    let hash = mix(xxh3_64(event.ad.as_bytes()), campaign_hash);
    grid.cell(
        hash,
        |key| key.ad.as_str() == event.ad && key.campaign.as_str() == event.campaign && key.currency == event.currency,
        || {
            let (ad, campaign) = (AdId::new(event.ad).ok()?, CampaignId::new(event.campaign).ok()?);
            Some(AdKey { ad, campaign, currency: event.currency })
        },
    )
}

fn campaign_cell<'g>(
    grid: &'g mut Grid<CampaignKey, ()>,
    event: &Billable<'_>,
    campaign_hash: u64,
) -> Option<&'g mut Cell<CampaignKey, ()>> {
    grid.cell(
        campaign_hash,
        |key| key.campaign.as_str() == event.campaign && key.currency == event.currency,
        || Some(CampaignKey { campaign: CampaignId::new(event.campaign).ok()?, currency: event.currency }),
    )
}

fn hour_cell<'g>(
    grid: &'g mut Grid<HourKey, Sketch>,
    event: &Billable<'_>,
    campaign_hash: u64,
) -> Option<&'g mut Cell<HourKey, Sketch>> {
    let &Billable { country, device, currency, .. } = event;
    let [a, b] = country.as_str().as_bytes().first_chunk::<2>().copied().unwrap_or_default();
    let hash = mix(campaign_hash, u64::from_le_bytes([a, b, device as u8, 0, 0, 0, 0, 0]));
    grid.cell(
        hash,
        |key| {
            key.campaign.as_str() == event.campaign
                && (key.country, key.device, key.currency) == (country, device, currency)
        },
        || Some(HourKey { campaign: CampaignId::new(event.campaign).ok()?, country, device, currency }),
    )
}

/// The first 16 bytes as a number that orders like the text. (No id has a byte 0, which is what is missing counts as.)
fn beginning(text: &str) -> u128 {
    if let Some(first) = text.as_bytes().first_chunk::<16>() {
        return u128::from_be_bytes(*first);
    }
    let mut first = [0; 16];
    first.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte);
    u128::from_be_bytes(first)
}

/// One hash of two: a rotation and an odd factor keep both parts' bits apart.
fn mix(a: u64, b: u64) -> u64 {
    (a.rotate_left(23) ^ b).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
