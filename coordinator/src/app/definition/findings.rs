//! Everything that is wrong, gathered so that an admin sees it at once.

use std::sync::Arc;

use protocol::error::Finding;

/// Most findings that are reported; more than a person reads in one go.
pub const MAX_FINDINGS: usize = 200;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) file: Arc<str>,
    pub(super) line: u32,
}

/// Findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    left_out: usize,
}

impl Findings {
    /// Notes what is wrong at a line, or with no line where what is stored is concerned.
    pub(super) fn push(&mut self, spot: Option<&Spot>, message: impl Into<String>) {
        if self.list.len() == MAX_FINDINGS {
            self.left_out += 1;
            return;
        }
        self.list.push(Finding {
            file: spot.map(|spot| spot.file.to_string()),
            line: spot.map(|spot| spot.line),
            message: message.into(),
        });
    }

    /// Nothing, or all of it in the order of files and lines.
    pub(super) fn finish(mut self) -> Result<(), Vec<Finding>> {
        if self.list.is_empty() {
            return Ok(());
        }
        self.list.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        self.list.dedup();
        if self.left_out > 0 {
            let message = format!("and {} more; correct these first", self.left_out);
            self.list.push(Finding { file: None, line: None, message });
        }
        Err(self.list)
    }
}
