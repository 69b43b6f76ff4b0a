//! Embedded event log (being written).
