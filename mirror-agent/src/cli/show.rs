//! How far a run is, on a terminal.

use std::{io::IsTerminal, sync::Mutex};

use indicatif::{ProgressBar, ProgressStyle};

/// Whether someone is looking.
pub(super) fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// A line with phase, amount, rate and the time that is left; nothing where nobody looks.
pub(super) struct Show {
    bar: ProgressBar,
    phase: Mutex<(String, bool)>,
}

impl Show {
    pub(super) fn new() -> Self {
        let bar = if is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        Self { bar, phase: Mutex::default() }
    }

    pub(super) fn set(&self, phase: &str, unit: &str, done: u64, total: u64) {
        let Ok(mut shown) = self.phase.lock() else { return };
        let known = total > 0;
        if *shown != (phase.to_owned(), known) {
            *shown = (phase.to_owned(), known);
            self.bar.reset();
            if let Ok(style) = ProgressStyle::with_template(template(unit, known)) {
                self.bar.set_style(style);
            }
            self.bar.set_message(phase.to_owned());
        }
        self.bar.set_length(total.max(done));
        self.bar.set_position(done);
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn template(unit: &str, known: bool) -> &'static str {
    match (unit, known) {
        ("bytes", true) => {
            "{msg:8} {bar:30} {bytes:>11} of {total_bytes:11} {bytes_per_sec:>13} {eta:>5} left"
        }
        ("bytes", false) => "{msg:8} {spinner} {bytes:>11} {bytes_per_sec:>13}",
        (_, true) => {
            "{msg:8} {bar:30} {human_pos:>11} of {human_len:11} {per_sec:>13} {eta:>5} left"
        }
        _ => "{msg:8} {spinner} {human_pos:>11}",
    }
}
