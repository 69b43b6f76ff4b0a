//! The laws of comparing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use shared::event::{Country, DeviceType};
use shared::id::{AdId, CampaignId};
use shared::money::Currency;
use shared::time::{HOUR, MINUTE, Timestamp};

use super::*;

fn row() -> impl Strategy<Value = RollupRow> {
    (0..3_u8, 0..3_i64, 0..3_u8, 0..4_u64, proptest::collection::vec(0..6_u8, 0..4)).prop_map(
        |(grain, minute, campaign, clicks, users)| {
            let campaign_id = CampaignId::new(format!("c{campaign}")).unwrap();
            let (currency, minute) = (Currency::NONE, Timestamp(minute * MINUTE));
            let key = match grain {
                0 => RollupKey::AdMinute { minute, ad_id: AdId::new("a").unwrap(), campaign_id, currency },
                1 => RollupKey::CampaignMinute { minute, campaign_id, currency },
                _ => RollupKey::CampaignHour {
                    hour: minute.floor(HOUR),
                    campaign_id,
                    country: Country::UNKNOWN,
                    device_type: DeviceType::Other,
                    currency,
                },
            };
            let mut sketch = Sketch::new();
            users.iter().for_each(|u| sketch.add(Sketch::hash(&format!("user {u}"))));
            RollupRow { key, counts: Counts { clicks, ..Counts::default() }, uniques: (grain == 2).then_some(sketch) }
        },
    )
}

fn rows() -> impl Strategy<Value = Vec<RollupRow>> {
    proptest::collection::vec(row(), 0..12).prop_map(|rows| {
        let by_key: BTreeMap<RollupKey, RollupRow> = rows.into_iter().map(|r| (r.key.clone(), r)).collect();
        by_key.into_values().collect()
    })
}

fn applied(shown: &[RollupRow], correction: Correction) -> Vec<RollupRow> {
    let mut rows: BTreeMap<RollupKey, RollupRow> = shown.iter().map(|r| (r.key.clone(), r.clone())).collect();
    rows.extend(correction.set.into_iter().map(|r| (r.key.clone(), r)));
    correction.remove.iter().for_each(|key| assert!(rows.remove(key).is_some(), "removes what is not there"));
    rows.into_values().collect()
}

fn printed(rows: &[RollupRow]) -> Vec<(RollupKey, Counts, Option<Vec<u8>>)> {
    rows.iter().map(|r| (r.key.clone(), r.counts, r.uniques.as_ref().map(Sketch::to_bytes))).collect()
}

proptest! {
    #[test]
    fn applying_the_correction_leaves_no_difference(shown in rows(), exact in rows()) {
        let difference = diff(&shown, &exact);
        prop_assert_eq!(difference.is_empty(), printed(&shown) == printed(&exact));
        let corrected = applied(&shown, difference.correction);
        prop_assert_eq!(printed(&corrected), printed(&exact));
        prop_assert!(diff(&corrected, &exact).is_empty());
    }

    #[test]
    fn only_what_differs_is_written(shown in rows(), exact in rows()) {
        let before: BTreeMap<_, _> = printed(&shown).into_iter().map(|(k, c, u)| (k, (c, u))).collect();
        for (key, counts, users) in printed(&diff(&shown, &exact).correction.set) {
            prop_assert_ne!(before.get(&key), Some(&(counts, users)));
        }
    }

    /// The store keeps sketches as bytes: what it gives back must compare as equal to what it was given.
    #[test]
    fn a_sketch_is_the_same_bytes_after_a_round_trip(users in 0..40_000_u64) {
        let mut sketch = Sketch::new();
        (0..users).for_each(|u| sketch.add(Sketch::hash(&u.to_string())));
        let bytes = sketch.to_bytes();
        prop_assert_eq!(Sketch::from_bytes(&bytes).unwrap().to_bytes(), bytes);
    }
}

#[test]
fn campaign_minutes_are_the_sums_of_their_ad_minutes() {
    let row = |ad: &str, campaign: &str, clicks| RollupRow {
        key: RollupKey::AdMinute {
            minute: Timestamp(0),
            ad_id: AdId::new(ad).unwrap(),
            campaign_id: CampaignId::new(campaign).unwrap(),
            currency: Currency::NONE,
        },
        counts: Counts { clicks, ..Counts::default() },
        uniques: None,
    };
    let rows = exact_rows(vec![row("a", "c", 1), row("b", "c", 2), row("b", "d", 4)], vec![]).unwrap();
    let minutes: Vec<(String, u64)> = rows
        .iter()
        .filter_map(|r| match &r.key {
            RollupKey::CampaignMinute { campaign_id, .. } => Some((campaign_id.to_string(), r.counts.clicks)),
            _ => None,
        })
        .collect();
    assert_eq!(minutes, [("c".to_owned(), 3), ("d".to_owned(), 4)]);
    assert!(rows.is_sorted_by(|a, b| a.key < b.key));
}
