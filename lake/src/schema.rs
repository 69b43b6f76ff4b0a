//! Table definitions ↔ stored Delta tables: creating, opening, adding columns (decisions.md D-12 (5)).
//! Several processes may create or widen one table at once: one does it, the others find it done.
//! Never: removes a column or changes its type.

use deltalake::kernel::transaction::CommitProperties;
use deltalake::kernel::{DataType, Metadata, MetadataExt as _, MetadataValue, PrimitiveType, StructField, StructType};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::SaveMode;
use deltalake::table::state::DeltaTableState;
use deltalake::{DeltaTable, TableProperty};

use crate::error::Error;
use crate::root::LakeRoot;
use crate::table::CHECKPOINT_EVERY;
use crate::tables::{Column, ColumnType, PARTITION_COLUMN, TableDef};

/// Columns that a stored table lacks, and its metadata with them.
pub(crate) struct Wider {
    pub(crate) added: Vec<StructField>,
    pub(crate) metadata: Metadata,
}

pub(crate) async fn open_or_create(root: &LakeRoot, def: &'static TableDef) -> Result<DeltaTable, Error> {
    let doing = || format!("opening {}", def.name);
    let mut table = DeltaTable::new(root.log_store(def.name)?);
    if !table.verify_deltatable_existence().await.map_err(|e| Error::delta(doing(), e))?
        && let Err(e) = create(root, def).await
        && !table.verify_deltatable_existence().await.map_err(|e| Error::delta(doing(), e))?
    {
        return Err(Error::delta(format!("creating {}", def.name), e));
    }
    table.load().await.map_err(|e| Error::delta(doing(), e))?;
    Ok(table)
}

async fn create(root: &LakeRoot, def: &TableDef) -> Result<(), deltalake::DeltaTableError> {
    let log = root.log_store(def.name).map_err(deltalake::DeltaTableError::generic)?;
    let append_only = def.append_only.to_string();
    CreateBuilder::new()
        .with_log_store(log)
        .with_table_name(def.name)
        .with_columns(def.columns.iter().map(field))
        .with_partition_columns([PARTITION_COLUMN])
        .with_save_mode(SaveMode::ErrorIfExists)
        .with_commit_properties(CommitProperties::default().with_max_retries(0))
        .with_configuration_property(TableProperty::AppendOnly, Some(append_only))
        .with_configuration_property(TableProperty::CheckpointInterval, Some(CHECKPOINT_EVERY.to_string()))
        .with_configuration_property(TableProperty::DataSkippingStatsColumns, Some(def.stats.join(",")))
        .await
        .map(drop)
}

/// What `def` has more than the stored table.
///
/// # Errors
/// `Invalid` when a column has another type, or a missing one may not be null.
pub(crate) fn wider(def: &TableDef, state: &DeltaTableState) -> Result<Option<Wider>, Error> {
    let stored = state.schema();
    let mut added = Vec::new();
    for column in def.columns {
        match stored.field(column.name) {
            Some(f) if *f.data_type() == data_type(column.kind) => {}
            Some(f) => {
                let why = format!("{}.{} is stored as {}", def.name, column.name, f.data_type());
                return Err(Error::Invalid(format!("{why}, which is not what this version of the program writes")));
            }
            None if column.nullable => added.push(field(column)),
            None => {
                return Err(Error::Invalid(format!("the stored table {} has no column {}", def.name, column.name)));
            }
        }
    }
    if added.is_empty() {
        return Ok(None);
    }
    let schema = StructType::try_new(stored.fields().cloned().chain(added.clone()))
        .map_err(|e| Error::Invalid(format!("{}: {e}", def.name)))?;
    let metadata = state.metadata().clone().with_schema(&schema);
    let metadata = metadata.map_err(|e| Error::delta(format!("widening {}", def.name), e.into()))?;
    Ok(Some(Wider { added, metadata }))
}

fn field(column: &Column) -> StructField {
    let comment = [("comment".to_owned(), MetadataValue::String(column.doc.to_owned()))];
    StructField::new(column.name, data_type(column.kind), column.nullable).with_metadata(comment)
}

fn data_type(kind: ColumnType) -> DataType {
    match kind {
        ColumnType::Text => DataType::STRING,
        ColumnType::Long => DataType::LONG,
        ColumnType::Int => DataType::INTEGER,
        ColumnType::Bool => DataType::BOOLEAN,
        ColumnType::Bytes => DataType::BINARY,
        ColumnType::Time => DataType::TIMESTAMP,
        ColumnType::Day => DataType::DATE,
        ColumnType::NanoSum => {
            DataType::decimal(38, 0).unwrap_or(DataType::Primitive(PrimitiveType::String)) // 38 is Delta's greatest
        }
    }
}
