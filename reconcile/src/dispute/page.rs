//! A dispute as one HTML page that a person reads: no script, nothing loaded from anywhere.
//! Guarantee: every name from a file is escaped. docs/disputes.md says how to read it.

use std::fmt::Write as _;

use super::report::{Dispute, Hypothesis, Summary};
use crate::lines::decimal;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}\
    table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}th,td{text-align:left;padding:.3rem .6rem;\
    border-bottom:1px solid #ddd;vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
    .bar{background:#e8e8e8;width:8rem;height:.8rem}.bar i{display:block;height:100%;background:#2563a8}\
    .verdict{border-left:4px solid #2563a8;padding:.5rem 1rem;background:#f2f6fb;font-size:1.1rem}\
    .apart{color:#a12622}small{color:#555}";

/// The page.
#[must_use]
pub fn html(dispute: &Dispute) -> String {
    let mut page =
        String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Dispute</title>");
    push(&mut page, format_args!("<style>{STYLE}</style></head><body>"));
    head(&mut page, dispute);
    totals(&mut page, dispute);
    hypotheses(&mut page, dispute);
    lines(&mut page, dispute);
    page.push_str("<p><small>");
    for run in &dispute.runs {
        let settled = run.settled_version.map_or_else(String::new, |v| format!(", settlement v{v}"));
        push(&mut page, format_args!("{} run {}{settled} · ", run.day, run.run));
    }
    push(&mut page, format_args!("{} ways of counting tested</small></p>", dispute.tests));
    for warning in &dispute.warnings {
        push(&mut page, format_args!("<p><small>{}</small></p>", Text(warning)));
    }
    page.push_str("</body></html>\n");
    page
}

fn head(page: &mut String, d: &Dispute) {
    let days = match (d.days.first(), d.days.last()) {
        (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
        (Some(day), _) => day.to_string(),
        _ => String::new(),
    };
    push(page, format_args!("<h1>Their numbers and ours, {days}</h1>"));
    let s = &d.summary;
    let matched = s.equal + s.within_tolerance;
    push(
        page,
        format_args!(
            "<p>{} rows of theirs, by {:?}, in {}. Of {} numbers {matched} match ({} exactly), {} differ, {} only we \
             have, {} only they have. The tolerance is {} %.</p>",
            d.their_rows,
            d.grain,
            d.zone,
            matched + s.unmatched(),
            s.equal,
            s.differing,
            s.ours_only,
            s.theirs_only,
            percent(i64::try_from(d.tolerance_ppm).unwrap_or(i64::MAX)),
        ),
    );
    let verdict = match &d.verdict {
        Some(best) => {
            format!("Most likely {}. That explains {} % of the distance.", best.sentence, percent(best.explained_ppm))
        }
        None if s.unmatched() + s.within_tolerance == 0 => "Both sides say the same.".to_owned(),
        None if s.unmatched() == 0 => "What lies apart is within the tolerance.".to_owned(),
        None => "No difference of method that we know explains the distance.".to_owned(),
    };
    push(page, format_args!("<p class=\"verdict\">{}</p>", Text(&verdict)));
}

fn totals(page: &mut String, d: &Dispute) {
    page.push_str(
        "<h2>In all</h2><table><tr><th>Measure</th><th class=\"n\">Ours</th><th class=\"n\">Theirs</th>\
         <th class=\"n\">Difference</th></tr>",
    );
    for t in &d.totals {
        let is_money = t.measure.starts_with("micros ");
        let number = |n: i64| if is_money { decimal(n) } else { n.to_string() };
        let difference = t.difference_ppm.map_or_else(|| "–".to_owned(), |p| format!("{} %", percent(p)));
        push(
            page,
            format_args!(
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{difference}</td></tr>",
                Text(t.measure.trim_start_matches("micros ")),
                number(t.ours),
                number(t.theirs),
            ),
        );
    }
    page.push_str("</table>");
}

fn hypotheses(page: &mut String, d: &Dispute) {
    if d.hypotheses.is_empty() {
        return;
    }
    page.push_str(
        "<h2>What would explain it</h2><p>We counted our own events again the way each line says and measured how far \
         that is from their numbers.</p><table><tr><th>If…</th><th colspan=\"2\">explained</th>\
         <th class=\"n\">events apart, before → after</th><th class=\"n\">amount apart</th><th class=\"n\">unmatched</th></tr>",
    );
    for h in &d.hypotheses {
        let width = (h.explained_ppm / 10_000).clamp(0, 100);
        push(
            page,
            format_args!(
                "<tr><td>{}</td><td><div class=\"bar\"><i style=\"width:{width}%\"></i></div></td><td class=\"n\">{} %</td>\
                 <td class=\"n\">{} → {}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                Text(&h.sentence),
                percent(h.explained_ppm),
                h.events_before,
                h.events_after,
                Text(&amounts(h)),
                h.after.as_ref().map_or_else(|| "–".to_owned(), |s: &Summary| s.unmatched().to_string()),
            ),
        );
    }
    page.push_str("</table>");
}

fn amounts(h: &Hypothesis) -> String {
    let after = |code: &String| h.micros_after.get(code).copied().unwrap_or(0);
    let pairs =
        h.micros_before.iter().map(|(code, before)| format!("{} → {} {code}", decimal(*before), decimal(after(code))));
    pairs.collect::<Vec<_>>().join(", ")
}

fn lines(page: &mut String, d: &Dispute) {
    if d.lines.is_empty() {
        return;
    }
    page.push_str(
        "<h2>Where it differs</h2><p>Ours / theirs, largest difference first.</p><table><tr><th>Who</th><th>When</th>\
         <th class=\"n\">Impressions</th><th class=\"n\">Clicks</th><th class=\"n\">Conversions</th>\
         <th class=\"n\">Amount</th><th></th></tr>",
    );
    for l in &d.lines {
        let pair = |p: [u64; 2]| format!("{} / {}", p[0], p[1]);
        let code = l.currency.map(|c| c.to_string()).unwrap_or_default();
        push(
            page,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{} / {} {code}</td><td class=\"apart\">{:?}</td></tr>",
                Text(&l.who),
                l.period.as_deref().unwrap_or(""),
                pair(l.impressions),
                pair(l.clicks),
                pair(l.conversions),
                decimal(l.micros[0]),
                decimal(l.micros[1]),
                l.standing,
            ),
        );
    }
    push(page, format_args!("</table><p><small>{} more lines are not listed.</small></p>", d.lines_omitted));
}

/// Parts per million as a percentage with two digits.
fn percent(ppm: i64) -> String {
    let sign = if ppm < 0 { "-" } else { "" };
    let hundredths = (ppm.unsigned_abs() + 50) / 100;
    format!("{sign}{}.{:02}", hundredths / 100, hundredths % 100)
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    if page.write_fmt(text).is_err() {
        tracing::debug!("a string cannot be written to");
    }
}

/// Text inside HTML.
struct Text<'a>(&'a str);

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_a_file_cannot_become_markup() {
        assert_eq!(Text("<b a=\"1\">&").to_string(), "&lt;b a=&quot;1&quot;&gt;&amp;");
        assert_eq!((percent(1_234_567), percent(-50)), ("123.46".to_owned(), "-0.01".to_owned()));
    }
}
