//! `explain`: where an event is in the archive, what batch made of it and why, where it is settled; and a campaign's day
//! from archived to due. What an answer says comes from [`crate::explain`]; here it is only printed.

use serde_json::{Value, json};
use shared::explain::{Occurrence, Place, Waterfall};
use shared::id::{CampaignId, EventId};
use shared::time::{Day, Timestamp};

use crate::cli::{Explain, Output};
use crate::exit::Usage;
use crate::output::Report;
use crate::wiring::Parts;

pub(super) async fn run(parts: &Parts, command: Explain, output: Output) -> super::Done {
    match command {
        Explain::Event { id, refused } => {
            let id = EventId::new(&id).map_err(|e| Usage(e.to_string()))?;
            event(parts, &id, refused, output).await
        }
        Explain::Campaign { id, date } => {
            let id = CampaignId::new(&id).map_err(|e| Usage(e.to_string()))?;
            campaign(parts, &id, date, output).await
        }
    }
}

async fn event(parts: &Parts, id: &EventId, refused: bool, output: Output) -> super::Done {
    let found = parts.explainer()?.event(id).await?;
    // What is not in the archive was perhaps refused.
    let refusals = if refused || found.is_empty() { refusals(parts, id).await? } else { Vec::new() };
    if found.is_empty() && refusals.is_empty() {
        return Err(Usage(format!("event {id} is neither in the archive nor among what was refused")).into());
    }
    if output != Output::Table {
        println!("{}", json!({ "eventId": id.as_str(), "occurrences": found, "refused": refusals }));
        return Ok(0);
    }
    for (n, occurrence) in found.iter().enumerate() {
        life(n + 1, found.len(), occurrence).print(output)?;
    }
    if !refusals.is_empty() {
        let mut report = Report::new(&["refused", "reason", "detail", "stage"]);
        for r in &refusals {
            let cell = |name: &str| r.get(name).cloned().unwrap_or_default();
            report.row([cell("ingestTime"), cell("reason"), cell("detail"), cell("stage")]);
        }
        report.print(output)?;
    }
    Ok(0)
}

/// What was refused and names the id.
async fn refusals(parts: &Parts, id: &EventId) -> anyhow::Result<Vec<Value>> {
    let quoted = format!("\"{id}\"");
    let mut found = Vec::new();
    super::bad::each(parts, |row| {
        let r = row.record;
        if r.raw.windows(quoted.len()).any(|w| w == quoted.as_bytes()) {
            let at = Timestamp(r.ingest_time).to_string();
            found.push(json!({ "ingestTime": at, "reason": r.reason, "detail": r.detail, "stage": r.stage }));
        }
        true
    })
    .await?;
    Ok(found)
}

fn place(p: &Place) -> String {
    format!("{} in {}, log partition {} position {}", p.ingest_time, p.region, p.partition, p.position)
}

/// One occurrence, line by line.
pub(super) fn life(n: usize, of: usize, o: &Occurrence) -> Report {
    let mut report = Report::new(&["what", "value"]);
    let mut say = |what: &str, value: String| report.row([json!(what), json!(value)]);
    say("occurrence", format!("{n} of {of}"));
    say("what", format!("{} of ad {} (campaign {})", o.event_type, o.ad_id, o.campaign_id));
    say("happened", o.event_time.to_string());
    say("accepted", place(&o.place));
    say("found at capture", o.invalid_at_capture.clone().unwrap_or_else(|| "nothing wrong".to_owned()));
    say("payload", o.fingerprint.clone());
    if let Some(first) = &o.first {
        say("holder of the id", place(first));
    }
    let Some(j) = &o.judged else {
        say("verdict", format!("none yet: run batch for {}", o.day));
        return report;
    };
    let clamped = if j.clamped { " (its own time was out of bounds)" } else { "" };
    say("bills at", format!("{}{clamped}", j.billing_time));
    say("windows", format!("minute {}, 5 min {}, hour {}", j.windows.minute, j.windows.five_minutes, j.windows.hour));
    say("verdict", format!("{} — {}", j.verdict, j.why));
    if let Some(before) = &j.repeats {
        let at = before.place.as_ref().map_or_else(String::new, |p| format!(", accepted {}", place(p)));
        say("repeats", format!("{}{at}", before.event_id));
    }
    let since =
        j.price.as_ref().map_or_else(String::new, |p| format!(", {} micros since {}", p.price_micros, p.valid_from));
    say("price", format!("{} in {}, price book version {}{since}", j.price_model, j.currency, j.price_version));
    say("cost", format!("{} nanos of {}", j.cost_nanos, j.currency));
    say("judged by", format!("run {} under rules {}", j.run, j.rules_version));
    match &j.settled {
        Some(s) => {
            say("settled", format!("{}/{} row {} (settlement {})", s.folder, s.file, s.row, s.sequence));
            say("its line", format!("{} nanos, settled as {} micros", s.line_cost_nanos, s.line_cost_micros));
            for a in &s.adjustments {
                let what = format!("{} micros, {} by {}", a.amount_micros, a.reason, a.actor);
                say("adjusted later", format!("{}: {what}", a.adjustment_id));
            }
        }
        None => say("settled", "not in the newest settlement of its day".to_owned()),
    }
    report
}

async fn campaign(parts: &Parts, id: &CampaignId, day: Day, output: Output) -> super::Done {
    let found = parts.explainer()?.campaign(id, day).await?;
    let Some(waterfall) = found else {
        return Err(Usage(format!("{day} was never recounted: run batch for it first")).into());
    };
    match output {
        Output::Json => println!("{}", json!(waterfall)),
        _ => steps(&waterfall).print(output)?,
    }
    Ok(0)
}

/// The waterfall as one table.
fn steps(w: &Waterfall) -> Report {
    let mut report = Report::new(&["step", "number", "unit", "why"]);
    let mut say = |step: String, number: String, unit: &str, why: &str| {
        report.row([json!(step), json!(number), json!(unit), json!(why)]);
    };
    for s in &w.events {
        say(format!("{}{}", if s.is_sum { "= " } else { "" }, s.what), s.events.to_string(), "events", &s.why);
    }
    for a in &w.amounts {
        for p in &a.priced {
            let price = p.price_micros.map_or_else(|| "each its own price".to_owned(), |m| format!("× {m} micros"));
            let what = format!("{} {} {price}", p.units, p.price_model);
            say(what, p.cost_nanos.clone(), &format!("nanos {}", a.currency), "billable units at the price in force");
        }
        say("= unrounded".to_owned(), a.unrounded_nanos.clone(), &format!("nanos {}", a.currency), "their sum");
        say(
            "rounding".to_owned(),
            a.rounding_nanos.clone(),
            &format!("nanos {}", a.currency),
            "half-even, once a line",
        );
        let unit = format!("micros {}", a.currency);
        say("= lines".to_owned(), a.lines_micros.to_string(), &unit, "what this run's lines settle");
        if let Some(settled) = a.settled_micros {
            say("settled".to_owned(), settled.to_string(), &unit, "what the newest settlement says");
        }
        for n in &a.adjustments {
            say(format!("adjustment {}", n.adjustment_id), n.amount_micros.to_string(), &unit, &n.reason);
        }
        say("= due".to_owned(), a.due_micros.to_string(), &unit, "lines and adjustments");
    }
    if let Some(drift) = &w.drift {
        for c in drift.causes.iter().filter(|c| c.events > 0) {
            say(format!("drift: {}", c.cause), c.events.to_string(), "events", &c.why);
        }
        say(
            "= drift".to_owned(),
            drift.events.to_string(),
            "events",
            "what the dashboard was off before, hour by hour",
        );
        say(
            "unique users".to_owned(),
            drift.uniques.to_string(),
            "users",
            "what their estimates were off, hour by hour",
        );
    }
    for note in &w.notes {
        say("note".to_owned(), String::new(), "", note);
    }
    report
}
