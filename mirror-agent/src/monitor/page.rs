//! The status as a page for people: no script, nothing from elsewhere, readable in any browser.

use std::fmt::Write as _;

use jiff::Timestamp;
use protocol::generation::Version;

use crate::status::{AssignmentStatus, State, Status};

/// Whatever a server or a path brought into a text stays text; nothing is loaded or run.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font-family:sans-serif;margin:2em}table{border-collapse:collapse}\
    th,td{text-align:left;padding:.3em .8em;border-bottom:1px solid #ccc}\
    td.n{text-align:right}.bad{color:#a00}";

/// The page.
pub(super) fn render(status: &Status) -> String {
    let mut html = String::new();
    let title = format!("{} of {}", status.agent, status.network);
    // Writing to a String does not fail, here and below.
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"refresh\" content=\"30\"><title>{0}</title><style>{STYLE}</style></head>\
         <body>\n<h1>Mirror agent {0}</h1>\n<ul>\n",
        escaped(&title)
    );
    let coordinator = match (&status.trouble, status.head_until) {
        (Some(trouble), _) => (true, format!("coordinator: {trouble}")),
        (None, Some(until)) => {
            let word = if status.stale { "ended" } else { "good until" };
            (status.stale, format!("orders: {word} {}", time(until)))
        }
        (None, None) => (true, "orders: none yet".into()),
    };
    let waiting = (false, format!("reports that wait: {}", status.unsent_reports));
    let certificate = format!("certificate: good until {}", time(status.certificate_until));
    let mandates = status
        .mandates()
        .map(|text| (!status.without_mandate.is_empty(), format!("mandates: {text}")));
    let facts = [Some(coordinator), Some((false, certificate)), mandates, Some(waiting)];
    for (is_bad, text) in facts.into_iter().flatten() {
        let class = if is_bad { " class=\"bad\"" } else { "" };
        let _ = writeln!(html, "<li{class}>{}</li>", escaped(&text));
    }
    html.push_str(
        "</ul>\n<table>\n<tr><th>Assignment</th><th>State</th><th>Holds</th><th>Target</th>\
         <th>Files</th><th>Bytes</th><th>Last run</th><th>Result</th><th>Error</th></tr>\n",
    );
    for one in &status.assignments {
        row(&mut html, one);
    }
    let _ = write!(
        html,
        "</table>\n<p>As of {}. For programs: <a href=\"/status\">/status</a>, \
         <a href=\"/metrics\">/metrics</a>.</p>\n</body></html>\n",
        time(Timestamp::now())
    );
    html
}

fn row(html: &mut String, one: &AssignmentStatus) {
    let class = if one.state == State::Failed { " class=\"bad\"" } else { "" };
    let cells = [
        one.name.to_string(),
        one.state.name().to_owned(),
        version(one.held),
        version(one.target),
        one.files.to_string(),
        one.bytes.to_string(),
        one.last_run.map_or_else(String::new, time),
        one.last_result.clone().unwrap_or_default(),
        one.error.clone().unwrap_or_default(),
    ];
    let _ = write!(html, "<tr{class}>");
    for (n, cell) in cells.iter().enumerate() {
        let class = if matches!(n, 4 | 5) { " class=\"n\"" } else { "" };
        let _ = write!(html, "<td{class}>{}</td>", escaped(cell));
    }
    html.push_str("</tr>\n");
}

fn version(version: Option<Version>) -> String {
    version.map_or_else(|| "-".into(), |version| version.to_string())
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_said_is_text_in_the_page_and_never_markup() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "network": "test", "agent": "lisbon-1", "certificate-until": "2026-06-01T12:00:00Z",
            "revision": 3, "head-until": null, "stale": false, "trouble": "gone <b>",
            "rsync": null, "unsent-reports": 2, "scrub-paused": false,
            "assignments": [{
                "name": "fedora@lisbon", "path": "fedora", "state": "failed", "held": null,
                "target": null, "files": 1, "bytes": 2, "last-result": "SYNC_FAILED",
                "last-run": null, "error": "<script>alert(\"x\")</script>\u{1b}[2J", "due": null,
            }],
        }))
        .unwrap();
        let html = render(&status);
        assert!(!html.contains("<script") && !html.contains('\u{1b}'), "{html}");
        assert!(html.contains("&lt;script&gt;alert(&quot;x&quot;)"), "{html}");
        assert!(html.contains("gone &lt;b&gt;") && html.contains("fedora@lisbon"), "{html}");
    }
}
