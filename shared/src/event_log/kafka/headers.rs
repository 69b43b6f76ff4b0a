//! What a record says of itself to those who do not read our payload: CloudEvents 1.0, binary mode.
//! Never: read by us. A record whose payload does not decode has no headers.

use rdkafka::message::{Header, OwnedHeaders};

use crate::wire::{decode_event, salt_map_version};

/// The headers of an admitted event.
#[must_use]
pub fn cloud_event(payload: &[u8]) -> Vec<(&'static str, String)> {
    let Ok(event) = decode_event(payload) else { return Vec::new() };
    let mut headers = vec![
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", event.event_id.to_string()),
        ("ce_type", format!("ads.{}.v1", event.kind.as_str())),
        ("ce_source", format!("/clickledger/{}", event.region)),
        ("ce_time", event.event_time.to_string()),
        ("ce_partitionkey", event.ad_id.to_string()),
        ("content-type", "application/vnd.clickledger.event".to_owned()),
    ];
    headers.extend(salt_map_version(payload).map(|version| ("ce_saltmapversion", version.to_string())));
    headers.extend(event.traceparent.map(|trace| ("traceparent", trace)));
    headers
}

/// As the client takes them.
pub(super) fn owned(headers: &[(&'static str, String)]) -> OwnedHeaders {
    let none = OwnedHeaders::new_with_capacity(headers.len());
    headers.iter().fold(none, |all, (key, value)| all.insert(Header { key, value: Some(value) }))
}
