//! `keys` and `sign`.

use gateway::keys::SigningKeys;
use gateway::signature::LinkClaims;
use serde_json::json;
use serving::{ApiKeyFile, KEY_RANDOM_BYTES, Scope, Tenant};
use shared::id::{AdId, ImpressionId, RefId};
use shared::private_file;

use crate::cli::{KeySort, Keys, Output, Sign, expiry};
use crate::exit::Usage;
use crate::output::{Report, last_line};
use crate::settlement_keys::{self, random};
use crate::wiring::Parts;

pub(super) async fn run(parts: &Parts, command: Keys, output: Output) -> super::Done {
    match command {
        Keys::Create { sort: KeySort::Api, tenant, scopes } => create_api(parts, tenant.as_deref(), &scopes)?,
        Keys::Create { sort: KeySort::Signing, .. } => {
            let id = create_signing(parts)?;
            last_line(&json!({ "keyId": id }))?;
        }
        Keys::Create { sort: KeySort::Settlement, .. } => {
            let key = settlement_keys::create(parts).await?;
            last_line(&json!(key))?;
        }
        Keys::Rotate { sort: KeySort::Api } => {
            return Err(Usage("make a new API key, let its user change over, then revoke the old one".into()).into());
        }
        Keys::Rotate { sort: KeySort::Settlement } => {
            let key = settlement_keys::rotate(parts).await?;
            last_line(&json!(key))?;
        }
        Keys::Rotate { sort: KeySort::Signing } => {
            let id = edit_signing(parts, |keys, id, secret| keys.rotate(id, secret, parts.clock().now()))?;
            last_line(&json!({ "keyId": id }))?;
        }
        Keys::Revoke { sort: KeySort::Api, id } => {
            let was_active = ApiKeyFile::new(parts.folder().api_keys()).edit(|keys| keys.revoke(&id))?;
            last_line(&json!({ "keyId": id, "wasActive": was_active }))?;
        }
        Keys::Revoke { sort: KeySort::Settlement, id } => {
            let was_active = settlement_keys::revoke(parts, &id).await?;
            last_line(&json!({ "keyId": id, "wasActive": was_active }))?;
        }
        Keys::Revoke { sort: KeySort::Signing, id } => {
            let revoked = RefId::new(&id).map_err(|e| Usage(e.to_string()))?;
            edit_signing(parts, |keys, _, _| keys.revoke(&revoked))?;
            last_line(&json!({ "keyId": id }))?;
        }
        Keys::List => list(parts, output)?,
    }
    Ok(0)
}

fn create_api(parts: &Parts, tenant: Option<&str>, scopes: &[String]) -> anyhow::Result<()> {
    let tenant: Tenant = tenant.unwrap_or("*").parse().map_err(Usage)?;
    let scopes = scopes.iter().map(|s| s.parse::<Scope>()).collect::<Result<_, _>>().map_err(Usage)?;
    let random = random::<KEY_RANDOM_BYTES>()?;
    let now = parts.clock().now();
    let key = ApiKeyFile::new(parts.folder().api_keys()).edit(|keys| Ok(keys.create(random, tenant, scopes, now)))?;
    eprintln!("this is the only time the key is shown");
    Ok(last_line(&json!({ "keyId": key.id, "key": key.text }))?)
}

/// Makes the next signing key and answers its id.
pub(super) fn create_signing(parts: &Parts) -> anyhow::Result<RefId> {
    edit_signing(parts, |keys, id, secret| keys.create(id, secret, parts.clock().now()))
}

/// Changes the signing keys; the new key, if any, gets the id `k<N>`.
fn edit_signing(
    parts: &Parts,
    change: impl FnOnce(&mut SigningKeys, RefId, [u8; 32]) -> Result<(), gateway::keys::KeyError>,
) -> anyhow::Result<RefId> {
    let path = parts.folder().signing_keys();
    let _lock = private_file::lock(&path)?;
    let mut keys = SigningKeys::load(&path)?;
    let id = RefId::new(format!("k{}", keys.keys().len() + 1)).map_err(|e| Usage(e.to_string()))?;
    change(&mut keys, id.clone(), random()?)?;
    keys.save(&path)?;
    Ok(id)
}

fn list(parts: &Parts, output: Output) -> anyhow::Result<()> {
    let mut report = Report::new(&["sort", "keyId", "status", "createdAt", "tenant", "scopes", "publicKey"]);
    let settlement = settlement_keys::list(parts)?.keys;
    let newest = settlement.iter().rposition(|k| k.revoked_from_sequence.is_none());
    for (i, key) in settlement.iter().enumerate() {
        let status = match key.revoked_from_sequence {
            Some(_) => "revoked",
            None if newest == Some(i) => "active",
            None => "retired",
        };
        report.row([
            json!("settlement"),
            json!(key.key_id),
            json!(status),
            json!(key.created_at),
            json!(null),
            json!(null),
            json!(key.public_key),
        ]);
    }
    for key in SigningKeys::load(&parts.folder().signing_keys())?.keys() {
        report.row([
            json!("signing"),
            json!(key.id.as_str()),
            json!(key.status),
            json!(key.created_at.to_string()),
            json!(null),
            json!(null),
            json!(null),
        ]);
    }
    for key in ApiKeyFile::new(parts.folder().api_keys()).load()?.list() {
        let scopes: Vec<_> = key.scopes.iter().map(|s| s.as_str()).collect();
        report.row([
            json!("api"),
            json!(key.id),
            json!(key.status),
            json!(key.created_at.to_string()),
            json!(key.tenant.to_string()),
            json!(scopes.join(",")),
            json!(null),
        ]);
    }
    Ok(report.print(output)?)
}

pub(super) fn sign(parts: &Parts, args: &Sign, output: Output) -> super::Done {
    let ad = AdId::new(&args.ad).map_err(|e| Usage(format!("--ad: {e}")))?;
    let impression = ImpressionId::new(&args.impression).map_err(|e| Usage(format!("--impression: {e}")))?;
    let longest = parts.settings().gateway.dedup.window;
    if args.valid > longest {
        return Err(Usage(format!("--valid {}: the gateway takes links for at most {longest}", args.valid)).into());
    }
    let expires_at = expiry(parts.clock().now(), args.valid).floor(shared::time::SECOND);
    let claims = LinkClaims { ad_id: ad.as_str(), impression_id: impression.as_str(), expires_at: Some(expires_at) };
    let keys = SigningKeys::load(&parts.folder().signing_keys())?;
    let url =
        if args.pixel { keys.sign_pixel_url(&args.base, &claims) } else { keys.sign_click_url(&args.base, &claims) };
    let url = url.ok_or_else(|| Usage("there is no signing key: clickledger keys create signing".into()))?;
    match output {
        Output::Json => last_line(&json!({ "url": url, "expiresAt": expires_at.to_string() }))?,
        Output::Table | Output::Csv => println!("{url}"),
    }
    Ok(0)
}
