//! Work on several threads: a queue of items, a few workers, each with its own state.
//! Guarantee: the first error stops all; dropping the caller stops all. Results must not depend on which worker took
//! which item (that is the callers' part; a test runs everything with 1, 2 and 8 threads).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;

/// Stops the workers when dropped, so that a cancelled run does not go on in the background.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Takes every item through `step` on at most `workers` threads that may block; answers each worker's state.
///
/// # Errors
/// The first error of any worker; a worker that panicked.
pub(crate) async fn fold<T, S>(
    workers: usize,
    items: Vec<T>,
    start: impl Fn() -> S + Send + Sync + 'static,
    step: impl Fn(&mut S, T) -> Result<(), Error> + Send + Sync + 'static,
) -> Result<Vec<S>, Error>
where
    T: Send + 'static,
    S: Send + 'static,
{
    let workers = workers.min(items.len()).max(1);
    let queue = Arc::new(Mutex::new(items.into_iter()));
    let stop = Arc::new(AtomicBool::new(false));
    let guard = StopOnDrop(stop.clone());
    let shared = Arc::new((start, step));
    let mut running = Vec::with_capacity(workers);
    for _ in 0..workers {
        let (queue, stop, shared) = (queue.clone(), stop.clone(), shared.clone());
        running.push(tokio::task::spawn_blocking(move || {
            let (start, step) = &*shared;
            let mut state = start();
            while !stop.load(Ordering::Relaxed) {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(item) = next else { break };
                step(&mut state, item).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            }
            Ok(state)
        }));
    }
    let mut states = Vec::with_capacity(workers);
    let mut failed = None;
    for worker in running {
        match worker.await.map_err(Error::from).and_then(|done| done) {
            Ok(state) => states.push(state),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    drop(guard);
    failed.map_or(Ok(states), Err)
}

/// Takes every item through `work`; answers the results in the order of the items.
///
/// # Errors
/// As [`fold`].
pub(crate) async fn each<T, R>(
    workers: usize,
    items: Vec<T>,
    work: impl Fn(T) -> Result<R, Error> + Send + Sync + 'static,
) -> Result<Vec<R>, Error>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let numbered: Vec<(usize, T)> = items.into_iter().enumerate().collect();
    let parts = fold(workers, numbered, Vec::new, move |done: &mut Vec<(usize, R)>, (i, item)| {
        done.push((i, work(item)?));
        Ok(())
    })
    .await?;
    let mut results: Vec<(usize, R)> = parts.into_iter().flatten().collect();
    results.sort_unstable_by_key(|(i, _)| *i);
    Ok(results.into_iter().map(|(_, r)| r).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn results_keep_the_order_of_the_items() {
        let squares = each(3, (0..100_u64).collect(), |n| Ok(n * n)).await.unwrap();
        assert_eq!(squares, (0..100_u64).map(|n| n * n).collect::<Vec<_>>());
        assert_eq!(each(3, Vec::<u8>::new(), Ok).await.unwrap(), Vec::<u8>::new());
    }

    #[tokio::test]
    async fn one_error_fails_the_whole() {
        let failed = each(2, vec![1, 2, 3], |n| if n == 2 { Err(Error::Corrupt("two".into())) } else { Ok(n) }).await;
        assert!(matches!(failed, Err(Error::Corrupt(why)) if why == "two"));
    }
}
