//! The plain form of an event's JSON, which is the form of nearly all of them: strings without escapes, whole numbers of at
//! most 18 digits, `true`, `false` and `null`, nothing nested, no field twice, nothing out of range.
//! Guarantees: what is read here is what `serde_json` reads from the same text (a property test says so); of everything
//! else, right or wrong, nothing is said but that it is not plain. Never: judges or explains an error.

use std::borrow::Cow;

use super::{MAX_EXTRA_FIELDS, Slot};
use crate::fields::Fields;
use crate::time::Timestamp;

/// The most digits of a whole number that need no check for overflow.
const MAX_DIGITS: usize = 18;

/// The fields of a plain object with nothing after it; `None` when it is not plain.
pub(super) fn read(text: &str) -> Option<Fields<'_>> {
    let mut reader = Reader { text, at: 0 };
    let mut fields = Fields::default();
    reader.space();
    reader.expect(b'{')?;
    reader.space();
    if reader.peek() != Some(b'}') {
        loop {
            let name = reader.string()?;
            reader.space();
            reader.expect(b':')?;
            reader.space();
            let value = reader.value()?;
            keep(&mut fields, name, value)?;
            reader.space();
            if reader.peek() != Some(b',') {
                break;
            }
            reader.at += 1;
            reader.space();
        }
    }
    reader.expect(b'}')?;
    reader.space();
    (reader.at == text.len()).then_some(fields)
}

/// A plain value; a number and a word with their text.
#[derive(Clone, Copy)]
enum Value<'a> {
    Null,
    Text(&'a str),
    Whole(i64, &'a str),
    Word(&'a str),
}

fn keep<'a>(fields: &mut Fields<'a>, name: &str, value: Value<'a>) -> Option<()> {
    let Some(slot) = Slot::of(fields, name) else { return keep_extra(fields, name, value) };
    match (slot, value) {
        (_, Value::Null) => Some(()),
        (Slot::Text(slot), Value::Text(text)) => put(slot, Cow::Borrowed(text)),
        (Slot::Time(slot), Value::Text(text)) => put(slot, Timestamp::parse(text)?.0),
        (Slot::Time(slot), Value::Whole(millis, _)) => put(slot, Timestamp::from_millis(millis)?.0),
        (Slot::Whole(slot), Value::Whole(number, _)) => put(slot, number),
        (Slot::Version(slot), Value::Whole(number, _)) => put(slot, u32::try_from(number).ok()?),
        _ => None,
    }
}

fn put<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// A field we do not know, as JSON text: of a plain value that is what the client wrote.
fn keep_extra<'a>(fields: &mut Fields<'a>, name: &str, value: Value<'a>) -> Option<()> {
    let text = match value {
        Value::Null => return Some(()),
        Value::Text(text) => format!("\"{text}\""),
        Value::Whole(_, text) | Value::Word(text) => text.to_owned(),
    };
    let extra = fields.payload.extra.to_mut();
    (extra.len() < MAX_EXTRA_FIELDS && extra.insert(name.to_owned(), text).is_none()).then_some(())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn value(&mut self) -> Option<Value<'a>> {
        match self.peek()? {
            b'"' => self.string().map(Value::Text),
            b'n' => self.word("null").map(|_| Value::Null),
            b't' => self.word("true").map(Value::Word),
            b'f' => self.word("false").map(Value::Word),
            _ => self.whole(),
        }
    }

    fn word(&mut self, word: &'static str) -> Option<&'static str> {
        self.rest().starts_with(word.as_bytes()).then(|| self.at += word.len())?;
        Some(word)
    }

    /// A string in quotation marks, without an escape and without control characters.
    fn string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let length = ordinary(self.rest());
        let text = self.text.get(self.at..self.at + length)?;
        self.at += length;
        self.expect(b'"')?;
        Some(text)
    }

    /// A whole number as JSON writes it: no zero before other digits, and no negative zero, which is a fraction to serde.
    fn whole(&mut self) -> Option<Value<'a>> {
        let rest = self.rest();
        let sign = usize::from(rest.first() == Some(&b'-'));
        let digits = rest.get(sign..)?;
        let number = digits.iter().take(MAX_DIGITS + 1).take_while(|digit| digit.is_ascii_digit()).count();
        let is_canonical = number == 1 || digits.first() != Some(&b'0');
        let is_whole = !matches!(digits.get(number), Some(b'.' | b'e' | b'E'));
        if !(1..=MAX_DIGITS).contains(&number)
            || !is_canonical
            || !is_whole
            || (sign > 0 && digits.first() == Some(&b'0'))
        {
            return None;
        }
        let value = digits.iter().take(number).fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        let text = self.text.get(self.at..self.at + sign + number)?;
        self.at += text.len();
        Some(Value::Whole(if sign > 0 { -value } else { value }, text))
    }
}

/// How many bytes come before the first quotation mark, backslash or control character, looked for eight at a time.
fn ordinary(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest bit that is set is that of the first such byte: a borrow goes upwards only.
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
        let quotes = zeros(word ^ (ONES * u64::from(b'"')));
        let escapes = zeros(word ^ (ONES * u64::from(b'\\')));
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (quotes | escapes | controls) & HIGHS;
        if found != 0 {
            return number * 8 + usize::try_from(found.trailing_zeros() / 8).unwrap_or(0);
        }
    }
    let is_ordinary = |byte: &&u8| **byte >= 0x20 && !matches!(**byte, b'"' | b'\\');
    words.len() * 8 + rest.iter().take_while(is_ordinary).count()
}

#[cfg(test)]
mod tests;
