//! `GET /v1/stream`: the live picture as server-sent events.
//! Guarantees: the first event comes at once; a picture is sent only when it changed; the stream ends when the key is
//! revoked or the server stops; at most `max_streams` are open. Never: queues for a slow reader (the next picture is
//! made when the last one was taken).

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Deserialize;
use shared::http::problem::Problem;
use shared::id::CampaignId;
use shared::time::sleep;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use crate::access::Caller;
use crate::api_keys::Scope;
use crate::context::Context;
use crate::live::{self, Live};
use crate::params::{self, Params};

/// Milliseconds after which a browser connects again.
const RECONNECT_MS: u32 = 2_000;
/// Seconds after which a client may try again when all streams are taken.
const RETRY_SECONDS: u32 = 10;

/// What to draw.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamParams {
    /// One campaign instead of the busiest.
    campaign: Option<String>,
}

struct Feed {
    context: Arc<Context>,
    caller: Caller,
    campaign: Option<CampaignId>,
    sent: Option<String>,
    is_first: bool,
    _place: OwnedSemaphorePermit,
}

/// The live picture. `live` events carry it whenever it changed, `tick` events the server's time, `problem` events
/// what is wrong at the moment.
#[utoipa::path(
    get, path = "/v1/stream", tag = "reports", params(StreamParams),
    responses(
        (status = 200, description = "Server-sent events; `live` carries this", body = Live, content_type = "text/event-stream"),
        (status = 401, description = "No valid API key"),
        (status = 404, description = "No such campaign, or not yours"),
        (status = 503, description = "Too many streams are open"),
    ),
)]
pub(crate) async fn stream(
    State(context): State<Arc<Context>>,
    caller: Caller,
    Params(asked): Params<StreamParams>,
) -> Result<Response, Problem> {
    caller.needs(Scope::Reports)?;
    let campaign: Option<CampaignId> = asked.campaign.as_deref().map(params::id).transpose()?;
    if let Some(campaign) = &campaign {
        caller.sees_campaign(campaign, &context)?;
    }
    let place = Arc::clone(&context.streams).try_acquire_owned().map_err(|_| full())?;
    let state = Feed { context, caller, campaign, sent: None, is_first: true, _place: place };
    let events = stream::unfold(state, |mut state| async move {
        let text = state.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), state))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(events)).into_response())
}

fn full() -> Problem {
    let fix = "close other dashboards, or raise serving.max_streams";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", "all live streams are taken", fix)
        .retry_after(RETRY_SECONDS)
}

impl Feed {
    /// The next events; `None` ends the stream.
    async fn next(&mut self) -> Option<String> {
        let mut text = String::new();
        if self.is_first {
            self.is_first = false;
            text.push_str(&format!("retry: {RECONNECT_MS}\n\n"));
        } else {
            let shutdown = self.context.shutdown.clone();
            tokio::select! {
                () = sleep(self.context.settings.tile_ttl.0) => {}
                () = shutdown.requested() => return None,
            }
        }
        if self.context.shutdown.is_requested() || !self.caller.is_still_welcome(&self.context) {
            return None;
        }
        let (context, tenant) = (&self.context, &self.caller.tenant);
        let mine = self.caller.campaigns(context);
        let key = format!("live|{tenant}|{}", self.campaign.as_ref().map_or("", CampaignId::as_str));
        let make = live::make(context, tenant, mine, self.campaign.clone());
        match context.tiles.get(key, context.now(), make).await {
            Ok(tile) if self.sent.as_ref() == Some(&tile.etag) => {}
            Ok(tile) => {
                // JSON has no line feed outside of strings, and inside they are escaped.
                text.push_str(&event("live", &String::from_utf8_lossy(&tile.body)));
                self.sent = Some(tile.etag.clone());
            }
            Err(problem) => {
                text.push_str(&event("problem", &String::from_utf8_lossy(&problem.body(None))));
                self.sent = None;
            }
        }
        text.push_str(&event("tick", &format!("{{\"now\":\"{}\"}}", self.context.now())));
        Some(text)
    }
}

fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}
