//! The books must balance before anything is overwritten or published (contract 2.7). Pure.
//! Each function answers with sentences that name the sum, both sides and the difference; empty means balanced.

use std::collections::BTreeMap;

use lake::run_record::{CaptureHour, HourConservation, PartitionConservation, RunRecord, Totals};
use shared::money::{Currency, Overflow};
use shared::rollup::{Counts, RollupKey, RollupRow};
use shared::time::Day;

use crate::manifest::Sums;

/// Archived = Σ verdicts for every hour and for the day; every log position is an event or a bad record.
#[must_use]
pub(crate) fn conservation(
    day: Day,
    hours: &[HourConservation],
    partitions: &[PartitionConservation],
    verdicts: &BTreeMap<String, u64>,
) -> Vec<String> {
    let mut findings = Vec::new();
    if !hours.iter().map(|h| h.hour).eq(day.hours()) {
        findings.push(format!("conservation does not list the 24 hours of {day} in order"));
    }
    let mut sums: BTreeMap<&str, u128> = BTreeMap::new();
    for hour in hours {
        let judged: u128 = hour.verdicts.values().copied().map(u128::from).sum();
        if judged != u128::from(hour.archived) {
            findings.push(format!("hour {}: {} events archived, {judged} judged", hour.hour, hour.archived));
        }
        for (verdict, n) in &hour.verdicts {
            *sums.entry(verdict).or_default() += u128::from(*n);
        }
    }
    for name in
        sums.keys().copied().chain(verdicts.keys().map(String::as_str)).collect::<std::collections::BTreeSet<_>>()
    {
        let (by_hour, by_day) = (sums.get(name).copied().unwrap_or(0), verdicts.get(name).copied().unwrap_or(0));
        if by_hour != u128::from(by_day) {
            findings.push(format!("verdict {name}: the hours sum to {by_hour}, the day says {by_day}"));
        }
    }
    for p in partitions {
        let (range, rows) = (i128::from(p.next) - i128::from(p.start), i128::from(p.events) + i128::from(p.bad));
        if range != rows {
            findings.push(format!(
                "partition {} of {}: {range} positions, {} events and {} bad records",
                p.partition, p.topic, p.events, p.bad
            ));
        }
    }
    findings
}

/// What came in is archived or refused, for every hour of ingest.
#[must_use]
pub(crate) fn capture(day: Day, hours: &[CaptureHour]) -> Vec<String> {
    let mut findings = Vec::new();
    if !hours.iter().map(|h| h.hour).eq(day.hours()) {
        findings.push(format!("capture does not list the 24 hours of {day} in order"));
    }
    for h in hours {
        let refused: u128 = h.refused.values().copied().map(u128::from).sum();
        if u128::from(h.received) != u128::from(h.archived) + refused {
            findings
                .push(format!("hour {}: {} received, {} archived, {refused} refused", h.hour, h.received, h.archived));
        }
        if u128::from(h.archived) != u128::from(h.accepted) + u128::from(h.untallied) {
            let (archived, accepted, untallied) = (h.archived, h.accepted, h.untallied);
            findings
                .push(format!("hour {}: {archived} archived, {accepted} accepted, {untallied} in no tally", h.hour));
        }
    }
    findings
}

/// The lines against the run: counts and cost by currency, events by verdict.
#[must_use]
pub(crate) fn lines(sums: &Sums, record: &RunRecord) -> Vec<String> {
    let found = sums.totals.iter().map(|(currency, t)| {
        let (impressions, clicks, conversions, cost_nanos) = (t.impressions, t.clicks, t.conversions, t.cost_nanos);
        (*currency, Counts { impressions, clicks, conversions, cost_nanos })
    });
    let mut findings = totals("gold/billing_day", &found.collect(), &record.totals);
    let names = sums.verdicts.keys().chain(record.verdicts.keys()).collect::<std::collections::BTreeSet<_>>();
    for name in names {
        let of = |counts: &BTreeMap<String, u64>| counts.get(name).copied().unwrap_or(0);
        let (lines, run) = (of(&sums.verdicts), of(&record.verdicts));
        if lines != run {
            findings.push(format!("verdict {name}: gold/billing_day has {lines}, the run says {run}"));
        }
    }
    findings
}

fn totals(what: &str, found: &BTreeMap<Currency, Counts>, expected: &BTreeMap<Currency, Totals>) -> Vec<String> {
    let mut findings = Vec::new();
    for currency in found.keys().chain(expected.keys()).collect::<std::collections::BTreeSet<_>>() {
        let found = found.get(currency).copied().unwrap_or_default();
        let t = expected.get(currency).copied().unwrap_or_default();
        let (impressions, clicks, conversions, cost_nanos) = (t.impressions, t.clicks, t.conversions, t.cost_nanos);
        let expected = Counts { impressions, clicks, conversions, cost_nanos };
        if found != expected {
            findings.push(format!("{currency}: {what} sums to {found:?}, the run says {expected:?}"));
        }
    }
    findings
}

/// The sums of the served grains, fed hour by hour.
#[derive(Debug, Default)]
pub(crate) struct GrainSums {
    ad_minutes: BTreeMap<Currency, Counts>,
    campaign_hours: BTreeMap<Currency, Counts>,
}

impl GrainSums {
    /// Adds exact rows.
    ///
    /// # Errors
    /// [`Overflow`] when a sum does not fit.
    pub(crate) fn add(&mut self, rows: &[RollupRow]) -> Result<(), Overflow> {
        for row in rows {
            let (sums, currency) = match &row.key {
                RollupKey::AdMinute { currency, .. } => (&mut self.ad_minutes, currency),
                RollupKey::CampaignHour { currency, .. } => (&mut self.campaign_hours, currency),
                RollupKey::CampaignMinute { .. } => continue, // summed from the ad minutes
            };
            let sum = sums.entry(*currency).or_default();
            *sum = sum.merge(&row.counts)?;
        }
        Ok(())
    }

    /// Every grain against the run.
    #[must_use]
    pub(crate) fn findings(&self, record: &RunRecord) -> Vec<String> {
        let mut findings = totals("gold/ad_minute", &self.ad_minutes, &record.totals);
        findings.extend(totals("gold/campaign_hour", &self.campaign_hours, &record.totals));
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(day: Day) -> Vec<HourConservation> {
        day.hours()
            .map(|hour| HourConservation { hour, archived: 2, verdicts: [("billable".to_owned(), 2)].into() })
            .collect()
    }

    #[test]
    fn each_kind_of_imbalance_is_named() {
        let day = Day(20_000);
        let verdicts: BTreeMap<String, u64> = [("billable".to_owned(), 48)].into();
        let partition =
            PartitionConservation { topic: "events".to_owned(), partition: 3, start: 10, next: 20, events: 9, bad: 1 };
        assert_eq!(conservation(day, &hours(day), std::slice::from_ref(&partition), &verdicts), Vec::<String>::new());

        let mut lost = hours(day);
        lost[5].archived = 3;
        assert!(conservation(day, &lost, &[], &verdicts)[0].contains("T05:00:00Z: 3 events archived, 2 judged"));

        let mut swapped = hours(day);
        swapped.swap(0, 1);
        assert!(conservation(day, &swapped, &[], &verdicts)[0].contains("24 hours"));

        let gap = PartitionConservation { next: 21, ..partition };
        assert!(conservation(day, &hours(day), &[gap], &verdicts)[0].contains("partition 3"));

        let quiet = |hour| CaptureHour {
            hour,
            received: 3,
            accepted: 1,
            untallied: 1,
            archived: 2,
            refused: [("limited".to_owned(), 1)].into(),
        };
        let mut edge: Vec<CaptureHour> = day.hours().map(quiet).collect();
        assert_eq!(capture(day, &edge), Vec::<String>::new());
        edge[7].received = 4;
        edge[9].accepted = 2;
        let found = capture(day, &edge);
        assert!(
            found.len() == 2 && found[0].contains("T07:00:00Z: 4 received") && found[1].contains("T09"),
            "{found:?}"
        );
        assert!(capture(day, &edge[1..])[0].contains("24 hours"));

        let more: BTreeMap<String, u64> = [("billable".to_owned(), 49)].into();
        assert!(conservation(day, &hours(day), &[], &more)[0].contains("billable"));
    }
}
