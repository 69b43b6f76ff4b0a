//! Double entry: every settlement is one transaction, numbered by its sequence.
//!
//! What a campaign's lines changed against the version before is posted to `receivable:<campaign>` and, with the other
//! sign, to `revenue:<campaign>`; an adjustment that the version before did not have is posted to the receivable and to
//! the account of its reason. So the postings of a transaction sum to zero in every currency, and a campaign's
//! receivable for a day is what the day's newest settlement says is due.
//! Guarantee: a function of the published folders, so posting again gives the same rows; each sequence is posted once,
//! in order, by a commit that moves the table's number from the one before.
//! On crash: between publishing and posting the next settlement of any day, or the same command again, posts both.

use std::collections::BTreeMap;

use lake::sort::sorted_file;
use lake::table::{Committed, Txn};
use lake::tables::LEDGER_POSTINGS;
use lake::{LakeRoot, Table};
use shared::id::{CampaignId, RefId};
use shared::money::{Currency, Overflow};
use shared::time::Day;

use super::adjustment::Reason;
use super::stored;
use crate::attachments::published;
use crate::error::Error;
use crate::manifest::Manifest;
use crate::old_lines::OldLines;
use crate::sequence;
use crate::settlements::Settlements;

/// Who owes what.
const RECEIVABLE: &str = "receivable";
/// What was earned.
const REVENUE: &str = "revenue";

/// One side of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// The settlement's sequence number.
    pub transaction_id: u64,
    /// Its version.
    pub version: u32,
    /// The adjustment posted; absent for settled lines.
    pub adjustment_id: Option<RefId>,
    /// The day settled.
    pub day: Day,
    /// The kind of account.
    pub kind: &'static str,
    /// Whose account.
    pub campaign_id: CampaignId,
    /// The currency.
    pub currency: Currency,
    /// The signed amount in micros; debits are positive.
    pub amount_micros: i64,
}

impl Posting {
    /// The account: its kind and campaign.
    #[must_use]
    pub fn account(&self) -> String {
        format!("{}:{}", self.kind, self.campaign_id)
    }

    /// The kind of account with this name.
    pub(crate) fn kind_of(name: &str) -> Option<&'static str> {
        [RECEIVABLE, REVENUE].into_iter().chain(Reason::ALL.map(Reason::account)).find(|kind| *kind == name)
    }
}

/// Posts every settlement that is published and not posted yet; answers how many.
///
/// # Errors
/// Those of the stores; [`Error::Damaged`] when a published folder does not read.
pub async fn catch_up(lake: &LakeRoot, settlements: &Settlements) -> Result<u64, Error> {
    let newest = sequence::complete_newest(settlements).await?;
    let mut table = Table::open(lake, &LEDGER_POSTINGS).await?;
    let mut posted = 0;
    loop {
        let at = table.transaction_version(LEDGER_POSTINGS.name).await?.unwrap_or(0);
        let done = u64::try_from(at).unwrap_or(0);
        if done >= newest {
            return Ok(posted);
        }
        let manifest = sequence::settled(settlements, done + 1).await?;
        let rows = transaction(settlements, &manifest).await?;
        let mut files = Vec::new();
        if !rows.is_empty() {
            let stem = format!("sequence-{}", manifest.sequence);
            let encoded = sorted_file(&LEDGER_POSTINGS, manifest.day, &stem, &[stored::postings(&rows)?])?;
            files.push(table.store(encoded).await?);
        }
        match table.append(files, &[Txn::advance(LEDGER_POSTINGS.name, at, at + 1)]).await {
            Ok(Committed::Now(_)) => posted += 1,
            // Somebody else posted the same rows.
            Ok(Committed::Already(_)) | Err(lake::Error::Conflict { .. }) => table.refresh().await?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// All postings, of one day where it is given, by transaction.
///
/// # Errors
/// Those of the lake; [`Error::Damaged`] when a row does not read.
pub async fn postings(lake: &LakeRoot, day: Option<Day>) -> Result<Vec<Posting>, Error> {
    let table = Table::open(lake, &LEDGER_POSTINGS).await?;
    let mut found = Vec::new();
    for file in table.files()?.into_iter().filter(|f| day.is_none_or(|day| f.day == day)) {
        for batch in table.read(&file, None).await? {
            found.extend(stored::postings_of(&batch?, file.day, &file.path)?);
        }
    }
    found.sort_by_key(|p| p.transaction_id);
    Ok(found)
}

/// The postings of one settlement.
async fn transaction(settlements: &Settlements, manifest: &Manifest) -> Result<Vec<Posting>, Error> {
    let before = match manifest.supersedes {
        Some(version) => settlements.manifest(manifest.day, version).await?,
        None => None,
    };
    let mut changes: BTreeMap<(CampaignId, Currency), i64> = BTreeMap::new();
    for (manifest, sign) in [(Some(manifest), 1), (before.as_ref(), -1)] {
        let mut lines = OldLines::of(settlements, manifest);
        while let Some(line) = lines.next().await? {
            let change = changes.entry((line.key.campaign_id.clone(), line.key.currency)).or_default();
            *change = line.cost_micros()?.checked_mul(sign).and_then(|m| change.checked_add(m)).ok_or(Overflow)?;
        }
    }
    let lines = changes.into_iter().map(|((campaign, currency), micros)| (None, REVENUE, campaign, currency, micros));
    let mut entries: Vec<_> = lines.collect();
    let known: Vec<RefId> = match &before {
        Some(before) => published(settlements, before).await?.into_iter().map(|s| s.adjustment.id).collect(),
        None => Vec::new(),
    };
    for signed in published(settlements, manifest).await? {
        let a = signed.adjustment;
        if known.binary_search(&a.id).is_err() {
            entries.push((Some(a.id), a.reason.account(), a.campaign_id, a.currency, a.amount_micros));
        }
    }
    let mut rows = Vec::new();
    for (adjustment_id, against, campaign_id, currency, micros) in entries.into_iter().filter(|e| e.4 != 0) {
        for (kind, amount_micros) in [(RECEIVABLE, micros), (against, micros.checked_neg().ok_or(Overflow)?)] {
            rows.push(Posting {
                transaction_id: manifest.sequence,
                version: manifest.version,
                adjustment_id: adjustment_id.clone(),
                day: manifest.day,
                kind,
                campaign_id: campaign_id.clone(),
                currency,
                amount_micros,
            });
        }
    }
    Ok(rows)
}
