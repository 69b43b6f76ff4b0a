//! The hot parts timed one by one, so that a regression is seen in the part that has it: `cargo bench --bench parts`, or one of
//! them by its name (`cargo bench --bench parts -- dedup`). Criterion keeps the last figures and says what changed.
//! A sample takes some thousand events through a part that was prepared for it; preparing is not timed. Times are
//! for whoever changes a part on a quiet machine; what repeats on any machine is counted (`benches/hot.rs`).

#[path = "support/parts.rs"]
mod parts;
#[allow(dead_code)] // Criterion does the timing
mod support;
#[allow(dead_code)]
#[path = "support/traffic.rs"]
mod traffic;

use clap::ValueEnum;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use parts::{Part, prepare};
use traffic::Shape;

/// What every sample works on.
const SHAPE: Shape = Shape { events: 5_000, rate: 5_000, ads: 100_000, seed: 1 };
/// Samples of a part: preparing them takes longer than timing them.
const SAMPLES: usize = 20;

fn parts(criterion: &mut Criterion) {
    for part in Part::value_variants() {
        let name = part.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let mut group = criterion.benchmark_group("part");
        group.throughput(Throughput::Elements(SHAPE.events)).sample_size(SAMPLES);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| or_exit(prepare(*part, &SHAPE)), |work| or_exit(work()), BatchSize::PerIteration);
        });
        group.finish();
    }
}

/// A part that fails has no time.
fn or_exit<T>(result: anyhow::Result<T>) -> T {
    result.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        std::process::exit(1)
    })
}

criterion_group!(benches, parts);
criterion_main!(benches);
