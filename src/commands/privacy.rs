//! `privacy erase`: a person out of the lake, with a record and a figure for what is left where.
//! Never: prints or logs the person's id; the record has a keyed hash of it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use ::lake::erase::{self, Request};
use ::lake::erasures::Erasure;
use ::lake::subject::Subject;
use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use shared::id::RefId;

use crate::cli::{ErasePolicy, Output, Privacy};
use crate::exit::Usage;
use crate::output::{Report, last_line};
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
        policy: policy.as_str().to_owned(),
        log_forgets_at: parts.clock().now().plus(forgets_after),
        dry_run,
    };
    if !dry_run && let Ok(logs) = parts.log_reader() {
        // What was acknowledged before the request is archived first, so that it is found.
        parts.archiver(logs)?.drain().await.context("archiving what the log still holds")?;
    }
    let done = erase::erase(&parts.lake_root()?, &person, &parts.pinned_versions().await?, &request).await?;
    eprintln!("the event log holds events as they came until {} and then forgets them", request.log_forgets_at);
    last_line(&json!({
        "dryRun": dry_run,
        "subjectHash": request.subject_hash,
        "policy": request.policy,
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
    for record in ::lake::erasures::Erasures::load(&parts.lake_root()?).await?.records() {
        report.row([
            json!(record.number),
            json!(record.state),
            json!(record.subject),
            json!(record.policy),
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
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let stored: Value = serde_json::from_str(&text).context("the erasure key does not read")?;
            let secret = stored.get("secret").and_then(Value::as_str).unwrap_or_default();
            URL_SAFE_NO_PAD.decode(secret).context("the erasure key does not read")
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut secret = [0; 32];
            getrandom::fill(&mut secret).map_err(|e| anyhow::anyhow!("the system gives no random bytes: {e}"))?;
            gateway::keys::replace_private(path, &json!({ "secret": URL_SAFE_NO_PAD.encode(secret) }))?;
            Ok(secret.to_vec())
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn keyed(key: &[u8], purpose: &str, id: &str) -> String {
    // `new` takes a key of block size (64 bytes), which is what HMAC pads a shorter key to.
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = Hmac::<Sha256>::new(&block);
    mac.update(format!("{purpose}|{id}").as_bytes());
    mac.finalize().into_bytes().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
