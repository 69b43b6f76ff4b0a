//! `privacy erase`: a person out of the lake, with a record and a figure for what is left where.
//! Never: prints or logs the person's id; the record has a keyed hash of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use ::lake::billed_sums::BilledSum;
use ::lake::erase::{self, Request};
use ::lake::erasures::{Erasure, Erasures, Policy};
use ::lake::subject::Subject;
use ::reconcile::ledger::{Adjustment, Imported, Reason, sha256};
use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use shared::event_log::LogError;
use shared::id::{AdId, CampaignId, RefId};
use shared::money::{Currency, micros_half_even};
use shared::private_file;

use crate::cli::{ErasePolicy, Output, Privacy};
use crate::exit::Usage;
use crate::output::{Report, last_line};
use crate::settlement_keys;
use crate::wiring::Parts;

/// The longest id read from standard input, bytes.
const MAX_SUBJECT: u64 = 1_024;

pub(super) async fn run(parts: &Parts, command: Privacy, output: Output) -> super::Done {
    match command {
        Privacy::Erase { subject, policy, dry_run } => erase(parts, &subject, policy, dry_run).await,
        Privacy::List => list(parts, output).await,
    }
}

async fn erase(parts: &Parts, subject: &str, policy: ErasePolicy, dry_run: bool) -> super::Done {
    let id = given(subject)?;
    let key = key(&parts.folder().erasure_key())?;
    let surrogate = format!("erased-{}", keyed(&key, "surrogate", id.as_str()));
    let person = Subject::new(id.as_str(), &surrogate, parts.settings().counting.clone())?;
    let retention = &parts.settings().retention;
    let forgets_after = retention.max_age.as_micros().saturating_add(retention.check_interval.as_micros());
    let request = Request {
        subject_hash: keyed(&key, "subject", id.as_str()),
        policy: match policy {
            ErasePolicy::Keep => Policy::Keep,
            ErasePolicy::Adjust => Policy::Adjust,
        },
        log_forgets_at: parts.clock().now().plus(forgets_after),
        dry_run,
    };
    if !dry_run {
        // What was acknowledged before the request is archived first, so that it is found.
        match parts.log_reader().await {
            Ok(logs) => drop(parts.archiver(logs)?.drain().await.context("archiving what the log still holds")?),
            Err(LogError::Unavailable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let done = erase::erase(&parts.lake_root()?, &person, &parts.pinned_versions().await?, &request).await?;
    let taken_back = take_back(parts, if dry_run { done.clone() } else { recorded(parts).await? }, dry_run).await?;
    eprintln!("the event log holds events as they came until {} and then forgets them", request.log_forgets_at);
    last_line(&json!({
        "dryRun": dry_run,
        "subjectHash": request.subject_hash,
        "policy": request.policy,
        "adjustments": taken_back.added,
        "erasures": if dry_run { Vec::new() } else { done.iter().map(|e| e.number).collect() },
        "tables": tables(&done),
        "logForgetsAt": request.log_forgets_at.to_string(),
    }))?;
    Ok(0)
}

/// The person's pseudonym: the flag's, or standard input's for `-`, so that no shell remembers it.
fn given(subject: &str) -> anyhow::Result<RefId> {
    let mut text = subject.to_owned();
    if subject == "-" {
        text.clear();
        std::io::stdin().take(MAX_SUBJECT).read_to_string(&mut text)?;
    }
    // The message of a bad id may not repeat it.
    RefId::new(text.trim()).map_err(|_| Usage("--subject: a userPseudoId is 1 to 64 of A-Z a-z 0-9 _ -".into()).into())
}

async fn recorded(parts: &Parts) -> anyhow::Result<Vec<Erasure>> {
    Ok(Erasures::load(&parts.lake_root()?).await?.records().to_vec())
}

/// Posts what erasures recorded as billed, with the sign turned: every record's, so that one whose process was killed
/// before this is made good. Ids follow from the records, so nothing counts twice.
async fn take_back(parts: &Parts, erasures: Vec<Erasure>, dry_run: bool) -> anyhow::Result<Imported> {
    let mut rows = Vec::new();
    for erasure in &erasures {
        let source = sha256(&serde_json::to_vec(&erasure.billed)?);
        for (n, sum) in (1..).zip(&erasure.billed) {
            rows.push((n, adjustment(erasure.number, n, sum)?, source.clone()));
        }
    }
    if rows.is_empty() {
        return Ok(Imported { added: 0, repeated: 0, days: BTreeSet::new() });
    }
    super::adjust::post(parts, rows, dry_run).await
}

fn adjustment(erasure: u64, n: u64, sum: &BilledSum) -> anyhow::Result<Adjustment> {
    let unreadable = || format!("erasure {erasure} has a sum that is not one: {sum:?}");
    Ok(Adjustment {
        id: RefId::new(format!("erasure-{erasure:06}-{n:06}")).with_context(unreadable)?,
        day: sum.day,
        campaign_id: CampaignId::new(&sum.campaign_id).with_context(unreadable)?,
        ad_id: Some(AdId::new(&sum.ad_id).with_context(unreadable)?),
        currency: Currency::parse(&sum.currency).with_context(unreadable)?,
        events: sum.events.map(i64::wrapping_neg), // counts, far from the smallest number
        amount_micros: micros_half_even(sum.cost_nanos.wrapping_neg())?,
        reason: Reason::PrivacyErasure,
        note: format!("erasure {erasure}"),
        actor: "privacy erase".to_owned(),
        corrects: None,
    })
}

/// Rows and files of all erasures together, by table.
fn tables(erasures: &[Erasure]) -> BTreeMap<&str, Value> {
    let mut sums: BTreeMap<&str, (u64, usize, usize, Option<u64>)> = BTreeMap::new();
    for (name, table) in erasures.iter().flat_map(|e| &e.tables) {
        let sum = sums.entry(name).or_default();
        *sum = (sum.0 + table.rows, sum.1 + table.twins.len(), sum.2 + table.dropped.len(), table.version.max(sum.3));
    }
    let shown = |(name, (rows, files, removed, version))| {
        (name, json!({ "rows": rows, "filesRewritten": files, "filesRemoved": removed, "version": version }))
    };
    sums.into_iter().map(shown).collect()
}

async fn list(parts: &Parts, output: Output) -> super::Done {
    let mut report = Report::new(&["number", "state", "subjectHash", "policy", "at", "rows", "files", "logForgetsAt"]);
    for record in recorded(parts).await? {
        report.row([
            json!(record.number),
            json!(record.state),
            json!(record.subject),
            json!(record.policy.as_str()),
            json!(record.at.to_string()),
            json!(record.tables.values().map(|t| t.rows).sum::<u64>()),
            json!(record.tables.values().map(|t| t.twins.len() + t.dropped.len()).sum::<usize>()),
            json!(record.log_forgets_at.to_string()),
        ]);
    }
    report.print(output)?;
    Ok(0)
}

/// The key that hides who was erased; made when first needed. Without it nobody can tell any more.
fn key(path: &Path) -> anyhow::Result<Vec<u8>> {
    let _lock = private_file::lock(path)?;
    if let Some(text) = private_file::read(path)? {
        let stored: Value = serde_json::from_slice(&text).context("the erasure key does not read")?;
        let secret = stored.get("secret").and_then(Value::as_str).unwrap_or_default();
        return URL_SAFE_NO_PAD.decode(secret).context("the erasure key does not read");
    }
    let secret: [u8; 32] = settlement_keys::random()?;
    private_file::replace(path, &json!({ "secret": URL_SAFE_NO_PAD.encode(secret) }))?;
    Ok(secret.to_vec())
}

fn keyed(key: &[u8], purpose: &str, id: &str) -> String {
    // `new` takes a key of block size (64 bytes), which is what HMAC pads a shorter key to.
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = Hmac::<Sha256>::new(&block);
    mac.update(format!("{purpose}|{id}").as_bytes());
    mac.finalize().into_bytes().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
