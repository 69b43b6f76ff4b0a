//! One hot part of the product for each run, so that its instructions can be counted (`benches/instructions.py` runs it
//! under callgrind): `--set-up-only` does all but the work, and the difference between the two runs is the work.
//! Instruction counts repeat on a machine that others use too, which seconds do not.
//! Never: measures anything itself. A part that gives a wrong result ends the program.

#[path = "support/parts.rs"]
mod parts;
#[allow(dead_code)] // the timing is not used here
mod support;
#[allow(dead_code)]
#[path = "support/traffic.rs"]
mod traffic;

use clap::Parser;
use parts::{Part, prepare};
use traffic::Shape;

#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    part: Part,
    #[command(flatten)]
    shape: Shape,
    /// Everything but the work.
    #[arg(long)]
    set_up_only: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let work = prepare(args.part, &args.shape)?;
    if !args.set_up_only {
        work()?;
    }
    Ok(())
}
