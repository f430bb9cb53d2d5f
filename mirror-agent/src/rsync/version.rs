//! Which rsync this host has, and what is known against it.
//!
//! rsync talks to servers that nobody here vouches for. The holes that were found in it over the
//! years are closed by updating it, and by nothing that we could do as well; so whoever runs an old
//! one is told which of them it has.

use std::time::Duration;

use tokio::{process::Command, time::timeout};

use super::child::Programs;

/// The rsync program that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The first line of `rsync --version`.
    pub line: String,
    /// Its number; absent where the line has none.
    pub number: Option<[u32; 3]>,
}

/// What a hostile server can do to a client older than 3.4.0.
const BEFORE_3_4_0: &str = "CVE-2024-12085 (the client's memory leaks), CVE-2024-12086 (a server reads the client's files), \
     CVE-2024-12087 (a server writes outside of the destination), CVE-2024-12088 (--safe-links is passed by)";
/// What it can do to one older than 3.5.0.
const BEFORE_3_5_0: &str = "CVE-2026-43618 (the client's memory leaks), CVE-2026-43620 (a server ends the client), \
     CVE-2026-53795 and CVE-2026-53796 (races in its directories), CVE-2026-70462 (a server switches off the client's time limit)";

impl Version {
    /// Asks the program; `None` where there is none.
    pub async fn of(programs: &Programs) -> Option<Self> {
        let asked =
            Command::new(&programs.rsync).arg("--version").env_clear().kill_on_drop(true).output();
        let output = timeout(Duration::from_secs(10), asked).await.ok()?.ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        output.status.success().then(|| Self::parse(text.lines().next().unwrap_or_default()))
    }

    /// Reads `rsync  version 3.5.0  protocol version 32`.
    fn parse(line: &str) -> Self {
        let word = line.split_whitespace().skip_while(|word| *word != "version").nth(1);
        let numbers = word.map(|word| {
            let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect();
            let parts: Vec<String> =
                word.trim_start_matches('v').splitn(3, '.').map(digits).collect();
            parts.iter().map_while(|part| part.parse().ok()).collect::<Vec<u32>>()
        });
        let number = numbers.and_then(|numbers| match numbers[..] {
            [major, minor, patch] => Some([major, minor, patch]),
            [major, minor] => Some([major, minor, 0]),
            _ => None,
        });
        Self { line: line.to_owned(), number }
    }

    /// What an admin should know of it; `None` where nothing is known against it. Distributions
    /// mend holes without changing the number, so this is a warning and no refusal.
    pub fn warning(&self) -> Option<String> {
        let known = match self.number? {
            number if number < [3, 4, 0] => {
                format!("{BEFORE_3_4_0}, {BEFORE_3_5_0}; update it, at least to 3.4.0")
            }
            number if number < [3, 5, 0] => format!("{BEFORE_3_5_0}; 3.5.0 or newer is better"),
            _ => return None,
        };
        Some(format!("this rsync has, unless the distribution mended it: {known}"))
    }

    /// Whether a list that grows while it is used can end this rsync (CVE-2026-43620).
    pub fn list_first(&self) -> bool {
        self.number.is_none_or(|number| number < [3, 4, 3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: &str) -> Version {
        Version::parse(&format!("rsync  version {number}  protocol version 31"))
    }

    #[test]
    fn the_number_is_read_from_whatever_distributions_print() {
        for (text, number) in [
            ("3.5.0", Some([3, 5, 0])),
            ("v3.2.7", Some([3, 2, 7])),
            ("3.4.1pre1", Some([3, 4, 1])),
            ("3.4", Some([3, 4, 0])),
            ("3", None),
            ("next", None),
        ] {
            assert_eq!(version(text).number, number, "{text}");
        }
        assert_eq!(Version::parse("openrsync: protocol version 29").number, None);
        assert_eq!(Version::parse("").number, None);
    }

    #[test]
    fn an_old_rsync_is_named_with_its_holes_and_used_with_care() {
        let warning = version("3.2.7").warning().unwrap();
        assert!(warning.contains("CVE-2024-12087") && warning.contains("CVE-2026-70462"));
        let warning = version("3.4.1").warning().unwrap();
        assert!(!warning.contains("CVE-2024") && warning.contains("CVE-2026-43620"));
        assert_eq!(version("3.5.0").warning(), None);
        let careful = ["3.1.3", "3.4.2", "next"].map(|text| version(text).list_first());
        assert_eq!(careful, [true; 3]);
        assert!(!version("3.4.3").list_first() && !version("3.5.0").list_first());
    }
}
