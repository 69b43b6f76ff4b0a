//! ClickHouse as the serving store, on a real server: the port's laws and any history, half-done things that nobody may
//! see, kills of the server, users with few rights.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use proptest::test_runner::{Config, TestRunner};
use serving::clickhouse::{ClickHouseStore, Layout, Settings, lay_out};
use shared::config::Span;
use shared::error::ErrorKind;
use shared::id::AdId;
use shared::rollup::{RollupRow, RowVersion};
use shared::serving_store::{Correction, ServingStore, Upserted};
use shared::testing::conformance::serving_store as laws;
use shared::testing::parts::Part;
use shared::time::{HOUR, Timestamp};

fn part(folder: &std::path::Path) -> Part {
    Part::given_or_start("clickhouse", "CLICKHOUSE_URL", folder)
}

/// A store of its own on the server.
async fn fresh(part: &Part) -> (Settings, ClickHouseStore) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::SeqCst);
    let database = format!("test_{}_{n}", std::process::id());
    let settings = Settings { url: part.address.clone(), database, ..Settings::default() };
    let store = ClickHouseStore::open(&settings).await.unwrap();
    (settings, store)
}

fn client(settings: &Settings) -> clickhouse::Client {
    clickhouse::Client::default().with_url(&settings.url).with_database(&settings.database)
}

async fn by_hand(settings: &Settings, sql: &str) {
    client(settings).query_raw(sql).execute().await.unwrap();
}

fn minutes(n: i64, clicks: u64) -> Vec<RollupRow> {
    (0..n).map(|m| laws::ad_minute(&format!("ad-{m}"), m % 60, clicks, i128::from(clicks))).collect()
}

fn set(rows: Vec<RollupRow>) -> Correction {
    Correction { set: rows, remove: Vec::new() }
}

/// The clicks of every row shown for the hour: the same everywhere, if the hour is of one piece.
async fn clicks(store: &dyn ServingStore) -> Vec<u64> {
    store.read_hour(laws::hour()).await.unwrap().iter().map(|r| r.counts.clicks).collect()
}

/// One server for everything that does not kill it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clickhouse_is_a_serving_store() {
    let folder = tempfile::tempdir().unwrap();
    let part = part(folder.path());
    laws::all(async || Arc::new(fresh(&part).await.1) as Arc<dyn ServingStore>).await;
    what_arrives_late_in_an_owned_hour_is_never_shown(&part).await;
    rows_of_a_take_without_its_mark_are_never_shown(&part).await;
    a_reader_sees_an_hour_before_or_after_a_correction(&part).await;
    generations_taken_at_once_differ(&part).await;
    words_of_any_characters_are_kept(&part).await;
    a_schema_that_is_newer_is_not_touched(&part).await;
    rows_from_before_an_order_are_found_in_it(&part).await;
    what_is_forgotten_is_in_neither_order(&part).await;
    too_many_parts_push_back_and_the_flush_is_taken_later(&part).await;
    old_days_move_to_the_cold_volume(&part).await;
    tables_over_a_cluster_behave_as_those_of_one_node(&part).await;
    a_server_that_is_away_is_unavailable(&part).await;
}

async fn what_arrives_late_in_an_owned_hour_is_never_shown(part: &Part) {
    let (settings, store) = fresh(part).await;
    store.upsert_approximate(laws::flush(0, 1, minutes(3, 1))).await.unwrap();
    store.overwrite_exact(laws::hour(), set(minutes(3, 5)), RowVersion::reconciled(1)).await.unwrap();
    // What a flush does that looked for owners just before the hour was taken.
    by_hand(
        &settings,
        "INSERT INTO rollup SELECT grain, hour, ad_id, campaign_id, window_start, country, device_type, currency, \
         0 AS writer, 0 AS take, 9 AS version, 9 AS impressions, 9 AS clicks, 9 AS conversions, 9 AS cost_nanos, '' \
         FROM rollup",
    )
    .await;
    assert_eq!(clicks(&store).await, [5, 5, 5]);
    let late = store.upsert_approximate(laws::flush(0, 9, minutes(3, 7))).await.unwrap();
    assert_eq!(late, Upserted { written: 0, superseded: 3 });
}

async fn rows_of_a_take_without_its_mark_are_never_shown(part: &Part) {
    let (settings, store) = fresh(part).await;
    store.upsert_approximate(laws::flush(0, 1, minutes(3, 1))).await.unwrap();
    // What a reconcile leaves that was killed between its rows and its mark.
    by_hand(
        &settings,
        "INSERT INTO rollup SELECT * REPLACE (-1 AS writer, 7 AS take, 7 AS clicks, bitShiftLeft(toUInt64(1), 62) AS version) FROM rollup",
    )
    .await;
    assert_eq!(clicks(&store).await, [1, 1, 1]);
    let mut correction = set(minutes(2, 5));
    correction.remove = vec![minutes(3, 0)[2].key.clone()];
    assert_eq!(store.overwrite_exact(laws::hour(), correction, RowVersion::reconciled(1)).await.unwrap(), 3);
    assert_eq!(clicks(&store).await, [5, 5], "the retry shows its own rows alone");
}

async fn a_reader_sees_an_hour_before_or_after_a_correction(part: &Part) {
    const ROWS: i64 = 300;
    let (settings, store) = fresh(part).await;
    store.upsert_approximate(laws::flush(0, 1, minutes(ROWS, 1))).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, done, client) = (store.clone(), done.clone(), client(&settings));
        async move {
            let mut reads = 0;
            while !done.load(Ordering::SeqCst) {
                let seen = clicks(&store).await;
                assert_eq!(seen.len(), usize::try_from(ROWS).unwrap());
                assert!(seen.iter().all(|n| *n == seen[0]), "{seen:?}");
                for view in ["shown", "shown_by_id"] {
                    let sql = format!("SELECT count() AS n, min(clicks), max(clicks) FROM {view}");
                    let (rows, least, most): (u64, u64, u64) = client.query(&sql).fetch_one().await.unwrap();
                    assert_eq!((rows, least), (u64::try_from(ROWS).unwrap(), most), "{view} read by hand");
                }
                reads += 1;
            }
            reads
        }
    });
    for run in 1..=15 {
        let correction = set(minutes(ROWS, run + 1));
        store.overwrite_exact(laws::hour(), correction, RowVersion::reconciled(run)).await.unwrap();
        store.upsert_approximate(laws::flush(0, run + 1, minutes(ROWS, 77))).await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    assert!(reader.await.unwrap() > 0);
}

async fn generations_taken_at_once_differ(part: &Part) {
    let (settings, _) = fresh(part).await;
    let take = async |settings: Settings| {
        let store = ClickHouseStore::open(&settings).await.unwrap();
        let mut taken = Vec::new();
        for _ in 0..5 {
            taken.push(store.next_generation(0).await.unwrap());
        }
        assert!(taken.is_sorted(), "{taken:?}");
        taken
    };
    let s = || settings.clone();
    let taken = tokio::join!(take(s()), take(s()), take(s()), take(s()));
    let all = [taken.0, taken.1, taken.2, taken.3].concat();
    let different: std::collections::BTreeSet<u32> = all.iter().copied().collect();
    assert_eq!(different.len(), 20, "{all:?}");
}

async fn words_of_any_characters_are_kept(part: &Part) {
    let (_, store) = fresh(part).await;
    let odd = "'quoted' \"twice\" \\ back\tslash\nline {brace:String} ? \u{0}ü€".to_owned();
    let mut flush = laws::flush(0, 1, vec![laws::ad_minute("a", 0, 1, 1)]);
    flush.status.outcomes.insert(odd.clone(), 7);
    store.upsert_approximate(flush).await.unwrap();
    assert_eq!(store.writers().await.unwrap()[&0].outcomes[&odd], 7);
}

async fn a_schema_that_is_newer_is_not_touched(part: &Part) {
    let (settings, _) = fresh(part).await;
    by_hand(&settings, "INSERT INTO schema_version (number) VALUES (999)").await;
    let error = ClickHouseStore::open(&settings).await.err().unwrap();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("newer version"), "{error}");
}

async fn rows_from_before_an_order_are_found_in_it(part: &Part) {
    let (settings, store) = fresh(part).await;
    store.upsert_approximate(laws::flush(0, 1, minutes(3, 4))).await.unwrap();
    // As the first schema was.
    for sql in [
        "DROP VIEW rollup_to_by_id",
        "DROP VIEW shown_by_id",
        "DROP VIEW rollup_by_id_final",
        "DROP TABLE rollup_by_id",
        "ALTER TABLE schema_version DELETE WHERE number > 1 SETTINGS mutations_sync = 1",
    ] {
        by_hand(&settings, sql).await;
    }
    let store = ClickHouseStore::open(&settings).await.unwrap();
    let shown = store.ad_series(&AdId::new("ad-1").unwrap(), laws::hour()..laws::hour().plus(HOUR)).await.unwrap();
    assert_eq!(shown.iter().map(|point| point.counts.clicks).collect::<Vec<_>>(), [4]);
}

async fn what_is_forgotten_is_in_neither_order(part: &Part) {
    let (settings, store) = fresh(part).await;
    store.upsert_approximate(laws::flush(0, 1, minutes(3, 4))).await.unwrap();
    let later = laws::hour().plus(HOUR);
    assert_eq!(store.forget(later, later, 2).await.unwrap(), 2);
    assert_eq!(store.forget(later, later, 2).await.unwrap(), 1);
    let sql = "SELECT (SELECT count() FROM rollup), (SELECT count() FROM rollup_by_id)";
    let left: (Option<u64>, Option<u64>) = client(&settings).query_raw(sql).fetch_one().await.unwrap();
    assert_eq!(left, (Some(0), Some(0)));
}

async fn too_many_parts_push_back_and_the_flush_is_taken_later(part: &Part) {
    let (settings, store) = fresh(part).await;
    store.upsert_approximate(laws::flush(0, 1, minutes(3, 1))).await.unwrap();
    by_hand(&settings, "ALTER TABLE rollup MODIFY SETTING parts_to_delay_insert = 1, parts_to_throw_insert = 1").await;
    let error = store.upsert_approximate(laws::flush(0, 2, minutes(3, 2))).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("flush less often"), "{error}");
    assert_eq!(clicks(&store).await, [1, 1, 1]);
    by_hand(&settings, "ALTER TABLE rollup RESET SETTING parts_to_delay_insert, parts_to_throw_insert").await;
    assert_eq!(store.upsert_approximate(laws::flush(0, 2, minutes(3, 2))).await.unwrap().written, 3);
    assert_eq!(clicks(&store).await, [2, 2, 2]);
}

/// A database of its own, laid out twice.
async fn laid_out(part: &Part, name: &str, layout: Layout) -> (Settings, ClickHouseStore) {
    let database = format!("{name}_{}", std::process::id());
    let settings = Settings { url: part.address.clone(), database, ..Settings::default() };
    for _ in 0..2 {
        lay_out(&settings, layout).await.unwrap();
    }
    let store = ClickHouseStore::open(&settings).await.unwrap();
    (settings, store)
}

async fn old_days_move_to_the_cold_volume(part: &Part) {
    let (settings, store) = laid_out(part, "cold", Layout { cold_after_days: Some(30), ..Layout::default() }).await;
    store.upsert_approximate(laws::flush(0, 1, minutes(3, 1))).await.unwrap();
    let sql = "SELECT arraySort(groupUniqArray((table, disk_name))) FROM system.parts WHERE active \
               AND table LIKE 'rollup%' AND database = currentDatabase()";
    let disks: Vec<(String, String)> = client(&settings).query_raw(sql).fetch_one().await.unwrap();
    let cold = |table: &str| (table.to_owned(), "cold".to_owned());
    assert_eq!(disks, [cold("rollup"), cold("rollup_by_id")], "the day is long ago");
    assert_eq!(clicks(&store).await, [1, 1, 1]);
}

async fn tables_over_a_cluster_behave_as_those_of_one_node(part: &Part) {
    let (settings, store) = laid_out(part, "cluster", Layout { cluster: true, cold_after_days: Some(30) }).await;
    store.upsert_approximate(laws::flush(store.next_generation(0).await.unwrap(), 1, minutes(3, 1))).await.unwrap();
    store.overwrite_exact(laws::hour(), set(minutes(2, 5)), RowVersion::reconciled(1)).await.unwrap();
    assert_eq!(clicks(&store).await, [5, 5, 1]);
    let late = store.upsert_approximate(laws::flush(1, 9, minutes(3, 7))).await.unwrap();
    assert_eq!(late, Upserted { written: 0, superseded: 3 });
    let sql = "SELECT (SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = 'rollup'), \
               (SELECT count() FROM rollup_local), (SELECT count() FROM rollup_by_id_local)";
    let (engine, rows, by_id): (Option<String>, Option<u64>, Option<u64>) =
        client(&settings).query_raw(sql).fetch_one().await.unwrap();
    assert_eq!((engine.as_deref(), rows, by_id), (Some("Distributed"), Some(6), Some(6)));
    let (single, _) = fresh(part).await;
    let mixed = lay_out(&single, Layout { cluster: true, ..Layout::default() }).await.unwrap_err();
    assert!(mixed.to_string().contains("tables of a single node"), "{mixed}");
}

async fn a_server_that_is_away_is_unavailable(part: &Part) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = Settings { url: format!("http://{free}"), ..Settings::default() };
    let error = ClickHouseStore::open(&settings).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let hangs = Settings { url, timeout: Span::secs(1), ..Settings::default() };
    let error = ClickHouseStore::open(&hangs).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "one that never answers: {error}");
    let stranger = Settings { url: part.address.clone(), user: "stranger".to_owned(), ..Settings::default() };
    let error = ClickHouseStore::open(&stranger).await.err().unwrap();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("stranger"), "{error}");
}

#[test]
fn any_history_looks_the_same_on_clickhouse_as_in_the_model() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let part = part(folder.path());
    let mut runner = TestRunner::new(Config { cases: 12, max_shrink_iters: 40, ..Config::default() });
    let outcome = runner.run(&laws::calls(), |calls| {
        runtime.block_on(async { laws::same(&fresh(&part).await.1, calls).await });
        Ok(())
    });
    outcome.unwrap();
}

/// Flushes under one version until they are acknowledged, while the server is killed; then an hour is taken likewise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_at_any_moment_keeps_every_acknowledged_flush_whole() {
    const ROWS: i64 = 200;
    let folder = tempfile::tempdir().unwrap();
    let mut part = Part::start("clickhouse", "CLICKHOUSE_URL", folder.path());
    let (settings, store) = fresh(&part).await;
    // A client of its own each time: one that was talking to the server when it died may have to say so once.
    let seen = async || clicks(&ClickHouseStore::open_existing(&settings).await.unwrap()).await;
    let (acknowledged, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = tokio::spawn({
        let (store, acknowledged, done) = (store.clone(), acknowledged.clone(), done.clone());
        async move {
            let mut refused = 0;
            for sequence in 1.. {
                while let Err(error) = store.upsert_approximate(laws::flush(0, sequence, minutes(ROWS, sequence))).await
                {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    refused += 1;
                    shared::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                acknowledged.store(sequence, Ordering::SeqCst);
                if done.load(Ordering::SeqCst) {
                    return (sequence, refused);
                }
            }
            unreachable!()
        }
    });
    for _ in 0..3 {
        let before = acknowledged.load(Ordering::SeqCst);
        while acknowledged.load(Ordering::SeqCst) < before + 3 {
            shared::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        part = tokio::task::spawn_blocking(move || {
            part.crash_and_restart();
            part
        })
        .await
        .unwrap();
        let least = acknowledged.load(Ordering::SeqCst);
        let seen = seen().await;
        assert_eq!(seen.len(), usize::try_from(ROWS).unwrap());
        assert!(seen[0] >= least && seen.iter().all(|n| *n == seen[0]), "at least {least}: {seen:?}");
    }
    done.store(true, Ordering::SeqCst);
    let (last, refused) = writer.await.unwrap();
    assert!(refused > 0, "no flush met a server that was away");
    assert_eq!(seen().await, vec![last; usize::try_from(ROWS).unwrap()]);
    part = tokio::task::spawn_blocking(move || {
        part.crash_and_restart();
        part
    })
    .await
    .unwrap();
    assert_eq!(seen().await, vec![last; usize::try_from(ROWS).unwrap()]);
    drop(part);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_needs_no_more_than_its_own_rights() {
    let folder = tempfile::tempdir().unwrap();
    let part = Part::start("clickhouse", "CLICKHOUSE_URL", &folder.path().join("server"));
    let admin = Settings { url: part.address.clone(), ..Settings::default() };
    drop(ClickHouseStore::open(&admin).await.unwrap());
    let open = async |role: &str| {
        let user = format!("clickledger_{role}");
        let password_file = folder.path().join(role);
        std::fs::write(&password_file, format!("{user}\n")).unwrap();
        ClickHouseStore::open(&Settings { user, password_file, ..admin.clone() }).await.unwrap()
    };
    let (writer, reconciler) = (open("writer").await, open("reconciler").await);
    let (serving, reader) = (open("serving").await, open("reader").await);
    let flush = || laws::flush(0, 1, minutes(3, 1));
    assert_eq!(writer.next_generation(0).await.unwrap(), 1);
    assert_eq!(writer.upsert_approximate(flush()).await.unwrap().written, 3);
    assert_eq!(clicks(&reader).await, [1, 1, 1]);
    let take = async |store: &ClickHouseStore, run| {
        store.overwrite_exact(laws::hour(), set(minutes(3, run)), RowVersion::reconciled(run)).await
    };
    assert_eq!(take(&reconciler, 2).await.unwrap(), 3);
    reconciler.mark_settled(laws::hour().day(), 1).await.unwrap();
    let old = laws::hour().plus(HOUR);
    assert_eq!(serving.forget(old, old, 1).await.unwrap(), 1);

    let forbidden = |error: shared::serving_store::StoreError| {
        assert!(error.to_string().contains("Not enough privileges"), "{error}");
    };
    forbidden(take(&writer, 3).await.unwrap_err());
    forbidden(writer.forget(old, old, 9).await.unwrap_err());
    forbidden(reconciler.next_generation(0).await.unwrap_err());
    forbidden(serving.upsert_approximate(laws::flush(1, 1, vec![laws::ad_minute("a", 60, 1, 1)])).await.unwrap_err());
    forbidden(reader.forget(old, old, 9).await.unwrap_err());
    assert_eq!(clicks(&reader).await, [2, 2], "what was refused changed nothing");
    assert!(reader.owned_hours(Timestamp::MIN..Timestamp::MAX).await.unwrap().contains_key(&laws::hour()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clickhouse_behind_tls_is_a_serving_store_by_settings_alone_and_an_impostor_is_told_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let part = Part::start("clickhouse-tls", "CLICKHOUSE_TLS_URL", folder.path());
    let ca_file = folder.path().join("ca.pem");
    let settings = Settings { url: part.address.clone(), ca_file, ..Settings::default() };
    assert_eq!(settings.problems(), []);
    let store = ClickHouseStore::open(&settings).await.unwrap();
    store.upsert_approximate(laws::flush(0, 1, minutes(3, 1))).await.unwrap();
    store.overwrite_exact(laws::hour(), set(minutes(2, 5)), RowVersion::reconciled(1)).await.unwrap();
    assert_eq!(clicks(&ClickHouseStore::open(&settings).await.unwrap()).await, [5, 5, 1]);

    let refused = async |settings: Settings| {
        let error = ClickHouseStore::open(&settings).await.err().expect("it was opened");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        error.to_string()
    };
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let maker = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/parts/certificate");
    assert!(std::process::Command::new(maker).arg(&other).status().unwrap().success());
    let said = refused(Settings { ca_file: other.join("ca.pem"), ..settings.clone() }).await;
    assert!(said.contains("certificate"), "{said}");
    let said = refused(Settings { url: settings.url.replace("127.0.0.1", "localhost"), ..settings.clone() }).await;
    assert!(said.contains("certificate"), "{said}");
    refused(Settings { url: settings.url.replace("https", "http"), ca_file: "".into(), ..settings.clone() }).await;
    for (name, text) in [("none.pem", None), ("empty.pem", Some(""))] {
        let ca_file = folder.path().join(name);
        text.into_iter().for_each(|text| std::fs::write(&ca_file, text).unwrap());
        let said = refused(Settings { ca_file, ..settings.clone() }).await;
        assert!(said.contains(name), "{said}");
    }
}
