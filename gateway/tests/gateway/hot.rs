//! Hot ads through the front door: an ad with half of the traffic comes to several partitions, and its records say so.

use std::collections::BTreeSet;

use serde_json::Value;
use shared::config::Span;
use shared::partition::partition_of;
use shared::testing::conformance::event_log::read_all;
use shared::time::SECOND;
use shared::wire::{decode_event, salt_map_version};

use crate::support::*;

#[tokio::test]
async fn an_ad_with_half_of_the_traffic_is_spread_over_partitions_and_its_records_say_by_which_map() {
    let mut settings = roomy();
    settings.hot_ads.window = Span::secs(1);
    settings.hot_ads.min_per_second = 1;
    let gateway = start(settings).await;
    let (home, began) = (partition_of("ad-1", PARTITIONS), shared::time::stopwatch());
    let (mut sent, mut partitions) = (0, BTreeSet::new());
    while partitions.len() < 2 {
        assert!(began.elapsed() < GUARD, "after {sent} events ad-1 is still in {partitions:?}");
        let events: Vec<Value> = (sent..sent + 200).map(|n| gateway.event(&format!("e-{n}"))).collect();
        assert_eq!(gateway.post("/v1/events", &events.into()).await.status, 202);
        sent += 200;
        gateway.clock.advance(SECOND / 4);
        tokio::task::yield_now().await;
        let records = read_all(&gateway.events.inner, &start_of(&gateway.events.inner).await).await;
        partitions = records.iter().filter(|(_, all)| !all.is_empty()).map(|(p, _)| *p).collect();
        for (partition, record) in records.iter().flat_map(|(p, all)| all.iter().map(move |r| (*p, r))) {
            assert_eq!(decode_event(&record.payload).unwrap().ad_id.as_str(), "ad-1");
            assert!(partition == home || salt_map_version(&record.payload) > Some(0), "placed by no map");
        }
    }
    assert!(partitions.contains(&home));
    // Repeated, it is known, wherever it would go now.
    assert_eq!(gateway.post("/v1/events", &gateway.event("e-0")).await.status, 409);
    gateway.stop().await;
}
