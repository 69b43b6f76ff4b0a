//! The one thread that writes a log: it drains the queue, writes what it found, syncs once, and answers.
//! An append is answered only after the sync that covers it. While one sync runs the next batch gathers by itself;
//! where several appenders are at work the thread also sleeps a moment for those that are just arriving, so that none of
//! them has to wake it. A batch of answers costs one wake-up: a task of the appenders' runtime hands them out (ADR 0024).
//! On an error everything unanswered gets that error and nothing of it counts; the next append tries again.
//! The one loop of the embedded log.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::super::{Delivered, LogError, NewRecord, Retention};
use super::active::{Active, Sealed};
use super::folder::Folder;
use super::options::Options;
use super::owner::Ownership;
use super::retention;
use crate::time::{Timestamp, stopwatch};

/// A batch is closed when its payloads pass this; the rest waits for the next one.
const BATCH_BYTES: usize = 8 << 20;
/// Appends count as arriving together when they are this share of the commit interval apart.
const GAPS_PER_INTERVAL: u32 = 16;

type Reply<T> = oneshot::Sender<Result<T, LogError>>;

/// Records that wait to become durable. The permit is their place in the queue.
struct Append {
    records: Vec<NewRecord>,
    reply: Reply<Vec<Delivered>>,
    _place: OwnedSemaphorePermit,
}

enum Request {
    Append(Append),
    Enforce { retention: Retention, now: Timestamp, reply: Reply<u64>, _place: OwnedSemaphorePermit },
}

/// The way to the writing thread. Dropping it lets the thread finish what it was given, then waits for it.
pub(super) struct Writer {
    places: Arc<Semaphore>,
    capacity: u32,
    runtime: Arc<OnceLock<Handle>>,
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(state: State, options: &Options) -> Result<Self, LogError> {
        let capacity = options.queue_records;
        // Every request holds a place in the queue until it is answered: the places bound the channel.
        let (sender, receiver) = channel();
        let interval = options.commit_interval.0;
        let runtime = Arc::clone(&state.runtime);
        let thread = std::thread::Builder::new()
            .name("event-log".to_owned())
            .spawn(move || state.run(&receiver, interval))
            .map_err(|source| LogError::Unavailable { doing: "starting the log's thread".to_owned(), source })?;
        let places = Arc::new(Semaphore::new(usize::try_from(capacity).unwrap_or(Semaphore::MAX_PERMITS)));
        Ok(Self { places, capacity, runtime, requests: Some(sender), thread: Some(thread) })
    }

    /// Appends `records`; waits while the queue is full.
    pub(super) async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Delivered>, LogError> {
        let place = self.place(u32::try_from(records.len()).unwrap_or(u32::MAX)).await?;
        self.meet_runtime();
        let (reply, answer) = oneshot::channel();
        self.send(Request::Append(Append { records, reply, _place: place }))?;
        answer.await.map_err(|_| stopped())?
    }

    /// Forgets what is past `retention`.
    pub(super) async fn enforce(&self, retention: Retention, now: Timestamp) -> Result<u64, LogError> {
        let place = self.place(1).await?;
        let (reply, answer) = oneshot::channel();
        self.send(Request::Enforce { retention, now, reply, _place: place })?;
        answer.await.map_err(|_| stopped())?
    }

    /// Remembers the first runtime that appends, if its threads run by themselves: of another one nobody knows when it
    /// will look at a task.
    fn meet_runtime(&self) {
        if self.runtime.get().is_none()
            && let Ok(handle) = Handle::try_current()
            && handle.runtime_flavor() == RuntimeFlavor::MultiThread
        {
            self.runtime.get_or_init(|| handle);
        }
    }

    async fn place(&self, records: u32) -> Result<OwnedSemaphorePermit, LogError> {
        // A call that is larger than the queue waits until it has the queue to itself.
        let places = records.min(self.capacity);
        Arc::clone(&self.places).acquire_many_owned(places).await.map_err(|_| stopped())
    }

    fn send(&self, request: Request) -> Result<(), LogError> {
        let sent = self.requests.as_ref().map(|requests| requests.send(request));
        if matches!(sent, Some(Ok(()))) { Ok(()) } else { Err(stopped()) }
    }
}

fn stopped() -> LogError {
    let source = io::Error::other("the log's thread has stopped");
    LogError::Unavailable { doing: "appending".to_owned(), source }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's thread ended with a panic");
        }
    }
}

/// What the thread owns.
pub(super) struct State {
    pub(super) folder: Folder,
    pub(super) partitions: u32,
    pub(super) active: Active,
    /// The complete segments, oldest first.
    pub(super) sealed: VecDeque<Sealed>,
    /// Given back when the thread ends.
    pub(super) ownership: Ownership,
    /// Where appenders run, once one was met.
    pub(super) runtime: Arc<OnceLock<Handle>>,
}

impl State {
    fn run(mut self, requests: &Receiver<Request>, interval: Duration) {
        let mut is_failing = false;
        let mut is_busy = false;
        while let Ok(first) = requests.recv() {
            let (batch, then) = gather(first, requests, interval, is_busy);
            is_busy = batch.len() > 1;
            if !batch.is_empty() {
                let error = self.commit(batch);
                report(error.as_ref(), &mut is_failing);
            }
            if let Some(Request::Enforce { retention, now, reply, _place }) = then {
                answer(reply, retention::enforce(&mut self, retention, now));
            }
        }
        self.active.close();
        drop(self.ownership);
    }

    /// Makes a batch durable and answers every append in it; the error that some were answered with.
    fn commit(&mut self, mut batch: VecDeque<Append>) -> Option<LogError> {
        let mut encoded = Vec::with_capacity(batch.len());
        let error = self.write(&mut batch, &mut encoded).err()?;
        self.active.abandon();
        let unanswered = encoded.into_iter().map(|(append, _)| append).chain(batch);
        unanswered.for_each(|append| answer(append.reply, Err(again(&error))));
        Some(error)
    }

    /// Moves appends from `batch` to `encoded` as they are encoded, and from there to their askers as they are durable.
    fn write(
        &mut self,
        batch: &mut VecDeque<Append>,
        encoded: &mut Vec<(Append, Vec<Delivered>)>,
    ) -> Result<(), LogError> {
        self.sealed.extend(self.active.recover()?);
        while let Some(append) = batch.front() {
            let mut delivered = Vec::with_capacity(append.records.len());
            for record in &append.records {
                if !self.active.has_room_for(record) {
                    self.sync(encoded)?;
                    self.sealed.push_back(self.active.roll()?);
                }
                delivered.push(self.active.push(record)?);
            }
            encoded.extend(batch.pop_front().map(|append| (append, delivered)));
        }
        self.sync(encoded)
    }

    fn sync(&mut self, encoded: &mut Vec<(Append, Vec<Delivered>)>) -> Result<(), LogError> {
        self.active.sync()?;
        let answers = Answers(std::mem::take(encoded));
        match self.runtime.get() {
            Some(runtime) if answers.0.len() > 1 => drop(runtime.spawn(async move { drop(answers) })),
            _ => drop(answers),
        }
        Ok(())
    }
}

/// Durable appends to be answered. Dropping it answers them, so that they are answered too when a runtime that has ended
/// drops the task.
struct Answers(Vec<(Append, Vec<Delivered>)>);

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|(append, delivered)| answer(append.reply, Ok(delivered)));
    }
}

/// Everything that waits already and, where several appenders are at work, what arrives with it. A request of another
/// kind ends the batch and comes after it.
fn gather(
    first: Request,
    requests: &Receiver<Request>,
    interval: Duration,
    is_busy: bool,
) -> (VecDeque<Append>, Option<Request>) {
    let mut batch = VecDeque::new();
    let mut bytes = 0;
    let mut next = Some(first);
    let started = stopwatch();
    loop {
        match next {
            Some(Request::Append(append)) => {
                bytes += append.records.iter().map(|r| r.payload.len()).sum::<usize>();
                batch.push_back(append);
            }
            other => return (batch, other),
        }
        if bytes >= BATCH_BYTES {
            return (batch, None);
        }
        let is_patient = (is_busy || batch.len() > 1) && started.elapsed() < interval;
        next = match requests.try_recv() {
            Ok(request) => Some(request),
            // Asleep, not receiving: a sender that found the thread receiving would have to wake it.
            Err(TryRecvError::Empty) if is_patient => {
                std::thread::sleep(interval / GAPS_PER_INTERVAL);
                requests.try_recv().ok()
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        };
    }
}

/// Answers whoever asked. One who no longer waits has gone away on purpose: the record stays, as an unanswered append
/// always may.
fn answer<T>(reply: Reply<T>, result: Result<T, LogError>) {
    if reply.send(result).is_err() {
        tracing::trace!("nobody waits for this append any more");
    }
}

/// The same error once more: one failed sync is many failed appends.
fn again(error: &LogError) -> LogError {
    match error {
        LogError::Unavailable { doing, source } => {
            let source = match source.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(source.kind(), source.to_string()),
            };
            LogError::Unavailable { doing: doing.clone(), source }
        }
        other => LogError::Invalid(other.to_string()),
    }
}

/// Says once that the disk fails and once that it is well again.
fn report(error: Option<&LogError>, is_failing: &mut bool) {
    match error {
        Some(error) if !*is_failing => tracing::error!(%error, "the log cannot be written: appends are refused"),
        None if *is_failing => tracing::info!("the log is written again"),
        _ => {}
    }
    *is_failing = error.is_some();
}
