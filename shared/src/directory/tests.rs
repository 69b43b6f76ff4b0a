//! Tests of the ad directory at its public edge.

use std::collections::BTreeMap;
use std::io::Cursor;

use proptest::prelude::*;

use super::*;

fn row(ad: &str, campaign: &str, advertiser: &str, url: &str, status: AdStatus) -> AdRow {
    AdRow {
        ad_id: AdId::new(ad).unwrap(),
        campaign_id: CampaignId::new(campaign).unwrap(),
        advertiser_id: AdvertiserId::new(advertiser).unwrap(),
        url: url.to_owned(),
        status,
    }
}

fn ndjson(rows: &[AdRow]) -> Cursor<String> {
    Cursor::new(rows.iter().map(|r| serde_json::to_string(r).unwrap() + "\n").collect())
}

fn import_rows(path: &Path, rows: &[AdRow]) -> Result<Imported, DirectoryError> {
    import(path, ndjson(rows), Format::Ndjson, &mut |_| {})
}

fn id(text: &str) -> AdId {
    AdId::new(text).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Against a plain map: whatever is imported in whatever pieces, the last import of an ad is what is found.
    #[test]
    fn a_directory_is_the_map_of_its_imports(
        imports in proptest::collection::vec(
            proptest::collection::btree_map("[a-d]{1,3}", ("[a-c]", "/[a-z]{0,9}", 0..3_usize), 0..20), 1..5)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/ads.dir");
        let mut model: BTreeMap<String, AdRow> = BTreeMap::new();
        for ads in imports {
            let rows: Vec<AdRow> = ads
                .into_iter()
                .map(|(ad, (campaign, tail, status))| {
                    let url = format!("https://shop.example{tail}");
                    row(&ad, &campaign, &format!("owner-of-{campaign}"), &url, AdStatus::ALL[status])
                })
                .collect();
            let imported = import_rows(&path, &rows).unwrap();
            let new = rows.iter().filter(|r| !model.contains_key(r.ad_id.as_str())).count() as u64;
            prop_assert_eq!(imported.added, new);
            prop_assert_eq!(imported.changed + imported.unchanged, rows.len() as u64 - new);
            model.extend(rows.into_iter().map(|r| (r.ad_id.to_string(), r)));
            prop_assert_eq!(imported.total, model.len() as u64);
        }
        let directory = Directory::load(&path).unwrap();
        prop_assert_eq!(directory.len(), model.len());
        let all: Vec<AdRow> = directory
            .ads_after(None)
            .map(|a| row(a.ad_id, a.campaign_id.as_str(), a.advertiser_id.as_str(), a.url, a.status))
            .collect();
        prop_assert_eq!(&all, &model.values().cloned().collect::<Vec<_>>());
        for ad in &all {
            prop_assert_eq!(directory.lookup(&ad.ad_id).unwrap().url, &ad.url);
            prop_assert_eq!(directory.advertiser_of(&ad.campaign_id), Some(&ad.advertiser_id));
            prop_assert!(directory.campaigns_of(&ad.advertiser_id).contains(&ad.campaign_id));
        }
        prop_assert!(directory.lookup(&id("zzz")).is_none());
    }

    #[test]
    fn a_flipped_bit_or_a_cut_is_noticed(at in 0..10_000_usize, bit in 0..8, cut in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ads.dir");
        import_rows(&path, &[row("a", "c", "v", "https://x.example/", AdStatus::Active)]).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1_u8 << bit }
        std::fs::write(&path, bytes).unwrap();
        let error = Directory::load(&path).expect_err("damage was read as data");
        prop_assert_eq!(error.kind(), crate::error::ErrorKind::Corrupt);
    }
}

/// A file in a folder, imported into and loaded.
struct InFile(tempfile::TempDir);

#[async_trait::async_trait]
impl crate::testing::conformance::directory::Harness for InFile {
    async fn empty(&mut self) {
        self.0 = tempfile::tempdir().unwrap();
    }
    async fn import(&mut self, rows: &[AdRow]) -> Result<Imported, (String, ErrorKind)> {
        import_rows(&self.0.path().join("ads.dir"), rows).map_err(|e| (e.to_string(), e.kind()))
    }
    async fn snapshot(&mut self) -> Directory {
        Directory::load(&self.0.path().join("ads.dir")).unwrap()
    }
}

#[tokio::test]
async fn a_file_is_an_ad_directory() {
    crate::testing::conformance::directory::run(&mut InFile(tempfile::tempdir().unwrap())).await;
}

#[test]
fn csv_and_ndjson_mean_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let csv = "adId,campaignId,advertiserId,url,status\nad-1,c1,v1,https://x.example/a?b=c,paused\n\
               ad-2,c1,v1,\"https://x.example/a,b\",active\n";
    let path = folder.path().join("ads.dir");
    let imported = import(&path, Cursor::new(csv), Format::Csv, &mut |_| {}).unwrap();
    assert_eq!(imported, Imported { added: 2, total: 2, ..Imported::default() });
    let rows = [
        row("ad-1", "c1", "v1", "https://x.example/a?b=c", AdStatus::Paused),
        row("ad-2", "c1", "v1", "https://x.example/a,b", AdStatus::Active),
    ];
    assert_eq!(import_rows(&path, &rows).unwrap().unchanged, 2);
}

#[test]
fn a_bad_row_is_named_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ads.dir");
    let good = row("a", "c", "v", "https://x.example/", AdStatus::Active);
    import_rows(&path, std::slice::from_ref(&good)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let other =
        |ad: &str, campaign: &str, advertiser: &str, url: &str| row(ad, campaign, advertiser, url, AdStatus::Active);
    for (rows, word) in [
        (vec![good.clone(), other("b", "c", "thief", "https://x.example/")], "belongs to advertiser v"),
        (vec![good.clone(), other("a", "c", "v", "https://other.example/")], "also in row 1"),
        (vec![good.clone(), other("b", "c", "v", "javascript:alert(1)")], "https://"),
    ] {
        let error = import_rows(&path, &rows).unwrap_err();
        assert!(matches!(&error, DirectoryError::Row(bad) if bad.row == 2), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    for csv in ["adId,campaignId,advertiserId,url\n../x,c,v,https://x.example/\n", "adId,nonsense\na,b\n"] {
        let error = import(&path, Cursor::new(csv), Format::Csv, &mut |_| {}).unwrap_err();
        assert!(matches!(&error, DirectoryError::Row(bad) if bad.row == 1), "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_redirect_target_is_a_plain_absolute_web_address() {
    for good in [
        "https://shop.example",
        "http://shop.example:8080/a/b?c=d&e=%20#f",
        "HTTPS://Shop.Example/",
        "https://[2001:db8::1]:443/",
        "https://127.0.0.1/x",
        "https://a_b-c.example/{macro}",
    ] {
        assert_eq!(check_url(good), Ok(()), "{good}");
    }
    let long = format!("https://x.example/{}", "a".repeat(2_048));
    for bad in [
        "",
        "/relative",
        "//x.example/",
        "javascript:alert(1)",
        "javascript://x.example/%0aalert(1)",
        "data:text/html,x",
        "ftp://x.example/",
        "https:x.example",
        "https://",
        "https:///path",
        "https://?x",
        "https://.example/",
        "https://x.example/\r\nSet-Cookie: a=b",
        "https://x.example/a b",
        "https://x.example\\@evil.example/",
        "https://good.example@evil.example/",
        "https://x.example:99999/",
        "https://x.example:8a/",
        "https://x.example:+8/",
        "https://exämple.com/",
        "https://x.example/\0",
        "https://x.example/\"<script>",
        "https://[::1/",
        " https://x.example/",
        &long,
    ] {
        assert!(check_url(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_handle_follows_the_file_and_keeps_what_it_has_when_the_new_one_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ads.dir");
    let handle = DirectoryHandle::open(&path).unwrap();
    assert!(handle.current().is_empty());
    assert!(!handle.refresh().unwrap());
    import_rows(&path, &[row("a", "c", "v", "https://x.example/", AdStatus::Active)]).unwrap();
    assert!(handle.refresh().unwrap());
    assert!(!handle.refresh().unwrap());
    assert_eq!(handle.current().len(), 1);
    std::fs::write(&path, b"not a directory").unwrap();
    assert!(handle.refresh().is_err());
    assert_eq!(handle.current().len(), 1);
}

#[test]
fn two_imports_do_not_run_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ads.dir");
    let lock = std::fs::File::create(folder.path().join("ads.dir.lock")).unwrap();
    lock.lock().unwrap();
    assert!(matches!(import_rows(&path, &[]), Err(DirectoryError::Busy(_))));
}

#[test]
fn pages_follow_each_other_without_gap_or_overlap() {
    let rows: Vec<AdRow> =
        (0..25).map(|i| row(&format!("ad{i:03}"), "c", "v", "https://x.example/", AdStatus::Active)).collect();
    let directory = Directory::of(rows).unwrap();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page: Vec<AdId> = directory.ads_after(after.as_ref()).take(10).map(|a| id(a.ad_id)).collect();
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        seen.extend(page);
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted());
    assert_eq!(directory.ads_after(Some(&id("ad0105"))).next().unwrap().ad_id, "ad011");
}

/// 10 million ads have room: what one ad takes in the file (which is what it takes in memory) stays small.
#[test]
fn an_ad_takes_little_more_than_its_own_text() {
    let url = "https://shop.example/landing/page?utm_source=x&utm_campaign=summer";
    let rows = (0..20_000).map(|i| row(&format!("ad-{i:08}"), &format!("c{}", i / 50), "v", url, AdStatus::Active));
    let directory = Directory::of(rows).unwrap();
    let own_text = "ad-00000000".len() + url.len();
    assert!(directory.stored.bytes_len() <= 20_000 * (own_text + 17) + 10_000);
}
