//! Adjustments and postings ↔ rows of `ledger/adjustments` and `ledger/postings`, without loss.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use shared::id::{AdId, CampaignId, RefId};
use shared::money::Currency;
use shared::time::{Day, Timestamp};

use lake::tables::{LEDGER_ADJUSTMENTS, LEDGER_POSTINGS};

use super::adjustment::{Adjustment, Corrects, Reason, Signed};
use super::postings::Posting;
use crate::columns::Columns;
use crate::error::Error;

fn text<'a, T>(rows: &'a [T], get: impl Fn(&'a T) -> Option<String>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<StringArray>())
}

fn long<T>(rows: &[T], get: impl Fn(&T) -> i64) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<Int64Array>())
}

/// Rows of `ledger/adjustments`.
pub(super) fn adjustments(rows: &[Signed], imported_at: Timestamp) -> Result<RecordBatch, Error> {
    let of = |get: fn(&Adjustment) -> String| text(rows, move |s: &Signed| Some(get(&s.adjustment)));
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|_| imported_at.0)).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        of(|a| a.id.to_string()),
        of(|a| a.campaign_id.to_string()),
        text(rows, |s| s.adjustment.ad_id.as_ref().map(ToString::to_string)),
        of(|a| a.currency.to_string()),
        long(rows, |s| s.adjustment.events[0]),
        long(rows, |s| s.adjustment.events[1]),
        long(rows, |s| s.adjustment.events[2]),
        long(rows, |s| s.adjustment.amount_micros),
        of(|a| a.reason.as_str().to_owned()),
        of(|a| a.note.clone()),
        of(|a| a.actor.clone()),
        text(rows, |s| s.adjustment.corrects.map(|c| c.to_string())),
        text(rows, |s| Some(s.source_sha256.clone())),
        text(rows, |s| Some(s.key_id.clone())),
        text(rows, |s| Some(s.signature.clone())),
        Arc::new(times),
    ];
    RecordBatch::try_new(LEDGER_ADJUSTMENTS.file_schema(), columns)
        .map_err(|e| Error::damaged("rows of ledger/adjustments", e))
}

/// The adjustments of `day` in rows of `ledger/adjustments`.
pub(super) fn adjustments_of(batch: &RecordBatch, day: Day, what: &str) -> Result<Vec<Signed>, Error> {
    let c = Columns::of(batch, what);
    let (ids, campaigns, ads) = (c.text("adjustment_id")?, c.text("campaign_id")?, c.optional_text("ad_id")?);
    let (currencies, amounts) = (c.text("currency")?, c.integers("amount_micros")?);
    let (impressions, clicks, conversions) =
        (c.integers("impressions")?, c.integers("clicks")?, c.integers("conversions")?);
    let (reasons, notes, actors) = (c.text("reason")?, c.text("note")?, c.text("actor")?);
    let (corrects, sources) = (c.optional_text("corrects")?, c.text("source_sha256")?);
    let (keys, signatures) = (c.text("key_id")?, c.text("signature")?);
    let row = |i: usize| {
        let (ad, settlement) = (ads.get(i).cloned().flatten(), corrects.get(i).cloned().flatten());
        let adjustment = Adjustment {
            id: c.parse("adjustment_id", ids.value(i), RefId::new(ids.value(i)).ok())?,
            day,
            campaign_id: c.parse("campaign_id", campaigns.value(i), CampaignId::new(campaigns.value(i)).ok())?,
            ad_id: ad.map(|ad| c.parse("ad_id", &ad, AdId::new(&ad).ok())).transpose()?,
            currency: c.parse("currency", currencies.value(i), Currency::parse(currencies.value(i)))?,
            events: [impressions.value(i), clicks.value(i), conversions.value(i)],
            amount_micros: amounts.value(i),
            reason: c.parse("reason", reasons.value(i), Reason::parse(reasons.value(i)))?,
            note: notes.value(i).to_owned(),
            actor: actors.value(i).to_owned(),
            corrects: settlement.map(|s| c.parse("corrects", &s, Corrects::parse(&s))).transpose()?,
        };
        Ok(Signed {
            adjustment,
            source_sha256: sources.value(i).to_owned(),
            key_id: keys.value(i).to_owned(),
            signature: signatures.value(i).to_owned(),
        })
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Rows of `ledger/postings`.
pub(super) fn postings(rows: &[Posting]) -> Result<RecordBatch, Error> {
    let damaged = |e: &dyn std::fmt::Display| Error::damaged("rows of ledger/postings", e);
    let number = |n: u64| i64::try_from(n).map_err(|e| damaged(&e));
    let sequences = rows.iter().map(|p| number(p.transaction_id)).collect::<Result<Vec<i64>, Error>>()?;
    let version = |p: &Posting| i32::try_from(p.version).map_err(|e| damaged(&e));
    let versions = rows.iter().map(version).collect::<Result<Vec<i32>, Error>>()?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(sequences)),
        Arc::new(Int32Array::from(versions)),
        text(rows, |p| p.adjustment_id.as_ref().map(ToString::to_string)),
        text(rows, |p| Some(p.account())),
        text(rows, |p| Some(p.campaign_id.to_string())),
        text(rows, |p| Some(p.currency.to_string())),
        long(rows, |p| p.amount_micros),
    ];
    RecordBatch::try_new(LEDGER_POSTINGS.file_schema(), columns).map_err(|e| damaged(&e))
}

/// The postings of `day` in rows of `ledger/postings`.
pub(super) fn postings_of(batch: &RecordBatch, day: Day, what: &str) -> Result<Vec<Posting>, Error> {
    let c = Columns::of(batch, what);
    let (transactions, versions) = (c.counts("transaction_id")?, c.counts("version")?);
    let (adjustments, accounts) = (c.optional_text("adjustment_id")?, c.text("account")?);
    let (campaigns, currencies, amounts) = (c.text("campaign_id")?, c.text("currency")?, c.integers("amount_micros")?);
    let rows = transactions.into_iter().zip(versions).zip(adjustments).enumerate();
    let row = |(i, ((transaction_id, version), adjustment)): (usize, ((u64, u64), Option<String>))| {
        let account = accounts.value(i).split(':').next().unwrap_or_default();
        Ok(Posting {
            transaction_id,
            version: c.parse("version", "a number", u32::try_from(version).ok())?,
            adjustment_id: adjustment.map(|a| c.parse("adjustment_id", &a, RefId::new(&a).ok())).transpose()?,
            day,
            kind: c.parse("account", account, Posting::kind_of(account))?,
            campaign_id: c.parse("campaign_id", campaigns.value(i), CampaignId::new(campaigns.value(i)).ok())?,
            currency: c.parse("currency", currencies.value(i), Currency::parse(currencies.value(i)))?,
            amount_micros: amounts.value(i),
        })
    };
    rows.map(row).collect()
}
