//! Money: integers, checked, rounded in one place.
//! Cost is kept in nanos (10⁻⁹ of the currency unit): a CPM price in micros per thousand impressions
//! is exactly that many nanos per impression, so cost is additive at every grain (contract 2.8).
//! Never: uses a float, wraps, or rounds anywhere but in [`micros_half_even`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// Nanos in a micro.
pub const NANOS_PER_MICRO: i64 = 1_000;
/// The largest amount in micros an event or price may carry, so that it fits in nanos.
pub const MAX_MICROS: i64 = i64::MAX / NANOS_PER_MICRO;

/// An amount did not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("amount overflows its integer")]
pub struct Overflow;

/// Nanos of an amount in micros.
///
/// # Errors
/// [`Overflow`] above [`MAX_MICROS`].
pub fn nanos(micros: i64) -> Result<i64, Overflow> {
    micros.checked_mul(NANOS_PER_MICRO).ok_or(Overflow)
}

/// Rounds a sum of nanos half-even to micros: done once, when a settlement line or an API row is output.
///
/// # Errors
/// [`Overflow`] when the result is not an i64.
pub fn micros_half_even(nanos: i128) -> Result<i64, Overflow> {
    let per = i128::from(NANOS_PER_MICRO);
    let (floor, rest) = (nanos.div_euclid(per), nanos.rem_euclid(per));
    let up = match (rest * 2).cmp(&per) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Greater => 1,
        std::cmp::Ordering::Equal => floor.rem_euclid(2),
    };
    i64::try_from(floor + up).map_err(|_| Overflow)
}

/// An ISO 4217 currency code; `XXX` (no currency) where nothing has a price.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// ISO 4217's "no currency".
    pub const NONE: Self = Self(*b"XXX");

    /// Three upper-case letters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let code: [u8; 3] = text.as_bytes().try_into().ok()?;
        code.iter().all(u8::is_ascii_uppercase).then_some(Self(code))
    }

    /// The code's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }

    /// The code's three letters.
    #[must_use]
    #[inline]
    pub fn letters(self) -> [u8; 3] {
        self.0
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Currency {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not an ISO 4217 code"))
    }
}

impl From<Currency> for String {
    fn from(c: Currency) -> Self {
        c.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rounding_is_half_even() {
        for (nanos, micros) in [(0, 0), (499, 0), (500, 0), (501, 1), (1_500, 2), (2_500, 2), (-500, 0), (-1_500, -2)] {
            assert_eq!(micros_half_even(nanos), Ok(micros), "{nanos}");
        }
        assert_eq!(micros_half_even(i128::MAX), Err(Overflow));
        assert_eq!(nanos(MAX_MICROS + 1), Err(Overflow));
    }

    proptest! {
        #[test]
        fn rounding_is_never_off_by_more_than_half(n in -1_000_000_000_000_i128..1_000_000_000_000) {
            let micros = i128::from(micros_half_even(n).unwrap());
            prop_assert!((micros * 1_000 - n).abs() * 2 <= 1_000);
        }
    }
}
