//! The person to be erased: which rows name them, and what is left of such a row. Pure.
//! Guarantee: a row keeps its ids, times, counts and whatever decides its verdict: a browser that the rules call a bot
//! leaves `invalid = known_bot`, and the pseudonym becomes a surrogate that still tells one person from another.
//! Never: prints the person's id.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use shared::verdict::{Counting, InvalidCode};

use crate::error::Error;
use crate::tables::{BRONZE_BAD, BRONZE_EVENTS, SILVER_EVENTS, TableDef};

/// Columns of events that may say who somebody is, beside their pseudonym.
const DETAILS: [&str; 6] = ["session_id", "ip_hash", "user_agent", "url", "extra", "traceparent"];
const PSEUDONYM: &str = "user_pseudo_id";
/// What stands in the place of a refusal's words.
const ERASED: &str = "erased";

/// The person, what they become, and the rules that judged their events.
#[derive(Clone)]
pub struct Subject {
    id: Arc<str>,
    surrogate: Arc<str>,
    counting: Arc<Counting>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject(to become {})", self.surrogate)
    }
}

impl Subject {
    /// The person with the pseudonym `id`, who becomes `surrogate`.
    ///
    /// # Errors
    /// `Invalid` when `id` is empty: it would be in every text.
    pub fn new(id: &str, surrogate: &str, counting: Counting) -> Result<Self, Error> {
        if id.is_empty() {
            return Err(Error::Invalid("the person's pseudonym is empty".to_owned()));
        }
        Ok(Self { id: id.into(), surrogate: surrogate.into(), counting: Arc::new(counting) })
    }

    /// The columns of a table that may name somebody.
    pub(crate) fn columns(def: &TableDef) -> &'static [&'static str] {
        match def.name {
            name if name == BRONZE_EVENTS.name => {
                &[PSEUDONYM, "session_id", "ip_hash", "user_agent", "url", "extra", "traceparent"]
            }
            name if name == BRONZE_BAD.name => &["detail", "raw"],
            name if name == SILVER_EVENTS.name => &[PSEUDONYM],
            _ => &[],
        }
    }

    /// How many rows name the person.
    pub(crate) fn rows_named(&self, batch: &RecordBatch) -> u64 {
        (0..batch.num_rows()).filter(|row| self.is_theirs(batch, *row) || self.is_named(batch, *row)).count() as u64
    }

    /// Whether the event of a row is the person's.
    pub(crate) fn is_theirs(&self, batch: &RecordBatch, row: usize) -> bool {
        text(batch, PSEUDONYM, row) == Some(&*self.id)
    }

    fn is_named(&self, batch: &RecordBatch, row: usize) -> bool {
        DETAILS.iter().any(|name| text(batch, name, row).is_some_and(|t| self.is_in(t.as_bytes())))
            || self.is_refused(batch, row)
    }

    fn is_refused(&self, batch: &RecordBatch, row: usize) -> bool {
        let raw = batch.column_by_name("raw").and_then(|c| c.as_binary_opt::<i32>());
        raw.is_some_and(|raw| self.is_in(raw.value(row)))
            || text(batch, "detail", row).is_some_and(|t| self.is_in(t.as_bytes()))
    }

    /// Whether the id stands in `bytes` as a whole word, or as a protobuf field (behind its length).
    fn is_in(&self, bytes: &[u8]) -> bool {
        let id = self.id.as_bytes();
        let is_word = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        bytes.windows(id.len()).enumerate().filter(|(_, window)| *window == id).any(|(at, _)| {
            let before = at.checked_sub(1).and_then(|i| bytes.get(i));
            let is_field = before.is_some_and(|b| usize::from(*b) == id.len());
            is_field || !(is_word(before) || is_word(bytes.get(at + id.len())))
        })
    }

    /// The rows without the person: the same rows in the same order.
    ///
    /// # Errors
    /// `Invalid` when a column has another type than its table says.
    pub(crate) fn erase(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let theirs: Vec<bool> = (0..batch.num_rows()).map(|row| self.is_theirs(batch, row)).collect();
        let refused: Vec<bool> = (0..batch.num_rows()).map(|row| self.is_refused(batch, row)).collect();
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).map(|(field, values)| {
            let name = field.name().as_str();
            let texts = || {
                let texts = values.as_string_opt::<i32>();
                texts.ok_or_else(|| Error::Invalid(format!("column {name} is not text")))
            };
            let is = |rows: &[bool], row: usize| rows.get(row).copied().unwrap_or(false);
            let column: ArrayRef = match name {
                PSEUDONYM => replaced(texts()?, |row, old| if is(&theirs, row) { Some(&*self.surrogate) } else { old }),
                "invalid" => replaced(texts()?, |row, old| old.or_else(|| self.outcome(batch, row, is(&theirs, row)))),
                "detail" => replaced(texts()?, |row, old| if is(&refused, row) { Some(ERASED) } else { old }),
                "raw" => match values.as_binary_opt::<i32>() {
                    Some(raw) => {
                        let kept = |(row, bytes)| if is(&refused, row) { Some(&b""[..]) } else { bytes };
                        Arc::new(raw.iter().enumerate().map(kept).collect::<BinaryArray>())
                    }
                    None => return Err(Error::Invalid("column raw is not bytes".to_owned())),
                },
                name if DETAILS.contains(&name) => {
                    replaced(texts()?, |row, old| old.filter(|text| !is(&theirs, row) && !self.is_in(text.as_bytes())))
                }
                _ => Arc::clone(values),
            };
            Ok(column)
        });
        let columns = columns.collect::<Result<Vec<_>, Error>>()?;
        RecordBatch::try_new(schema.clone(), columns).map_err(|e| Error::arrow("erasing", e))
    }

    /// What a browser's name that goes had decided.
    fn outcome(&self, batch: &RecordBatch, row: usize, is_theirs: bool) -> Option<&'static str> {
        let agent = text(batch, "user_agent", row)?;
        let goes = is_theirs || self.is_in(agent.as_bytes());
        (goes && self.counting.is_known_bot(agent)).then_some(InvalidCode::KnownBot.as_str())
    }
}

fn text<'a>(batch: &'a RecordBatch, name: &str, row: usize) -> Option<&'a str> {
    let texts = batch.column_by_name(name)?.as_string_opt::<i32>()?;
    texts.is_valid(row).then(|| texts.value(row))
}

fn replaced<'a>(texts: &'a StringArray, new: impl Fn(usize, Option<&'a str>) -> Option<&'a str>) -> ArrayRef {
    Arc::new(texts.iter().enumerate().map(|(row, old)| new(row, old)).collect::<StringArray>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_personal_field_of_an_event_is_searched() {
        let searched = Subject::columns(&BRONZE_EVENTS);
        for (_, column, personal) in shared::event::FIELDS {
            assert_eq!(searched.contains(column), *personal, "{column}");
        }
        let of_silver = SILVER_EVENTS.columns.iter().filter(|c| c.doc.contains("personal data"));
        assert!(of_silver.into_iter().all(|c| Subject::columns(&SILVER_EVENTS).contains(&c.name)));
        assert!(DETAILS.iter().all(|c| searched.contains(c)));
    }

    #[test]
    fn an_id_is_found_as_a_word_and_as_a_protobuf_field_and_not_within_another() {
        let subject = Subject::new("user-7", "x", Counting::default()).unwrap();
        for named in ["user-7", "{\"userPseudoId\":\"user-7\"}", "?u=user-7&x", "a\u{6}user-7R"] {
            assert!(subject.is_in(named.as_bytes()), "{named}");
        }
        for other in ["user-77", "a-user-7", "user-", "xuser-7x"] {
            assert!(!subject.is_in(other.as_bytes()), "{other}");
        }
        assert!(Subject::new("", "x", Counting::default()).is_err());
        assert!(!format!("{subject:?}").contains("user-7"));
    }
}
