//! `kafka`: the topics the product needs.

use serde_json::json;
use shared::event_log::kafka::{Topic, ensure, shortcomings};

use crate::cli::Kafka;
use crate::exit::Usage;
use crate::logs::DEAD_LETTER_PARTITIONS;
use crate::output::last_line;
use crate::settings::Settings;
use crate::wiring::Parts;

/// Adjustments are few, and one that contradicts an earlier one is refused: they keep their order.
const ADJUSTMENT_PARTITIONS: u32 = 1;

/// The topics, as the settings want them.
pub(super) fn topics(settings: &Settings) -> [Topic; 4] {
    let kafka = &settings.kafka;
    [
        Topic { name: kafka.events_topic.clone(), partitions: kafka.partitions },
        Topic { name: kafka.dead_letters_topic.clone(), partitions: DEAD_LETTER_PARTITIONS },
        Topic { name: kafka.adjustments_topic.clone(), partitions: ADJUSTMENT_PARTITIONS },
        Topic { name: kafka.adjustment_refusals_topic(), partitions: ADJUSTMENT_PARTITIONS },
    ]
}

pub(super) async fn run(parts: &Parts, command: Kafka) -> super::Done {
    let settings = parts.settings();
    if !settings.kafka.is_used() {
        return Err(Usage("Kafka is not configured: set kafka.bootstrap to host:port,host:port".to_owned()).into());
    }
    let Kafka::Ensure = command;
    let (mut made, mut said) = (Vec::new(), Vec::new());
    for topic in topics(settings) {
        if ensure(&settings.kafka, &topic).await? {
            made.push(topic.name.clone());
        }
        said.extend(shortcomings(&settings.kafka, &topic).await?);
    }
    for sentence in &said {
        eprintln!("{sentence}");
    }
    last_line(&json!({ "made": made, "shortcomings": said }))?;
    Ok(if said.is_empty() { 0 } else { 2 })
}
