//! Their times: dates, hours and instants as partners write them, in the time zone their file is in.
//! A local time is microseconds since 1970 on their wall clock: UTC plus the zone's offset. Pure.

use shared::time::{DAY, Day, HOUR, MINUTE, Timestamp};

/// A fixed offset from UTC, in minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Zone(pub i32);

impl Zone {
    /// `Z`, `UTC`, `+02:00`, `-0330` or `+2`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if matches!(text, "Z" | "z" | "UTC" | "utc") {
            return Some(Self(0));
        }
        let (sign, rest) = match text.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let digits: String = rest.chars().filter(|c| *c != ':').collect();
        if digits.is_empty()
            || digits.len() > 4
            || rest.matches(':').count() > 1
            || !digits.bytes().all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let (hours, minutes) = match digits.len() {
            1 | 2 => (digits.parse::<i32>().ok()?, 0),
            n => (digits.get(..n - 2)?.parse().ok()?, digits.get(n - 2..)?.parse::<i32>().ok()?),
        };
        let zone = Self(sign * (hours * 60 + minutes));
        (minutes < 60 && zone.0.abs() <= 14 * 60).then_some(zone)
    }

    /// Its offset in microseconds.
    #[must_use]
    pub fn micros(self) -> i64 {
        i64::from(self.0) * MINUTE
    }
}

impl std::fmt::Display for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        write!(f, "UTC{sign}{:02}:{:02}", self.0.abs() / 60, self.0.abs() % 60)
    }
}

/// The local time of `date` and `time` cells: a date; a date and an hour; an instant; a local date and time.
pub(super) fn local(date: Option<&str>, time: Option<&str>, zone: Zone) -> Option<i64> {
    match (date.map(str::trim), time.map(str::trim)) {
        (None, None) => None,
        (Some(date), None) => Day::parse(date).map(|d| d.start().0).or_else(|| instant(date, zone)),
        (date, Some(time)) => hour_of(date, time).or_else(|| instant(time, zone)),
    }
}

/// `7`, `07` or `07:00` beside a date.
fn hour_of(date: Option<&str>, time: &str) -> Option<i64> {
    let day = Day::parse(date?)?;
    let hour: i64 = time.split(':').next()?.parse().ok()?;
    let is_short = time.len() <= 2 || time.get(2..3) == Some(":");
    (is_short && (0..24).contains(&hour)).then(|| day.start().0 + hour * HOUR)
}

/// RFC 3339 (an instant), or the same without a zone (local).
fn instant(text: &str, zone: Zone) -> Option<i64> {
    if let Some(at) = Timestamp::parse(text) {
        return Some(at.0 + zone.micros());
    }
    let dated = text.replacen(' ', "T", 1);
    [format!("{dated}Z"), format!("{dated}:00Z"), format!("{dated}:00:00Z")]
        .iter()
        .find_map(|t| Timestamp::parse(t))
        .map(|t| t.0)
}

/// The day of a local time.
pub(super) fn day_of(local: i64) -> Day {
    Day(i32::try_from(local.div_euclid(DAY)).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_and_times_read_in_the_forms_partners_use() {
        for (text, minutes) in [("Z", 0), ("+02:00", 120), ("-0330", -210), ("+2", 120), ("-11", -660)] {
            assert_eq!(Zone::parse(text), Some(Zone(minutes)), "{text}");
        }
        for bad in ["", "2", "+15", "+02:60", "CET", "+2:0:0"] {
            assert_eq!(Zone::parse(bad), None, "{bad}");
        }
        assert_eq!(Zone(-210).to_string(), "UTC-03:30");
        let noon = Timestamp::parse("2026-01-05T12:00:00Z").unwrap().0;
        let zone = Zone(120);
        assert_eq!(local(Some("2026-01-05"), Some("12"), zone), Some(noon));
        assert_eq!(local(Some("2026-01-05"), Some("12:00"), zone), Some(noon));
        assert_eq!(local(None, Some("2026-01-05 12:00:00"), zone), Some(noon));
        assert_eq!(local(None, Some("2026-01-05T12"), zone), Some(noon));
        assert_eq!(local(None, Some("2026-01-05T10:00:00Z"), zone), Some(noon));
        assert_eq!(local(Some("2026-01-05"), None, zone), Some(noon - 12 * HOUR));
        assert_eq!(local(Some("5.1.2026"), None, zone), None);
    }
}
