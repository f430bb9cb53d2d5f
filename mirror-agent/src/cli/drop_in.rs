//! What the agent's systemd unit has to know of its configuration.
//!
//! The unit lets the agent write below its state directory and nowhere else. Which further
//! directories those are is said once, in `mirror-agent.toml`, and a generator that systemd runs at
//! each `daemon-reload` has it written here.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use crate::{config::Config, fence};

/// What the unit opens by itself (StateDirectory).
const STATE: &str = "/var/lib/mirrornet/agent";
/// What the unit hides (ProtectHome).
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// The drop-in's text.
pub(super) fn text(config: &Config) -> String {
    let mut writable: Vec<PathBuf> = Vec::new();
    for path in fence::writable(config) {
        if !path.starts_with(STATE) && !writable.iter().any(|above| path.starts_with(above)) {
            writable.push(path);
        }
    }
    let mut text = String::from(
        "# Written by the generator of mirrornet-mirror-agent from mirror-agent.toml: change `storage` there.\n\
         [Service]\nReadWritePaths=\n",
    );
    for path in &writable {
        // Writing to a String does not fail. What is not there yet is the agent's to report.
        let _ = writeln!(text, "ReadWritePaths=\"-{}\"", escaped(path));
    }
    if writable.iter().any(|path| HOMES.iter().any(|home| path.starts_with(home))) {
        text.push_str("ProtectHome=read-only\n");
    }
    text
}

/// A path as a quoted word of a unit file.
fn escaped(path: &Path) -> String {
    let text = path.display().to_string();
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_that_is_written_to_is_named_once() {
        let config = Config { storage: "/data/50% \"mirror\"".into(), ..Config::default() };
        let lines = |config: &Config| -> Vec<String> {
            let text = text(config);
            let named = text.lines().filter_map(|line| line.strip_prefix("ReadWritePaths="));
            named.map(str::to_owned).collect()
        };
        assert_eq!(lines(&config), ["", "\"-/data/50%% \\\"mirror\\\"\""]);
        let config = Config {
            storage: "/home/mirror".into(),
            publish: Some("/srv/www".into()),
            data: "/elsewhere".into(),
            writable: vec!["/var/spool/hooks".into()],
            ..Config::default()
        };
        let named =
            ["", "\"-/home/mirror\"", "\"-/srv/www\"", "\"-/elsewhere\"", "\"-/var/spool/hooks\""];
        assert_eq!(lines(&config), named);
        assert!(text(&config).contains("ProtectHome=read-only"));
    }
}
