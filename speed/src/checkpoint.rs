//! The checkpoint: one partition's whole state and its position as one object, so that they cannot disagree.
//! Remembered ids are named with length and checksum, not contained (see `dedup`). Protobuf, so that fields can be
//! added; a format number so that a change of meaning is noticed.
//! Never: holds what can be computed (campaign minutes are the sums of their ads').

use std::collections::BTreeMap;

use prost::Message;
use shared::event::{Country, DeviceType};
use shared::id::{AdId, CampaignId};
use shared::money::Currency;
use shared::rollup::Counts;
use shared::sketch::Sketch;
use shared::time::Timestamp;

use crate::aggregate::{AdKey, HourKey, Windows};
use crate::dedup::MemoryMessage;

/// Today's meaning of the fields.
pub(crate) const FORMAT: u32 = 1;

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
    #[prost(message, repeated, tag = "11")]
    pub(crate) ads: Vec<AdMessage>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) hours: Vec<HourMessage>,
    #[prost(message, optional, tag = "13")]
    pub(crate) ids: Option<MemoryMessage>,
    #[prost(message, optional, tag = "14")]
    pub(crate) clicks: Option<MemoryMessage>,
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

/// From the object's bytes; `None` when they are not a checkpoint of this format.
pub(crate) fn decode(bytes: &[u8]) -> Option<StateMessage> {
    StateMessage::decode(bytes).ok().filter(|m| m.format == FORMAT)
}

/// The open windows as messages.
pub(crate) fn windows(windows: &Windows) -> (Vec<AdMessage>, Vec<HourMessage>) {
    let ads = windows.ads().map(|(minute, key, counts)| AdMessage {
        minute: minute.0,
        ad: key.ad.to_string(),
        campaign: key.campaign.to_string(),
        currency: key.currency.to_string(),
        counts: counts.into(),
    });
    let hours = windows.hours().map(|(hour, key, counts, users)| HourMessage {
        hour: hour.0,
        campaign: key.campaign.to_string(),
        country: key.country.as_str().to_owned(),
        device: key.device.as_str().to_owned(),
        currency: key.currency.to_string(),
        counts: counts.into(),
        users: users.to_bytes(),
    });
    (ads.collect(), hours.collect())
}

/// The windows of a checkpoint, every row marked as changed; `None` when a field is not what it must be.
pub(crate) fn restore_windows(message: &StateMessage) -> Option<Windows> {
    let mut windows = Windows::default();
    for m in &message.ads {
        let (ad, campaign) = (AdId::new(&m.ad).ok()?, CampaignId::new(&m.campaign).ok()?);
        let key = AdKey { ad, campaign, currency: Currency::parse(&m.currency)? };
        windows.restore_ad(Timestamp(m.minute), key, (&m.counts).into()).ok()?;
    }
    for m in &message.hours {
        let key = HourKey {
            campaign: CampaignId::new(&m.campaign).ok()?,
            country: Country::parse(&m.country)?,
            device: DeviceType::parse(&m.device)?,
            currency: Currency::parse(&m.currency)?,
        };
        let users = Sketch::from_bytes(&m.users).ok()?;
        windows.restore_hour(Timestamp(m.hour), key, (&m.counts).into(), users)?;
    }
    windows.recount();
    Some(windows)
}

impl From<&Counts> for CountsMessage {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // taking the two halves is the point
    fn from(c: &Counts) -> Self {
        let (cost_high, cost_low) = ((c.cost_nanos >> 64) as i64, c.cost_nanos as u64);
        Self { impressions: c.impressions, clicks: c.clicks, conversions: c.conversions, cost_high, cost_low }
    }
}

impl From<&CountsMessage> for Counts {
    fn from(m: &CountsMessage) -> Self {
        let cost_nanos = (i128::from(m.cost_high) << 64) | i128::from(m.cost_low);
        Self { impressions: m.impressions, clicks: m.clicks, conversions: m.conversions, cost_nanos }
    }
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
        assert_eq!(decode(&encode(&StateMessage { format: FORMAT + 1, ..message })), None);
    }
}
