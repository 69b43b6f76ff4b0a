//! The house rules that a machine can check: who may depend on whom, what a file opens with, that documents name
//! things that exist, that every SQL file is used once, that the shipped settings are the defaults, and that the
//! workflows only say what the command line understands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Parser;

const CRATES: [&str; 7] = ["shared", "gateway", "speed", "lake", "batch", "reconcile", "serving"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().is_some_and(|p| p.ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    let mut all: Vec<_> = CRATES.iter().flat_map(|c| files(&root().join(c).join("src"), ".rs")).collect();
    all.extend(files(&root().join("src"), ".rs"));
    all
}

#[test]
fn crates_depend_only_along_the_edges_of_the_house() {
    let allowed = BTreeMap::from([
        ("shared", vec![]),
        ("gateway", vec!["shared"]),
        ("speed", vec!["shared"]),
        ("lake", vec!["shared"]),
        ("serving", vec!["shared"]),
        ("batch", vec!["lake", "shared"]),
        ("reconcile", vec!["lake", "shared"]),
    ]);
    for (name, edges) in allowed {
        let manifest: toml::Table = read(format!("{name}/Cargo.toml")).parse().unwrap();
        let used: BTreeSet<_> = manifest["dependencies"].as_table().unwrap().keys().map(String::as_str).collect();
        let ours: Vec<_> = used.into_iter().filter(|d| CRATES.contains(d)).collect();
        assert_eq!(ours, edges, "{name} depends on other crates of ours than the house allows: write an ADR");
    }
}

#[test]
fn every_source_file_opens_with_what_it_is_for() {
    for file in sources() {
        let text = std::fs::read_to_string(&file).unwrap();
        let is_test = file.ends_with("tests.rs") || file.components().any(|c| c.as_os_str() == "tests");
        assert!(is_test || text.starts_with("//!"), "{} does not open with //!", file.display());
    }
}

#[test]
fn heavy_libraries_stay_behind_their_fences() {
    for (library, folders) in [
        ("rusqlite", ["serving/src", "-"]),
        ("deltalake", ["lake/src", "-"]),
        ("datafusion", ["batch/src", "-"]),
        ("ballista_core", ["batch/src/cluster", "-"]),
        ("ballista_executor", ["batch/src/cluster", "-"]),
        ("ballista_scheduler", ["batch/src/cluster", "-"]),
        ("rdkafka", ["shared/src/event_log/kafka", "-"]),
        ("redis", ["gateway/src/dedup/redis", "-"]),
        ("tokio_postgres", ["shared/src/directory/postgres", "-"]),
        ("clickhouse", ["serving/src/store/clickhouse", "-"]),
        ("axum::", ["gateway/src", "serving/src"]),
    ] {
        for file in sources() {
            let uses = std::fs::read_to_string(&file)
                .unwrap()
                .lines()
                .any(|l| l.trim_start().starts_with(&format!("use {library}")) || l.contains(&format!(" {library}::")));
            let inside = folders.iter().any(|f| file.starts_with(root().join(f)));
            assert!(!uses || inside, "{} uses {library}, which belongs to {folders:?}", file.display());
        }
    }
}

#[test]
fn every_sql_file_is_loaded_exactly_once() {
    let code: String = sources().iter().map(|f| std::fs::read_to_string(f).unwrap()).collect();
    let all = files(&root().join("sql"), ".sql");
    assert!(!all.is_empty());
    for file in all {
        let name = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let uses = code.matches(&format!("{name}\"")).count();
        assert_eq!(uses, 1, "{name} is loaded {uses} times");
    }
}

#[test]
fn clickhouse_is_read_through_the_view_of_final_rows_only() {
    let mut read = 0;
    for file in files(&root().join("sql/clickhouse"), ".sql") {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.lines().filter(|l| !l.starts_with("--")).collect::<Vec<_>>().join(" ").to_lowercase();
        let words: Vec<&str> = code.split([' ', '(', ')', ',']).filter(|w| !w.is_empty()).collect();
        for pair in words.windows(2).filter(|pair| ["from", "join"].contains(&pair[0])) {
            let behind = ["rollup", "rollup_final", "rollup_by_id", "rollup_by_id_final", "mark"];
            assert!(name.starts_with("00") || !behind.contains(&pair[1]), "{name} reads {}", pair[1]);
            read += 1;
        }
    }
    assert!(read > 10, "only {read} reads were looked at");
}

#[test]
fn the_shipped_settings_are_the_defaults() {
    let defaults = clickledger::settings::Settings::default().to_toml().unwrap();
    let shipped: toml::Table = read("config/default.toml").parse().unwrap();
    assert_eq!(
        shipped,
        defaults.parse::<toml::Table>().unwrap(),
        "write config/default.toml anew: clickledger config init"
    );
}

#[test]
fn files_and_functions_named_in_the_documents_exist() {
    let code: String = sources().iter().map(|f| std::fs::read_to_string(f).unwrap()).collect();
    let text = read("docs/ARCHITECTURE.md") + &read("README.md") + &read("CONTRIBUTING.md");
    let mut checked = 0;
    for quoted in text.split('`').skip(1).step_by(2) {
        if let Some((path, function)) = quoted.rsplit_once("::") {
            if quoted.contains(' ') || !path.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let known = [
                format!("fn {function}"),
                format!("struct {function}"),
                format!("enum {function}"),
                format!("trait {function}"),
            ];
            assert!(
                known.iter().any(|k| code.contains(k.as_str())),
                "the documents name `{quoted}`, which is not in the code"
            );
            checked += 1;
        } else if quoted.contains('/')
            && !quoted.contains([' ', '<', '*', '{', '=', '$'])
            && !quoted.starts_with(['/', '.'])
        {
            let first = quoted.split('/').next().unwrap();
            if CRATES.contains(&first)
                || ["src", "docs", "tests", "sql", "workflows", "config", "benches"].contains(&first)
            {
                assert!(root().join(quoted).exists(), "the documents name {quoted}, which does not exist");
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "only {checked} names were checked");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut pages = files(&root().join("docs"), ".md");
    pages.extend([root().join("README.md"), root().join("CONTRIBUTING.md")]);
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                assert!(page.parent().unwrap().join(target).exists(), "{} links to {target}", page.display());
            }
        }
    }
}

/// Every `clickledger …` command in the workflows, with templates filled in.
fn workflow_commands() -> Vec<String> {
    let mut commands = Vec::new();
    for file in files(&root().join("workflows"), "") {
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|l| !l.trim_start().starts_with('#')) {
            for (start, _) in line.match_indices("clickledger ") {
                let rest = &line[start..];
                let end = rest.find(['"', ';', '\'', '&', '`', ')']).unwrap_or(rest.len());
                let quoted_date = rest.replace("\"$D\"", "2026-01-05").replace("{DAY}", "2026-01-05");
                let end = if quoted_date == rest {
                    end
                } else {
                    quoted_date.find(['"', ';', '\'', '&', '`', ')']).unwrap_or(quoted_date.len())
                };
                let command = quoted_date[..end].trim();
                if line.contains("ExecStart") || line.contains("bash_command") || file.ends_with("crontab.example") {
                    commands.push(command.to_owned());
                }
            }
        }
    }
    commands
}

#[test]
fn workflows_only_say_what_the_command_line_understands() {
    let commands = workflow_commands();
    assert!(commands.len() >= 10, "{commands:?}");
    for command in commands {
        if let Err(e) = clickledger::cli::Cli::try_parse_from(command.split_whitespace()) {
            panic!("{command}: {e}");
        }
    }
}
