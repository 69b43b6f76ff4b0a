//! What every ad directory must do, wherever its truth is: imports merge, all rows or none, and what is read is a whole
//! snapshot of them.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::directory::{AdRow, AdStatus, Directory, Imported};
use crate::error::ErrorKind;
use crate::id::{AdId, AdvertiserId, CampaignId};

/// An ad directory that imports go into and snapshots come out of.
#[async_trait]
pub trait Harness: Send {
    /// Makes the directory an empty one.
    async fn empty(&mut self);
    /// Imports rows; on an error what its message says and what to do about it.
    async fn import(&mut self, rows: &[AdRow]) -> Result<Imported, (String, ErrorKind)>;
    /// What a reader has once everything imported has arrived.
    async fn snapshot(&mut self) -> Directory;
}

/// A row of an import.
#[must_use]
pub fn row(ad: &str, campaign: &str, advertiser: &str, url: &str, status: AdStatus) -> AdRow {
    AdRow {
        ad_id: AdId::new(ad).unwrap(),
        campaign_id: CampaignId::new(campaign).unwrap(),
        advertiser_id: AdvertiserId::new(advertiser).unwrap(),
        url: url.to_owned(),
        status,
    }
}

/// All ads of a directory as rows.
#[must_use]
pub fn rows(directory: &Directory) -> Vec<AdRow> {
    let ads = directory.ads_after(None);
    ads.map(|a| row(a.ad_id, a.campaign_id.as_str(), a.advertiser_id.as_str(), a.url, a.status)).collect()
}

/// Every check, one after the other.
pub async fn run(harness: &mut dyn Harness) {
    a_directory_is_the_map_of_its_imports(harness).await;
    a_bad_row_is_named_and_changes_nothing(harness).await;
    a_large_import_arrives_whole(harness).await;
}

async fn a_directory_is_the_map_of_its_imports(harness: &mut dyn Harness) {
    harness.empty().await;
    assert!(harness.snapshot().await.is_empty());
    let mut model: BTreeMap<String, AdRow> = BTreeMap::new();
    for round in 0..6_usize {
        // Each import overlaps the ones before and changes a part of what they had.
        let import: Vec<AdRow> = (round * 7..round * 7 + 20)
            .map(|n| {
                let n = n % 40;
                let url = format!("https://shop.example/{n}?round={}", if n % 3 == 0 { round } else { 0 });
                let status = AdStatus::ALL[(n + round / 4) % 3];
                row(&format!("Ad-{n}"), &format!("c{}", n % 5), &format!("v{}", n % 5 % 2), &url, status)
            })
            .collect();
        let is_new = |r: &&AdRow| !model.contains_key(r.ad_id.as_str());
        let is_other = |r: &&AdRow| model.get(r.ad_id.as_str()).is_some_and(|old| old != *r);
        let count = |n: usize| u64::try_from(n).unwrap();
        let (added, changed) =
            (count(import.iter().filter(is_new).count()), count(import.iter().filter(is_other).count()));
        let imported = harness.import(&import).await.unwrap();
        model.extend(import.into_iter().map(|r| (r.ad_id.to_string(), r)));
        let unchanged = 20 - added - changed;
        assert_eq!(imported, Imported { added, changed, unchanged, total: count(model.len()) }, "round {round}");
        let directory = harness.snapshot().await;
        assert_eq!(rows(&directory), model.values().cloned().collect::<Vec<_>>(), "round {round}");
        for ad in model.values() {
            assert_eq!(directory.lookup(&ad.ad_id).unwrap().url, ad.url);
            assert_eq!(directory.advertiser_of(&ad.campaign_id), Some(&ad.advertiser_id));
            assert!(directory.campaigns_of(&ad.advertiser_id).contains(&ad.campaign_id));
        }
    }
}

async fn a_bad_row_is_named_and_changes_nothing(harness: &mut dyn Harness) {
    harness.empty().await;
    let good = row("a", "c", "v", "https://x.example/", AdStatus::Active);
    harness.import(std::slice::from_ref(&good)).await.unwrap();
    let active = |ad: &str, advertiser: &str, url: &str| row(ad, "c", advertiser, url, AdStatus::Active);
    for (bad, word) in [
        (active("b", "thief", "https://x.example/"), "belongs to advertiser v"),
        (active("a", "v", "https://other.example/"), "also in row 1"),
        (active("b", "v", "javascript:alert(1)"), "https://"),
    ] {
        let (said, kind) = harness.import(&[good.clone(), bad]).await.unwrap_err();
        assert!(said.contains("row 2") && said.contains(word) && kind == ErrorKind::Invalid, "{said}");
    }
    // Alone in its import a thief meets only what is stored.
    let (said, _) = harness.import(&[active("b", "thief", "https://x.example/")]).await.unwrap_err();
    assert!(said.contains("belongs to advertiser v"), "{said}");
    assert_eq!(rows(&harness.snapshot().await), [good]);
}

async fn a_large_import_arrives_whole(harness: &mut dyn Harness) {
    harness.empty().await;
    let many: Vec<AdRow> = (0..5_000)
        .map(|n| {
            let url = format!("https://shop.example/{n}?{}", "x".repeat(n % 500));
            row(&format!("ad-{n:05}"), &format!("c{}", n / 50), "v", &url, AdStatus::Active)
        })
        .collect();
    assert_eq!(harness.import(&many).await.unwrap().added, 5_000);
    assert_eq!(rows(&harness.snapshot().await), many);
    assert_eq!(harness.import(&many).await.unwrap().unchanged, 5_000);
}
