//! The real parts that a pipeline stands on instead of what is embedded. Only settings differ: the same tests run on both.

use shared::testing::parts::Part;

use crate::support::Ledger;

/// Real parts, each with its data in the ledger's folder.
#[derive(Default)]
pub(crate) struct Outside(Vec<Part>);

impl Outside {
    /// Kafka instead of the embedded log.
    pub(crate) fn kafka(ledger: &mut Ledger) -> Self {
        let broker = Part::start("kafka", "KAFKA_BOOTSTRAP", &ledger.path().join("kafka"));
        ledger.set("KAFKA__BOOTSTRAP", &broker.address);
        ledger.set("KAFKA__REPLICATION", 1);
        ledger.set("KAFKA__MIN_IN_SYNC", 1);
        ledger.set("KAFKA__PARTITIONS", 4);
        ledger.ok(&["kafka", "ensure"]);
        Self(vec![broker])
    }

    /// Whether there are any: a role that starts while one is away says so and ends.
    pub(crate) fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Kills the nth part, counted round and round, and starts it again on what it left.
    pub(crate) fn crash_and_restart(&mut self, n: usize) {
        let count = self.0.len().max(1);
        if let Some(part) = self.0.get_mut(n % count) {
            part.crash_and_restart();
        }
    }
}
