//! Settings: one TOML file with a section per layer. Code default < file < environment; flags only choose
//! the file and the data folder. Every problem is reported at once, by its full name.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::config::{ByteSize, Problem, Span};
use shared::verdict::Counting;
use toml::{Table, Value};

/// The prefix of environment variables: `CLICKLEDGER__SPEED__FLUSH_INTERVAL=5s`.
pub const ENV_PREFIX: &str = "CLICKLEDGER__";

/// What a message of Kafka has beside the record.
#[cfg(feature = "kafka")]
const KAFKA_HEADERS: u64 = 4 * 1024;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The data folder of the embedded mode.
    pub data: PathBuf,
    /// Where this process stands: part of every event, and of the order that decides who was first.
    pub region: String,
    /// The embedded event log.
    pub log: shared::event_log::embedded::Options,
    /// What the event log may forget.
    pub retention: LogRetention,
    /// Kafka instead of the embedded log, which is then the gateway's spool.
    #[cfg(feature = "kafka")]
    pub kafka: shared::event_log::kafka::Settings,
    /// Where lake and publications are, where that is not the data folder.
    pub object_store: lake::stores::Settings,
    /// The ad directory in PostgreSQL instead of a file.
    #[cfg(feature = "postgres")]
    pub postgres: shared::directory::postgres::Settings,
    /// ClickHouse instead of the embedded serving store.
    #[cfg(feature = "clickhouse")]
    pub clickhouse: serving::clickhouse::Settings,
    /// The counting rules.
    pub counting: Counting,
    /// Click → log.
    pub gateway: gateway::Settings,
    /// Log → serving, approximate.
    pub speed: speed::Settings,
    /// Log → lake.
    pub lake: lake::Settings,
    /// Lake → gold, exact.
    pub batch: batch::Settings,
    /// Gold → serving and settlement.
    pub reconcile: reconcile::Settings,
    /// Query API and dashboard.
    pub serving: serving::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: PathBuf::from("clickledger-data"),
            region: "local".to_owned(),
            log: shared::event_log::embedded::Options::default(),
            retention: LogRetention::default(),
            #[cfg(feature = "kafka")]
            kafka: shared::event_log::kafka::Settings::default(),
            object_store: lake::stores::Settings::default(),
            #[cfg(feature = "postgres")]
            postgres: shared::directory::postgres::Settings::default(),
            #[cfg(feature = "clickhouse")]
            clickhouse: serving::clickhouse::Settings::default(),
            counting: Counting::default(),
            gateway: gateway::Settings::default(),
            speed: speed::Settings::default(),
            lake: lake::Settings::default(),
            batch: batch::Settings::default(),
            reconcile: reconcile::Settings::default(),
            serving: serving::Settings::default(),
        }
    }
}

/// What the event log may forget: whole segments that are too old or too many, and never one the lake has not archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogRetention {
    /// Segments older than this are forgotten.
    pub max_age: Span,
    /// Segments beyond this size are forgotten, oldest first.
    pub max_size: ByteSize,
    /// How often to look.
    pub check_interval: Span,
}

impl Default for LogRetention {
    fn default() -> Self {
        Self { max_age: Span::secs(7 * 86_400), max_size: ByteSize::mib(64 * 1024), check_interval: Span::secs(60) }
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read settings file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key or a wrong type.
    #[error("settings: {0}")]
    Malformed(String),
    /// Some values cannot be used.
    #[error("settings have {} problem(s):\n{}", .0.len(), .0.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<Problem>),
}

impl Settings {
    /// Loads and checks the settings: defaults, then `file`, then `env` (name and value pairs).
    ///
    /// # Errors
    /// The first malformed key, or every value that cannot be used.
    pub fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, SettingsError> {
        let defaults = Table::try_from(Self::default()).map_err(|e| SettingsError::Malformed(e.to_string()))?;
        let mut table = defaults.clone();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
            let given: Table =
                text.parse().map_err(|e| SettingsError::Malformed(format!("{}: {e}", path.display())))?;
            merge(&mut table, given);
        }
        for (name, value) in env {
            if let Some(path) = name.strip_prefix(ENV_PREFIX) {
                let keys: Vec<String> = path.split("__").map(str::to_lowercase).collect();
                set(&mut table, &keys, &value).map_err(|why| SettingsError::Malformed(format!("{name}: {why}")))?;
            }
        }
        let settings: Self = table.try_into().map_err(|e| SettingsError::Malformed(e.to_string()))?;
        let problems = settings.problems();
        if problems.is_empty() { Ok(settings) } else { Err(SettingsError::Problems(problems)) }
    }

    /// Everything that cannot be used, over all sections.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if shared::id::RefId::new(&self.region).is_err() {
            problems.push(Problem::new("region", "must be 1 to 64 of A-Z a-z 0-9 _ -"));
        }
        problems.extend(self.log.problems().into_iter().map(|p| Problem::new(format!("log.{}", p.field), p.why)));
        #[cfg(feature = "kafka")]
        problems.extend(self.kafka.problems());
        problems.extend(self.object_store.problems());
        #[cfg(feature = "kafka")]
        if self.kafka.is_used() && self.kafka.max_message_bytes.0 < self.log.max_record_bytes.0 + KAFKA_HEADERS {
            let why = "must be 4KiB above log.max_record_bytes: Kafka would refuse what was acknowledged";
            problems.push(Problem::new("kafka.max_message_bytes", why));
        }
        #[cfg(feature = "postgres")]
        if self.postgres.is_used() {
            problems.extend(self.postgres.problems());
        }
        #[cfg(feature = "clickhouse")]
        problems.extend(self.clickhouse.problems());
        problems.extend(self.counting.problems().into_iter().map(|why| Problem::new("counting", why)));
        problems.extend(self.gateway.problems());
        problems.extend(self.speed.problems());
        if !self.speed.state_url.is_empty() && !lake::stores::is_place(&self.speed.state_url) {
            let why = "use s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or file:///FOLDER, or nothing";
            problems.push(Problem::new("speed.state_url", why));
        }
        problems.extend(self.lake.problems());
        problems.extend(self.batch.problems());
        problems.extend(self.reconcile.problems());
        problems.extend(self.serving.problems());
        problems
    }

    /// The settings as a TOML file.
    ///
    /// # Errors
    /// When a value has no TOML form (it always has one).
    pub fn to_toml(&self) -> Result<String, SettingsError> {
        toml::to_string_pretty(self).map_err(|e| SettingsError::Malformed(e.to_string()))
    }
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Sets one key from text, reading the text as the type the key has now.
fn set(table: &mut Table, keys: &[String], text: &str) -> Result<(), String> {
    let Some((first, rest)) = keys.split_first() else { return Err("names no setting".to_owned()) };
    let old = table.get_mut(first).ok_or_else(|| format!("there is no setting {first:?}"))?;
    if let (Value::Table(inner), false) = (&mut *old, rest.is_empty()) {
        return set(inner, rest, text);
    }
    if !rest.is_empty() {
        return Err(format!("{first:?} is a value, not a section"));
    }
    *old = match old {
        Value::Integer(_) => Value::Integer(text.parse().map_err(|_| format!("{text:?} is not a whole number"))?),
        Value::Boolean(_) => Value::Boolean(text.parse().map_err(|_| format!("{text:?} is not true or false"))?),
        Value::Float(_) => Value::Float(text.parse().map_err(|_| format!("{text:?} is not a number"))?),
        Value::Array(old) => list(text, old),
        Value::String(_) | Value::Datetime(_) => Value::String(text.to_owned()),
        Value::Table(_) => return Err(format!("{first:?} is a section; name a setting in it")),
    };
    Ok(())
}

/// A list as the default has it; one that is empty by default holds numbers where all of these are.
fn list(text: &str, old: &[Value]) -> Value {
    let words = || text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let numbers: Option<Vec<Value>> = words().map(|w| w.parse().ok().map(Value::Integer)).collect();
    match (old.first(), numbers) {
        (None | Some(Value::Integer(_)), Some(numbers)) => Value::Array(numbers),
        _ => Value::Array(words().map(|w| Value::String(w.to_owned())).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn environment_beats_file_beats_default_and_types_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "region = \"eu\"\n[log]\npartitions = 8\ncommit_interval = \"5ms\"\n").unwrap();
        let settings =
            Settings::load(Some(&file), env(&[("CLICKLEDGER__LOG__PARTITIONS", "16"), ("OTHER", "x")])).unwrap();
        assert_eq!((settings.region.as_str(), settings.log.partitions), ("eu", 16));
        assert_eq!(settings.log.commit_interval, Span::millis(5));
    }

    #[test]
    fn lists_come_from_the_environment_too() {
        let pairs = [
            ("CLICKLEDGER__SPEED__PARTITIONS", "0, 3"),
            ("CLICKLEDGER__LAKE__PARTITIONS", ""),
            ("CLICKLEDGER__COUNTING__KNOWN_BOTS", "7,8"),
        ];
        let settings = Settings::load(None, env(&pairs)).unwrap();
        assert_eq!((settings.speed.partitions, settings.lake.partitions), (vec![0, 3], vec![]));
        assert_eq!(settings.counting.known_bots, ["7", "8"]);
    }

    #[test]
    fn an_unknown_key_and_an_unknown_variable_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "[log]\npartition = 8\n").unwrap();
        assert!(Settings::load(Some(&file), env(&[])).unwrap_err().to_string().contains("partition"));
        let error = Settings::load(None, env(&[("CLICKLEDGER__LOG__PARTITION", "1")])).unwrap_err();
        assert!(error.to_string().contains("CLICKLEDGER__LOG__PARTITION"), "{error}");
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let error = Settings::load(None, env(&[("CLICKLEDGER__LOG__PARTITIONS", "0"), ("CLICKLEDGER__REGION", "a b")]))
            .unwrap_err();
        let SettingsError::Problems(problems) = error else { unreachable!("{error}") };
        let fields: Vec<_> = problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["region", "log.partitions"]);
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn kafka_must_take_what_the_spool_takes() {
        let pairs = [("CLICKLEDGER__KAFKA__BOOTSTRAP", "k:9092"), ("CLICKLEDGER__KAFKA__MAX_MESSAGE_BYTES", "1MiB")];
        let error = Settings::load(None, env(&pairs)).unwrap_err().to_string();
        assert!(error.contains("kafka.max_message_bytes: must be 4KiB above log.max_record_bytes"), "{error}");
    }

    #[test]
    fn the_defaults_have_no_problem() {
        assert_eq!(Settings::default().problems(), []);
        assert_eq!(Settings::load(None, env(&[])).unwrap(), Settings::default());
    }
}
