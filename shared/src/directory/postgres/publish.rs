//! An import into the database: rows merged over what is there, in one transaction. All rows or none.

use std::fmt::Write as _;

use bytes::Bytes;
use futures::SinkExt;

use super::session::Session;
use super::{PostgresError, Settings};
use crate::directory::{Directory, Imported};

const CREATE_INCOMING: &str = include_str!("../../../../sql/postgres/20_create_incoming.sql");
const INSERT_CAMPAIGNS: &str = include_str!("../../../../sql/postgres/21_insert_campaigns.sql");
const FIND_MOVED_CAMPAIGN: &str = include_str!("../../../../sql/postgres/22_find_moved_campaign.sql");
const UPSERT_ADS: &str = include_str!("../../../../sql/postgres/23_upsert_ads.sql");

const IMPORTING: &str = "importing ads";
/// Bytes sent at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Merges the ads of `rows` over those in the database: an ad that is there is replaced.
///
/// # Errors
/// [`PostgresError::Refused`] when a campaign belongs to somebody else; then, and on any other error, nothing has changed.
pub async fn publish(settings: &Settings, rows: &Directory) -> Result<Imported, PostgresError> {
    let session = Session::open(settings).await?;
    let run = |sql: &'static str| session.ask(IMPORTING, session.client.batch_execute(sql));
    run("BEGIN").await?;
    run(CREATE_INCOMING).await?;
    copy(&session, rows).await?;
    run(INSERT_CAMPAIGNS).await?;
    let failed = |e: tokio_postgres::Error| PostgresError::of(IMPORTING, &e);
    if let Some(row) = session.ask(IMPORTING, session.client.query_opt(FIND_MOVED_CAMPAIGN, &[])).await? {
        let text = |n: usize| row.try_get::<_, &str>(n).map_err(failed);
        let (ad, campaign, owner, other) = (text(0)?, text(1)?, text(2)?, text(3)?);
        let why = format!(
            "campaign {campaign} belongs to advertiser {owner}, not {other}: give ad {ad} a campaign of its own advertiser"
        );
        return Err(PostgresError::Refused { doing: IMPORTING, why });
    }
    let written = session.ask(IMPORTING, session.client.query_one(UPSERT_ADS, &[])).await?;
    let total = session.ask(IMPORTING, session.client.query_one("SELECT count(*) FROM clickledger.ads", &[])).await?;
    run("COMMIT").await?;
    let count = |row: &tokio_postgres::Row, n: usize| -> Result<u64, PostgresError> {
        Ok(u64::try_from(row.try_get::<_, i64>(n).map_err(failed)?).unwrap_or(0))
    };
    let (added, changed) = (count(&written, 0)?, count(&written, 1)?);
    let unchanged = rows.len() as u64 - added - changed;
    Ok(Imported { added, changed, unchanged, total: count(&total, 0)? })
}

/// Sends the rows. Their ids and URLs have nothing in them that COPY would read otherwise: no tab, backslash or control.
async fn copy(session: &Session, rows: &Directory) -> Result<(), PostgresError> {
    let copying = session.client.copy_in::<_, Bytes>("COPY incoming FROM STDIN");
    let mut sink = std::pin::pin!(session.ask(IMPORTING, copying).await?);
    let mut text = String::new();
    for ad in rows.ads_after(None) {
        let (campaign, advertiser, status) = (ad.campaign_id, ad.advertiser_id, ad.status.as_str());
        if writeln!(text, "{}\t{campaign}\t{advertiser}\t{}\t{status}", ad.ad_id, ad.url).is_err() {
            return Err(PostgresError::Settings("a row has no text".to_owned()));
        }
        if text.len() >= CHUNK_BYTES {
            session.ask(IMPORTING, sink.send(Bytes::from(std::mem::take(&mut text)))).await?;
        }
    }
    session.ask(IMPORTING, sink.send(Bytes::from(text))).await?;
    session.ask(IMPORTING, sink.finish()).await.map(|_| ())
}
