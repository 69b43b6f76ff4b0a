//! Roles as processes, and what happens to them and to the parts they stand on. A role that ends because a part is away
//! (exit 75), or another worker has taken over (exit 12), is started again, as a supervisor would; any other end is a failure.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use shared::time::{Clock, SystemClock, Timestamp, stopwatch};

use crate::outside::Outside;
use crate::support::Ledger;

const KILLS: u32 = 10;
/// The longest that a part is away.
const AWAY: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(200);

/// Where the processes listen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) gateways: [SocketAddr; 2],
    pub(super) serving: SocketAddr,
}

impl Addresses {
    pub(super) fn free() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { gateways: [free(), free()], serving: free() }
    }
}

/// When a part was away.
#[derive(Debug)]
pub(super) struct Outage {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

struct Role {
    name: &'static str,
    command: &'static str,
    env: Vec<(&'static str, String)>,
    /// Where it listens, if it does.
    address: Option<SocketAddr>,
    child: Option<Child>,
}

/// The processes.
pub(super) struct Roles<'a> {
    ledger: &'a Ledger,
    roles: Vec<Role>,
    /// Starts after an exit with 75.
    restarts: usize,
    /// How long every role took to stop in order and to listen again, where it listens.
    turns: Vec<(&'static str, Duration, Option<Duration>)>,
}

impl<'a> Roles<'a> {
    pub(super) fn start(ledger: &'a Ledger, addresses: &Addresses) -> Self {
        let listen = |n: usize| ("CLICKLEDGER__GATEWAY__LISTEN", addresses.gateways[n].to_string());
        let member = |name: &str| ("CLICKLEDGER__SPEED__GROUP_MEMBER", name.to_owned());
        let role = |name, command, env, address| Role { name, command, env, address, child: None };
        let [first, second] = addresses.gateways.map(Some);
        let mut roles = Self {
            ledger,
            roles: vec![
                role("gateway-1", "gateway", vec![listen(0)], first),
                // Its own machine: a folder of its own, with the fleet's keys and ads.
                role("gateway-2", "gateway", vec![listen(1), ("CLICKLEDGER__DATA", second_folder(ledger))], second),
                role("speed-1", "speed", vec![member("speed-1")], None),
                role("speed-2", "speed", vec![member("speed-2")], None),
                role("lake", "lake", vec![], None),
                role("serving", "serving", vec![], Some(addresses.serving)),
            ],
            restarts: 0,
            turns: Vec::new(),
        };
        (0..roles.roles.len()).for_each(|n| roles.spawn(n));
        roles
    }

    fn spawn(&mut self, n: usize) {
        let role = &mut self.roles[n];
        role.child = Some(self.ledger.spawn_with(role.name, &[role.command], &role.env));
    }

    /// Starts again who ended because a part is away.
    fn supervise(&mut self) {
        for n in 0..self.roles.len() {
            let role = &mut self.roles[n];
            let Some(status) = role.child.as_mut().and_then(|c| c.try_wait().unwrap()) else { continue };
            let name = role.name;
            assert!(ends_well(status), "{name} ended by itself ({status}):\n{}", self.ledger.log(name));
            self.restarts += 1;
            self.spawn(n);
        }
    }

    fn end(&mut self, n: usize, signal: &str) {
        let Some(mut child) = self.roles[n].child.take() else { return };
        if child.try_wait().unwrap().is_none() {
            let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
            assert!(sent.unwrap().success());
        }
        let status = child.wait().unwrap();
        let is_fine = signal == "-KILL" || status.success() || ends_well(status);
        let name = self.roles[n].name;
        assert!(is_fine, "{name} ended with {status} after {signal}:\n{}", self.ledger.log(name));
    }

    fn restart(&mut self, n: usize, signal: &str) {
        self.end(n, signal);
        self.spawn(n);
    }

    /// Stops a role in order and starts it again, as a new version is rolled out.
    fn turn(&mut self, n: usize) {
        let watch = stopwatch();
        self.end(n, "-TERM");
        let stopped = watch.elapsed();
        self.spawn(n);
        let Role { name, address, .. } = &self.roles[n];
        let listens = address.map(|address| {
            while TcpStream::connect(address).is_err() && watch.elapsed() < AWAY {
                std::thread::sleep(Duration::from_millis(5));
            }
            watch.elapsed() - stopped
        });
        self.turns.push((*name, stopped, listens));
    }

    pub(super) fn stop_in_order(&mut self) {
        (0..self.roles.len()).for_each(|n| self.end(n, "-TERM"));
    }

    pub(super) fn log(&self) -> String {
        self.roles.iter().map(|r| format!("{}:\n{}\n", r.name, self.ledger.log(r.name))).collect()
    }

    pub(super) fn summary(&self) -> String {
        let turn = |(name, stopped, listens): &(&str, Duration, Option<Duration>)| match listens {
            Some(listens) => format!("{name} in {stopped:.1?}, listening after {listens:.1?}"),
            None => format!("{name} in {stopped:.1?}"),
        };
        let turns: Vec<String> = self.turns.iter().map(turn).collect();
        format!("{KILLS} kills, {} starts while a part was away; stopped {}", self.restarts, turns.join(", "))
    }
}

/// Whether a supervisor starts it again and all is well.
fn ends_well(status: ExitStatus) -> bool {
    matches!(status.code(), Some(75 | 12))
}

fn second_folder(ledger: &Ledger) -> String {
    let folder: PathBuf = ledger.path().join("data-2");
    for kept in ["keys", "state"] {
        crate::rerun::copy_folder(&ledger.data().join(kept), &folder.join(kept));
    }
    folder.display().to_string()
}

/// What happens, and when, of a run's length.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Kill,
    Restart(usize),
    Away(&'static str),
    Forget,
}

/// Every fault in its time; answers the outages.
pub(super) fn run(roles: &mut Roles<'_>, outside: &mut Outside, length: Duration) -> Vec<Outage> {
    let mut faults: Vec<(f64, Fault)> = (0..KILLS).map(|n| (0.05 + 0.09 * f64::from(n), Fault::Kill)).collect();
    faults.extend((0..roles.roles.len()).map(|n| (0.1 + 0.03 * n as f64, Fault::Restart(n))));
    faults.extend([(0.4, Fault::Away("kafka")), (0.65, Fault::Away("clickhouse")), (0.85, Fault::Forget)]);
    faults.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut dice = rand_chacha::ChaCha8Rng::seed_from_u64(20);
    let (watch, clock) = (stopwatch(), SystemClock::default());
    let mut outages = Vec::new();
    for (at, fault) in faults {
        while watch.elapsed() < length.mul_f64(at) {
            roles.supervise();
            std::thread::sleep(TICK);
        }
        match fault {
            Fault::Kill => roles.restart(dice.random_range(0..roles.roles.len()), "-KILL"),
            Fault::Restart(n) => roles.turn(n),
            Fault::Forget => outside.flush_redis(),
            Fault::Away(name) if !outside.has(name) => {}
            Fault::Away(name) => {
                let from = clock.now();
                let away = outside.crash(name);
                let back = stopwatch();
                while back.elapsed() < AWAY.min(length.mul_f64(0.17)) {
                    roles.supervise();
                    std::thread::sleep(TICK);
                }
                away.restart();
                outages.push(Outage { from, until: clock.now() });
            }
        }
    }
    while watch.elapsed() < length {
        roles.supervise();
        std::thread::sleep(TICK);
    }
    outages
}
