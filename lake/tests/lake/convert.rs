//! Rows: both ways without loss, and the same bytes for the same rows.

use lake::columns::{Waiting, events_file};
use lake::convert::{Archived, bad_from_batch, bad_to_batch, events_from_batch, events_to_batch};
use lake::sort::sorted_file;
use lake::tables::{BRONZE_BAD, BRONZE_EVENTS};
use proptest::prelude::*;
use shared::event::{Country, Details, DeviceType, Event, EventKind, Fingerprint};
use shared::event_view::EventView;
use shared::id::{AdId, AdvertiserId, CampaignId, EventId, RefId};
use shared::money::{Currency, MAX_MICROS};
use shared::time::{Day, Timestamp};
use shared::verdict::InvalidCode;
use shared::wire::{BadRecord, decode_event, encode_event};

use crate::help::event;

fn id() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_-]{1,64}"
}

fn reference() -> impl Strategy<Value = Option<RefId>> {
    prop::option::of(id().prop_map(|t| RefId::new(t).unwrap()))
}

fn details() -> impl Strategy<Value = Details> {
    let references = (reference(), reference(), reference(), reference(), reference());
    let words = (
        "[A-Z]{2}".prop_map(|c| Country::parse(&c).unwrap()),
        prop::sample::select(DeviceType::ALL.to_vec()),
        prop::option::of("[A-Z]{3}".prop_map(|c| Currency::parse(&c).unwrap())),
    );
    let texts = (prop::option::of(".{0,30}"), prop::option::of(".{0,30}"), prop::option::of("\\PC{0,30}"));
    let extra = prop::collection::btree_map(".{0,10}", ".{0,20}", 0..4);
    (references, words, texts, prop::option::of(0..=MAX_MICROS), extra, prop::option::of(id())).prop_map(
        |((creative_id, publisher_id, user_pseudo_id, session_id, bid_request_id), words, texts, cost, extra, imp)| {
            Details {
                creative_id,
                publisher_id,
                impression_id: imp.map(|i| i.parse().unwrap()),
                user_pseudo_id,
                session_id,
                bid_request_id,
                country: words.0,
                device_type: words.1,
                ip_hash: texts.0,
                user_agent: texts.1,
                url: texts.2,
                cost_micros: cost,
                currency: words.2,
                extra,
            }
        },
    )
}

fn archived() -> impl Strategy<Value = Archived> {
    let times = (0..=Timestamp::MAX.0, 0..=Timestamp::MAX.0, any::<bool>());
    let kinds = prop::sample::select(vec![EventKind::Impression, EventKind::Click, EventKind::Conversion]);
    let place = (0..=i32::MAX as u32, 0..=i64::MAX as u64);
    let invalid = prop::option::of(prop::sample::select(InvalidCode::ALL.to_vec()));
    (id(), kinds, times, details(), place, invalid, any::<[u8; 16]>(), prop::option::of(".{0,60}")).prop_map(
        |(text, kind, (event_time, ingest_time, late), details, (partition, position), invalid, print, trace)| {
            Archived {
                billing_time: Timestamp(if late { ingest_time } else { event_time }),
                event: Event {
                    event_id: EventId::new(&text).unwrap(),
                    kind,
                    event_time: Timestamp(event_time),
                    ingest_time: Timestamp(ingest_time),
                    ad_id: AdId::new(&text).unwrap(),
                    campaign_id: CampaignId::new(&text).unwrap(),
                    advertiser_id: Some(AdvertiserId::new(&text).unwrap()),
                    details,
                    region: RefId::new(&text).unwrap(),
                    invalid,
                    fingerprint: Fingerprint(print),
                    traceparent: trace,
                },
                partition,
                position,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_event_reads_back_as_it_was_written(rows in prop::collection::vec(archived(), 0..20)) {
        let batch = events_to_batch(&rows).unwrap();
        prop_assert_eq!(events_from_batch(&batch).unwrap(), rows);
    }

    #[test]
    fn a_record_is_read_in_place_as_the_full_decoder_reads_it(row in archived()) {
        let bytes = encode_event(&row.event);
        prop_assert_eq!(decode_event(&bytes).unwrap(), row.event.clone());
        let seen = EventView::in_place(&bytes);
        prop_assert_eq!(seen.is_some(), row.event.details.extra.is_empty());
        prop_assert!(seen.is_none_or(|seen| seen == EventView::from(&row.event)));
    }

    #[test]
    fn damaged_bytes_are_never_read_in_place_otherwise_than_in_full(
        row in archived(),
        more in prop::option::of(archived()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut bytes = encode_event(&row.event);
        // Two encodings joined are one message in which later fields win.
        bytes.extend(more.iter().flat_map(|more| encode_event(&more.event).into_iter().skip(1)));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Some(seen) = EventView::in_place(&bytes) {
            let full = decode_event(&bytes);
            prop_assert_eq!(Some(seen), full.as_ref().ok().map(EventView::from));
        }
    }

    #[test]
    fn every_bad_record_reads_back_as_it_was_written(raw in any::<Vec<u8>>(), text in ".{0,40}", n in 0..i64::MAX) {
        let record = BadRecord {
            reason: "malformed".into(), detail: text.clone(), stage: "gateway".into(), raw, count: n as u64,
            ingest_time: n, region: text,
        };
        let row = lake::convert::BadRow { topic: "events".into(), partition: 7, position: n as u64, record };
        let batch = bad_to_batch(std::slice::from_ref(&row)).unwrap();
        prop_assert_eq!(bad_from_batch(&batch).unwrap(), vec![row]);
    }

    #[test]
    fn the_same_rows_give_the_same_bytes_however_they_are_divided_and_ordered(
        cuts in prop::collection::vec(1..40_usize, 1..20),
        shift in 0..500_usize,
    ) {
        let mut rows: Vec<_> = (0..500).map(row).collect();
        let whole = sorted_file(&BRONZE_EVENTS, Day(0), "a", &[events_to_batch(&rows).unwrap()]).unwrap();
        rows.rotate_left(shift);
        let (mut batches, mut rest) = (Vec::new(), rows.as_slice());
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            batches.push(events_to_batch(head).unwrap());
            rest = tail;
        }
        let divided = sorted_file(&BRONZE_EVENTS, Day(0), "a", &batches).unwrap();
        prop_assert_eq!(whole.file, divided.file);
        prop_assert_eq!(whole.bytes, divided.bytes);
    }
}

#[test]
fn a_file_of_records_is_the_file_of_their_rows() {
    // Ids come again and again, so that the place in the log decides too; every third has a field nobody expects.
    let rows: Vec<_> = (0..300)
        .map(|n| {
            let mut row = Archived { position: 900 - n as u64, ..row(n) };
            row.event.event_id = EventId::new(format!("e{}", n % 70)).unwrap();
            row.event.details.extra.extend((n % 3 == 0).then(|| ("more".to_owned(), n.to_string())));
            row
        })
        .collect();
    let record = |r: &Archived| {
        let payload = encode_event(&r.event).into();
        Waiting::new(payload, r.partition, r.position, |e| e.ingest_time).unwrap()
    };
    let of_records = events_file(Day(0), "x", &rows.iter().map(record).collect::<Vec<_>>()).unwrap();
    let of_rows = sorted_file(&BRONZE_EVENTS, Day(0), "x", &[events_to_batch(&rows).unwrap()]).unwrap();
    assert_eq!(of_records.file, of_rows.file);
    assert_eq!(of_records.bytes, of_rows.bytes);
}

fn row(n: i64) -> Archived {
    let event = event(n);
    Archived { billing_time: event.ingest_time, event, partition: (n % 3) as u32, position: n as u64 }
}

#[test]
fn a_file_states_its_rows_and_the_ranges_of_its_columns() {
    let rows: Vec<_> = (3..40).map(row).collect();
    let encoded = sorted_file(&BRONZE_EVENTS, Day(3), "x", &[events_to_batch(&rows).unwrap()]).unwrap();
    let times: Vec<_> = rows.iter().map(|r| r.event.ingest_time.0).collect();
    assert_eq!(encoded.file.rows, 37);
    assert_eq!(encoded.file.size, encoded.bytes.len() as u64);
    assert_eq!(encoded.file.ranges["ingest_time"], (*times.iter().min().unwrap(), *times.iter().max().unwrap()));
    assert_eq!(encoded.file.ranges["position"], (3, 39));
    assert!(encoded.file.path.starts_with("day=1970-01-04/x-"), "{}", encoded.file.path);
}

#[test]
fn rows_of_another_table_are_refused() {
    let rows = events_to_batch(&[row(1)]).unwrap();
    let refused = lake::file::ParquetFile::new(&BRONZE_BAD, Day(0), "x").unwrap().write(&rows);
    assert!(refused.unwrap_err().to_string().contains("bronze/bad"));
    for stem in ["", "a/b", "..\\x", "ä"] {
        assert!(lake::file::ParquetFile::new(&BRONZE_BAD, Day(0), stem).is_err(), "{stem}");
    }
}

#[test]
fn equal_ids_have_equal_hashes_in_every_version_of_the_program() {
    // The value is stored: it must never change.
    assert_eq!(lake::convert::id_hash(""), 0x63B0_C442_98FC_1C14);
}
