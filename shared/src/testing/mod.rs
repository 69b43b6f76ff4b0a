//! What tests of several crates share (feature `testing`): conformance suites and generators.
