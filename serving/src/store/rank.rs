//! The order of top lists, the same for every store. Pure.

use std::cmp::Reverse;

use shared::rollup::Counts;
use shared::serving_store::{TopBy, TopCampaign};

/// Orders lines that come by campaign and currency; the sorts are stable.
pub(super) fn rank(mut lines: Vec<TopCampaign>, by: TopBy, n: usize) -> Vec<TopCampaign> {
    lines.sort_by_key(|l| Reverse(measure(&l.counts, by)));
    if by != TopBy::Cost {
        lines.truncate(n);
        return lines;
    }
    lines.sort_by_key(|l| l.currency);
    let per_currency = lines.chunk_by(|a, b| a.currency == b.currency);
    per_currency.flat_map(|lines| lines.iter().take(n).cloned()).collect()
}

/// What a list is ordered by.
pub(super) fn measure(counts: &Counts, by: TopBy) -> i128 {
    match by {
        TopBy::Clicks => i128::from(counts.clicks),
        TopBy::Impressions => i128::from(counts.impressions),
        TopBy::Conversions => i128::from(counts.conversions),
        TopBy::Cost => counts.cost_nanos,
    }
}
