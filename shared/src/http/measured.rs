//! The metrics of answers, looked up once for each route and status: finding a labelled metric in its registry costs more
//! than the rest of an answer's head.
//! Bounded: by the routes of a listener, and the statuses they have.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::http::StatusCode;
use metrics::{Counter, Histogram};

use crate::telemetry::metric_names::{HTTP_REQUESTS, HTTP_SECONDS};

struct Measured {
    route: Arc<str>,
    status: StatusCode,
    requests: Counter,
    seconds: Histogram,
}

impl Measured {
    fn add(&self, took: Duration) {
        self.requests.increment(1);
        self.seconds.record(took.as_secs_f64());
    }
}

/// The answers of one listener.
#[derive(Default)]
pub(super) struct Answers(RwLock<Vec<Measured>>);

impl Answers {
    /// Counts an answer.
    pub(super) fn add(&self, route: &str, status: StatusCode, took: Duration) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(measured) = known.iter().find(|m| m.status == status && *m.route == *route) {
            return measured.add(took);
        }
        drop(known);
        // Two that come first at once make two entries of the same metric, and the first is found.
        let route: Arc<str> = route.into();
        let number = status.as_str().to_owned();
        let requests = metrics::counter!(HTTP_REQUESTS, "route" => Arc::clone(&route), "status" => number);
        let seconds = metrics::histogram!(HTTP_SECONDS, "route" => Arc::clone(&route));
        let measured = Measured { route, status, requests, seconds };
        measured.add(took);
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(measured);
    }
}
