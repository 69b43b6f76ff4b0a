//! `postgres`: the tables the ad directory needs.

use serde_json::json;
use shared::directory::postgres::{check, ensure};

use crate::cli::Postgres;
use crate::exit::Usage;
use crate::output::last_line;
use crate::wiring::Parts;

pub(super) async fn run(parts: &Parts, command: Postgres) -> super::Done {
    let settings = &parts.settings().postgres;
    if !settings.is_used() {
        let why = "PostgreSQL is not configured: set postgres.url to postgres://user@host:port/database";
        return Err(Usage(why.to_owned()).into());
    }
    let Postgres::Ensure = command;
    ensure(settings).await?;
    let (version, ads) = check(settings).await?;
    last_line(&json!({ "server": version, "ads": ads }))?;
    Ok(0)
}
