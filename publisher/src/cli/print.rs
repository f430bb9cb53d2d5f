//! What is printed.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the one place that prints")]

use std::io::Write as _;

use serde::Serialize;

/// A line for people on standard output.
pub(super) fn line(text: impl std::fmt::Display) {
    println!("{text}");
    // A line that a script waits for must not stay in a buffer.
    drop(std::io::stdout().flush());
}

/// An answer for programs on standard output.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Something beside the answer, for people.
pub(super) fn note(text: impl std::fmt::Display) {
    eprintln!("publisher: {text}");
}

/// Why the command failed, with its causes.
pub(super) fn failure(error: &anyhow::Error) {
    eprintln!("publisher: {}", crate::error_chain(error.as_ref()));
}
