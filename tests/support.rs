//! Running the real binary on a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clickledger::settings::Settings;
use clickledger::wiring::Parts;
use serde_json::Value;

/// A data folder and the binary that works on it.
pub(crate) struct Ledger {
    folder: tempfile::TempDir,
    env: Vec<(String, String)>,
    /// Another ledger's data folder instead of its own.
    data: Option<PathBuf>,
}

/// What a command answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    /// The one JSON line a job prints last.
    pub(crate) fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in last line {line:?}\nstderr: {}", self.stderr))
    }
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), env: Vec::new(), data: None }
    }

    /// The same data folder with other settings; `of` must outlive it.
    #[cfg(feature = "clickhouse")]
    pub(crate) fn on(of: &Self) -> Self {
        let mut same = Self::new();
        same.data = Some(of.data());
        same
    }

    /// Sets a setting for every command: `set("SPEED__FLUSH_INTERVAL", "1s")`.
    pub(crate) fn set(&mut self, name: &str, value: impl ToString) {
        self.env.push((format!("CLICKLEDGER__{name}"), value.to_string()));
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| self.folder.path().join("data"))
    }

    /// What every command is set to.
    pub(crate) fn settings(&self) -> Settings {
        let settings = Settings::load(None, self.env.iter().cloned()).unwrap();
        Settings { data: self.data(), ..settings }
    }

    /// The parts of this process on the same settings.
    pub(crate) fn parts(&self) -> Parts {
        let data = ("CLICKLEDGER__DATA".to_owned(), self.data().display().to_string());
        Parts::new(Settings::load(None, self.env.iter().cloned().chain([data])).unwrap())
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let binary = std::env::var_os("CLICKLEDGER_BINARY").unwrap_or(env!("CARGO_BIN_EXE_clickledger").into());
        let mut command = Command::new(binary);
        command
            .args(args)
            .current_dir(self.path())
            .env("CLICKLEDGER__DATA", self.data())
            .envs(self.env.iter().cloned());
        command.env_remove("RUST_LOG").env_remove("CLICKLEDGER_CONFIG");
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Answer {
        let output = self.command(args).stdin(Stdio::null()).output().unwrap();
        Answer {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> Answer {
        let answer = self.run(args);
        assert_eq!(answer.code, 0, "clickledger {}\n{}\n{}", args.join(" "), answer.stdout, answer.stderr);
        answer
    }

    /// Starts a role; its log goes to `NAME.log` in the folder.
    pub(crate) fn spawn(&self, name: &str, args: &[&str]) -> Child {
        self.spawn_with(name, args, &[])
    }

    /// As `spawn`, with settings of its own.
    pub(crate) fn spawn_with(&self, name: &str, args: &[&str], env: &[(&str, String)]) -> Child {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path().join(format!("{name}.log")))
            .unwrap();
        let mut command = self.command(args);
        command.envs(env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// What a role logged, for a failure's message.
    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(format!("{name}.log"))).unwrap_or_default()
    }
}

/// The Python with the oracle's packages: made by `tests/oracle/venv.sh`, which `./test` runs first.
pub(crate) fn python() -> PathBuf {
    match std::env::var_os("CLICKLEDGER_PYTHON") {
        Some(path) => path.into(),
        None => {
            let made = Command::new("bash")
                .args(["-c", ". tests/oracle/venv.sh && printf %s \"$CLICKLEDGER_PYTHON\""])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .output()
                .unwrap();
            assert!(
                made.status.success(),
                "cannot make the oracle's Python: {}",
                String::from_utf8_lossy(&made.stderr)
            );
            String::from_utf8(made.stdout).unwrap().lines().last().unwrap_or_default().into()
        }
    }
}
