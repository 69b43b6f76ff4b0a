//! `demo`: the whole product in about a minute, on one folder, with no server.
//! Its clock runs beside the machine's, moved so that a UTC day ends while one watches: nothing else is
//! special about it, every rule and every layer is the real one.

use std::fs::File;
use std::io::BufWriter;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use gateway::keys::SigningKeys;
use gateway::signature::LinkClaims;
use serde_json::json;
use shared::config::Span;
use shared::shutdown::Shutdown;
use shared::time::{Clock, Day, MINUTE, SECOND, SystemClock};

use super::roles::{self, Role, Running};
use crate::cli::{Demo, Output};
use crate::client::Client;
use crate::output::{Report, last_line, progress};
use crate::settings::Settings;
use crate::simulate::{self, World};
use crate::traffic::{Sent, drive};
use crate::wiring::Parts;

/// The demo's day closes this long after its end.
const CLOSE_DELAY: Span = Span::secs(3);
/// How often the demo asks whether the day can be recomputed.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_millis(250);
/// Click links followed, and how many of them again.
const LINKS: u32 = 40;

pub(super) async fn run(parts: Parts, args: &Demo, output: Output) -> super::Done {
    let seconds = i64::try_from(args.seconds)?;
    let (parts, day) = prepare(&parts, seconds)?;
    let shutdown = Shutdown::new();
    roles::on_signal(shutdown.clone())?;
    let traffic = traffic_settings(args, day)?;
    furnish(&parts, &traffic)?;
    let running = roles::start(&parts, Role::ALL, &shutdown).await?;
    let told = tell(&parts, args, output, &running, traffic, day, &shutdown).await;
    if !args.exit && told.is_ok() {
        eprintln!(
            "\nStill serving; Ctrl-C ends it. The folder starts again with: clickledger up --data {}",
            parts.folder().root().display()
        );
        shutdown.requested().await;
    }
    shutdown.request();
    running.finish(&shutdown).await?;
    told.map(|()| 0)
}

/// The demo's parts: short intervals, and a clock on which a day ends in `seconds`.
fn prepare(parts: &Parts, seconds: i64) -> anyhow::Result<(Parts, Day)> {
    let now = SystemClock::default().now();
    let day = now.day();
    let offset = day.end().plus(-(seconds + 1) * SECOND).since(now);
    let mut settings: Settings = parts.settings().clone();
    if settings.data == Settings::default().data {
        settings.data = settings.data.join("demo");
    }
    settings.gateway.listen = free(settings.gateway.listen)?;
    settings.serving.listen = free(settings.serving.listen)?;
    settings.serving.require_keys = false;
    settings.gateway.rate_limit.per_second = 100_000;
    settings.gateway.rate_limit.burst = 100_000;
    settings.speed.flush_interval = Span::secs(1);
    settings.speed.checkpoint_interval = Span::secs(1);
    settings.speed.allowed_lateness = Span::secs(120);
    settings.lake.flush_age = Span::secs(2);
    settings.batch.close_delay = CLOSE_DELAY;
    settings.reconcile.tolerance_ppm = 1_000_000;
    Ok((Parts::with_clock(settings, Arc::new(SystemClock { offset })), day))
}

/// The address, or another port where something listens there already.
fn free(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let asked = std::net::TcpListener::bind(address);
    let listener = asked.or_else(|_| std::net::TcpListener::bind((address.ip(), 0)))?;
    Ok(listener.local_addr()?)
}

fn traffic_settings(args: &Demo, day: Day) -> anyhow::Result<simulate::Settings> {
    Ok(simulate::Settings {
        seed: args.seed,
        rate: u32::try_from(args.rate)?,
        start: day,
        ads: 200,
        campaigns: 12,
        advertisers: 4,
        users: 5_000,
        late: 0.04,
        ..simulate::Settings::default()
    })
}

/// Keys, ads and prices.
fn furnish(parts: &Parts, traffic: &simulate::Settings) -> anyhow::Result<()> {
    let folder = parts.folder();
    std::fs::create_dir_all(folder.root())?;
    if SigningKeys::load(&folder.signing_keys())?.keys().is_empty() {
        super::keys::create_signing(parts)?;
    }
    let world = World::new(traffic);
    let (ads, prices) = (folder.root().join("demo.ads.csv"), folder.root().join("demo.prices.csv"));
    world.write_ads(&mut BufWriter::new(File::create(&ads)?))?;
    world.write_prices(&mut BufWriter::new(File::create(&prices)?))?;
    std::fs::create_dir_all(folder.root().join("state"))?;
    let source = std::io::BufReader::new(File::open(&ads)?);
    shared::directory::import(&folder.ads(), source, shared::directory::Format::Csv, &mut |_| {})?;
    parts.price_store().import(&prices, &|_| true, false)?;
    Ok(())
}

/// The story, in order. Anything that is not as promised ends it with an error.
async fn tell(
    parts: &Parts,
    args: &Demo,
    output: Output,
    running: &Running,
    traffic: simulate::Settings,
    day: Day,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let gateway = running.gateway.context("the gateway has no address")?;
    let serving = running.serving.context("serving has no address")?;
    greet(parts, gateway, serving, day)?;
    let duration = Span::secs(args.seconds);
    let followed = follow_links(parts, gateway).await?;
    let bar = progress("sending signed traffic until the day ends", 0);
    let sent = drive(parts, traffic, &format!("http://{gateway}"), duration, shutdown).await?;
    bar.finish_and_clear();
    ensure!(!shutdown.is_requested(), "stopped before the day ended");
    say_sent(&sent, &followed, output)?;
    wait_until_ready(parts, day, shutdown).await?;

    eprintln!("\nBatch: every archived event of {day} gets one verdict, against the whole archive.");
    let request = ::batch::Request { day, dry_run: false, force: false };
    let batch = super::batch::one_day(&parts.batch_deps(None, None).await?, &parts.batch_settings(), request).await?;
    say_conservation(&batch.record, output)?;

    eprintln!("\nReconcile: what the dashboard showed, against what is exact.");
    let outcome = super::reconcile::one_day(parts, day, true).await?;
    let ::reconcile::Outcome::Settled(summary) = outcome else {
        anyhow::bail!("reconcile ended without a settlement: {outcome:?}");
    };
    say_drift(&summary, output)?;
    let settlement = summary.settlement.context("no settlement was published")?;
    let place = parts.published(&settlement.folder)?;
    let fetched = super::fetch::fetch(parts, &place, None).await?;
    let verified = ::reconcile::verify::verify(fetched.path())?;
    ensure!(verified.is_sound(), "the settlement does not verify: {:?}", verified.findings);
    eprintln!(
        "\nSettlement: {} lines in {}; every checksum, count, sum and the signature verify.",
        settlement.row_count,
        place.display()
    );
    eprintln!("  check it yourself: clickledger settlement verify {}", place.display());
    let settled = super::demo_money::Settled { day, version: settlement.version, folder: fetched.path() };
    let money = super::demo_money::tell(parts, &settled, output).await?;
    let verdicts = &super::batch::summary(&batch)["verdicts"];
    let line = json!({ "day": day, "batch": verdicts, "settlement": settlement, "verified": true, "money": money });
    Ok(last_line(&line)?)
}

fn greet(parts: &Parts, gateway: SocketAddr, serving: SocketAddr, day: Day) -> anyhow::Result<()> {
    let expires_at = parts.clock().now().plus(60 * MINUTE).floor(SECOND);
    let claims = LinkClaims { ad_id: "ad-1", impression_id: "demo-by-hand", expires_at: Some(expires_at) };
    let keys = SigningKeys::load(&parts.folder().signing_keys())?;
    let click = keys.sign_click_url(&format!("http://{gateway}"), &claims).context("there is no signing key")?;
    eprintln!("Dashboard   http://{serving}/");
    eprintln!("A click     curl -i '{click}'");
    eprintln!("A report    curl 'http://{serving}/v1/reports/top?by=clicks&n=5'");
    eprintln!("The demo's clock says {} — the UTC day {day} ends while you watch.\n", parts.clock().now());
    Ok(())
}

/// Follows signed, repeated and forged links, as browsers would.
async fn follow_links(parts: &Parts, gateway: SocketAddr) -> anyhow::Result<[u64; 3]> {
    let keys = SigningKeys::load(&parts.folder().signing_keys())?;
    let expires_at = Some(parts.clock().now().plus(60 * MINUTE).floor(SECOND));
    let mut client = Client::new(gateway);
    let mut followed = [0_u64; 3];
    for n in 0..LINKS {
        let (ad, impression) = (format!("ad-{}", n % 20), format!("demo-imp-{n}"));
        let claims = LinkClaims { ad_id: &ad, impression_id: &impression, expires_at };
        let url = keys.sign_click_url("", &claims).context("there is no signing key")?;
        let forged = url.replace("demo-imp", "stolen-imp");
        let links = [(0, Some(&url)), (1, (n % 4 == 0).then_some(&url)), (2, (n % 8 == 0).then_some(&forged))];
        for (sort, link) in links {
            if let Some(link) = link {
                let answer = client.send("GET", link, &[], Bytes::new()).await?;
                ensure!(answer.status == 302 && answer.location.is_some(), "a click was answered {}", answer.status);
                followed[sort] += 1;
            }
        }
    }
    Ok(followed)
}

fn say_sent(sent: &Sent, followed: &[u64; 3], output: Output) -> anyhow::Result<()> {
    let mut report = Report::new(&["sent", "items"]);
    for (label, n) in &sent.items {
        report.row([json!(label.as_str()), json!(n)]);
    }
    for (label, n) in ["click link", "click link, again", "click link, forged"].iter().zip(followed) {
        report.row([json!(label), json!(n)]);
    }
    report.print(output)?;
    let answers: Vec<_> = sent.answers.iter().map(|(status, n)| format!("{n} × {status}")).collect();
    eprintln!("answers: {}", answers.join(", "));
    Ok(())
}

async fn wait_until_ready(parts: &Parts, day: Day, shutdown: &Shutdown) -> anyhow::Result<()> {
    eprintln!("\nThe day {day} has ended; it closes {CLOSE_DELAY} later, once the lake holds everything.");
    let deps = parts.batch_deps(None, None).await?;
    loop {
        match ::batch::ready(&deps, &parts.batch_settings(), day, false).await {
            Ok(()) => return Ok(()),
            Err(e) if e.exit_code() != 10 => return Err(e.into()),
            Err(_) if shutdown.is_requested() => anyhow::bail!("stopped before the day closed"),
            Err(_) => shared::time::sleep(ASK_AGAIN).await,
        }
    }
}

/// The conservation table: nothing appears, nothing vanishes.
fn say_conservation(record: &lake::run_record::RunRecord, output: Output) -> anyhow::Result<()> {
    let mut report = Report::new(&["conservation", "events"]);
    let archived: u64 = record.hours.iter().map(|h| h.archived).sum();
    let judged: u64 = record.verdicts.values().sum();
    report.row([json!("archived"), json!(archived)]);
    for (verdict, n) in record.verdicts.iter().filter(|(_, n)| **n > 0) {
        report.row([json!(format!("  {verdict}")), json!(n)]);
    }
    report.row([json!("sum of verdicts"), json!(judged)]);
    for (reason, n) in &record.quarantined {
        report.row([json!(format!("refused: {reason}")), json!(n)]);
    }
    report.print(output)?;
    ensure!(archived == judged, "archived {archived} is not the sum of verdicts {judged}");
    eprintln!("balanced: every log position is an event or a kept refusal, every event has one verdict");
    Ok(())
}

fn say_drift(summary: &::reconcile::worker::Summary, output: Output) -> anyhow::Result<()> {
    let mut report = Report::new(&["drift", "currency", "impressions", "clicks", "conversions", "costNanos"]);
    let mut total = [0_u128; 2];
    let after = summary.after.clone().context("nothing was overwritten")?;
    for (which, (label, measures)) in [("before", &summary.before), ("after", &after)].into_iter().enumerate() {
        for (currency, m) in measures {
            let d = &m.distance;
            let amounts = [&d.impressions, &d.clicks, &d.conversions, &d.cost_nanos].map(|x| x.absolute);
            total[which] += amounts.iter().sum::<u128>();
            let row = [json!(label), json!(currency)].into_iter().chain(amounts.map(|a| json!(a.to_string())));
            report.row(row);
        }
    }
    report.print(output)?;
    ensure!(total[0] > 0, "the demo's speed layer was exact by chance: there was no drift to correct");
    ensure!(total[1] == 0, "drift is left after reconcile");
    eprintln!("drift before: not zero (late events and duplicates beyond memory); after: zero, to the nano");
    Ok(())
}
