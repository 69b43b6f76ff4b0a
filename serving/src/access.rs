//! Who is asking, and what they may see.
//! Guarantees: without a valid key nothing but health, docs and the sign-in page answers; another tenant's object
//! and one that does not exist get the same answer; without keys only this machine is served, by its own names.
//! Never: says why a key was refused.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, COOKIE, HOST, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use shared::http::problem::Problem;
use shared::id::{AdId, AdvertiserId, CampaignId};

use crate::api_keys::{ApiKey, Scope, Tenant};
use crate::context::Context;

/// The dashboard's cookie: the key's text, unreadable to scripts.
pub(crate) const COOKIE_NAME: &str = "clickledger_key";

/// Whoever sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Whose data they see.
    pub(crate) tenant: Tenant,
    /// The key they came with; none where none is required.
    key: Option<ApiKey>,
}

impl Caller {
    /// The caller of a request, if it carries a valid key or needs none.
    pub(crate) fn of(headers: &HeaderMap, context: &Context) -> Option<Self> {
        if !context.settings.require_keys {
            return is_local_name(headers).then_some(Self { tenant: Tenant::Operator, key: None });
        }
        let key = context.keys.verify(presented(headers)?)?;
        Some(Self { tenant: key.tenant.clone(), key: Some(key) })
    }

    /// Whether the key is still good: live streams ask again and again.
    pub(crate) fn is_still_welcome(&self, context: &Context) -> bool {
        self.key.as_ref().is_none_or(|k| context.keys.is_active(&k.id))
    }

    /// Refuses callers whose key lacks a scope.
    pub(crate) fn needs(&self, scope: Scope) -> Result<(), Problem> {
        if self.key.as_ref().is_none_or(|k| k.scopes.contains(&scope)) {
            return Ok(());
        }
        let detail = format!("this needs an API key with the scope {}", scope.as_str());
        Err(forbidden(detail, "ask your operator for a key with that scope"))
    }

    /// Refuses tenants: what is asked for holds everybody's data.
    pub(crate) fn needs_operator(&self) -> Result<(), Problem> {
        match self.tenant {
            Tenant::Operator => Ok(()),
            Tenant::Advertiser(_) => {
                Err(forbidden("this holds the data of all tenants", "use a key of the operator (tenant *)"))
            }
        }
    }

    /// Lets through who owns the campaign, and the operator.
    pub(crate) fn sees_campaign(&self, campaign: &CampaignId, context: &Context) -> Result<(), Problem> {
        self.owns(|| context.tenants.of_campaign(campaign))
    }

    /// Lets through who owns the ad, and the operator.
    pub(crate) fn sees_ad(&self, ad: &AdId, context: &Context) -> Result<(), Problem> {
        self.owns(|| context.tenants.of_ad(ad))
    }

    fn owns(&self, owner: impl FnOnce() -> Option<AdvertiserId>) -> Result<(), Problem> {
        match &self.tenant {
            Tenant::Operator => Ok(()),
            Tenant::Advertiser(me) if owner().as_ref() == Some(me) => Ok(()),
            Tenant::Advertiser(_) => Err(Problem::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "there is no such ad or campaign",
                "check the id; ids are case-sensitive",
            )),
        }
    }

    /// The campaigns this caller sees; `None` is all of them.
    pub(crate) fn campaigns(&self, context: &Context) -> Option<Vec<CampaignId>> {
        match &self.tenant {
            Tenant::Operator => None,
            Tenant::Advertiser(me) => Some(context.tenants.campaigns(me)),
        }
    }
}

fn forbidden(detail: impl Into<String>, fix: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", detail, fix)
}

/// The key in the `Authorization` header, else in the dashboard's cookie.
fn presented(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then_some(key.trim());
    }
    let cookies = headers.get_all(COOKIE).iter().filter_map(|v| v.to_str().ok());
    cookies.flat_map(|v| v.split(';')).find_map(|c| c.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='))
}

/// Whether the request names this machine: a foreign page that points its own name at 127.0.0.1 does not.
fn is_local_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|h| h.to_str().ok()) else { return false };
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The answer to whoever has no valid key.
pub(crate) fn unauthorized() -> Response {
    let problem = Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "no valid API key came with the request",
        "send `Authorization: Bearer cl_…`; the operator makes keys with `clickledger keys create api`",
    );
    let mut response = problem.into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"clickledger\""));
    response
}

impl FromRequestParts<Arc<Context>> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, context: &Arc<Context>) -> Result<Self, Response> {
        Self::of(&parts.headers, context).ok_or_else(unauthorized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_key_comes_in_the_header_or_in_the_cookie_and_the_header_wins() {
        assert_eq!(presented(&headers(&[(AUTHORIZATION, "Bearer cl_a_b")])), Some("cl_a_b"));
        assert_eq!(presented(&headers(&[(AUTHORIZATION, "bearer  cl_a_b ")])), Some("cl_a_b"));
        assert_eq!(presented(&headers(&[(COOKIE, "x=1; clickledger_key=cl_a_b; y=2")])), Some("cl_a_b"));
        assert_eq!(presented(&headers(&[(AUTHORIZATION, "Basic eA=="), (COOKIE, "clickledger_key=cl_a_b")])), None);
        assert_eq!(presented(&headers(&[(COOKIE, "not_clickledger_key=cl_a_b")])), None);
        assert_eq!(presented(&HeaderMap::new()), None);
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        for local in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "127.8.9.1", "[::1]:80"] {
            assert!(is_local_name(&headers(&[(HOST, local)])), "{local}");
        }
        for foreign in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8081", "192.168.1.7", ""] {
            assert!(!is_local_name(&headers(&[(HOST, foreign)])), "{foreign}");
        }
        assert!(!is_local_name(&HeaderMap::new()));
    }
}
