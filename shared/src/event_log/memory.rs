//! In-memory event log (being written).
