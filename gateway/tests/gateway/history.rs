//! Intake of history (`import`), which shares every rule but these: trusted times, no signature needed, the row's
//! own campaign.

use gateway::intake::{Context, Source, admit};
use gateway::signature::EventClaims;
use serde_json::{Value, json};
use shared::config::Span;
use shared::directory::Directory;
use shared::event::{Event, RejectReason, Rejection, Submission};
use shared::id::RefId;
use shared::time::{DAY, HOUR, Timestamp};
use shared::verdict::InvalidCode;

use crate::support::*;

const ROW_TIME: &str = "2026-01-05T10:00:00.000001Z";

fn take(row: &Value, source: Source, directory: &Directory) -> Result<Event, Rejection> {
    let (keys, region) = (signing_keys(), RefId::new("here").unwrap());
    let context = Context { directory, keys: &keys, region: &region, now: NOW, max_validity: Span::secs(86_400) };
    admit(Submission::from_json(row.to_string().as_bytes()).unwrap(), source, &context)
}

fn row() -> Value {
    let mut row = plain_event("e-1");
    row["campaignId"] = "cam-old".into();
    row["advertiserId"] = "adv-old".into();
    row["ingestTime"] = ROW_TIME.into();
    row
}

#[test]
fn history_keeps_its_own_time_and_campaign_and_needs_no_signature() {
    for (directory, advertiser) in [(Directory::default(), "adv-old"), (ads(), "adv-old")] {
        let event = take(&row(), Source::History, &directory).unwrap();
        assert_eq!(event.ingest_time, Timestamp::parse(ROW_TIME).unwrap());
        assert_eq!(event.campaign_id.as_str(), "cam-old");
        assert_eq!(event.advertiser_id.unwrap().as_str(), advertiser);
        assert_eq!(event.invalid, None);
    }
}

#[test]
fn what_a_row_leaves_out_the_directory_and_the_clock_fill_in() {
    let event = take(&plain_event("e-1"), Source::History, &ads()).unwrap();
    assert_eq!((event.ingest_time, event.campaign_id.as_str()), (NOW, "cam-1"));
    assert_eq!(event.advertiser_id.unwrap().as_str(), "adv-1");
    let refused = take(&plain_event("e-1"), Source::History, &Directory::default()).unwrap_err();
    assert_eq!(refused.reason, RejectReason::UnknownAd);
}

#[test]
fn an_ad_that_ended_since_does_not_make_its_history_invalid() {
    let mut row = row();
    row["adId"] = "ad-ended".into();
    assert_eq!(take(&row, Source::History, &ads()).unwrap().invalid, None);
}

#[test]
fn a_signature_in_history_is_judged_at_the_rows_own_time() {
    let keys = signing_keys();
    let at = Timestamp::parse(ROW_TIME).unwrap();
    let signed = |expires_at: Timestamp| {
        let mut row = row();
        row["expiresAt"] = expires_at.to_string().into();
        row["signature"] = "x".into();
        let submission = Submission::from_json(row.to_string().as_bytes()).unwrap();
        let signed = keys.sign_event(&EventClaims::of(&submission)).unwrap();
        row["signature"] = signed.signature.into();
        row["keyId"] = signed.key_id.into();
        row
    };
    let invalid = |row: &Value| take(row, Source::History, &Directory::default()).unwrap().invalid;
    assert_eq!(invalid(&signed(at.plus(HOUR))), None);
    assert_eq!(invalid(&signed(at.plus(-HOUR))), Some(InvalidCode::Expired));
    assert_eq!(invalid(&signed(at.plus(2 * DAY))), Some(InvalidCode::BadSignature));
    let mut forged = signed(at.plus(HOUR));
    forged["costMicros"] = 9.into();
    assert_eq!(invalid(&forged), Some(InvalidCode::BadSignature));
    let mut both = signed(at.plus(-HOUR));
    both["costMicros"] = 9.into();
    assert_eq!(invalid(&both), Some(InvalidCode::BadSignature), "a forged signature is not an expired one");
}

#[test]
fn only_history_may_say_when_it_was_ingested() {
    for source in [Source::Api, Source::Link, Source::SignedLink] {
        assert_eq!(take(&row(), source, &ads()).unwrap_err().reason, RejectReason::BadValue);
    }
    assert!(
        take(&json!({"eventId": "a", "eventType": "click", "timestamp": 0, "adId": "ad-1"}), Source::Api, &ads())
            .is_err_and(|r| r.reason == RejectReason::Unauthorized)
    );
}
