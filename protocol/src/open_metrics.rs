//! The text that monitoring reads: OpenMetrics 1.0, as every daemon answers `GET /metrics`.

use std::fmt::{Display, Write as _};

/// Its media type.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a family counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its samples are called `NAME_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// The text while it is written.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a family; its samples follow it at once.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}");
    }

    /// One sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{open}{label}=\"{text}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    /// A gauge of one sample.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help);
        self.sample(name, &[], value);
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        self.0.push_str("# EOF\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_the_end_is_marked() {
        let mut text = Text::default();
        text.family("a", Kind::Counter, "Help.");
        text.sample("a_total", &[("x", "q\"\\\n"), ("y", "z")], 3);
        text.gauge("b", "More.", 1.5);
        assert_eq!(
            text.finish(),
            "# TYPE a counter\n# HELP a Help.\na_total{x=\"q\\\"\\\\\\n\",y=\"z\"} 3\n\
             # TYPE b gauge\n# HELP b More.\nb 1.5\n# EOF\n"
        );
    }
}
