//! The ad directory (being written).
