//! Real parts for tests: a broker, a database, an object store, started by `tests/parts/<name>` of the workspace.
//! A part ends with the test that started it, however that ends: its starter runs until its standard input ends.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running part.
pub struct Part {
    /// Where it is, as its clients take it.
    pub address: String,
    starter: Option<Starter>,
}

struct Starter {
    child: Child,
    /// The part's own process.
    pid: String,
    name: &'static str,
    variable: &'static str,
    folder: PathBuf,
}

impl Part {
    /// A part of its own for the caller, with its data in `folder`.
    ///
    /// # Panics
    /// When it does not start; the starter has said why, and what to install.
    #[must_use]
    pub fn start(name: &'static str, variable: &'static str, folder: &Path) -> Self {
        Self::launch(name, variable, folder, None)
    }

    /// The running part that `variable` names, or else one of its own.
    ///
    /// # Panics
    /// As [`Part::start`].
    #[must_use]
    pub fn given_or_start(name: &'static str, variable: &'static str, folder: &Path) -> Self {
        match std::env::var(variable) {
            Ok(address) => Self { address, starter: None },
            Err(_) => Self::start(name, variable, folder),
        }
    }

    /// Whether it is the caller's own, which may do with it what it likes.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.starter.is_some()
    }

    /// Kills the part where it stands (SIGKILL) and starts it again on the same data and port.
    ///
    /// # Panics
    /// When the part is not ours, or does not come back.
    pub fn crash_and_restart(&mut self) {
        self.crash().restart();
    }

    /// Kills the part where it stands (SIGKILL); it is away until it is started again.
    ///
    /// # Panics
    /// When the part is not ours.
    pub fn crash(&mut self) -> Away<'_> {
        let starter = self.starter.as_mut().expect("a part of our own");
        assert!(Command::new("kill").args(["-KILL", &starter.pid]).status().unwrap().success());
        drop(starter.child.stdin.take());
        assert!(starter.child.wait().is_ok());
        Away(self)
    }

    fn launch(name: &'static str, variable: &'static str, folder: &Path, port: Option<&str>) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/parts").join(name);
        let mut child = Command::new(&script)
            .arg(folder)
            .args(port)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot run {}: {e}", script.display()));
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let word = |wanted: &str| {
            let found = ready.split_whitespace().find_map(|word| word.strip_prefix(wanted)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("{} did not start (it said {ready:?})", script.display())).to_owned()
        };
        let (address, pid) = (word(variable), word("PID"));
        Self { address, starter: Some(Starter { child, pid, name, variable, folder: folder.to_owned() }) }
    }
}

/// A part that was killed.
#[must_use]
pub struct Away<'a>(&'a mut Part);

impl Away<'_> {
    /// Starts it again on the same data and port.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn restart(self) {
        let Starter { name, variable, folder, .. } = self.0.starter.take().expect("a part of our own");
        let port = self.0.address.rsplit(':').next().unwrap().trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
        *self.0 = Part::launch(name, variable, &folder, Some(&port));
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(Starter { mut child, .. }) = self.starter.take() {
            drop(child.stdin.take());
            assert!(child.wait().is_ok());
        }
    }
}
