//! `explain event`: where an event is in the archive, what batch made of it and why.

use serde_json::{Value, json};
use shared::id::EventId;

use crate::cli::{Explain, Output};
use crate::exit::Usage;
use crate::output::Report;
use crate::wiring::Parts;

pub(super) async fn run(parts: &Parts, command: Explain, output: Output) -> super::Done {
    let Explain::Event { id } = command;
    let id = EventId::new(&id).map_err(|e| Usage(e.to_string()))?;
    let occurrences = ::batch::explain(&parts.lake_root()?, &id).await?;
    if occurrences.is_empty() {
        return Err(Usage(format!("event {id} is not in the archive (refused events: clickledger bad show)")).into());
    }
    if output != Output::Table {
        println!("{}", json!(occurrences));
        return Ok(0);
    }
    for (n, o) in occurrences.iter().enumerate() {
        let mut report = Report::new(&["what", "value"]);
        let mut say = |what: &str, value: Value| report.row([json!(what), value]);
        say("occurrence", json!(format!("{} of {}", n + 1, occurrences.len())));
        say("what", json!(format!("{} of ad {} (campaign {})", o.event_type, o.ad_id, o.campaign_id)));
        say("happened", json!(o.event_time.to_string()));
        say("accepted", json!(format!("{} in {}", o.ingest_time, o.region)));
        say("log", json!(format!("partition {} position {}", o.partition, o.position)));
        say("payload", json!(o.fingerprint));
        say("found at capture", json!(o.invalid.as_deref().unwrap_or("nothing wrong")));
        match &o.judged {
            None => say("verdict", json!(format!("none yet: run batch for {}", o.day))),
            Some(j) => {
                let clamped = if j.clamped { " (its own time was out of bounds)" } else { "" };
                say("bills at", json!(format!("{}{clamped}", j.billing_time)));
                say("verdict", json!(format!("{} — {}", j.verdict, why(&j.verdict))));
                say(
                    "price",
                    json!(format!("{} in {}, price book version {}", j.price_model, j.currency, j.price_version)),
                );
                say("cost", json!(format!("{} nanos of {}", j.cost_nanos, j.currency)));
                say("run", json!(j.run));
            }
        }
        report.print(Output::Table)?;
    }
    Ok(0)
}

/// A verdict in a sentence.
fn why(verdict: &str) -> &'static str {
    match verdict {
        "billable" => "first with its id, valid, not a repeat: it counts",
        "duplicate" => "an earlier event has this id and payload",
        "conflict" => "an earlier event has this id with another payload",
        "repeat_click" => "the click before on this impression is too close",
        "invalid:bad_signature" => "its signature is not ours; it claims nothing",
        "invalid:expired" => "its signature was over when it came; it claims nothing",
        "invalid:known_bot" => "its user agent names a robot",
        "invalid:inactive_ad" => "its ad was not running",
        _ => "invalid by rule",
    }
}
