//! Staged files → the lake: files first, then a commit to each table, then the record that makes them visible.
//! Guarantee: of two runs of one day at once, the tables and the record take one; the other is a [`Error::Conflict`].
//! On crash: commits without a record stay unseen; the next run replaces them under a higher number.

use std::collections::BTreeMap;

use lake::LakeRoot;
use lake::file::NewFile;
use lake::run_record::{RunRecord, TableOutput};
use lake::table::Table;
use lake::tables::{GOLD_AD_MINUTE, GOLD_BILLING_DAY, GOLD_CAMPAIGN_HOUR, GOLD_PROOF_BLOCKS, SILVER_EVENTS, TableDef};
use serde_json::Value;
use shared::time::Day;

use crate::compute::{Output, Workshop};
use crate::error::Error;
use crate::job::output;
use crate::progress::Step;
use crate::runs::{Runs, number};

/// The tables a run writes, in the order of their commits.
pub(crate) const WRITTEN: [&TableDef; 5] =
    [&SILVER_EVENTS, &GOLD_AD_MINUTE, &GOLD_CAMPAIGN_HOUR, &GOLD_BILLING_DAY, &GOLD_PROOF_BLOCKS];

/// Where a run publishes, under which number.
pub(crate) struct Target {
    /// The day.
    pub(crate) day: Day,
    /// This run's number: above every number found.
    pub(crate) run: u64,
    before: u64,
    tables: Vec<Table>,
}

fn app_id(def: &TableDef, day: Day) -> String {
    format!("{}/{day}", def.name)
}

impl Target {
    /// Opens the tables; `before` is the number of the day's last recorded run.
    ///
    /// # Errors
    /// Those of the lake.
    pub(crate) async fn open(root: &LakeRoot, day: Day, before: u64) -> Result<Self, Error> {
        let (mut tables, mut highest) = (Vec::with_capacity(WRITTEN.len()), before);
        for def in WRITTEN {
            let table = Table::open(root, def).await?;
            let at = table.transaction_version(&app_id(def, day)).await?;
            highest = highest.max(at.and_then(|n| u64::try_from(n).ok()).unwrap_or(0));
            tables.push(table);
        }
        Ok(Self { day, run: highest + 1, before, tables })
    }

    /// What the record would say of a table before it is committed.
    pub(crate) fn draft(&self, def: &TableDef, files: &[NewFile]) -> TableOutput {
        let version = self.tables.iter().find(|t| t.def().name == def.name).map_or(0, Table::version);
        output(version, files)
    }

    /// Stores all files, commits every table, completes `record` and adds it.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another run came first; those of the lake.
    pub(crate) async fn publish(
        mut self,
        workshop: &Workshop,
        outputs: &[Output],
        record: &mut RunRecord,
        mut runs: Runs,
    ) -> Result<(), Error> {
        let info: BTreeMap<String, Value> =
            [("run".to_owned(), self.run.into()), ("inputs".to_owned(), serde_json::json!(record.inputs))].into();
        for (def, files) in outputs {
            let table = table(&self.tables, def)?;
            workshop.stage.publish(table, files).await?;
        }
        for (done, (def, files)) in (1..).zip(outputs) {
            let (day, run) = (self.day, number(self.run)?);
            let table = self.tables.iter_mut().find(|t| t.def().name == def.name);
            let table = table.ok_or_else(|| Error::Internal(format!("{} is not open", def.name)))?;
            table.set_commit_metadata(info.clone());
            let committed = table.replace_day(day, files.clone(), &app_id(def, day), run).await;
            let committed = committed.map_err(|e| match e {
                lake::Error::Conflict { why, .. } => Error::Conflict { day, why },
                other => other.into(),
            })?;
            record.outputs.insert(def.name.to_owned(), output(committed.version(), files));
            workshop.report.step(Step::Publish, done, outputs.len() as u64 + 1);
        }
        runs.add(record, self.before).await
    }
}

fn table<'a>(tables: &'a [Table], def: &TableDef) -> Result<&'a Table, Error> {
    let found = tables.iter().find(|t| t.def().name == def.name);
    found.ok_or_else(|| Error::Internal(format!("{} is not open", def.name)))
}
