//! Submission → event, or the reason why not: signature, ad directory, campaign. Pure: no network, no clock; also
//! what `clickledger import` uses for history.
//!
//! **Whose campaign?** For live traffic the ad directory decides whenever it knows the ad, so that no client can
//! charge another campaign; the client's own `campaignId` (part of what it signs) is taken only for ads the
//! directory does not know. For history the row's `campaignId` is what was true then, so it is taken as it
//! is, and the directory fills in what the row leaves out. The advertiser follows the campaign: the directory's,
//! else the client's. A directory that says an ad is paused or ended speaks about now, so it marks live events only.
//! Never: repairs a field; looks at what an opted-out person sent.

use shared::config::Span;
use shared::directory::{AdStatus, Directory};
use shared::event::{Admission, Event, RejectReason, Rejection, Submission};
use shared::id::{AdvertiserId, CampaignId, RefId};
use shared::time::Timestamp;
use shared::verdict::InvalidCode;

use crate::keys::SigningKeys;
use crate::signature::{EventClaims, Fault, LinkClaims, Validity};

/// Where a submission comes from, which decides what it must prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `POST /v1/events`: signed as an event, refused when the signature does not hold.
    Api,
    /// `POST /v1/clicks`, or a link under the policy `deny`: signed as a link, refused likewise.
    SignedLink,
    /// `GET /click` and `/impression.gif` under the policy `redirect`: signed as a link, kept as
    /// `invalid:bad_signature` or `invalid:expired` when the signature does not hold.
    Link,
    /// History from a trusted operator: `ingestTime` is kept, no signature is needed, a wrong one is kept as
    /// invalid and judged at the row's ingest time.
    History,
}

/// What the submission is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The ads.
    pub directory: &'a Directory,
    /// The signing keys.
    pub keys: &'a SigningKeys,
    /// Where we are.
    pub region: &'a RefId,
    /// When it is accepted.
    pub now: Timestamp,
    /// The farthest `exp`: the dedup window.
    pub max_validity: Span,
}

/// The event that `submission` is, or why it is none.
///
/// # Errors
/// `unauthorized`, `unknown_ad`, or `bad_value` for an `ingestTime` outside history.
pub fn admit(submission: Submission, source: Source, context: &Context<'_>) -> Result<Event, Rejection> {
    let admission = judge(&submission, source, context)?;
    Ok(submission.admit(admission))
}

/// What makes `submission` an event, or why it is none; the errors of [`admit`].
pub(crate) fn judge(submission: &Submission, source: Source, context: &Context<'_>) -> Result<Admission, Rejection> {
    let ingest_time = match (source, submission.ingest_time) {
        (Source::History, given) => given.unwrap_or(context.now),
        (_, None) => context.now,
        (_, Some(_)) => {
            return Err(Rejection::new(RejectReason::BadValue, "ingestTime is set by us: only an import may give it"));
        }
    };
    let forged = match (check(submission, source, context, ingest_time), source) {
        (Ok(()), _) | (Err(Fault::Missing), Source::History) => None,
        (Err(fault), Source::Api | Source::SignedLink) => {
            return Err(Rejection::new(RejectReason::Unauthorized, fault.to_string()));
        }
        (Err(Fault::Expired), Source::Link | Source::History) => Some(InvalidCode::Expired),
        (Err(_), Source::Link | Source::History) => Some(InvalidCode::BadSignature),
    };
    let (campaign_id, advertiser_id, runs) = owner(submission, source, context.directory)?;
    let inactive = (!runs).then_some(InvalidCode::InactiveAd);
    Ok(Admission {
        ingest_time,
        region: context.region.clone(),
        campaign_id,
        advertiser_id,
        invalid: forged.or(inactive),
        traceparent: None,
    })
}

fn check(submission: &Submission, source: Source, context: &Context<'_>, at: Timestamp) -> Result<(), Fault> {
    let auth = submission.auth.as_ref();
    let expires_at = auth.and_then(|a| a.expires_at);
    let canonical = |key_id: &str| match source {
        Source::Api | Source::History => EventClaims::of(submission).canonical(key_id),
        Source::SignedLink | Source::Link => {
            let impression = submission.details.impression_id.as_ref();
            let impression_id = impression.map(|i| i.as_str()).unwrap_or_default();
            LinkClaims { ad_id: submission.ad_id.as_str(), impression_id, expires_at }.canonical(key_id)
        }
    };
    context.keys.verify(
        auth.map(|a| a.signature.as_str()),
        auth.and_then(|a| a.key_id.as_deref()),
        canonical,
        expires_at,
        Validity { now: at, max_ahead: context.max_validity.as_micros() },
    )
}

/// The campaign and advertiser of a submission, and whether its ad runs.
fn owner(
    submission: &Submission,
    source: Source,
    directory: &Directory,
) -> Result<(CampaignId, Option<AdvertiserId>, bool), Rejection> {
    let ad = directory.lookup(&submission.ad_id);
    let named = submission.campaign_id.clone();
    let listed = ad.map(|ad| ad.campaign_id.clone());
    let campaign = if source == Source::History { named.or(listed) } else { listed.or(named) };
    let Some(campaign) = campaign else {
        let detail = format!("ad {} is not in the directory and no campaignId is given", submission.ad_id);
        return Err(Rejection::new(RejectReason::UnknownAd, detail));
    };
    let of_ad = ad.filter(|ad| *ad.campaign_id == campaign).map(|ad| ad.advertiser_id);
    let advertiser =
        of_ad.or_else(|| directory.advertiser_of(&campaign)).or(submission.advertiser_id.as_ref()).cloned();
    let runs = source == Source::History || ad.is_none_or(|ad| ad.status == AdStatus::Active);
    Ok((campaign, advertiser, runs))
}
