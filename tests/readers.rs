//! Delta readers that are not ours (Python deltalake, Polars, DuckDB) see in the lake what we see.

use std::collections::BTreeMap;
use std::process::Command;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use lake::{LakeRoot, Table};
use serde_json::Value;

use crate::support::python;

/// What is summed: integers, and the widest decimal.
const SUMS: [(&str, &[&str]); 4] = [
    ("bronze/events", &["position"]),
    ("silver/events", &["position", "cost_nanos"]),
    ("gold/ad_minute", &["impressions", "clicks", "conversions", "cost_nanos"]),
    ("gold/billing_day", &["impressions", "clicks", "conversions", "cost_nanos"]),
];

/// Every reader gives our sums of the lake at `place`, reached by the variables `env`.
pub(crate) async fn agree(lake: &LakeRoot, place: &str, env: &[(&str, &str)]) {
    let asked = SUMS.map(|(table, columns)| format!("{table}={}", columns.join(",")));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/readers.py");
    let done = Command::new(python()).args([script, place]).args(asked).envs(env.iter().copied()).output().unwrap();
    assert!(done.status.success(), "{place}: {}", String::from_utf8_lossy(&done.stderr));
    let read: BTreeMap<String, Value> = serde_json::from_slice(&done.stdout).unwrap();
    let readers: Vec<&str> = read.keys().map(String::as_str).collect();
    let local = lake.folder().is_some();
    assert_eq!(readers, if local { vec!["deltalake", "duckdb", "polars"] } else { vec!["deltalake", "polars"] });
    let mut ours = BTreeMap::new();
    for (name, columns) in SUMS {
        ours.insert(name.to_owned(), sums(lake, name, columns).await);
    }
    let ours = serde_json::to_value(ours).unwrap();
    for (reader, theirs) in read {
        assert_eq!(theirs, ours, "{reader} at {place}");
    }
}

async fn sums(lake: &LakeRoot, name: &str, columns: &[&str]) -> BTreeMap<String, String> {
    let table = Table::open(lake, lake::tables::by_name(name).unwrap()).await.unwrap();
    let (mut rows, mut sums) = (0, BTreeMap::<&str, i128>::new());
    for file in table.files().unwrap() {
        for batch in table.read(&file, Some(columns)).await.unwrap() {
            let batch = batch.unwrap();
            rows += batch.num_rows();
            for column in columns {
                let values = batch.column_by_name(column).unwrap();
                *sums.entry(column).or_default() += match values.data_type() {
                    DataType::Int64 => {
                        values.as_primitive::<Int64Type>().iter().flatten().map(i128::from).sum::<i128>()
                    }
                    _ => values.as_primitive::<Decimal128Type>().iter().flatten().sum(),
                };
            }
        }
    }
    assert!(rows > 100, "{name} is nearly empty");
    let mut all: BTreeMap<String, String> = sums.into_iter().map(|(c, sum)| (c.to_owned(), sum.to_string())).collect();
    all.insert("rows".to_owned(), rows.to_string());
    all
}
