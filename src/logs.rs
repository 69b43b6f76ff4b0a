//! Which logs this process works on: the embedded ones of the data folder, or Kafka's topics with the embedded log as
//! the gateway's spool in front of them (decisions.md D-6 and D-7). The only file that knows.
//! Guarantee: whoever appends is answered when the record is durable, on this machine's disk or in Kafka.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway::forward::Forwarder;
use shared::config::ByteSize;
use shared::event_log::embedded::{EmbeddedLog, Options};
use shared::event_log::{EventLog, LogError};
use shared::shutdown::Shutdown;

use crate::wiring::Parts;

/// How often a reader looks whether the log is there.
const WAIT_FOR_LOG: Duration = Duration::from_millis(250);

/// Partitions of the dead-letter log: refusals are few.
pub(crate) const DEAD_LETTER_PARTITIONS: u32 = 1;

/// Both logs of a process.
#[derive(Clone)]
pub struct Logs {
    /// Admitted events.
    pub events: Arc<dyn EventLog>,
    /// What was refused.
    pub dead_letters: Arc<dyn EventLog>,
}

impl Parts {
    /// Whether events go on from this machine to a broker.
    #[must_use]
    pub fn has_broker(&self) -> bool {
        #[cfg(feature = "kafka")]
        return self.settings().kafka.is_used();
        #[cfg(not(feature = "kafka"))]
        return false;
    }

    /// The gateway's own logs, for the one process that writes them: the log itself, or the spool before a broker.
    ///
    /// # Errors
    /// When another process writes them, or they cannot be opened.
    pub fn gateway_logs(&self) -> anyhow::Result<Logs> {
        let events = EmbeddedLog::open(&self.folder().events_log(), self.log_options())?;
        let options = Options {
            partitions: DEAD_LETTER_PARTITIONS,
            segment_bytes: ByteSize::mib(16),
            ..self.settings().log.clone()
        };
        let dead_letters = EmbeddedLog::open(&self.folder().dead_letters_log(), options)?;
        Ok(Logs { events: Arc::new(events), dead_letters: Arc::new(dead_letters) })
    }

    /// The spool is cut as the topic it goes to.
    fn log_options(&self) -> Options {
        #[cfg(feature = "kafka")]
        if self.has_broker() {
            return Options { partitions: self.settings().kafka.partitions, ..self.settings().log.clone() };
        }
        self.settings().log.clone()
    }

    /// Both logs, for appending to what everyone reads (imports).
    ///
    /// # Errors
    /// As [`Parts::gateway_logs`]; [`LogError::Unavailable`] when no broker answers.
    pub async fn log_writer(&self) -> anyhow::Result<Logs> {
        match self.broker_logs().await {
            Some(logs) => Ok(logs?),
            None => self.gateway_logs(),
        }
    }

    /// Both logs, for reading beside whoever writes them.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when no process has written them yet or no broker answers, or they cannot be opened.
    pub async fn log_reader(&self) -> Result<Logs, LogError> {
        if let Some(logs) = self.broker_logs().await {
            return logs;
        }
        let open =
            |dir: PathBuf| -> Result<Arc<dyn EventLog>, LogError> { Ok(Arc::new(EmbeddedLog::open_reader(&dir)?)) };
        Ok(Logs { events: open(self.folder().events_log())?, dead_letters: open(self.folder().dead_letters_log())? })
    }

    /// As [`Parts::log_reader`], but waits until the logs are there; `None` when the shutdown comes first.
    ///
    /// # Errors
    /// When the logs are there but cannot be opened.
    pub async fn wait_for_logs(&self, shutdown: &Shutdown) -> Result<Option<Logs>, LogError> {
        let mut said = false;
        while !shutdown.is_requested() {
            let waits_for = match self.log_reader().await {
                Ok(logs) => return Ok(Some(logs)),
                Err(error @ LogError::Unavailable { .. }) if self.has_broker() => error.to_string(),
                Err(LogError::Unavailable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    "the gateway has not made it yet".to_owned()
                }
                Err(error) => return Err(error),
            };
            if !said {
                tracing::info!(because = waits_for, "waiting for the log");
                said = true;
            }
            shared::time::sleep(WAIT_FOR_LOG).await;
        }
        Ok(None)
    }

    /// Kafka's topics, if Kafka is configured.
    async fn broker_logs(&self) -> Option<Result<Logs, LogError>> {
        #[cfg(feature = "kafka")]
        if self.has_broker() {
            return Some(self.kafka_logs().await);
        }
        None
    }

    #[cfg(feature = "kafka")]
    async fn kafka_logs(&self) -> Result<Logs, LogError> {
        use shared::event_log::kafka::{KafkaLog, cloud_event};

        let settings = &self.settings().kafka;
        let events = KafkaLog::open_with(settings, &settings.events_topic, cloud_event).await?;
        let dead_letters = KafkaLog::open(settings, &settings.dead_letters_topic).await?;
        Ok(Logs { events: Arc::new(events), dead_letters: Arc::new(dead_letters) })
    }

    /// The topic of adjustments and that of refused ones, where Kafka is configured.
    ///
    /// # Errors
    /// When no broker answers or a topic is not there.
    #[cfg(feature = "kafka")]
    pub(crate) async fn adjustment_logs(&self) -> Result<Option<(impl EventLog, impl EventLog)>, LogError> {
        use shared::event_log::kafka::KafkaLog;

        let settings = &self.settings().kafka;
        if !settings.is_used() {
            return Ok(None);
        }
        let adjustments = KafkaLog::open(settings, &settings.adjustments_topic).await?;
        let refusals = KafkaLog::open(settings, &settings.adjustment_refusals_topic()).await?;
        Ok(Some((adjustments, refusals)))
    }

    /// Forwards the gateway's spool to the broker until shutdown, from when the broker first answers.
    ///
    /// # Errors
    /// What no waiting mends.
    pub(crate) async fn forward(self, spool: Logs, shutdown: Shutdown) -> anyhow::Result<()> {
        let Some(logs) = self.wait_for_logs(&shutdown).await? else { return Ok(()) };
        let place = |name: &str| self.folder().root().join("state").join(format!("forward-{name}.json"));
        std::fs::create_dir_all(self.folder().root().join("state"))?;
        let events = Forwarder::new(spool.events, logs.events, place("events"));
        let events = events.with_notes(spool.dead_letters.clone(), self.region()?);
        let dead_letters = Forwarder::new(spool.dead_letters, logs.dead_letters, place("dead-letters"));
        tokio::try_join!(events.run(shutdown.clone()), dead_letters.run(shutdown))?;
        Ok(())
    }
}
