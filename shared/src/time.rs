//! Times, windows and the clock port.
//! All times are UTC microseconds since 1970; days are UTC, `[00:00, 24:00)`.
//! Never: reads the wall clock outside [`SystemClock`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds in a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds in a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Microseconds in an hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Microseconds in a day.
pub const DAY: i64 = 24 * HOUR;

/// An instant: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The earliest instant an event may carry: 1970.
    pub const MIN: Self = Self(0);
    /// The latest instant an event may carry: the end of year 9999.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// From epoch milliseconds, if in range.
    #[must_use]
    pub fn from_millis(millis: i64) -> Option<Self> {
        let t = Self(millis.checked_mul(1_000)?);
        (Self::MIN..=Self::MAX).contains(&t).then_some(t)
    }

    /// Epoch milliseconds, rounded down.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// From RFC 3339 text; finer digits than a microsecond are cut.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let t = Self(text.parse::<jiff::Timestamp>().ok()?.as_microsecond());
        (Self::MIN..=Self::MAX).contains(&t).then_some(t)
    }

    /// The start of the window of `length` microseconds this instant falls into.
    #[must_use]
    #[inline]
    pub fn floor(self, length: i64) -> Self {
        Self(self.0 - self.0.rem_euclid(length))
    }

    /// The UTC day.
    #[must_use]
    pub fn day(self) -> Day {
        Day(i32::try_from(self.0.div_euclid(DAY)).unwrap_or(i32::MAX))
    }

    /// This instant moved by `micros`, saturating.
    #[must_use]
    #[inline]
    pub fn plus(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to this instant (negative if it is later).
    #[must_use]
    #[inline]
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A UTC day: days since 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i32);

impl Day {
    /// From `YYYY-MM-DD`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let date: jiff::civil::Date = text.parse().ok()?;
        if date.to_string() != text {
            return None;
        }
        date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| Timestamp(z.timestamp().as_microsecond()).day())
    }

    /// The first instant.
    #[must_use]
    pub fn start(self) -> Timestamp {
        Timestamp(i64::from(self.0) * DAY)
    }

    /// The first instant after the day.
    #[must_use]
    pub fn end(self) -> Timestamp {
        Timestamp((i64::from(self.0) + 1) * DAY)
    }

    /// The day `days` later (earlier when negative).
    #[must_use]
    pub fn plus(self, days: i32) -> Self {
        Self(self.0.saturating_add(days))
    }

    /// The 24 hours of the day, each by its first instant.
    pub fn hours(self) -> impl Iterator<Item = Timestamp> {
        (0..24).map(move |h| self.start().plus(h * HOUR))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.start().to_string();
        f.write_str(text.get(..10).unwrap_or(&text))
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Day {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a date YYYY-MM-DD")))
    }
}

impl std::str::FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| format!("{text:?} is not a time such as 2026-01-05T10:00:00Z"))
    }
}

impl std::str::FromStr for Day {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| format!("{text:?} is not a date YYYY-MM-DD"))
    }
}

/// Where "now" comes from. Everything that needs the time takes one of these.
pub trait Clock: Send + Sync {
    /// The current instant.
    fn now(&self) -> Timestamp;
}

/// The machine's clock, moved by a fixed offset (zero in production; the demo moves it close to
/// the end of a day so that a day closes while one watches).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock {
    /// Microseconds added to the machine's time.
    pub offset: i64,
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place that reads the wall clock
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)).plus(self.offset)
    }
}

/// A clock that only moves when told to.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock standing at `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.0)))
    }

    /// Moves the clock forward by `micros` (backward when negative).
    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }

    /// Sets the clock.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Waits for `duration` of real time: the one sleep of the code base, so that lints can ban the rest.
#[allow(clippy::disallowed_methods)]
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// A monotonic instant for measuring durations (metrics only, never a decision about data).
#[allow(clippy::disallowed_methods)]
#[must_use]
pub fn stopwatch() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_utc_and_half_open() {
        let day = Day::parse("2026-01-05").unwrap();
        assert_eq!(day.to_string(), "2026-01-05");
        assert_eq!(day.start().to_string(), "2026-01-05T00:00:00Z");
        assert_eq!(day.start().day(), day);
        assert_eq!(day.end().plus(-1).day(), day);
        assert_eq!(day.end().day(), day.plus(1));
        assert_eq!(Day::parse("2026-1-5"), None);
        assert_eq!(Day::parse("2026-02-30"), None);
    }

    #[test]
    fn timestamps_parse_to_the_microsecond() {
        let t = Timestamp::parse("2026-01-05T10:00:00.123456789+02:00").unwrap();
        assert_eq!(t.to_string(), "2026-01-05T08:00:00.123456Z");
        assert_eq!(Timestamp::from_millis(t.as_millis()).unwrap().0, t.0 - 456);
        assert_eq!(t.floor(MINUTE).to_string(), "2026-01-05T08:00:00Z");
        assert_eq!(Timestamp::parse("yesterday"), None);
        assert_eq!(Timestamp::from_millis(i64::MAX), None);
        assert_eq!(Timestamp::from_millis(-1), None);
    }
}
