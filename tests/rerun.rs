//! The exact path again: nothing changes. Not with other threads, not after the lake's files were merged, not in
//! the settlement, not in the serving store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::oracle::history;

/// One test rewrites the folder's files, the other copies them: they take turns.
static TURN: Mutex<()> = Mutex::new(());

const DAYS: [&str; 4] = ["--from", "2026-01-05", "--to", "2026-01-07"];

pub(crate) fn settlement_bytes(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(settlement_bytes(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn running_it_all_again_changes_no_byte_and_no_row() {
    let ledger = &history().ledger;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let settlement = ledger.data().join("settlement");
    let before = settlement_bytes(&settlement);
    let again = |args: &[&str]| {
        let answer = ledger.run(&[args, &DAYS].concat());
        assert_eq!(answer.code, 99, "{args:?} changed something: {}\n{}", answer.stdout, answer.stderr);
        answer.json()
    };
    again(&["batch", "run"]);
    for threads in ["1", "2", "7"] {
        again(&["batch", "run", "--force", "--threads", threads]);
    }
    let merged = ledger.ok(&["lake", "optimize"]).json();
    assert!(merged["bronze/events"]["filesBefore"].as_u64() > Some(0), "there was nothing to merge: {merged}");
    again(&["batch", "run", "--force"]);
    let reconciled = again(&["reconcile", "run"]);
    for day in reconciled["days"].as_array().unwrap() {
        assert_eq!(day["rowsChanged"], 0, "{day}");
    }
    assert_eq!(settlement_bytes(&settlement), before);
}

#[test]
fn an_empty_serving_store_is_rebuilt_from_gold() {
    let ledger = &history().ledger;
    let copy = crate::support::Ledger::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for part in ["lake", "settlement", "reports", "state", "keys", "log"] {
        copy_folder(&ledger.data().join(part), &copy.data().join(part));
    }
    drop(turn);
    copy.ok(&["reconcile", "rebuild"]);
    let answer = copy.run(&[&["reconcile", "run"][..], &DAYS].concat());
    assert_eq!(answer.code, 99, "{}\n{}", answer.stdout, answer.stderr);
    for day in answer.json()["days"].as_array().unwrap() {
        assert_eq!(day["rowsChanged"], 0, "the rebuilt store differs from gold: {day}");
    }
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
