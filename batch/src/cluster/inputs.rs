//! What every task of a run needs, as one object: rules, prices, the pinned files and what pass one found in them.
//! Guarantee: a task that unpacks it works on exactly what the run pinned. Never: looks at the lake's tables.

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use shared::price::PriceBook;
use shared::time::Day;
use shared::verdict::Counting;

use crate::bucket::Inputs;
use crate::clicks::Repeat;
use crate::error::Error;
use crate::hashes::{Hit, Layout};
use crate::judge::Rules;
use crate::source::{Place, Source};
use crate::tasks;

/// The inputs as they travel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Packed {
    run: u64,
    day: Day,
    counting: Counting,
    prices: PriceBook,
    buckets: u32,
    ours: Vec<Place>,
    layouts: Vec<Layout>,
    repeats: Vec<Vec<Repeat>>,
    /// The other files that share a hash with the day; most do not.
    others: Vec<(Place, Vec<Hit>)>,
}

/// What a task works on.
pub(crate) struct Work {
    /// The run's number.
    pub(crate) run: u64,
    /// The rules.
    pub(crate) rules: Rules,
    /// Everything else.
    pub(crate) inputs: Inputs,
}

/// The object.
///
/// # Errors
/// Never, unless it is our bug.
pub(crate) fn pack(run: u64, rules: &Rules, inputs: Inputs) -> Result<Bytes, Error> {
    let Inputs { ours, layouts, repeats, others, foreign, buckets, counting } = inputs;
    let others = others.iter().map(Source::place).zip(foreign).filter(|(_, hits)| !hits.is_empty());
    let packed = Packed {
        run,
        day: rules.day,
        counting: Counting::clone(&counting),
        prices: PriceBook::clone(&rules.prices),
        buckets,
        ours: ours.iter().map(Source::place).collect(),
        layouts,
        repeats,
        others: others.collect(),
    };
    let bytes = serde_json::to_vec(&packed).map_err(|e| Error::Internal(format!("packing the inputs: {e}")))?;
    Ok(bytes.into())
}

/// What is in the object, its files in `store`; the day's are opened, on `workers` threads.
///
/// # Errors
/// When the object is damaged or a file is not what the run pinned.
pub(crate) async fn unpack(bytes: &Bytes, store: &Arc<dyn ObjectStore>, workers: usize) -> Result<Work, Error> {
    let packed: Packed =
        serde_json::from_slice(bytes).map_err(|e| Error::Corrupt(format!("the inputs of a run: {e}")))?;
    let Packed { run, day, counting, prices, buckets, ours, layouts, repeats, others } = packed;
    let ours = ours.into_iter().map(|place| Source::at(store, place)).collect::<Result<_, _>>()?;
    let ours = tasks::each(workers, ours, Source::opened).await?;
    let (others, foreign): (Vec<Place>, _) = others.into_iter().unzip();
    let others = others.into_iter().map(|place| Source::at(store, place)).collect::<Result<_, _>>()?;
    let counting = Arc::new(counting);
    let inputs = Inputs { ours, layouts, repeats, others, foreign, buckets, counting: counting.clone() };
    Ok(Work { run, rules: Rules { day, counting, prices: Arc::new(prices) }, inputs })
}
