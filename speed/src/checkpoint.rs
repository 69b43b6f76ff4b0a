//! The checkpoint: one partition's whole state and its position as one object, so that they cannot disagree.
//! Remembered ids are named with length and checksum, not contained (see `dedup`). Protobuf, so that fields can be
//! added; a format number so that a change of meaning is noticed.
//! Rows of ad minutes, of which there may be millions, are columns of numbers that point into one list of ads.
//! Never: holds what can be computed (campaign minutes are the sums of their ads').

use std::collections::BTreeMap;

use prost::Message;
use shared::event::{Country, DeviceType};
use shared::id::IdRef;
use shared::money::Currency;
use shared::rollup::Counts;
use shared::sketch::Sketch;
use shared::time::Timestamp;

use crate::aggregate::{AdKey, Windows};
use crate::dedup::MemoryMessage;
use crate::grid::Grid;

/// Today's meaning of the fields.
pub(crate) const FORMAT: u32 = 2;
/// The one before, which is still read: it has the ad minutes one by one.
const FORMAT_BEFORE: u32 = 1;

/// A worker's state. Times are microseconds.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StateMessage {
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) partition: u32,
    #[prost(uint64, tag = "3")]
    pub(crate) next_position: u64,
    #[prost(int64, tag = "4")]
    pub(crate) newest: i64,
    #[prost(int64, tag = "5")]
    pub(crate) horizon: i64,
    #[prost(int64, tag = "6")]
    pub(crate) heard: i64,
    #[prost(int64, tag = "7")]
    pub(crate) max_event_time: i64,
    #[prost(int64, tag = "8")]
    pub(crate) as_of: i64,
    /// By outcome's word.
    #[prost(btree_map = "string, uint64", tag = "9")]
    pub(crate) outcomes: BTreeMap<String, u64>,
    #[prost(btree_map = "int64, uint64", tag = "10")]
    pub(crate) late_by_hour: BTreeMap<i64, u64>,
    /// Ad minutes as format 1 had them; empty since.
    #[prost(message, repeated, tag = "11")]
    pub(crate) old_ads: Vec<AdMessage>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) hours: Vec<HourMessage>,
    #[prost(message, optional, tag = "13")]
    pub(crate) ids: Option<MemoryMessage>,
    #[prost(message, optional, tag = "14")]
    pub(crate) clicks: Option<MemoryMessage>,
    #[prost(message, optional, tag = "15")]
    pub(crate) minutes: Option<MinutesMessage>,
}

/// Every ad minute. Numbers count from 0.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MinutesMessage {
    #[prost(string, repeated, tag = "1")]
    campaigns: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    ads: Vec<String>,
    /// Each ad's campaign, by number.
    #[prost(uint32, repeated, tag = "3")]
    ad_campaigns: Vec<u32>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) minutes: Vec<MinuteMessage>,
}

/// The ads of one minute, a column for each field.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MinuteMessage {
    #[prost(int64, tag = "1")]
    minute: i64,
    /// By number.
    #[prost(uint32, repeated, tag = "2")]
    ads: Vec<u32>,
    /// Three letters each.
    #[prost(bytes = "vec", tag = "3")]
    currencies: Vec<u8>,
    #[prost(uint64, repeated, tag = "4")]
    impressions: Vec<u64>,
    #[prost(uint64, repeated, tag = "5")]
    clicks: Vec<u64>,
    #[prost(uint64, repeated, tag = "6")]
    conversions: Vec<u64>,
    /// The upper and the lower half of the 128-bit sum.
    #[prost(sint64, repeated, tag = "7")]
    cost_high: Vec<i64>,
    #[prost(uint64, repeated, tag = "8")]
    cost_low: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CountsMessage {
    #[prost(uint64, tag = "1")]
    impressions: u64,
    #[prost(uint64, tag = "2")]
    clicks: u64,
    #[prost(uint64, tag = "3")]
    conversions: u64,
    /// The upper and the lower half of the 128-bit sum.
    #[prost(sint64, tag = "4")]
    cost_high: i64,
    #[prost(uint64, tag = "5")]
    cost_low: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AdMessage {
    #[prost(int64, tag = "1")]
    minute: i64,
    #[prost(string, tag = "2")]
    ad: String,
    #[prost(string, tag = "3")]
    campaign: String,
    #[prost(string, tag = "4")]
    currency: String,
    #[prost(message, required, tag = "5")]
    counts: CountsMessage,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HourMessage {
    #[prost(int64, tag = "1")]
    hour: i64,
    #[prost(string, tag = "2")]
    campaign: String,
    #[prost(string, tag = "3")]
    country: String,
    #[prost(string, tag = "4")]
    device: String,
    #[prost(string, tag = "5")]
    currency: String,
    #[prost(message, required, tag = "6")]
    counts: CountsMessage,
    #[prost(bytes = "vec", tag = "7")]
    users: Vec<u8>,
}

/// The object's bytes.
pub(crate) fn encode(message: &StateMessage) -> Vec<u8> {
    message.encode_to_vec()
}

/// From the object's bytes; `None` when they are not a checkpoint of this format or the one before.
pub(crate) fn decode(bytes: &[u8]) -> Option<StateMessage> {
    StateMessage::decode(bytes).ok().filter(|m| [FORMAT, FORMAT_BEFORE].contains(&m.format))
}

/// The open windows as messages.
pub(crate) fn windows(windows: &Windows) -> (MinutesMessage, Vec<HourMessage>) {
    let mut ads = Renumbered::new(windows);
    let minutes = windows.minutes().map(|(minute, cells)| ads.minute(minute, cells)).collect();
    let mut hours = Vec::new();
    for (hour, cells) in windows.hours() {
        hours.extend(cells.cells().iter().filter_map(|cell| {
            let campaign = windows.names().campaign(cell.key.campaign)?;
            Some(HourMessage {
                hour: hour.0,
                campaign: campaign.to_string(),
                country: cell.key.country.as_str().to_owned(),
                device: cell.key.device.as_str().to_owned(),
                currency: cell.key.currency.to_string(),
                counts: (&cell.counts).into(),
                users: cell.extra.to_bytes(),
            })
        }));
    }
    (MinutesMessage { minutes, ..ads.names }, hours)
}

/// Ads and campaigns numbered in the order in which the rows name them, so that equal rows give equal bytes.
struct Renumbered<'w> {
    windows: &'w Windows,
    /// The new numbers plus 1, by the windows' own.
    ads: Vec<u32>,
    campaigns: Vec<u32>,
    names: MinutesMessage,
}

impl<'w> Renumbered<'w> {
    fn new(windows: &'w Windows) -> Self {
        let names = windows.names();
        let (ads, campaigns) = (vec![0; names.ads()], vec![0; names.campaigns()]);
        Self { windows, ads, campaigns, names: MinutesMessage::default() }
    }

    fn minute(&mut self, minute: Timestamp, cells: &Grid<AdKey, ()>) -> MinuteMessage {
        let cells = cells.cells();
        let mut columns = MinuteMessage::with_capacity(minute, cells.len());
        for cell in cells {
            if let Some(ad) = self.ad(cell.key.ad) {
                columns.push(ad, cell.key.currency, &cell.counts);
            }
        }
        columns
    }

    fn ad(&mut self, ad: u32) -> Option<u32> {
        let names = self.windows.names();
        let number = self.ads.get_mut(ad as usize)?;
        if *number == 0 {
            let (id, campaign_id) = names.ids(ad)?;
            let campaign = self.campaigns.get_mut(names.campaign_of(ad)? as usize)?;
            if *campaign == 0 {
                self.names.campaigns.push(campaign_id.to_string());
                *campaign = u32::try_from(self.names.campaigns.len()).ok()?;
            }
            self.names.ads.push(id.to_string());
            self.names.ad_campaigns.push(*campaign - 1);
            *number = u32::try_from(self.names.ads.len()).ok()?;
        }
        Some(*number - 1)
    }
}

impl MinuteMessage {
    fn with_capacity(minute: Timestamp, rows: usize) -> Self {
        Self {
            minute: minute.0,
            ads: Vec::with_capacity(rows),
            currencies: Vec::with_capacity(3 * rows),
            impressions: Vec::with_capacity(rows),
            clicks: Vec::with_capacity(rows),
            conversions: Vec::with_capacity(rows),
            cost_high: Vec::with_capacity(rows),
            cost_low: Vec::with_capacity(rows),
        }
    }

    fn push(&mut self, ad: u32, currency: Currency, counts: &Counts) {
        let (cost_high, cost_low) = halves(counts.cost_nanos);
        self.ads.push(ad);
        self.currencies.extend(currency.letters());
        self.impressions.push(counts.impressions);
        self.clicks.push(counts.clicks);
        self.conversions.push(counts.conversions);
        self.cost_high.push(cost_high);
        self.cost_low.push(cost_low);
    }

    /// Its rows; `None` when the columns differ in length or a currency is none.
    fn rows(&self) -> Option<impl Iterator<Item = Option<(u32, Currency, Counts)>>> {
        let rows = self.ads.len();
        let lengths = [self.impressions.len(), self.clicks.len(), self.conversions.len()];
        let costs = [self.cost_high.len(), self.cost_low.len(), self.currencies.len() / 3];
        if lengths.into_iter().chain(costs).any(|length| length != rows) || !self.currencies.len().is_multiple_of(3) {
            return None;
        }
        let currencies = self.currencies.chunks_exact(3).map(|c| std::str::from_utf8(c).ok().and_then(Currency::parse));
        let shown = self.impressions.iter().zip(&self.clicks).zip(&self.conversions);
        let cost = self.cost_high.iter().zip(&self.cost_low);
        let counts = shown.zip(cost).map(|(((impressions, clicks), conversions), (high, low))| Counts {
            impressions: *impressions,
            clicks: *clicks,
            conversions: *conversions,
            cost_nanos: whole(*high, *low),
        });
        let rows = self.ads.iter().zip(currencies).zip(counts);
        Some(rows.map(|((ad, currency), counts)| Some((*ad, currency?, counts))))
    }
}

/// The windows of a checkpoint, every row marked as changed; `None` when a field is not what it must be.
pub(crate) fn restore_windows(message: &StateMessage) -> Option<Windows> {
    let mut windows = Windows::default();
    if let Some(minutes) = &message.minutes {
        restore_minutes(&mut windows, minutes)?;
    }
    for m in &message.old_ads {
        let (ad, campaign) = (IdRef::new(m.ad.as_bytes())?, IdRef::new(m.campaign.as_bytes())?);
        let (ad, currency) = (windows.number(ad, campaign).ok()?, Currency::parse(&m.currency)?);
        windows.restore_ad(Timestamp(m.minute), ad, currency, (&m.counts).into()).ok()?;
    }
    for m in &message.hours {
        let campaign = IdRef::new(m.campaign.as_bytes())?;
        let place = (Country::parse(&m.country)?, DeviceType::parse(&m.device)?, Currency::parse(&m.currency)?);
        let users = Sketch::from_bytes(&m.users).ok()?;
        windows.restore_hour(Timestamp(m.hour), campaign, place, (&m.counts).into(), users)?;
    }
    windows.recount();
    Some(windows)
}

fn restore_minutes(windows: &mut Windows, message: &MinutesMessage) -> Option<()> {
    let campaigns: Option<Vec<_>> = message.campaigns.iter().map(|id| IdRef::new(id.as_bytes())).collect();
    let campaigns = campaigns?;
    let MinutesMessage { ads, ad_campaigns, minutes, .. } = message;
    windows.reserve_ads(ads.len());
    let numbers: Option<Vec<u32>> = ads
        .iter()
        .zip(ad_campaigns)
        .map(|(ad, at)| windows.number(IdRef::new(ad.as_bytes())?, *campaigns.get(*at as usize)?).ok())
        .collect();
    let numbers = numbers?;
    for m in minutes {
        let minute = Timestamp(m.minute);
        windows.reserve_rows(minute, m.ads.len());
        for row in m.rows()? {
            let (ad, currency, counts) = row?;
            windows.restore_ad(minute, *numbers.get(ad as usize)?, currency, counts).ok()?;
        }
    }
    Some(())
}

/// The upper and the lower half of a sum.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // taking the two halves is the point
fn halves(sum: i128) -> (i64, u64) {
    ((sum >> 64) as i64, sum as u64)
}

/// The sum of which these are the halves.
fn whole(high: i64, low: u64) -> i128 {
    (i128::from(high) << 64) | i128::from(low)
}

impl From<&Counts> for CountsMessage {
    fn from(c: &Counts) -> Self {
        let (cost_high, cost_low) = halves(c.cost_nanos);
        Self { impressions: c.impressions, clicks: c.clicks, conversions: c.conversions, cost_high, cost_low }
    }
}

impl From<&CountsMessage> for Counts {
    fn from(m: &CountsMessage) -> Self {
        let cost_nanos = whole(m.cost_high, m.cost_low);
        Self { impressions: m.impressions, clicks: m.clicks, conversions: m.conversions, cost_nanos }
    }
}

/// The same state as format 1 had it.
#[cfg(test)]
pub(crate) fn as_before(mut message: StateMessage) -> StateMessage {
    let minutes = message.minutes.take().unwrap_or_default();
    for m in &minutes.minutes {
        for (ad, currency, counts) in m.rows().unwrap().map(Option::unwrap) {
            message.old_ads.push(AdMessage {
                minute: m.minute,
                ad: minutes.ads[ad as usize].clone(),
                campaign: minutes.campaigns[minutes.ad_campaigns[ad as usize] as usize].clone(),
                currency: currency.to_string(),
                counts: (&counts).into(),
            });
        }
    }
    StateMessage { format: FORMAT_BEFORE, ..message }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_survive_whatever_the_cost(impressions in any::<u64>(), cost_nanos in any::<i128>()) {
            let counts = Counts { impressions, cost_nanos, ..Counts::default() };
            prop_assert_eq!(Counts::from(&CountsMessage::from(&counts)), counts);
        }
    }

    #[test]
    fn another_format_is_refused() {
        let message = StateMessage { format: FORMAT, next_position: 7, ..StateMessage::default() };
        assert_eq!(decode(&encode(&message)), Some(message.clone()));
        for format in [0, FORMAT + 1] {
            assert_eq!(decode(&encode(&StateMessage { format, ..message.clone() })), None);
        }
    }

    #[test]
    fn columns_that_do_not_fit_each_other_are_refused() {
        let whole = |m: &MinutesMessage| restore_minutes(&mut Windows::default(), m).is_some();
        let mut minute = MinuteMessage::with_capacity(Timestamp(0), 1);
        minute.push(0, Currency::NONE, &Counts::default());
        let ids = |id: &str| vec![id.to_owned()];
        let message =
            MinutesMessage { campaigns: ids("c"), ads: ids("a"), ad_campaigns: vec![0], minutes: vec![minute.clone()] };
        assert!(whole(&message));
        let with = |minute: MinuteMessage| MinutesMessage { minutes: vec![minute], ..message.clone() };
        assert!(!whole(&with(MinuteMessage { clicks: vec![], ..minute.clone() })));
        assert!(!whole(&with(MinuteMessage { ads: vec![1], ..minute.clone() })));
        assert!(!whole(&with(MinuteMessage { currencies: b"EURO".to_vec(), ..minute.clone() })));
        assert!(!whole(&with(MinuteMessage { currencies: b"eur".to_vec(), ..minute })));
        assert!(!whole(&MinutesMessage { ads: ids("a b"), ..message.clone() }));
        assert!(!whole(&MinutesMessage { ad_campaigns: vec![1], ..message.clone() }));
        assert!(!whole(&MinutesMessage { ad_campaigns: vec![], ..message }));
    }
}
