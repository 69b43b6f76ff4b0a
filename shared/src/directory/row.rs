//! Rows of an ad import: CSV or NDJSON in, checked rows out, every error with its row.
//! Owns: the rule for what a redirect target may be. Never: repairs a URL.

use std::io::{BufRead, Read};
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::AdStatus;
use crate::id::{AdId, AdvertiserId, CampaignId};

/// The longest redirect target in bytes.
const MAX_URL_BYTES: usize = 2_048;
/// The longest line of an NDJSON import in bytes.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// One row: `adId, campaignId, advertiserId, url, status` (`active` if absent).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdRow {
    /// The ad.
    pub ad_id: AdId,
    /// Its campaign.
    pub campaign_id: CampaignId,
    /// Who pays.
    pub advertiser_id: AdvertiserId,
    /// Where its click goes.
    pub url: String,
    /// Whether it runs.
    #[serde(default)]
    pub status: AdStatus,
}

/// A row that cannot be taken, by its number (the first data row is 1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {row}: {why}")]
pub struct BadAd {
    /// The row.
    pub row: u64,
    /// What is wrong and what to do.
    pub why: String,
}

/// How an import is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma separated with a header line.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// The rows of `source`, numbered from 1 and checked one by one.
pub fn read_rows<'a, R: BufRead + 'a>(
    source: R,
    format: Format,
) -> Box<dyn Iterator<Item = Result<(u64, AdRow), BadAd>> + 'a> {
    let checked = |(row, read): (u64, Result<AdRow, String>)| {
        let ad = read.and_then(|ad| check_url(&ad.url).map(|()| ad));
        ad.map(|ad| (row, ad)).map_err(|why| BadAd { row, why })
    };
    match format {
        Format::Csv => {
            let rows = csv::Reader::from_reader(source).into_deserialize::<AdRow>();
            Box::new((1..).zip(rows.map(|r| r.map_err(|e| e.to_string()))).map(checked))
        }
        Format::Ndjson => Box::new((1..).zip(Lines(source)).map(checked)),
    }
}

/// The objects of an NDJSON source, without its blank lines; a line that is too long is cut and so refused.
struct Lines<R>(R);

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<AdRow, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        while line.trim_ascii().is_empty() {
            line.clear();
            match (&mut self.0).take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error.to_string())),
            }
        }
        Some(serde_json::from_slice(&line).map_err(|e| e.to_string()))
    }
}

/// Whether `url` may be a redirect target: absolute, http or https, a plain host, no user name, nothing but
/// visible ASCII (so that no header can be injected).
///
/// # Errors
/// A sentence that says what to change.
pub fn check_url(url: &str) -> Result<(), String> {
    let fail = |why: &str| Err(format!("url {:?} {why}", url.chars().take(80).collect::<String>()));
    if url.len() > MAX_URL_BYTES {
        return fail("is longer than 2048 bytes");
    }
    if !url.bytes().all(|b| b.is_ascii_graphic() && !b"\\\"<>`".contains(&b)) {
        return fail("has a space, a control, a quote or a non-ASCII character: percent-encode it");
    }
    let Some((scheme, rest)) = url.split_once("://") else { return fail("is not absolute: begin with https://") };
    if !["http", "https"].iter().any(|s| scheme.eq_ignore_ascii_case(s)) {
        return fail("is not http or https");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return fail("has a user name: remove it");
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((v6, port)) if v6.parse::<Ipv6Addr>().is_ok() => ("v6", port.strip_prefix(':')),
        _ => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let host_is_plain = !host.is_empty()
        && !host.starts_with('.')
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if !host_is_plain {
        return fail("has no plain host name");
    }
    match port {
        Some(port) if !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err() => {
            fail("has a port that is not a number up to 65535")
        }
        _ => Ok(()),
    }
}
