//! Identifiers: short, validated, opaque strings.
//! Owns: the one rule for what an id may look like (contract 1: `[A-Za-z0-9_-]{1,64}`).
//! Never: interprets an id; two different byte strings are two different ids.

use std::fmt;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// The longest id in bytes.
pub const MAX_ID_BYTES: usize = 64;

/// Why a string is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id: use 1 to {MAX_ID_BYTES} of A-Z a-z 0-9 _ -")]
pub struct BadId {
    /// The offending text, cut to 80 characters.
    pub text: String,
}

/// Whether these bytes have the form of an id, for readers that only borrow them. (16 at a time, the last ones overlapping,
/// without a branch for each: those of random hexadecimal digits are not to be foreseen.)
#[must_use]
pub fn is_id(text: &[u8]) -> bool {
    fn all<const N: usize>(bytes: &[u8; N]) -> bool {
        bytes.iter().fold(true, |all, byte| all & is_allowed(*byte))
    }
    if text.is_empty() || text.len() > MAX_ID_BYTES {
        return false;
    }
    if let Some(last) = text.last_chunk::<16>() {
        let (whole, rest) = text.as_chunks::<16>();
        return whole.iter().all(all) && (rest.is_empty() || all(last));
    }
    match (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        (Some(first), Some(last)) => all(first) & all(last),
        _ => text.iter().all(|byte| is_allowed(*byte)),
    }
}

fn is_allowed(byte: u8) -> bool {
    let is_letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    is_letter | (byte.wrapping_sub(b'0') < 10) | (byte == b'_') | (byte == b'-')
}

/// An id where it lies: bytes whose form was judged once, for readers that only borrow. Text is made of them where
/// somebody wants it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdRef<'a>(&'a [u8]);

impl<'a> IdRef<'a> {
    /// The id these bytes are, if they have the form of one.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        is_id(bytes).then_some(Self(bytes))
    }

    /// What stands for an id that is not known yet: no bytes, so no id.
    pub(crate) const NONE: Self = Self(&[]);

    /// Its bytes.
    #[must_use]
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Its text.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        // What has the form of an id is ASCII.
        std::str::from_utf8(self.0).unwrap_or_default()
    }
}

impl fmt::Debug for IdRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AsRef<str> for IdRef<'_> {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

fn check(text: &str) -> Result<(), BadId> {
    if is_id(text.as_bytes()) { Ok(()) } else { Err(BadId { text: text.chars().take(80).collect() }) }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "CompactString", into = "CompactString")]
        pub struct $name(CompactString);

        impl $name {
            /// Checks the form and takes the text.
            ///
            /// # Errors
            /// [`BadId`] when the text is not `[A-Za-z0-9_-]{1,64}`.
            pub fn new(text: impl AsRef<str>) -> Result<Self, BadId> {
                let text = text.as_ref();
                check(text)?;
                Ok(Self(CompactString::new(text)))
            }

            /// The id's exact text.
            #[must_use]
            #[inline]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The same id, borrowed.
            #[must_use]
            #[inline]
            pub fn borrowed(&self) -> IdRef<'_> {
                IdRef(self.0.as_bytes())
            }
        }

        impl From<IdRef<'_>> for $name {
            fn from(id: IdRef<'_>) -> Self {
                Self(CompactString::new(id.as_str()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::new(text)
            }
        }

        impl TryFrom<CompactString> for $name {
            type Error = BadId;
            fn try_from(text: CompactString) -> Result<Self, BadId> {
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for CompactString {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

id_type! {
    /// An event's idempotency key (`clickId` is its alias at the edge).
    EventId
}
id_type! {
    /// An ad: the log's partition key.
    AdId
}
id_type! {
    /// A campaign: what a price belongs to.
    CampaignId
}
id_type! {
    /// An advertiser: the tenant that API keys are scoped to.
    AdvertiserId
}
id_type! {
    /// One served impression; clicks on the same one within a day are repeat clicks.
    ImpressionId
}
id_type! {
    /// Any other reference the pipeline carries but does not interpret.
    RefId
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_is_what_the_contract_says(
            strange in proptest::collection::vec(any::<u8>(), 0..4),
            clean in "[A-Za-z0-9_-]{0,70}",
        ) {
            let contract = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'-';
            for at in 0..=clean.len() {
                let bytes = [&clean.as_bytes()[..at], &strange, &clean.as_bytes()[at..]].concat();
                prop_assert_eq!(is_id(&bytes), (1..=64).contains(&bytes.len()) && bytes.iter().all(contract));
                prop_assert_eq!(IdRef::new(&bytes).map(|id| id.as_str().as_bytes()), is_id(&bytes).then_some(&bytes[..]));
            }
        }
    }

    #[test]
    fn each_byte_is_judged_alike_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let allowed = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            for (length, at) in (1..=20).flat_map(|length| (0..length).map(move |at| (length, at))) {
                let mut bytes = vec![b'z'; length];
                bytes[at] = byte;
                assert_eq!(is_id(&bytes), allowed, "{byte} at {at} of {length}");
            }
        }
    }

    #[test]
    fn ids_take_the_contract_alphabet_and_nothing_else() {
        assert!(EventId::new("aZ09_-").is_ok());
        assert!(EventId::new("x".repeat(64)).is_ok());
        for bad in ["", "a b", "é", "a/b", "..", "a\r\nb"] {
            assert!(EventId::new(bad).is_err(), "{bad:?}");
        }
        assert!(EventId::new("x".repeat(65)).is_err());
    }
}
