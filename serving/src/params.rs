//! Query parameters: read strictly, refused with a sentence that says what to write instead.
//! Owns: the limits of a question, each with a name and a unit. Pure but for the extractor.

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;
use shared::http::problem::Problem;
use shared::rollup::TimeRange;
use shared::time::{DAY, Day, HOUR, MINUTE, Timestamp};

use crate::problems::invalid;

/// Rows of one page if the question does not say.
pub(crate) const DEFAULT_PAGE_ROWS: usize = 2_000;
/// Rows of one page at most.
pub(crate) const MAX_PAGE_ROWS: usize = 10_000;
/// Lines of a top list at most.
pub(crate) const MAX_TOP: usize = 100;

/// Query parameters of one route; unknown ones are refused, so that a misspelt filter is never ignored.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(refused) => Err(invalid(refused.body_text(), "see /docs for the parameters of this call")),
        }
    }
}

/// The window length of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Granularity {
    Minute,
    FiveMinutes,
    Hour,
    Day,
}

impl Granularity {
    pub(crate) const ALL: [Self; 4] = [Self::Minute, Self::FiveMinutes, Self::Hour, Self::Day];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::FiveMinutes => "5m",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// The window's length, microseconds.
    pub(crate) fn length(self) -> i64 {
        match self {
            Self::Minute => MINUTE,
            Self::FiveMinutes => 5 * MINUTE,
            Self::Hour => HOUR,
            Self::Day => DAY,
        }
    }

    /// The longest range one question may cover, days. Minutes are merged at reading, so this bounds the work.
    pub(crate) fn max_days(self) -> i64 {
        match self {
            Self::Minute => 3,
            Self::FiveMinutes => 7,
            Self::Hour => 31,
            Self::Day => 92,
        }
    }

    pub(crate) fn parse(text: Option<&str>) -> Result<Self, Problem> {
        let Some(text) = text else { return Ok(Self::Minute) };
        let known = Self::ALL.into_iter().find(|g| g.as_str() == text);
        known.ok_or_else(|| invalid(format!("granularity {text:?} is not known"), "use minute, 5m, hour or day"))
    }
}

/// A range of time as asked for: `from` inclusive, `to` exclusive, both widened to whole windows of `step`
/// microseconds. Without `to` it ends with the window of now; without `from` it holds `default` microseconds.
pub(crate) fn time_range(
    from: Option<&str>,
    to: Option<&str>,
    now: Timestamp,
    step: i64,
    default: i64,
    max_days: i64,
) -> Result<TimeRange, Problem> {
    let to = match to {
        Some(text) => instant("to", text)?,
        None => now,
    };
    let end = to.plus(step - 1).floor(step);
    let start = match from {
        Some(text) => instant("from", text)?.floor(step),
        None => end.plus(-default).floor(step),
    };
    if start >= end {
        return Err(invalid(format!("from {start} is not before to {end}"), "`from` is inclusive, `to` exclusive"));
    }
    if end.since(start) > max_days * DAY {
        let fix = format!("ask for at most {max_days} days at a time, or for a coarser granularity");
        return Err(invalid(format!("{start} to {end} is too long"), fix));
    }
    Ok(start..end)
}

fn instant(name: &str, text: &str) -> Result<Timestamp, Problem> {
    let date = || Day::parse(text).map(Day::start);
    Timestamp::parse(text).or_else(date).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        let fix = "write RFC 3339 such as 2026-01-05T10:00:00Z (a + as %2B), or a UTC date such as 2026-01-05";
        invalid(format!("{name} {shown:?} is not a time"), fix)
    })
}

/// A path's `{date}`.
pub(crate) fn date(text: &str) -> Result<Day, Problem> {
    Day::parse(text).ok_or_else(|| invalid("the date in the path is not a date", "write a UTC date such as 2026-01-05"))
}

/// A path's id.
pub(crate) fn id<T: std::str::FromStr<Err = shared::id::BadId>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|e: shared::id::BadId| invalid(e.to_string(), "check the id in the path"))
}

/// How many rows a page holds.
pub(crate) fn page_rows(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(DEFAULT_PAGE_ROWS) {
        rows @ 1..=MAX_PAGE_ROWS => Ok(rows),
        rows => Err(invalid(format!("limit {rows} is out of range"), format!("use 1 to {MAX_PAGE_ROWS}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_range_is_widened_to_whole_windows_and_defaults_end_now() {
        let now = at("2026-01-05T10:30:30Z");
        let range = time_range(Some("2026-01-05T09:01:00Z"), Some("2026-01-05T09:59:00Z"), now, HOUR, HOUR, 3).unwrap();
        assert_eq!(range, at("2026-01-05T09:00:00Z")..at("2026-01-05T10:00:00Z"));
        let range = time_range(None, None, now, MINUTE, HOUR, 3).unwrap();
        assert_eq!(range, at("2026-01-05T09:31:00Z")..at("2026-01-05T10:31:00Z"));
        let range = time_range(Some("2026-01-04"), Some("2026-01-05"), now, HOUR, HOUR, 3).unwrap();
        assert_eq!(range, at("2026-01-04T00:00:00Z")..at("2026-01-05T00:00:00Z"));
    }

    #[test]
    fn what_cannot_be_asked_says_why() {
        let now = at("2026-01-05T10:30:30Z");
        for (from, to) in [
            (Some("yesterday"), None),
            (Some("2026-01-05T10:00:00 02:00"), None),
            (Some("2026-01-05"), Some("2026-01-04")),
            (Some("2026-01-05"), Some("2026-01-05")),
            (Some("2026-01-01"), Some("2026-01-04T00:00:01Z")),
            (Some("2027-01-01"), None),
            (None, Some("")),
        ] {
            let refused = time_range(from, to, now, MINUTE, HOUR, 3);
            assert_eq!(refused.unwrap_err().status(), 400, "{from:?} {to:?}");
        }
        assert!(Granularity::parse(Some("week")).is_err());
        assert!(page_rows(Some(0)).is_err() && page_rows(Some(MAX_PAGE_ROWS + 1)).is_err());
    }
}
