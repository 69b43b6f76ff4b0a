//! `config`: check, show, init.

use std::io::Write;

use crate::cli::{ConfigCommand, Global};
use crate::exit::Usage;
use crate::settings::Settings;

const HEADER: &str = "# clickledger settings. Every key is optional; these are the defaults.
# Precedence: default < this file < environment (CLICKLEDGER__SPEED__FLUSH_INTERVAL=5s) < flag.
# Durations: 250ms, 10s, 5m, 24h, 7d. Sizes: 64KiB, 16MiB, 1GiB.

";

pub(super) fn run(global: &Global, command: &ConfigCommand) -> super::Done {
    match command {
        ConfigCommand::Check => {
            super::settings(global)?;
            println!("settings are good");
        }
        ConfigCommand::Show => print!("{}", super::settings(global)?.to_toml()?),
        ConfigCommand::Init { file } => {
            let text = format!("{HEADER}{}", Settings::default().to_toml()?);
            let made = std::fs::File::create_new(file).map_err(|e| match e.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    anyhow::Error::new(Usage(format!("{} exists; name another file", file.display())))
                }
                _ => anyhow::Error::new(e).context(format!("cannot write {}", file.display())),
            });
            made?.write_all(text.as_bytes())?;
            println!("wrote {}", file.display());
        }
    }
    Ok(0)
}
