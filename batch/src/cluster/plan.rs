//! The plan that a cluster runs: one partition for each bucket, and one operator of ours over them.
//!
//! ```text
//! JudgeBucketsExec        bucket number in, report out; partitions and rows stay as they are
//!   DataSourceExec        (in memory) the numbers: one partition with one row for each bucket
//! ```
//! The leaf is a stock one because the scheduler gives each task its partitions by cutting the leaves that it knows; a
//! leaf of our own would be run whole by every task. The operator carries one path, so a task is a few hundred bytes.
//! Guarantee: a process of another build refuses the plan ([`build`]).

use std::fmt;
use std::io::Read;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions,
};
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::desk::Desk;
use super::report::Report;
use crate::error::Error;
use crate::source::column;

/// How our operator begins on the wire; no protobuf message of Ballista's does.
const MAGIC: &[u8; 4] = b"CLJB";

/// The plan for `buckets` buckets of the run whose inputs are at `inputs`.
///
/// # Errors
/// Never, unless it is our bug.
pub(crate) fn plan(inputs: &str, buckets: u32) -> Result<Arc<dyn ExecutionPlan>> {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("bucket", DataType::UInt32, false)]));
    let row = |bucket| RecordBatch::try_new(schema.clone(), vec![Arc::new(UInt32Array::from(vec![bucket]))]);
    let rows = (0..buckets).map(|b| Ok(vec![row(b)?])).collect::<Result<Vec<_>>>()?;
    let numbers = MemorySourceConfig::try_new_exec(&rows, schema, None)?;
    Ok(Arc::new(JudgeBuckets::new(inputs.to_owned(), numbers, None)))
}

/// The reports in rows that the plan gave.
///
/// # Errors
/// When they are none.
pub(crate) fn reports(rows: &RecordBatch) -> Result<Vec<(u32, Report)>, Error> {
    let (buckets, reports): (&UInt32Array, &StringArray) = (column(rows, "bucket")?, column(rows, "report")?);
    let texts = reports.iter().map(|text| Report::parse(text.unwrap_or_default().as_bytes()));
    buckets.values().iter().zip(texts).map(|(bucket, report)| Ok((*bucket, report?))).collect()
}

/// What tells two builds apart: a hash of the program that runs. All roles of a cluster run the very same file.
///
/// # Errors
/// When the file of the running program cannot be read.
pub(crate) fn build() -> Result<u64, Error> {
    static BUILD: OnceLock<u64> = OnceLock::new();
    if let Some(build) = BUILD.get() {
        return Ok(*build);
    }
    // Where the file was replaced under a running process, Linux still gives the bytes that run.
    let linux = std::path::Path::new("/proc/self/exe");
    let path = if linux.exists() { Ok(linux.to_owned()) } else { std::env::current_exe() };
    let hash = path.and_then(|path| hash_of(std::fs::File::open(path)?));
    let hash = hash.map_err(|e| Error::Unavailable { doing: "reading this program".into(), why: e.to_string() })?;
    Ok(*BUILD.get_or_init(|| hash))
}

fn hash_of(mut file: std::fs::File) -> std::io::Result<u64> {
    let (mut hash, mut part) = (Xxh3::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut part)? {
            0 => return Ok(hash.digest()),
            read => hash.update(part.get(..read).unwrap_or_default()),
        }
    }
}

/// The operator.
#[derive(Debug)]
pub(crate) struct JudgeBuckets {
    /// The path of the run's inputs in the lake's store.
    inputs: String,
    numbers: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    /// Only executors have one.
    desk: Option<Arc<Desk>>,
}

impl JudgeBuckets {
    fn new(inputs: String, numbers: Arc<dyn ExecutionPlan>, desk: Option<Arc<Desk>>) -> Self {
        let schema = Schema::new(vec![
            Field::new("bucket", DataType::UInt32, false),
            Field::new("report", DataType::Utf8, false),
        ]);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(schema)),
            numbers.output_partitioning().clone(),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { inputs, numbers, properties: Arc::new(properties), desk }
    }
}

impl DisplayAs for JudgeBuckets {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JudgeBucketsExec: inputs={}", self.inputs)
    }
}

impl ExecutionPlan for JudgeBuckets {
    fn name(&self) -> &'static str {
        "JudgeBucketsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.numbers]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let numbers = children.pop().ok_or_else(|| internal("JudgeBucketsExec has one input"))?;
        Ok(Arc::new(Self::new(self.inputs.clone(), numbers, self.desk.clone())))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    /// Judges the buckets of the partition, one after the other.
    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let desk = self.desk.clone().ok_or_else(|| internal("buckets are judged by executors only"))?;
        let attempt = context.task_id().ok_or_else(|| internal("a task has no name"))?;
        let attempt: Arc<str> = attempt.replace(|c: char| !c.is_ascii_alphanumeric(), "-").into();
        let (inputs, schema): (Arc<str>, _) = (self.inputs.as_str().into(), self.schema());
        let stream = self.numbers.execute(partition, context)?.and_then(move |rows| {
            let (desk, inputs, attempt, schema) = (desk.clone(), inputs.clone(), attempt.clone(), schema.clone());
            async move { judge(&desk, &inputs, &attempt, schema, &rows).await }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}

async fn judge(desk: &Desk, inputs: &str, attempt: &str, schema: SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let buckets: &UInt32Array = column(rows, "bucket").map_err(failed)?;
    let mut reports = Vec::with_capacity(buckets.len());
    for bucket in buckets.values() {
        let report = desk.judge(inputs, *bucket, attempt).await;
        reports.push(report.and_then(|report| report.to_text()).map_err(failed)?);
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(buckets.clone()), Arc::new(StringArray::from(reports))];
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// An error that may heal, in the one form that Ballista tries again.
fn failed(error: Error) -> DataFusionError {
    DataFusionError::IoError(std::io::Error::other(error))
}

fn internal(why: &str) -> DataFusionError {
    DataFusionError::Internal(why.to_owned())
}

/// The operator on the wire.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    build: u64,
    inputs: String,
}

/// Reads and writes our operator; everything else is Ballista's.
#[derive(Debug)]
pub(crate) struct Codec {
    build: u64,
    desk: Option<Arc<Desk>>,
    stock: BallistaPhysicalExtensionCodec,
}

impl Codec {
    /// The codec of this build; an executor's has a desk.
    ///
    /// # Errors
    /// As [`build`].
    pub(crate) fn new(desk: Option<Arc<Desk>>) -> Result<Self, Error> {
        Ok(Self { build: build()?, desk, stock: BallistaPhysicalExtensionCodec::default() })
    }
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(ours) = bytes.strip_prefix(MAGIC) else {
            return self.stock.try_decode(bytes, inputs, context, converter);
        };
        let wire: Wire = serde_json::from_slice(ours).map_err(|e| internal(&format!("JudgeBucketsExec: {e}")))?;
        if wire.build != self.build {
            let (theirs, ours) = (wire.build, self.build);
            return Err(DataFusionError::Plan(format!(
                "the run is of build {theirs:016x}, this process of {ours:016x}: all roles must run the same program"
            )));
        }
        let [numbers] = inputs else { return Err(internal("JudgeBucketsExec has one input")) };
        Ok(Arc::new(JudgeBuckets::new(wire.inputs, numbers.clone(), self.desk.clone())))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(ours) = node.downcast_ref::<JudgeBuckets>() else {
            return self.stock.try_encode(node, bytes, converter);
        };
        let wire = Wire { build: self.build, inputs: ours.inputs.clone() };
        bytes.extend_from_slice(MAGIC);
        serde_json::to_writer(bytes, &wire).map_err(|e| internal(&format!("JudgeBucketsExec: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use ballista_core::JobId;
    use ballista_scheduler::planner::{DefaultDistributedPlanner, DistributedPlanner};
    use ballista_scheduler::state::task_builder::restrict_plan_to_partitions;
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::SessionConfig;
    use datafusion_proto::physical_plan::AsExecutionPlan;
    use datafusion_proto::protobuf::PhysicalPlanNode;

    use super::*;

    const INPUTS: &str = "lake/_batch/2026-01-05-run-1-0/inputs";

    fn text(plan: &dyn ExecutionPlan) -> String {
        displayable(plan).indent(false).to_string()
    }

    /// Plan, stages, and the plan of one task: compared with a text that a person has approved.
    #[test]
    fn the_shapes_of_the_plan_are_the_approved_ones() {
        let plan = plan(INPUTS, 3).unwrap();
        let mut shapes = format!("submitted by the run\n{}", text(&*plan));
        let config = SessionConfig::new();
        let job = JobId::new("job".to_owned());
        let stages = DefaultDistributedPlanner::new().plan_query_stages(&job, plan, config.options()).unwrap();
        for stage in stages {
            shapes += &format!("\nstage {}\n{}", stage.stage_id(), text(&*stage));
            let task = restrict_plan_to_partitions(stage, &[1]).unwrap();
            shapes += &format!("\na task of it, for bucket 1\n{}", text(&*task));
        }
        assert_eq!(
            shapes,
            include_str!("../../tests/approved/ballista.txt"),
            "approve the new shapes, or mend the plan"
        );
    }

    #[test]
    fn a_plan_of_this_build_travels_and_one_of_another_is_refused() {
        let codec = Codec::new(None).unwrap();
        let wire = PhysicalPlanNode::try_from_physical_plan(plan(INPUTS, 2).unwrap(), &codec).unwrap();
        let context = TaskContext::default();
        let arrived = wire.try_into_physical_plan(&context, &codec).unwrap();
        assert_eq!(text(&*arrived), text(&*plan(INPUTS, 2).unwrap()));
        assert_eq!(arrived.output_partitioning().partition_count(), 2);
        let other = Codec { build: codec.build ^ 1, ..codec };
        let refused = wire.try_into_physical_plan(&context, &other).unwrap_err().to_string();
        assert!(refused.contains("must run the same program"), "{refused}");
    }
}
