//! The only way out to the terminal.
//!
//! Results go to standard output, for people or as JSON; everything else (warnings, questions,
//! errors, what to do next) goes to standard error, so that results can be piped. Texts that came
//! from elsewhere cannot move the cursor: control characters are shown as such.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    process::ExitCode,
};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::error::Error;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Tables and sentences, for people; times are local, with their zone.
    Text,
    /// JSON, for programs; times are UTC.
    Json,
}

/// Prints.
#[derive(Debug)]
pub(super) struct Print {
    format: Format,
}

impl Print {
    pub(super) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether results are for programs.
    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// The result: as JSON, or as the text that is made of it.
    pub(super) fn result<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Error> {
        match self.format {
            Format::Json => {
                let json = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
                self.line(&json)
            }
            Format::Text => self.text(&text(value)),
        }
    }

    /// A result of several lines, each cleaned.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        for line in text.lines() {
            writeln!(out, "{}", clean(line))?;
        }
        Ok(out.flush()?)
    }

    /// One line of a result, which holds nothing but what this program made.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }

    /// A stream of bytes, such as file names or a generated script.
    pub(super) fn raw(&mut self) -> io::BufWriter<io::StdoutLock<'static>> {
        io::BufWriter::new(io::stdout().lock())
    }

    /// Begins the screen anew, where there is one.
    pub(super) fn clear(&mut self) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            write!(out, "\x1b[H\x1b[2J")?;
        }
        Ok(())
    }

    /// Something beside the result.
    pub(super) fn note(&mut self, text: &str) {
        let mut err = io::stderr().lock();
        for line in text.lines() {
            // Nobody can be told that telling failed.
            drop(writeln!(err, "{}", clean(line)));
        }
    }

    /// Asks; only a clear yes is one. Without a terminal the answer is no.
    pub(super) fn ask(&mut self, question: &str) -> Result<bool, Error> {
        if !io::stdin().is_terminal() {
            return Ok(false);
        }
        let mut err = io::stderr().lock();
        write!(err, "{} [y/N] ", clean(question))?;
        err.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Says what went wrong, and gives the exit code.
    pub(super) fn failure(&mut self, error: &Error) -> ExitCode {
        if error.is_closed_pipe() {
            return ExitCode::SUCCESS;
        }
        match self.format {
            Format::Text => self.note(&format!("mirrorctl: {}", error.story())),
            Format::Json => {
                let value =
                    serde_json::json!({ "error": error.story(), "problem": error.problem() });
                self.note(&value.to_string());
            }
        }
        ExitCode::from(if error.is_usage() { 2 } else { 1 })
    }

    /// Says what is wrong with the arguments, or prints the help that was asked for.
    pub(super) fn usage(&mut self, error: &clap::Error) -> ExitCode {
        // clap knows which of the two streams it belongs to.
        drop(error.print());
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    }
}

/// Rows under headings, as wide as the terminal.
pub(super) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(headings);
    for row in rows {
        table.add_row(row.map(|cell| clean(&cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Shows control characters, and what changes the direction of text, instead of obeying them.
fn clean(text: &str) -> String {
    let harmful =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if harmful(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_move_the_cursor() {
        assert_eq!(clean("a\x1b[2Jb\u{202e}é"), "a\\u{1b}[2Jb\\u{202e}é");
    }

    #[test]
    fn a_table_has_its_columns_under_its_headings() {
        let text = table(["NAME", "SITE"], [["fedora".into(), "lisbon".into()]]);
        assert_eq!(text, "NAME    SITE\nfedora  lisbon\n");
    }
}
