//! What is invalid about the rows of a batch: what capture found, else what the rule lists say (contract 2.4).
//! Every distinct user agent of a batch is judged once.

use arrow::array::{Array, DictionaryArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use shared::verdict::{Counting, InvalidCode};

use crate::error::Error;
use crate::source::column;

/// The columns read here; `user_agent` as a dictionary.
pub(crate) const COLUMNS: [&str; 2] = ["invalid", "user_agent"];

/// What capture wrote into `invalid`.
pub(crate) fn captured(invalid: &StringArray, row: usize) -> Result<Option<InvalidCode>, Error> {
    if invalid.is_null(row) {
        return Ok(None);
    }
    let code = invalid.value(row);
    InvalidCode::parse(code).map(Some).ok_or_else(|| Error::Corrupt(format!("{code:?} is not an invalid code")))
}

/// What is invalid about each row.
pub(crate) fn judge(batch: &RecordBatch, counting: &Counting) -> Result<Vec<Option<InvalidCode>>, Error> {
    let captured_codes: &StringArray = column(batch, "invalid")?;
    let agents: &DictionaryArray<Int32Type> = column(batch, "user_agent")?;
    let texts = agents.values().as_any().downcast_ref::<StringArray>();
    let texts = texts.ok_or_else(|| Error::Corrupt("user_agent is not text".to_owned()))?;
    let bots: Vec<bool> = texts.iter().map(|agent| agent.is_some_and(|a| counting.is_known_bot(a))).collect();
    let is_bot = |row| agents.key(row).and_then(|key| bots.get(key)).is_some_and(|bot| *bot);
    (0..batch.num_rows())
        .map(|row| Ok(captured(captured_codes, row)?.or_else(|| is_bot(row).then_some(InvalidCode::KnownBot))))
        .collect()
}
