//! The ad directory in PostgreSQL, against a real server: the conformance suite, and what only a database can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shared::config::Span;
use shared::directory::postgres::{Follower, PostgresError, Settings, check, ensure, fetch, publish};
use shared::directory::{AdRow, AdStatus, Directory, DirectoryHandle, Imported};
use shared::error::ErrorKind;
use shared::shutdown::Shutdown;
use shared::testing::conformance::directory::{Harness, row, rows, run};
use shared::testing::parts::Part;
use shared::time::{SystemClock, sleep, stopwatch};

/// Far longer than anything under test takes.
const GUARD: Duration = Duration::from_secs(60);

/// A database of its own on a server: tests share servers, and roles are the server's.
async fn database(part: &Part, name: &str) -> Settings {
    let name = format!("{name}_{}", std::process::id());
    sql(&part.address, &format!("CREATE DATABASE {name}")).await;
    let (server, _) = part.address.rsplit_once('/').unwrap();
    let settings = Settings { url: format!("{server}/{name}"), ..Settings::default() };
    ensure(&settings).await.unwrap();
    ensure(&settings).await.unwrap();
    settings
}

async fn try_sql(url: &str, text: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let driving = tokio::spawn(connection);
    let done = client.batch_execute(text).await;
    drop(client);
    driving.await.unwrap().unwrap();
    done
}

async fn sql(url: &str, text: &str) {
    try_sql(url, text).await.unwrap_or_else(|e| panic!("{text}: {e:?}"));
}

struct InPostgres {
    settings: Settings,
    folder: tempfile::TempDir,
}

#[async_trait]
impl Harness for InPostgres {
    async fn empty(&mut self) {
        sql(&self.settings.url, "TRUNCATE clickledger.ads, clickledger.campaigns").await;
        self.folder = tempfile::tempdir().unwrap();
    }
    async fn import(&mut self, rows: &[AdRow]) -> Result<Imported, (String, ErrorKind)> {
        let rows = Directory::of(rows.to_vec()).map_err(|e| (e.to_string(), e.kind()))?;
        publish(&self.settings, &rows).await.map_err(|e| (e.to_string(), e.kind()))
    }
    async fn snapshot(&mut self) -> Directory {
        let path = self.folder.path().join("ads.dir");
        fetch(&self.settings, &path).await.unwrap();
        assert!(!fetch(&self.settings, &path).await.unwrap(), "the same directory is the same snapshot");
        Directory::load(&path).unwrap()
    }
}

#[tokio::test]
async fn postgres_is_an_ad_directory() {
    let folder = tempfile::tempdir().unwrap();
    let part = Part::given_or_start("postgres", "DATABASE_URL", folder.path());
    let settings = database(&part, "suite").await;
    let mut harness = InPostgres { settings: settings.clone(), folder: tempfile::tempdir().unwrap() };
    run(&mut harness).await;
    least_rights_suffice(&part, &settings).await;
    tls_is_used_when_it_is_asked_for_and_then_checked().await;
    figures(&mut harness).await;
}

/// What 100,000 ads take, for docs/postgres.md: nothing is asserted of it.
async fn figures(harness: &mut InPostgres) {
    harness.empty().await;
    let url = "https://shop.example/landing/page?utm_source=x&utm_campaign=summer";
    let many = (0..100_000).map(|n| row(&format!("ad-{n:08}"), &format!("c{}", n / 50), "v", url, AdStatus::Active));
    let rows = Directory::of(many).unwrap();
    let watch = stopwatch();
    assert_eq!(publish(&harness.settings, &rows).await.unwrap().added, 100_000);
    println!("importing 100,000 ads: {:?}", watch.elapsed());
    let path = harness.folder.path().join("ads.dir");
    for what in ["first load", "load of the same"] {
        let watch = stopwatch();
        fetch(&harness.settings, &path).await.unwrap();
        println!("{what} of 100,000 ads: {:?}", watch.elapsed());
    }
    assert_eq!(Directory::load(&path).unwrap().len(), 100_000);
}

async fn least_rights_suffice(part: &Part, settings: &Settings) {
    let (reader, writer) = (format!("reader_{}", std::process::id()), format!("writer_{}", std::process::id()));
    for (role, group) in [(&reader, "clickledger_reader"), (&writer, "clickledger_writer")] {
        sql(&part.address, &format!("CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT {group} TO {role}")).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "pw\n").unwrap();
    let (head, place) = settings.url.split_once('@').unwrap();
    let (scheme, _) = head.split_once("://").unwrap();
    let of = |role: &str| Settings {
        url: format!("{scheme}://{role}@{place}"),
        password_file: password_file.clone(),
        ..settings.clone()
    };
    let one = Directory::of([row("by-writer", "cw", "v", "https://x.example/", AdStatus::Active)]).unwrap();
    assert_eq!(publish(&of(&writer), &one).await.unwrap().added, 1);
    assert!(fetch(&of(&reader), &folder.path().join("ads.dir")).await.unwrap());
    assert!(check(&of(&reader)).await.unwrap().1 > 0);
    let refused = publish(&of(&reader), &one).await.unwrap_err();
    assert!(refused.to_string().contains("clickledger_writer") && refused.kind() == ErrorKind::Invalid, "{refused}");
    let nobody = format!("nobody_{}", std::process::id());
    sql(&part.address, &format!("CREATE ROLE {nobody} LOGIN")).await;
    let refused = check(&of(&nobody)).await.unwrap_err();
    assert!(refused.to_string().contains("clickledger_reader"), "{refused}");
}

async fn tls_is_used_when_it_is_asked_for_and_then_checked() {
    let folder = tempfile::tempdir().unwrap();
    let part = Part::start("postgres", "DATABASE_URL", folder.path());
    let plain = database(&part, "tls").await;
    let ca_file = folder.path().join("tls/ca.pem");
    let checked = Settings { url: format!("{}?sslmode=require", plain.url), ca_file, ..plain.clone() };
    assert_eq!(checked.problems(), vec![]);
    assert_eq!(check(&checked).await.unwrap().1, 0);
    let distrusting = Settings { ca_file: PathBuf::new(), ..checked.clone() };
    let refused = check(&distrusting).await.unwrap_err();
    assert!(refused.to_string().contains("ertificate"), "{refused}");
    let no_file = Settings { ca_file: folder.path().join("nowhere.pem"), ..checked };
    assert!(matches!(check(&no_file).await, Err(PostgresError::Settings(why)) if why.contains("nowhere.pem")));
}

/// A follower with its handle.
struct Following {
    handle: Arc<DirectoryHandle>,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<()>,
}

fn follow(settings: &Settings, path: &Path) -> Following {
    let handle = Arc::new(DirectoryHandle::open(path).unwrap());
    let shutdown = Shutdown::new();
    let clock = Arc::new(SystemClock::default());
    let follower = Follower::new(settings.clone(), path.to_owned(), Arc::clone(&handle), clock);
    let task = tokio::spawn(follower.run(shutdown.clone()));
    Following { handle, shutdown, task }
}

impl Following {
    async fn until(&self, what: &str, is_so: impl Fn(&DirectoryHandle) -> bool) {
        let waiting = async {
            while !is_so(&self.handle) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(GUARD, waiting).await.unwrap_or_else(|_| panic!("{what} does not come"));
    }

    async fn stop(self) {
        self.shutdown.request();
        tokio::time::timeout(GUARD, self.task).await.expect("the follower does not stop").unwrap();
    }
}

fn status_of(handle: &DirectoryHandle, ad: &str) -> Option<AdStatus> {
    handle.current().lookup(&ad.parse().unwrap()).map(|ad| ad.status)
}

#[tokio::test]
async fn a_change_arrives_at_once_and_without_being_told_of_a_little_later() {
    let folder = tempfile::tempdir().unwrap();
    let part = Part::given_or_start("postgres", "DATABASE_URL", folder.path());
    let settings = database(&part, "changes").await;
    let one = Directory::of([row("a", "c", "v", "https://x.example/", AdStatus::Active)]).unwrap();
    publish(&settings, &one).await.unwrap();
    // Nobody polls within the test: what arrives was told of.
    let told = Settings { poll_interval: Span::secs(3_600), ..settings.clone() };
    let told = follow(&told, &folder.path().join("told.dir"));
    told.until("the first snapshot", |h| status_of(h, "a") == Some(AdStatus::Active) && h.stale_since().is_none())
        .await;
    sql(&settings.url, "UPDATE clickledger.ads SET status = 'paused' WHERE ad_id = 'a'").await;
    told.until("the change", |h| status_of(h, "a") == Some(AdStatus::Paused)).await;
    sql(&settings.url, "DELETE FROM clickledger.ads").await;
    told.until("the deletion", |h| h.current().is_empty()).await;
    let owner = told.handle.current().advertiser_of(&"c".parse().unwrap()).map(ToString::to_string);
    assert_eq!(owner.as_deref(), Some("v"), "a campaign's past keeps its owner");

    // Nobody tells here: the trigger is off. What arrives was looked for.
    let polled = Settings { poll_interval: Span::millis(20), ..settings.clone() };
    let polled = follow(&polled, &folder.path().join("polled.dir"));
    polled.until("the first snapshot", |h| h.stale_since().is_none()).await;
    let quiet = "ALTER TABLE clickledger.ads DISABLE TRIGGER directory_changed; \
                 INSERT INTO clickledger.ads VALUES ('b', 'c', 'https://x.example/', 'ended'); \
                 UPDATE clickledger.directory_version SET version = version + 1";
    sql(&settings.url, quiet).await;
    polled.until("the untold change", |h| status_of(h, "b") == Some(AdStatus::Ended)).await;
    told.stop().await;
    polled.stop().await;
}

#[tokio::test]
async fn while_the_database_is_away_the_last_snapshot_is_served_and_called_stale() {
    let folder = tempfile::tempdir().unwrap();
    let mut part = Part::start("postgres", "DATABASE_URL", &folder.path().join("postgres"));
    let settings = Settings { poll_interval: Span::millis(200), ..database(&part, "outage").await };
    let path: PathBuf = folder.path().join("ads.dir");
    let one = Directory::of([row("a", "c", "v", "https://x.example/", AdStatus::Active)]).unwrap();
    publish(&settings, &one).await.unwrap();
    let following = follow(&settings, &path);
    following.until("the first snapshot", |h| h.current().len() == 1 && h.stale_since().is_none()).await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = Settings { url: format!("postgres://postgres@{nowhere}/none"), ..settings.clone() };
    assert!(matches!(fetch(&away, &path).await, Err(PostgresError::Away { .. })));

    // Another process, started while the database is away, has what the last one had.
    let restarted = follow(&away, &path);
    restarted.until("the stale label", |h| h.stale_since().is_some()).await;
    assert_eq!(status_of(&restarted.handle, "a"), Some(AdStatus::Active));
    restarted.stop().await;

    part.crash_and_restart();
    sql(&settings.url, "UPDATE clickledger.ads SET status = 'paused'").await;
    following.until("the change after the crash", |h| status_of(h, "a") == Some(AdStatus::Paused)).await;
    following.until("the end of the stale label", |h| h.stale_since().is_none()).await;
    following.stop().await;
}

#[tokio::test]
async fn what_no_import_would_take_leaves_the_snapshot_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let part = Part::given_or_start("postgres", "DATABASE_URL", folder.path());
    let settings = Settings { poll_interval: Span::millis(50), ..database(&part, "rules").await };
    let one = Directory::of([row("a", "c", "v", "https://x.example/", AdStatus::Active)]).unwrap();
    publish(&settings, &one).await.unwrap();
    for bad in [
        "INSERT INTO clickledger.ads VALUES ('b', 'c', 'javascript:alert(1)', 'active')",
        "INSERT INTO clickledger.ads VALUES ('../b', 'c', 'https://x.example/', 'active')",
        "INSERT INTO clickledger.ads VALUES ('b', 'c', 'https://x.example/', 'asleep')",
        "INSERT INTO clickledger.ads VALUES ('b', 'nobodys', 'https://x.example/', 'active')",
        "UPDATE clickledger.campaigns SET advertiser_id = 'thief'",
    ] {
        assert!(try_sql(&settings.url, bad).await.is_err(), "{bad}");
    }
    let following = follow(&settings, &folder.path().join("ads.dir"));
    following.until("the first snapshot", |h| h.current().len() == 1 && h.stale_since().is_none()).await;
    // What the database lets pass the loading refuses: a URL with a user name; a campaign made anew for another.
    for (bad, mended) in [
        (
            "INSERT INTO clickledger.ads VALUES ('b', 'c', 'https://good.example@evil.example/', 'active')",
            "DELETE FROM clickledger.ads WHERE ad_id = 'b'",
        ),
        (
            "DELETE FROM clickledger.ads; DELETE FROM clickledger.campaigns; \
             INSERT INTO clickledger.campaigns VALUES ('c', 'thief'); \
             INSERT INTO clickledger.ads VALUES ('a', 'c', 'https://thief.example/', 'active')",
            "DELETE FROM clickledger.ads; DELETE FROM clickledger.campaigns; \
             INSERT INTO clickledger.campaigns VALUES ('c', 'v'); \
             INSERT INTO clickledger.ads VALUES ('a', 'c', 'https://x.example/', 'active')",
        ),
    ] {
        sql(&settings.url, bad).await;
        following.until("the stale label", |h| h.stale_since().is_some()).await;
        assert_eq!(rows(&following.handle.current()), rows(&one), "{bad}");
        sql(&settings.url, mended).await;
        following.until("the mended directory", |h| h.stale_since().is_none()).await;
        assert_eq!(rows(&following.handle.current()), rows(&one));
    }
    following.stop().await;
}
