//! Pages by key: a cursor names the last row that was read, so that rows that come or change in between neither
//! repeat nor hide others. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use shared::event::{Country, DeviceType};
use shared::http::problem::Problem;
use shared::money::Currency;
use shared::time::Timestamp;

use crate::problems::invalid;
use crate::rows::{HourKey, SeriesKey};

/// A row's key as a cursor.
pub(crate) trait Cursor: Ord + Sized {
    /// The key's parts, none with a dot.
    fn parts(&self) -> Vec<String>;
    /// Back from the parts.
    fn from_parts(parts: &[&str]) -> Option<Self>;
}

impl Cursor for SeriesKey {
    fn parts(&self) -> Vec<String> {
        vec![self.0.0.to_string(), self.1.to_string()]
    }

    fn from_parts(parts: &[&str]) -> Option<Self> {
        let [at, currency] = parts else { return None };
        Some((Timestamp(at.parse().ok()?), Currency::parse(currency)?))
    }
}

impl Cursor for HourKey {
    fn parts(&self) -> Vec<String> {
        let (hour, country, device, currency) = self;
        let country = country.map(|c| c.as_str().to_owned()).unwrap_or_default();
        let device = device.map_or("", DeviceType::as_str).to_owned();
        vec![hour.0.to_string(), country, device, currency.to_string()]
    }

    fn from_parts(parts: &[&str]) -> Option<Self> {
        let [hour, country, device, currency] = parts else { return None };
        let country = if country.is_empty() { None } else { Some(Country::parse(country)?) };
        let device = if device.is_empty() { None } else { Some(DeviceType::parse(device)?) };
        Some((Timestamp(hour.parse().ok()?), country, device, Currency::parse(currency)?))
    }
}

/// Reads a cursor.
pub(crate) fn read<K: Cursor>(cursor: Option<&str>) -> Result<Option<K>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let text = bytes.and_then(|b| String::from_utf8(b).ok());
    let key = text.and_then(|t| K::from_parts(&t.split('.').collect::<Vec<_>>()));
    let refused = || invalid("the cursor does not read", "pass `next` of the page before, and the same parameters");
    key.map(Some).ok_or_else(refused)
}

/// The first `limit` rows after `after`, and the cursor of the next page if there is one.
pub(crate) fn page<K: Cursor, R>(
    mut rows: BTreeMap<K, R>,
    after: Option<&K>,
    limit: usize,
) -> (Vec<R>, Option<String>) {
    if let Some(after) = after {
        let mut rest = rows.split_off(after);
        rest.remove(after);
        rows = rest;
    }
    let more = rows.len() > limit;
    let last = if more { rows.keys().nth(limit.saturating_sub(1)) } else { None };
    let next = last.map(|key| URL_SAFE_NO_PAD.encode(key.parts().join(".")));
    (rows.into_values().take(limit).collect(), next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = HourKey> {
        let country = prop::option::of("[A-Z]{2}".prop_map(|c| Country::parse(&c).unwrap()));
        let device = prop::option::of((0..5_usize).prop_map(|d| DeviceType::ALL[d]));
        (0..50_i64, country, device, "[A-Z]{3}").prop_map(|(hour, country, device, currency)| {
            (Timestamp(hour * 3_600_000_000), country, device, Currency::parse(&currency).unwrap())
        })
    }

    proptest! {
        #[test]
        fn pages_put_together_are_all_rows_once_even_when_rows_come_in_between(
            keys in prop::collection::btree_set(key(), 0..60),
            come in prop::collection::btree_set(key(), 0..10),
            limit in 1..20_usize,
        ) {
            let mut rows: BTreeMap<HourKey, HourKey> = keys.iter().map(|k| (*k, *k)).collect();
            let (mut seen, mut cursor) = (Vec::new(), None::<String>);
            let mut come = come.into_iter();
            loop {
                let after = read::<HourKey>(cursor.as_deref()).unwrap();
                let (page, next) = page(rows.clone(), after.as_ref(), limit);
                prop_assert!(page.len() <= limit);
                seen.extend(page);
                rows.extend(come.next().map(|k| (k, k)));
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            prop_assert!(seen.is_sorted_by(|a, b| a < b), "no row twice");
            prop_assert!(keys.iter().all(|k| seen.contains(k)), "no row lost");
        }

        #[test]
        fn what_is_no_cursor_is_refused(text in "\\PC{0,40}") {
            if let Ok(Some(key)) = read::<SeriesKey>(Some(&text)) {
                prop_assert_eq!(URL_SAFE_NO_PAD.encode(key.parts().join(".")).len(), text.len());
            }
        }
    }
}
