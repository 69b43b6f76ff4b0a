//! What a settlement's Merkle tree says of one billed event: the leaf. Pure.
//! Guarantee: one event, one text, for ever; another form of it is another version. Nothing in it is personal data,
//! so erasing a person touches no proof.

use crate::merkle::{Hash256, Leaf};
use crate::money::Currency;
use crate::time::Timestamp;

/// A billed event: what decides that it counts, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Billed<'a> {
    /// Its id.
    pub event_id: &'a str,
    /// impression, click or conversion.
    pub event_type: &'a str,
    /// The campaign.
    pub campaign_id: &'a str,
    /// The ad.
    pub ad_id: &'a str,
    /// The time it bills at.
    pub billing_time: Timestamp,
    /// The currency of its cost.
    pub currency: Currency,
    /// How its campaign pays.
    pub price_model: &'a str,
    /// The price book version that brought the price in; 0 without one.
    pub price_version: i64,
    /// Its unrounded cost, in nanos of the currency.
    pub cost_nanos: i64,
    /// The counting rules that judged it.
    pub rules_version: u32,
}

/// Leaves under one node of `gold/proof_blocks`: a power of two, so that the node is one of the whole tree.
pub const BLOCK_LEAVES: u64 = 1_024;

/// The key of an event's leaf: leaves are in its order, and silver with them.
#[must_use]
pub fn key(event_id: &str) -> Hash256 {
    Hash256::of(event_id.as_bytes())
}

impl Billed<'_> {
    /// Writes the body of its leaf, in the place of what `text` held: one line, `v1`, then the fields joined by `|`,
    /// which no field has in it.
    pub fn write_body(&self, text: &mut String) {
        text.clear();
        let Self { event_id, event_type, campaign_id, ad_id, currency, price_model, .. } = self;
        text.push_str("v1|billable");
        for field in [event_id, event_type, campaign_id, ad_id] {
            text.push('|');
            text.push_str(field);
        }
        // Millions of lines a run: the formatter of the standard library would take as long as a hash.
        let number = |text: &mut String, n: i64| {
            text.push('|');
            text.push_str(itoa::Buffer::new().format(n));
        };
        number(text, self.billing_time.0);
        for field in [currency.as_str(), price_model] {
            text.push('|');
            text.push_str(field);
        }
        [self.price_version, self.cost_nanos, self.rules_version.into()].into_iter().for_each(|n| number(text, n));
    }

    /// Its leaf. `text` is scratch space.
    #[must_use]
    pub fn leaf(&self, text: &mut String) -> Leaf {
        self.write_body(text);
        Leaf { key: key(self.event_id), body: Hash256::of(text.as_bytes()) }
    }
}

/// The event id that a leaf's body is about; nothing where it is no such text.
#[must_use]
pub fn event_id_of(body: &str) -> Option<&str> {
    let mut fields = body.split('|');
    let head = (fields.next()?, fields.next()?);
    let event_id = fields.next()?;
    (head == ("v1", "billable") && fields.count() == 9).then_some(event_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_the_documented_line() {
        let billed = Billed {
            event_id: "e-1",
            event_type: "click",
            campaign_id: "c-1",
            ad_id: "a-1",
            billing_time: Timestamp(1_767_571_200_000_000),
            currency: Currency::parse("EUR").unwrap(),
            price_model: "cpc",
            price_version: 2,
            cost_nanos: -500_000_000,
            rules_version: 1,
        };
        let mut text = "left over".to_owned();
        let leaf = billed.leaf(&mut text);
        assert_eq!(text, "v1|billable|e-1|click|c-1|a-1|1767571200000000|EUR|cpc|2|-500000000|1");
        assert_eq!((leaf.key, leaf.body), (Hash256::of(b"e-1"), Hash256::of(text.as_bytes())));
        assert_eq!(event_id_of(&text), Some("e-1"));
        for other in [
            "",
            "v1|billable|e-1",
            "v2|billable|e|click|c|a|1|EUR|cpc|2|5|1",
            "v1|billable|e|click|c|a|1|EUR|cpc|2|5|1|",
        ] {
            assert_eq!(event_id_of(other), None, "{other}");
        }
    }
}
