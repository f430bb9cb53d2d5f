//! Upstreams and sources: where trees come from.

use protocol::{
    path::TreePath,
    spec::{SourceSpec, Transport, UpstreamKind, UpstreamSpec},
    v1::definitions::Kind,
};

use super::Subject;
use crate::app::definition::{
    findings::Findings,
    upstream_url::{InvalidRsyncUrl, RsyncUrl},
};

/// Checks the upstreams and sources of the files, and the sources of upstreams of the files.
pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings, warnings: &mut Vec<String>) {
    for (name, upstream) in &subject.next.upstreams {
        if subject.place(Kind::Upstream, name.as_str()).is_none() {
            continue;
        }
        let mut refuse = |key: &str, message: String| {
            let spot = subject.spot(Kind::Upstream, name.as_str(), key);
            findings.push(spot, format!("upstream {name}: {message}"));
        };
        match upstream.kind {
            UpstreamKind::Publisher => check_publisher(upstream, &mut refuse),
            UpstreamKind::Rsyncd => check_rsyncd(upstream, &mut refuse),
        }
        if upstream.max_connections == Some(0) {
            let message = "0 connections would reach nothing; leave the key out for no bound";
            refuse("max-connections", message.into());
        }
        if upstream.password_file.is_some() && upstream.user.is_none() {
            warnings.push(format!(
                "upstream {name} has a password-file but no user; rsync daemons then take the agent's own user name"
            ));
        }
    }
    for (name, source) in &subject.next.sources {
        let Some(upstream) = subject.next.upstreams.get(&source.upstream) else { continue };
        let problem = match upstream.kind {
            UpstreamKind::Publisher => absolute_path_problem(source),
            UpstreamKind::Rsyncd => module_path_problem(source),
        };
        if let Some(problem) = problem {
            // A stored source can be broken by an upstream that changes its kind.
            let spot = subject
                .spot(Kind::Source, name.as_str(), "path")
                .or_else(|| subject.spot(Kind::Upstream, upstream.name.as_str(), "kind"));
            findings.push(spot, format!("source {name}: path {:?} {problem}", source.path));
        }
    }
}

fn check_publisher(upstream: &UpstreamSpec, refuse: &mut impl FnMut(&str, String)) {
    let only_rsyncd = [
        ("url", upstream.url.is_some()),
        ("user", upstream.user.is_some()),
        ("password-file", upstream.password_file.is_some()),
        ("transport", upstream.transport != Transport::default()),
        ("key-file", upstream.key_file.is_some()),
        ("host-key", upstream.host_key.is_some()),
    ];
    for (key, is_set) in only_rsyncd {
        if is_set {
            let message = format!(
                "`{key}` is for kind = \"rsyncd\"; a publisher says itself where it is, so remove the key or change the kind"
            );
            refuse(key, message);
        }
    }
}

fn check_rsyncd(upstream: &UpstreamSpec, refuse: &mut impl FnMut(&str, String)) {
    if upstream.publisher.is_some() {
        let message = "`publisher` is for kind = \"publisher\"; remove the key or change the kind";
        refuse("publisher", message.into());
    }
    match upstream.url.as_deref().map(str::parse::<RsyncUrl>) {
        Some(Ok(_)) => {}
        // The text is not repeated where it may hold a password.
        Some(Err(error @ InvalidRsyncUrl::UserInfo)) => refuse("url", format!("the url: {error}")),
        Some(Err(error)) => {
            refuse("url", format!("{:?}: {error}", upstream.url.as_deref().unwrap_or_default()));
        }
        None => {
            refuse("kind", "a stock daemon needs url = \"rsync://HOST[:PORT]/\"; add it".into());
        }
    }
    if !upstream.points.is_empty() {
        let message = "`points` is for kind = \"publisher\": a stock daemon makes no packs";
        refuse("points", message.into());
    }
    if let Some(user) = &upstream.user {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if user.is_empty() || user.starts_with('-') || !user.bytes().all(plain) {
            let message = "use letters, digits, '.', '_' and '-', not beginning with '-'";
            refuse("user", format!("user {user:?} is not valid; {message}"));
        }
    }
    for (key, file) in
        [("password-file", &upstream.password_file), ("key-file", &upstream.key_file)]
    {
        if let Some(file) = file
            && !(file.starts_with('/') && is_clean(file))
        {
            let message = "write the absolute path of a file on the agents' hosts";
            refuse(key, format!("{key} {file:?} is not valid; {message}"));
        }
    }
    check_ssh(upstream, refuse);
}

/// A key on each side, and neither without ssh.
fn check_ssh(upstream: &UpstreamSpec, refuse: &mut impl FnMut(&str, String)) {
    let (key_file, host_key) = (upstream.key_file.is_some(), upstream.host_key.is_some());
    if upstream.transport == Transport::Ssh {
        if !(key_file && host_key) {
            let message = "ssh needs key-file = \"/PATH/ON/THE/AGENTS/HOST\" and host-key = \"TYPE BASE64\"; add what is missing";
            refuse("transport", message.into());
        }
    } else {
        for (key, is_set) in [("key-file", key_file), ("host-key", host_key)] {
            if is_set {
                refuse(key, format!("`{key}` is for transport = \"ssh\"; remove it or set that"));
            }
        }
    }
    if let Some(host_key) = &upstream.host_key
        && !is_host_key(host_key)
    {
        let message = "write TYPE BASE64 as ssh-keyscan prints it behind the host's name";
        refuse("host-key", format!("host-key {host_key:?} is not valid; {message}"));
    }
}

/// `TYPE BASE64`, which becomes one line of a file.
fn is_host_key(text: &str) -> bool {
    let Some((kind, key)) = text.split_once(' ') else { return false };
    let is_kind = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'@');
    let is_base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    (1..=64).contains(&kind.len())
        && kind.as_bytes()[0].is_ascii_alphabetic()
        && kind.bytes().all(is_kind)
        && (16..=8_192).contains(&key.len())
        && key.bytes().all(is_base64)
}

/// Without `.` and `..` components and control characters.
fn is_clean(path: &str) -> bool {
    let dots = path.split('/').any(|component| matches!(component, "." | ".."));
    !dots && !path.chars().any(char::is_control)
}

fn absolute_path_problem(source: &SourceSpec) -> Option<&'static str> {
    if !source.path.starts_with('/') {
        return Some(
            "is not absolute; write the directory as the publisher sees it, as in \"/srv/releases\"",
        );
    }
    if !is_clean(&source.path) {
        return Some("has a '.' or '..' component or a control character; write it without");
    }
    (source.path.len() > TreePath::MAX_LEN).then_some("is longer than 4096 bytes; shorten it")
}

fn module_path_problem(source: &SourceSpec) -> Option<&'static str> {
    let path = source.path.strip_suffix('/').unwrap_or(&source.path);
    if path.starts_with('/') {
        return Some(
            "begins with '/'; at a stock daemon write MODULE or MODULE/PATH, as in \"debian/dists\"",
        );
    }
    if TreePath::parse(path.as_bytes()).is_err() || !is_clean(path) {
        return Some(
            "is not MODULE or MODULE/PATH without empty, '.' and '..' components; correct it",
        );
    }
    if path.starts_with('-') {
        return Some("begins with '-', which a program would take for an option");
    }
    path.contains(['*', '?', '[', ']'])
        .then_some("has a wildcard, which the daemon would expand; name one directory")
}
