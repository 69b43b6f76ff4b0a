//! `doctor`'s look at the object stores that settings name: a create that is one, the clock, the time of a put.

use std::time::Duration;

use ::lake::LakeRoot;
use ::lake::probe::{Tried, probe};
use shared::config::Span;

use super::Found;
use crate::wiring::Parts;

/// A put slower than this makes commits rare.
const SLOW_PUT: Duration = Duration::from_millis(500);
/// Clocks further apart than this mislead `lake vacuum`; at 15 minutes a store refuses signatures.
const SKEW: Span = Span::secs(5);

pub(super) async fn checks(parts: &Parts) -> Vec<(&'static str, Found)> {
    let mut checks = Vec::new();
    for (name, root) in [("lake's store", parts.lake_root()), ("publications' store", parts.data_root())] {
        match root {
            Ok(root) if root.folder().is_some() => {}
            Ok(root) => checks.push((name, store(&root).await)),
            Err(e) => checks.push((name, Found::Bad(format!("{e:#}")))),
        }
    }
    checks
}

async fn store(root: &LakeRoot) -> Found {
    let name = format!("{}-{}", root.clock().now().0, std::process::id());
    let fix = "check that the bucket exists, object_store.endpoint, region and access key, and that this key may list, \
               read, write and delete there";
    match probe(root, &name).await {
        Ok(tried) => judge(&tried),
        Err(e) => Found::Bad(format!("{e}: {fix}")),
    }
}

fn judge(tried: &Tried) -> Found {
    let (put, ahead) = (tried.put, tried.ahead_micros);
    if !tried.creates_once {
        let why = "several writers created one object (If-None-Match is not obeyed): commits would be lost";
        return Found::Bad(format!("{why}; use a store that obeys it, such as S3, MinIO or R2"));
    }
    if ahead.saturating_abs() > SKEW.as_micros() {
        return Found::Bad(format!("its clock is {} s ahead of ours: set both by NTP", ahead / 1_000_000));
    }
    if put > SLOW_PUT {
        return Found::Look(format!("creates once; {put:.1?} a put: raise lake.flush_age, or use a nearer store"));
    }
    Found::Good(format!("creates once; {put:.1?} a put"))
}
