//! Where a line stands in the newest settlement of its day: file and row. For whoever explains one event.
//! Reads: the manifest and the files of lines, up to the line. Writes: nothing.

use lake::LakeRoot;
use shared::explain::{AdjustmentNote, SettledLine};
use shared::time::Day;

use crate::error::Error;
use crate::ledger::AdjustmentBook;
use crate::line_file::{Form, parquet};
use crate::settlements::{Settlements, folder};

/// What makes a line one line, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineName {
    /// The campaign.
    pub campaign_id: String,
    /// The ad.
    pub ad_id: String,
    /// The currency.
    pub currency: String,
    /// The price model.
    pub price_model: String,
    /// The price book version.
    pub price_version: i64,
}

/// The line in the newest settlement of `day`, and the run that settlement was made from; nothing where the day is not
/// settled or has no such line.
///
/// # Errors
/// [`Error::Objects`], [`Error::Damaged`].
pub async fn line(settlements: &Settlements, day: Day, name: &LineName) -> Result<Option<(u64, SettledLine)>, Error> {
    let Some(manifest) = settlements.newest(day).await? else { return Ok(None) };
    let folder = folder(day, manifest.version);
    let key =
        [name.campaign_id.as_str(), &name.ad_id, &name.currency, &name.price_model, &name.price_version.to_string()]
            .map(str::to_owned);
    for file in manifest.files.iter().filter(|f| Form::of(&f.path) == Some(Form::Parquet)) {
        let path = format!("{folder}/{}", file.path);
        let bytes = settlements.read(&path).await?.ok_or_else(|| Error::damaged(path.clone(), "it is gone"))?;
        let mut found = None;
        let read = parquet::of_campaign(bytes, &name.campaign_id, &mut |row, cells| {
            if cells.get(2..7) == Some(&key[..]) {
                found = Some((row, cells));
            }
        });
        read.map_err(|why| Error::damaged(path, why))?;
        let Some((row, cells)) = found else { continue };
        let cell = |n: usize| cells.get(n).cloned().unwrap_or_default();
        let line = SettledLine {
            folder,
            version: manifest.version,
            sequence: manifest.sequence,
            file: file.path.clone(),
            row,
            line_cost_nanos: cell(10),
            line_cost_micros: cell(11).parse().unwrap_or_default(),
            adjustments: Vec::new(),
        };
        return Ok(Some((manifest.run, line)));
    }
    Ok(None)
}

/// The adjustments of a campaign's day, by id.
///
/// # Errors
/// Those of the lake; [`Error::Damaged`].
pub async fn adjustments(lake: &LakeRoot, day: Day, campaign: &str) -> Result<Vec<AdjustmentNote>, Error> {
    let all = AdjustmentBook::open(lake).await?.of_day(day).await?;
    let ours = all.into_iter().map(|s| s.adjustment).filter(|a| a.campaign_id.as_str() == campaign);
    let note = |a: crate::ledger::Adjustment| AdjustmentNote {
        adjustment_id: a.id.to_string(),
        ad_id: a.ad_id.as_ref().map(ToString::to_string),
        currency: a.currency.to_string(),
        amount_micros: a.amount_micros,
        reason: a.reason.as_str().to_owned(),
        actor: a.actor,
    };
    Ok(ours.map(note).collect())
}
