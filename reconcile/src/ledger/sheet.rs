//! `adjustments.csv` of a settlement folder: every adjustment of the day known when it was published, by id.
//! The same adjustments give the same bytes in every version, so its checksum is their content.

use super::adjustment::Signed;
use super::rows::from_cells;
use crate::line_file::sheet;
use crate::lines::decimal;

/// The columns of `adjustments.csv`: those of an import, with the amount as a decimal and the proof of origin.
pub(crate) const COLUMNS: [&str; 17] = [
    "adjustment_id",
    "day",
    "campaign_id",
    "ad_id",
    "currency",
    "impressions",
    "clicks",
    "conversions",
    "amount_micros",
    "reason",
    "note",
    "actor",
    "corrects",
    "amount",
    "source_sha256",
    "key_id",
    "signature",
];
/// How many of them are an import's.
const OWN: usize = 13;
/// The columns of free text.
const TEXT: [&str; 7] = ["adjustment_id", "campaign_id", "ad_id", "note", "actor", "key_id", "signature"];

fn cells(signed: &Signed) -> Vec<String> {
    let mut cells = signed.adjustment.cells().to_vec();
    cells.push(decimal(signed.adjustment.amount_micros));
    cells.extend([signed.source_sha256.clone(), signed.key_id.clone(), signed.signature.clone()]);
    cells
}

/// The file's bytes.
pub(crate) fn adjustments_csv(rows: &[Signed]) -> Result<Vec<u8>, String> {
    sheet::write(&COLUMNS, &TEXT, rows.iter().map(|s| Ok(cells(s))))
}

/// The adjustments in a file's bytes; each cell must be what the adjustment itself would print.
pub(crate) fn read_adjustments(bytes: &[u8], each: &mut dyn FnMut(u64, Result<Signed, String>)) -> Result<(), String> {
    sheet::read(bytes, &COLUMNS, &TEXT, &mut |number, row| each(number, signed(&row)))
}

fn signed(row: &[String]) -> Result<Signed, String> {
    let [.., _, source, key, signature] = row else { return Err("it is too short".to_owned()) };
    let signed = Signed {
        adjustment: from_cells(row.get(..OWN).unwrap_or_default())?,
        source_sha256: source.clone(),
        key_id: key.clone(),
        signature: signature.clone(),
    };
    match cells(&signed).iter().zip(row).zip(COLUMNS).find(|((wanted, found), _)| wanted != found) {
        Some(((wanted, found), column)) => Err(format!("{column} is {found:?} and must be {wanted:?}")),
        None => Ok(signed),
    }
}
