//! `doctor`: checks this machine and folder, and says what to change.

mod object_stores;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod shared_parts;

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use gateway::keys::{KeyStatus, SigningKeys};
use serde_json::json;
use shared::event_log::LogError;

use crate::cli::Output;
use crate::output::{Report, last_line};
use crate::wiring::Parts;

/// A sync slower than this makes every answer slow.
const SLOW_SYNC: Duration = Duration::from_millis(20);
/// Syncs measured.
const SYNCS: u32 = 20;

/// What a check found.
pub(super) enum Found {
    Good(String),
    /// It works, but somebody should look.
    Look(String),
    Bad(String),
}

pub(super) async fn run(parts: &Parts, output: Output) -> super::Done {
    let mut checks: Vec<(&str, Found)> = vec![
        ("data folder", folder(parts)),
        ("disk sync", sync(parts)),
        ("event log", log(parts).await),
        ("lake", lake(parts).await),
        ("serving store", store(parts).await),
        ("price book", prices(parts)),
        ("ad directory", ads(parts)),
        ("signing keys", keys(parts)),
        ("gateway port", port(parts.settings().gateway.listen)),
        ("serving port", port(parts.settings().serving.listen)),
        ("open files", open_files()),
    ];
    checks.extend(object_stores::checks(parts).await);
    #[cfg(feature = "kafka")]
    if parts.has_broker() {
        checks.push(("Kafka topics", topics(parts).await));
    }
    #[cfg(feature = "redis")]
    checks.extend(shared_parts::redis(parts).await.map(|found| ("Redis", found)));
    #[cfg(feature = "postgres")]
    checks.extend(shared_parts::postgres(parts).await.map(|found| ("PostgreSQL", found)));
    let mut report = Report::new(&["check", "state", "finding"]);
    let mut bad = 0;
    for (check, found) in &checks {
        let (state, finding) = match found {
            Found::Good(f) => ("ok", f),
            Found::Look(f) => ("look", f),
            Found::Bad(f) => {
                bad += 1;
                ("BAD", f)
            }
        };
        report.row([json!(check), json!(state), json!(finding)]);
    }
    report.print(output)?;
    last_line(&json!({ "bad": bad }))?;
    Ok(if bad == 0 { 0 } else { 75 })
}

fn said(result: anyhow::Result<String>) -> Found {
    match result {
        Ok(finding) => Found::Good(finding),
        Err(e) => Found::Bad(format!("{e:#}")),
    }
}

fn folder(parts: &Parts) -> Found {
    let root = parts.folder().root();
    said(std::fs::create_dir_all(root).map(|()| root.display().to_string()).map_err(Into::into))
}

/// The median time of a small write and fdatasync, which every acknowledged event waits for.
fn sync(parts: &Parts) -> Found {
    let path = parts.folder().root().join(".doctor");
    let measured = (|| -> std::io::Result<Duration> {
        let mut file = File::create(&path)?;
        let mut times = Vec::new();
        for _ in 0..SYNCS {
            let watch = shared::time::stopwatch();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            times.push(watch.elapsed());
        }
        std::fs::remove_file(&path)?;
        times.sort();
        Ok(times[times.len() / 2])
    })();
    match measured {
        Ok(time) if time > SLOW_SYNC => {
            Found::Look(format!("{time:.1?} a sync: every answer waits this long; use a faster disk"))
        }
        Ok(time) => Found::Good(format!("{time:.1?} a sync")),
        Err(e) => Found::Bad(format!("cannot write: {e}")),
    }
}

async fn log(parts: &Parts) -> Found {
    match parts.log_reader().await {
        Ok(logs) => match logs.events.bounds().await {
            Ok(bounds) => Found::Good(format!(
                "{} partitions, {} records ever",
                logs.events.partitions(),
                bounds.end.0.values().sum::<u64>()
            )),
            Err(e) => Found::Bad(e.to_string()),
        },
        Err(LogError::Unavailable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Found::Look("none yet: start the gateway, or import".to_owned())
        }
        Err(e) => Found::Bad(e.to_string()),
    }
}

#[cfg(feature = "kafka")]
async fn topics(parts: &Parts) -> Found {
    let mut said = Vec::new();
    for topic in super::kafka::topics(parts.settings()) {
        match shared::event_log::kafka::shortcomings(&parts.settings().kafka, &topic).await {
            Ok(some) => said.extend(some),
            Err(error) => return Found::Bad(error.to_string()),
        }
    }
    if said.is_empty() { Found::Good("as they must be".to_owned()) } else { Found::Bad(said.join("; ")) }
}

async fn lake(parts: &Parts) -> Found {
    let open = async {
        let table = ::lake::Table::open(&parts.lake_root()?, &::lake::tables::BRONZE_EVENTS).await?;
        anyhow::Ok(format!("bronze/events at version {}", table.version()))
    };
    said(open.await)
}

async fn store(parts: &Parts) -> Found {
    match parts.examine_serving_store().await {
        Ok((finding, said)) if said.is_empty() => Found::Good(finding),
        Ok((finding, said)) => Found::Look(format!("{finding}: {}", said.join("; "))),
        Err(e) => Found::Bad(format!("{e:#}")),
    }
}

fn prices(parts: &Parts) -> Found {
    match parts.price_store().newest() {
        Ok(book) if book.version == 0 => {
            Found::Look("none: every campaign is free; clickledger prices import".to_owned())
        }
        Ok(book) => Found::Good(format!("version {}, {} campaigns", book.version, book.prices.len())),
        Err(e) => Found::Bad(e.to_string()),
    }
}

fn ads(parts: &Parts) -> Found {
    match shared::directory::Directory::load(&parts.folder().ads()) {
        Ok(directory) if directory.is_empty() => {
            Found::Look("none: /click answers 404; clickledger ads import".to_owned())
        }
        Ok(directory) => Found::Good(format!("{} ads", directory.len())),
        Err(e) => Found::Bad(e.to_string()),
    }
}

fn keys(parts: &Parts) -> Found {
    match SigningKeys::load(&parts.folder().signing_keys()) {
        Ok(keys) => match keys.keys().iter().filter(|k| k.status == KeyStatus::Active).count() {
            0 => Found::Look("none: no event can be signed; clickledger keys create signing".to_owned()),
            n => Found::Good(format!("{n} active")),
        },
        Err(e) => Found::Bad(e.to_string()),
    }
}

fn port(address: std::net::SocketAddr) -> Found {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Found::Good(format!("{address} is free")),
        Err(e) => Found::Look(format!("{address}: {e} (fine while the role runs)")),
    }
}

/// The limit on open files, which caps connections.
fn open_files() -> Found {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap_or_default();
    match line.split_whitespace().nth(3).and_then(|n| n.parse::<u64>().ok()) {
        Some(n) if n < 16_384 => Found::Look(format!("{n}: raise it (ulimit -n 65536), each connection takes one")),
        Some(n) => Found::Good(n.to_string()),
        None => Found::Look("unknown on this system".to_owned()),
    }
}
