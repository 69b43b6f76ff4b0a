//! Open windows: billable events summed into ad minutes, campaign minutes and campaign hours, in memory.
//! Pure: `flush` sends what changed, `checkpoint` saves all. Rows are absolute, so sending one twice is harmless.
//! On crash: rebuilt from the checkpoint and the records after it. Five minutes and the hours of an ad are merged
//! at read time from minutes. Never: drops a window with rows that were not flushed.

use shared::event::{Country, DeviceType};
use shared::id::IdRef;
use shared::money::{Currency, Overflow};
use shared::price::{Price, PriceBook};
use shared::rollup::{Counts, RollupKey, RollupRow};
use shared::sketch::Sketch;
use shared::time::{HOUR, MINUTE, Timestamp};

use crate::grid::{Cell, Grid, Key, spread};
use crate::names::{Names, Recent};
use crate::window::is_closed;

/// A billable event, as far as the windows care.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Billable<'a> {
    pub(crate) minute: Timestamp,
    pub(crate) hour: Timestamp,
    /// By [`Windows::number`].
    pub(crate) ad: u32,
    /// Where its campaign hour may be, by [`Windows::look_ahead`].
    pub(crate) guess: u32,
    pub(crate) country: Country,
    pub(crate) device: DeviceType,
    pub(crate) currency: Currency,
    pub(crate) user: Option<&'a str>,
    pub(crate) counts: Counts,
}

/// One ad of one campaign in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AdKey {
    pub(crate) ad: u32,
    pub(crate) currency: Currency,
}

/// One campaign in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CampaignKey {
    campaign: u32,
    currency: Currency,
}

/// One campaign in one hour, by dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HourKey {
    pub(crate) campaign: u32,
    pub(crate) country: Country,
    pub(crate) device: DeviceType,
    pub(crate) currency: Currency,
}

impl Key for AdKey {
    fn hash(self) -> u64 {
        spread(u64::from(self.ad), number_of(self.currency))
    }
}

impl Key for CampaignKey {
    fn hash(self) -> u64 {
        spread(u64::from(self.campaign), number_of(self.currency))
    }
}

impl Key for HourKey {
    fn hash(self) -> u64 {
        let [a, b] = self.country.letters();
        let place = u64::from_le_bytes([a, b, self.device as u8, 0, 0, 0, 0, 0]);
        spread(u64::from(self.campaign) | place << 32, number_of(self.currency))
    }
}

fn number_of(currency: Currency) -> u64 {
    let [a, b, c] = currency.letters();
    u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0])
}

#[derive(Debug, Default)]
pub(crate) struct Minute {
    pub(crate) ads: Grid<AdKey, ()>,
    campaigns: Grid<CampaignKey, ()>,
}

impl Minute {
    fn rows(&self) -> usize {
        self.ads.len() + self.campaigns.len()
    }
}

/// Windows by their start, the latest last: most events are in it.
#[derive(Debug)]
struct ByStart<T>(Vec<(Timestamp, T)>);

impl<T> Default for ByStart<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Default> ByStart<T> {
    /// The window that begins at `start`, made if it is not there. (Always `Some`.)
    fn at(&mut self, start: Timestamp) -> Option<&mut T> {
        let is_last = self.0.last().is_some_and(|(last, _)| *last == start);
        let found = if is_last { Ok(self.0.len() - 1) } else { self.0.binary_search_by_key(&start, |(s, _)| *s) };
        let at = found.unwrap_or_else(|at| {
            self.0.insert(at, (start, T::default()));
            at
        });
        self.0.get_mut(at).map(|(_, window)| window)
    }

    /// Those from `start` on.
    fn since(&self, start: Timestamp) -> &[(Timestamp, T)] {
        self.0.get(self.0.partition_point(|(s, _)| *s < start)..).unwrap_or_default()
    }
}

/// All open windows of one partition.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    names: Names,
    minutes: ByStart<Minute>,
    hours: ByStart<Grid<HourKey, Sketch>>,
    /// How many rows there are, closed ones that wait for a flush included.
    rows: usize,
    /// Users that are not in their hours' sketches yet: the hour, the cell, the hash.
    users: Vec<(Timestamp, u32, u64)>,
}

impl Windows {
    /// The number of an ad under a campaign, good until the next [`Windows::mark_flushed`].
    ///
    /// # Errors
    /// [`Overflow`] when there are 2³² of them.
    pub(crate) fn number(&mut self, ad: IdRef<'_>, campaign: IdRef<'_>) -> Result<u32, Overflow> {
        self.names.number(ad, campaign).ok_or(Overflow)
    }

    /// The price of an ad at `at` by `book`, which is always the same until [`Windows::forget_prices`].
    pub(crate) fn price(&mut self, ad: u32, at: Timestamp, book: &PriceBook) -> Price {
        self.names.price(ad, at, book)
    }

    /// The next prices come from another book.
    pub(crate) fn forget_prices(&mut self) {
        self.names.forget_prices();
    }

    /// Adds one event to its three rows.
    ///
    /// # Errors
    /// [`Overflow`] when a sum does not fit; the event is then in none of the rows.
    pub(crate) fn add(&mut self, event: &Billable<'_>) -> Result<(), Overflow> {
        let &Billable { ad, country, device, currency, .. } = event;
        let (campaign, of_ad, of_campaign) = self.names.recent(ad).ok_or(Overflow)?;
        let minute = self.minutes.at(event.minute).ok_or(Overflow)?;
        let hour = self.hours.at(event.hour).ok_or(Overflow)?;
        let before = minute.rows() + hour.len();
        let ad = minute.ads.cell(AdKey { ad, currency }, guess(of_ad, event.minute)).ok_or(Overflow)?;
        let ad_counts = ad.counts.merge(&event.counts)?;
        let key = CampaignKey { campaign, currency };
        let of_minute = minute.campaigns.cell(key, guess(of_campaign, event.minute)).ok_or(Overflow)?;
        let campaign_counts = of_minute.counts.merge(&event.counts)?;
        let mut at = event.guess;
        let of_hour = hour.cell(HourKey { campaign, country, device, currency }, &mut at).ok_or(Overflow)?;
        of_hour.counts = of_hour.counts.merge(&event.counts)?;
        of_minute.counts = campaign_counts;
        ad.counts = ad_counts;
        if let Some(user) = event.user {
            self.users.push((event.hour, at, Sketch::hash(user)));
        }
        self.rows += minute.rows() + hour.len() - before;
        Ok(())
    }

    /// Puts the users of the events so far into their sketches: in a loop that does nothing else, so that waiting for
    /// one sketch's memory overlaps with the next one's.
    pub(crate) fn settle(&mut self) {
        for (hour, at, user) in self.users.drain(..) {
            if let Some(cell) = self.hours.at(hour).and_then(|cells| cells.get_mut(at)) {
                cell.extra.add(user);
            }
        }
    }

    /// The number of an ad, if it has one, to [`Windows::look_ahead`].
    pub(crate) fn find(&self, ad: IdRef<'_>, campaign: IdRef<'_>) -> Option<u32> {
        self.names.find(ad, campaign)
    }

    /// Reads where an event's rows probably are, so that their memory is near when it is written. Gives a guess where
    /// its campaign hour is, and a number that means nothing.
    pub(crate) fn look_ahead(
        &self,
        ad: u32,
        at: Timestamp,
        country: Country,
        device: DeviceType,
    ) -> Option<(u32, u64)> {
        let (campaign, recent, currency) = self.names.last(ad)?;
        let (_, minute) = self.minutes.since(at.floor(MINUTE)).first()?;
        let cell = minute.ads.cells().get(recent_of(recent, at) as usize);
        let (_, hour) = self.hours.since(at.floor(HOUR)).first()?;
        let guess = hour.find(HourKey { campaign, country, device, currency })?;
        Some((guess, cell.map_or(0, |cell| cell.counts.impressions)))
    }

    /// The end of the oldest open minute, if more than `max` rows are open at `horizon`. (Closed windows that wait
    /// for a flush do not count, so that the answer depends on the records alone.)
    pub(crate) fn crowded(&self, max: usize, horizon: Timestamp) -> Option<Timestamp> {
        if self.rows <= max {
            return None;
        }
        let minutes = self.minutes.since(horizon.floor(MINUTE));
        let hours = self.hours.since(horizon.floor(HOUR)).iter().map(|(_, cells)| cells.len());
        let rows = minutes.iter().map(|(_, minute)| minute.rows()).sum::<usize>() + hours.sum::<usize>();
        (rows > max).then(|| minutes.first().map(|(start, _)| start.plus(MINUTE))).flatten()
    }

    /// Every row that changed since the last [`Windows::mark_flushed`], sorted by key.
    pub(crate) fn changed_rows(&self) -> Vec<RollupRow> {
        let Self { names, minutes, hours, .. } = self;
        let of_minutes = minutes.0.iter().map(|(_, m)| m.ads.changed_len() + m.campaigns.changed_len());
        let of_hours = hours.0.iter().map(|(_, cells)| cells.changed_len());
        let mut rows = Vec::with_capacity(of_minutes.chain(of_hours).sum());
        for (minute, cells) in &minutes.0 {
            let name = |key: AdKey| names.ids(key.ad).map(|(ad, campaign)| (ad, campaign, key.currency));
            rows.extend(sorted(&cells.ads, |(ad, ..)| ad.as_str(), name).map(|((ad, campaign, currency), cell)| {
                let (minute, ad_id, campaign_id) = (*minute, ad.clone(), campaign.clone());
                let key = RollupKey::AdMinute { minute, ad_id, campaign_id, currency };
                RollupRow { key, counts: cell.counts, uniques: None }
            }));
        }
        for (minute, cells) in &minutes.0 {
            let name = |key: CampaignKey| names.campaign(key.campaign).map(|campaign| (campaign, key.currency));
            rows.extend(sorted(&cells.campaigns, |(c, _)| c.as_str(), name).map(|((campaign, currency), cell)| {
                let key = RollupKey::CampaignMinute { minute: *minute, campaign_id: campaign.clone(), currency };
                RollupRow { key, counts: cell.counts, uniques: None }
            }));
        }
        for (hour, cells) in &hours.0 {
            let name = |key: HourKey| names.campaign(key.campaign).map(|c| (c, key.country, key.device, key.currency));
            rows.extend(sorted(cells, |(c, ..)| c.as_str(), name).map(
                |((c, country, device_type, currency), cell)| {
                    let (hour, campaign_id) = (*hour, c.clone());
                    let key = RollupKey::CampaignHour { hour, campaign_id, country, device_type, currency };
                    RollupRow { key, counts: cell.counts, uniques: Some(cell.extra.clone()) }
                },
            ));
        }
        rows
    }

    /// Takes note that the changed rows are in the store, and drops what is closed before `horizon`.
    pub(crate) fn mark_flushed(&mut self, horizon: Timestamp) {
        self.minutes.0.retain(|(start, _)| !is_closed(*start, MINUTE, horizon));
        self.hours.0.retain(|(start, _)| !is_closed(*start, HOUR, horizon));
        for (_, minute) in &mut self.minutes.0 {
            minute.ads.mark_flushed();
            minute.campaigns.mark_flushed();
        }
        self.hours.0.iter_mut().for_each(|(_, cells)| cells.mark_flushed());
        if self.names.is_crowded() {
            let ads = self.minutes.0.iter().flat_map(|(_, m)| m.ads.cells().iter().map(|cell| cell.key.ad));
            let campaigns = self.hours.0.iter().flat_map(|(_, h)| h.cells().iter().map(|cell| cell.key.campaign));
            self.names.keep(ads, campaigns);
        }
        self.recount();
    }

    /// Brings the number of rows up to date.
    pub(crate) fn recount(&mut self) {
        let minutes = self.minutes.0.iter().map(|(_, minute)| minute.rows());
        self.rows = minutes.sum::<usize>() + self.hours.0.iter().map(|(_, cells)| cells.len()).sum::<usize>();
    }

    /// The ids by their numbers.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Every minute. (Campaign minutes are the sums of their ads'.)
    pub(crate) fn minutes(&self) -> impl Iterator<Item = (Timestamp, &Grid<AdKey, ()>)> {
        self.minutes.0.iter().map(|(start, minute)| (*start, &minute.ads))
    }

    /// Every hour.
    pub(crate) fn hours(&self) -> impl Iterator<Item = (Timestamp, &Grid<HourKey, Sketch>)> {
        self.hours.0.iter().map(|(start, cells)| (*start, cells))
    }

    /// Makes room for so many ads.
    pub(crate) fn reserve_ads(&mut self, more: usize) {
        self.names.reserve(more);
    }

    /// Makes room for so many ads' rows in a minute.
    pub(crate) fn reserve_rows(&mut self, minute: Timestamp, more: usize) {
        if let Some(minute) = self.minutes.at(minute) {
            minute.ads.reserve(more);
        }
    }

    /// Puts an ad minute back, and its share of the campaign minute; both count as changed.
    pub(crate) fn restore_ad(
        &mut self,
        start: Timestamp,
        ad: u32,
        currency: Currency,
        counts: Counts,
    ) -> Result<(), Overflow> {
        let (campaign, of_ad, of_campaign) = self.names.recent(ad).ok_or(Overflow)?;
        let minute = self.minutes.at(start).ok_or(Overflow)?;
        let guess_ad = guess(of_ad, start);
        // What it says is of another minute: to look there would only wait for memory.
        *guess_ad = u32::MAX;
        minute.ads.cell(AdKey { ad, currency }, guess_ad).ok_or(Overflow)?.counts = counts;
        let key = CampaignKey { campaign, currency };
        let of_minute = minute.campaigns.cell(key, guess(of_campaign, start)).ok_or(Overflow)?;
        of_minute.counts = of_minute.counts.merge(&counts)?;
        Ok(())
    }

    /// Puts a campaign hour back; it counts as changed.
    pub(crate) fn restore_hour(
        &mut self,
        start: Timestamp,
        campaign: IdRef<'_>,
        (country, device, currency): (Country, DeviceType, Currency),
        counts: Counts,
        users: Sketch,
    ) -> Option<()> {
        let campaign = self.names.campaign_number(campaign)?;
        let mut nowhere = u32::MAX;
        let cell = self.hours.at(start)?.cell(HourKey { campaign, country, device, currency }, &mut nowhere)?;
        cell.counts = counts;
        cell.extra = users;
        Some(())
    }
}

fn recent_of([even, odd]: Recent, at: Timestamp) -> u32 {
    if at.0 / MINUTE % 2 == 0 { even } else { odd }
}

/// Where the row of that minute was last.
fn guess(recent: &mut Recent, minute: Timestamp) -> &mut u32 {
    let [even, odd] = recent;
    if minute.0 / MINUTE % 2 == 0 { even } else { odd }
}

/// The cells that changed since the last flush, by name. The first 16 bytes of its text nearly always decide, so the
/// names themselves are seldom compared.
fn sorted<K: Key, X, N: Ord>(
    grid: &Grid<K, X>,
    text: impl Fn(&N) -> &str,
    name: impl Fn(K) -> Option<N>,
) -> impl Iterator<Item = (N, &Cell<K, X>)> {
    let named = grid.changed().filter_map(|cell| Some((beginning(text(&name(cell.key)?)), cell)));
    let mut sorted: Vec<_> = named.collect();
    sorted.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| name(x.key).cmp(&name(y.key))));
    sorted.into_iter().filter_map(move |(_, cell)| Some((name(cell.key)?, cell)))
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
