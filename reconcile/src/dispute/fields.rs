//! Which of their columns is what: given by name, or found by the names partners use.
//! Never: takes a column twice, or one that is not there.

use std::collections::BTreeMap;

use super::Error;

/// What a column can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Campaign,
    Event,
    Date,
    Time,
    Impressions,
    Clicks,
    Conversions,
    Amount,
    Currency,
}

/// Every field with its name and the (simplified) column names it is found by.
const FIELDS: [(Field, &str, &[&str]); 9] = [
    (Field::Campaign, "campaign", &["campaign", "campaignid"]),
    (Field::Event, "event", &["eventid", "clickid", "event"]),
    (Field::Date, "date", &["date", "day"]),
    (Field::Time, "time", &["time", "timestamp", "hour", "clicktime", "eventtime", "datetime"]),
    (Field::Impressions, "impressions", &["impressions", "views"]),
    (Field::Clicks, "clicks", &["clicks"]),
    (Field::Conversions, "conversions", &["conversions", "actions"]),
    (Field::Amount, "amount", &["amount", "cost", "spend", "costmicros", "amountmicros", "spendmicros"]),
    (Field::Currency, "currency", &["currency", "currencycode"]),
];

impl Field {
    /// The name in a mapping.
    pub(super) fn as_str(self) -> &'static str {
        FIELDS.iter().find(|(f, ..)| *f == self).map_or("", |(_, name, _)| name)
    }
}

/// Their column names by our field names (`campaign`, `event`, `date`, `time`, `impressions`, `clicks`,
/// `conversions`, `amount`, `currency`). Fields that are not named are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping(BTreeMap<String, String>);

impl Mapping {
    /// From pairs of our field name and their column name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a field we do not have.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let pairs: BTreeMap<String, String> = pairs.into_iter().collect();
        match pairs.keys().find(|name| FIELDS.iter().all(|(_, known, _)| known != name)) {
            None => Ok(Self(pairs)),
            Some(name) => {
                let known: Vec<&str> = FIELDS.iter().map(|(_, name, _)| *name).collect();
                Err(Error::Invalid(format!("{name:?} is no field to map; use {}", known.join(", "))))
            }
        }
    }

    /// From `campaign=Campaign ID,clicks=Clicks`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a part is no pair, or names a field we do not have.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let pair = |part: &str| {
            let (field, column) =
                part.split_once('=').ok_or_else(|| Error::Invalid(format!("{part:?} is not field=column")))?;
            Ok((field.trim().to_owned(), column.trim().to_owned()))
        };
        Self::new(text.split(',').map(pair).collect::<Result<Vec<_>, Error>>()?)
    }

    /// The place of each field among `columns`.
    pub(super) fn places(&self, columns: &[String]) -> Result<BTreeMap<Field, usize>, Error> {
        let mut places = BTreeMap::new();
        for (field, name, _) in FIELDS {
            let Some(column) = self.0.get(name) else { continue };
            let place = columns.iter().position(|c| c == column).ok_or_else(|| {
                Error::Invalid(format!("their file has no column {column:?}; it has {}", columns.join(", ")))
            })?;
            places.insert(field, place);
        }
        for (field, name, known) in FIELDS {
            let is_free = |place: &usize| !places.values().any(|taken| taken == place);
            let found = columns.iter().position(|c| known.contains(&simple(c).as_str())).filter(is_free);
            if let (None, Some(place)) = (self.0.get(name), found) {
                places.insert(field, place);
            }
        }
        Ok(places)
    }
}

fn simple(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_or_as_told() {
        let columns = ["Campaign ID", "Day", "Clicks", "Spend", "Views"].map(str::to_owned);
        let found = Mapping::default().places(&columns).unwrap();
        assert_eq!(found.len(), 5);
        assert_eq!((found[&Field::Campaign], found[&Field::Impressions]), (0, 4));
        let told = Mapping::parse("clicks=Views, amount=Spend").unwrap().places(&columns).unwrap();
        assert_eq!(told[&Field::Clicks], 4);
        assert!(Mapping::parse("clicks").is_err());
        assert!(Mapping::parse("klicks=Clicks").is_err());
        assert!(Mapping::parse("clicks=Klicks").unwrap().places(&columns).is_err());
    }
}
