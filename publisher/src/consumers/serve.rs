//! The server for consumers.
//!
//! - `GET|HEAD /{PATH OF A TREE}/{PATH}` → a file of the tree's newest announced generation; symbolic
//!   links within the tree are followed
//! - `GET|HEAD /` → the paths of trees, one on each line, where the admin lets them be listed
//! - 403 where none of the tree's guards lets the consumer in; 404 for what is not there, a directory
//!   included
//!
//! A consumer's certificate comes with its connection. Behind a proxy it comes in the header
//! `X-CLIENT-CERT`, in PEM, percent-encoded; that header counts only on a connection whose own
//! certificate is one of the proxies', and then it alone counts.

use std::{convert::Infallible, path::Path, sync::Arc};

use axum::body::Body;
use certs::{
    guard::{Denied, Shown},
    keyfile,
    tls::{ALPN_H2, ALPN_HTTP1, Credentials, Limits, Peers, ServerTls},
};
use http::{
    Method, Request, Response,
    header::{self, HeaderValue},
};
use hyper::body::Incoming;
use protocol::{
    error::{Problem, ProblemKind},
    manifest::{Entry, EntryKind},
    origin::url_path,
    path::{TreePath, unescape},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;
use tracing::{debug, info};

use super::{
    config::{ConsumedTree, ConsumersConfig, Listing},
    guards::{self, Asker, Guards},
    links,
};
use crate::{
    catalog::Served,
    durable,
    serve::{
        file,
        https::{Source, content, entry, not_found, of_bytes, problem_response, send},
    },
    state::State,
};

/// Where a proxy puts the certificate of who asks it.
const HEADER: &str = "x-client-cert";
/// Most symbolic links that one path follows.
const MAX_LINKS: usize = 16;
/// Longest life of a server certificate's file that is not looked at.
const LOOK: std::time::Duration = std::time::Duration::from_secs(60);

/// Why consumers are not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port.
    #[error("consumers.listen: cannot listen on {address}; is another program using it?")]
    Listen {
        /// What was configured.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The certificate's file.
    #[error("consumers.certificate: {path} cannot be read", path = path.display())]
    Certificate {
        /// Which file.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The key's file.
    #[error("consumers.key")]
    Key(#[from] keyfile::Error),
    /// They cannot be used.
    #[error("consumers.certificate and consumers.key cannot be used")]
    Tls(#[from] certs::tls::Error),
    /// A guard.
    #[error(transparent)]
    Guard(#[from] guards::Error),
    /// The data directory.
    #[error("the data directory cannot be used")]
    Data(#[source] std::io::Error),
}

/// Reads every file that is named, as a start would.
pub(crate) fn check(config: &ConsumersConfig) -> Result<(), Error> {
    Guards::open(config)?;
    ServerTls::new(&credentials(config)?, Peers::Consumers, &[ALPN_H2, ALPN_HTTP1])?;
    Ok(())
}

/// Binds the port and serves consumers until `shutdown`; the task ends with the last connection.
pub(crate) async fn serve(
    state: Arc<State>,
    config: &ConsumersConfig,
    data: &filetree::fs::Dir,
    shutdown: CancellationToken,
) -> Result<tokio::task::JoinHandle<()>, Error> {
    let guards = Guards::open(config)?;
    let credentials = credentials(config)?;
    let tls = ServerTls::new(&credentials, Peers::Consumers, &[ALPN_H2, ALPN_HTTP1])?;
    let failed = |source| Error::Listen { address: config.listen.clone(), source };
    let listener = TcpListener::bind(&config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    durable::replace(data, b"consumers-listen", format!("{address}\n").as_bytes())
        .map_err(Error::Data)?;
    info!(%address, trees = config.trees.len(), "serving consumers");
    let world = Arc::new(World { state, guards, config: config.clone() });
    let service = BoxCloneSyncService::new(tower::service_fn(move |request: Request<Incoming>| {
        let world = Arc::clone(&world);
        async move { Ok::<_, Infallible>(world.handle(request).await) }
    }));
    let (renewed, files, ended) = (Arc::clone(&tls), config.clone(), shutdown.clone());
    Ok(tokio::spawn(async move {
        tokio::select! {
            () = certs::tls::serve(listener, tls, service, vec![], Limits::default(), shutdown) => {}
            () = keep_shown(&renewed, &files, ended) => {}
        }
    }))
}

/// Shows a certificate that was replaced in its file, without a restart. Never ends.
async fn keep_shown(tls: &ServerTls, config: &ConsumersConfig, shutdown: CancellationToken) {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let mut known = changed(&config.certificate);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => std::future::pending::<()>().await,
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = changed(&config.certificate);
        if now == known {
            continue;
        }
        match credentials(config).and_then(|new| Ok(tls.reload(&new)?)) {
            Ok(()) => {
                known = now;
                info!("consumers are shown the new certificate");
            }
            Err(error) => {
                let error = crate::error_chain(&error);
                tracing::warn!(error, "consumers are shown the old certificate");
            }
        }
    }
}

fn credentials(config: &ConsumersConfig) -> Result<Credentials, Error> {
    let path = &config.certificate;
    let chain = std::fs::read_to_string(path)
        .map_err(|source| Error::Certificate { path: path.clone(), source })?;
    Ok(Credentials::from_pem(&chain, &keyfile::read_text(&config.key)?)?)
}

struct World {
    state: Arc<State>,
    guards: Guards,
    config: ConsumersConfig,
}

impl World {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (parts, _body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        match self.respond(&parts).await {
            Ok(response) => response,
            Err(problem) => {
                debug!(path = parts.uri.path(), %problem, "refused to a consumer");
                problem_response(&problem, is_head)
            }
        }
    }

    async fn respond(
        self: &Arc<Self>,
        parts: &http::request::Parts,
    ) -> Result<Response<Body>, Problem> {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            let text = format!("{} is not for this server; it only gives", parts.method);
            return Err(ProblemKind::BadRequest.with(text));
        }
        let now = certs::clock::now();
        let shown = self.shown(parts);
        if parts.uri.path().bytes().all(|byte| byte == b'/') {
            return self.list(parts, shown.as_deref(), now).await;
        }
        let asked = path(parts.uri.path())?;
        let below = |tree: &ConsumedTree| asked.below(&tree.path);
        let found = self.config.trees.iter().find_map(|tree| Some((tree.clone(), below(tree)?)));
        let (tree, inside) = found.ok_or_else(not_found)?;
        let guards = self.config.guards_of(&tree);
        let guarded = guards.is_some();
        if let Some(guards) = guards {
            let link = links::read(parts.uri.query(), &asked);
            let asker = Asker { shown: shown.as_deref(), link: link.as_ref() };
            self.guards.check(guards, asker, &asked, now).map_err(|denied| {
                info!(path = %asked, reason = %denied, "a consumer is refused");
                ProblemKind::Forbidden.with(told(&denied))
            })?;
        }
        let world = Arc::clone(self);
        let opened = tokio::task::spawn_blocking(move || {
            let served = world.state.catalog.tree(&tree.tree).ok_or_else(not_found)?;
            let newest = served.generations.last().ok_or_else(not_found)?;
            let entry = resolve(&inside, |path| find(&world.state, &tree, newest, path))?;
            content(&world.state, &tree.tree, newest, &entry)
        });
        let (mut representation, source) = opened.await.map_err(|error| {
            tracing::error!(%error, "opening a file failed");
            ProblemKind::Internal.with("")
        })??;
        // The path means other bytes with the next generation.
        representation.immutable = false;
        let is_get = parts.method == Method::GET;
        let answer = file::answer(&representation, &parts.headers, is_get);
        let mut response = send(&representation, answer, source, is_get).await?;
        if guarded {
            // Whoever asks next through the same cache is another one.
            let own = HeaderValue::from_static("private, no-cache");
            response.headers_mut().insert(header::CACHE_CONTROL, own);
        }
        Ok(response)
    }

    /// The trees that whoever asks is told of, one on each line. A signed URL names one path, and
    /// opens no list.
    async fn list(
        &self,
        parts: &http::request::Parts,
        shown: Option<&Shown>,
        now: jiff::Timestamp,
    ) -> Result<Response<Body>, Problem> {
        let asker = Asker { shown, link: None };
        let is_told = |tree: &&ConsumedTree| match self.config.listing {
            Listing::None => false,
            Listing::All => true,
            Listing::Open => self
                .config
                .guards_of(tree)
                .is_none_or(|guards| self.guards.check(guards, asker, &tree.path, now).is_ok()),
        };
        if self.config.listing == Listing::None {
            return Err(not_found());
        }
        let told = self.config.trees.iter().filter(is_told);
        let mut paths: Vec<&TreePath> = told.map(|tree| &tree.path).collect();
        paths.sort();
        let text: String =
            paths.into_iter().map(|path| format!("/{}/\n", url_path(path))).collect();
        let (representation, source) = (of_bytes(text.as_bytes(), false), text.into_bytes());
        let is_get = parts.method == Method::GET;
        let answer = file::answer(&representation, &parts.headers, is_get);
        let source = Source::Memory(source);
        let mut response = send(&representation, answer, source, is_get).await?;
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, plain);
        Ok(response)
    }

    /// The certificate of who asks.
    fn shown(&self, parts: &http::request::Parts) -> Option<Arc<Shown>> {
        let own = parts.extensions.get::<Arc<Shown>>().cloned()?;
        let print = data_encoding::HEXLOWER.encode(&own.fingerprint());
        if !self.config.proxies.contains(&print) {
            return Some(own);
        }
        // Two of them are two opinions about who asks.
        let mut headers = parts.headers.get_all(HEADER).iter();
        let (Some(header), None) = (headers.next(), headers.next()) else { return None };
        from_header(header.to_str().ok()?).map(Arc::new)
    }
}

/// Reads a certificate as nginx (`$ssl_client_escaped_cert`) and Apache (`%{escape:…}`) send it.
/// Apache before 2.4.10 cannot escape, and writes spaces for the ends of lines.
fn from_header(text: &str) -> Option<Shown> {
    const LABEL: &str = " CERTIFICATE-----";
    let text = String::from_utf8(unescape(text)?).ok()?;
    if text.contains('\n') {
        return Shown::from_pem(&text);
    }
    let lines = text.replace(LABEL, "\0").replace(' ', "\n").replace('\0', LABEL);
    Shown::from_pem(&lines)
}

/// What a consumer is told: which of the reasons, and no more about the authorities.
fn told(denied: &Denied) -> String {
    match denied {
        Denied::Chain(_) => "the client certificate is not good for this".into(),
        other => other.to_string(),
    }
}

/// The path of a request. Slashes that follow on each other count as one.
fn path(text: &str) -> Result<TreePath, Problem> {
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    TreePath::parse_text(&parts.join("/"))
        .map_err(|error| ProblemKind::BadRequest.with(error.to_string()))
}

fn find(
    state: &State,
    tree: &ConsumedTree,
    newest: &Served,
    path: &TreePath,
) -> Result<Option<Entry>, Problem> {
    match entry(state, &tree.tree, newest, path) {
        Ok(entry) => Ok(Some(entry)),
        Err(problem) if problem.kind == ProblemKind::NotFound => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// The file that a path leads to, by links that stay within the tree.
fn resolve(
    asked: &TreePath,
    find: impl Fn(&TreePath) -> Result<Option<Entry>, Problem>,
) -> Result<Entry, Problem> {
    let mut path = asked.clone();
    for _ in 0..=MAX_LINKS {
        let there = match find(&path)? {
            Some(entry) => entry,
            None => link_on_the_way(&path, &find)?.ok_or_else(not_found)?,
        };
        match &there.kind {
            EntryKind::File { .. } => return Ok(there),
            EntryKind::Dir => return Err(not_found()),
            EntryKind::Symlink { target } => {
                path = lead(&there.path, target, &path).ok_or_else(not_found)?;
            }
        }
    }
    Err(not_found())
}

/// The first link among the directories above a path.
fn link_on_the_way(
    path: &TreePath,
    find: &impl Fn(&TreePath) -> Result<Option<Entry>, Problem>,
) -> Result<Option<Entry>, Problem> {
    for above in path.ancestors() {
        match find(&above)? {
            Some(entry) if entry.is_dir() => {}
            Some(entry) if matches!(entry.kind, EntryKind::Symlink { .. }) => {
                return Ok(Some(entry));
            }
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Where `path` leads by the link at `link`, which it is or goes through; `None` out of the tree.
fn lead(link: &TreePath, target: &[u8], path: &TreePath) -> Option<TreePath> {
    if target.starts_with(b"/") {
        return None;
    }
    let mut parts: Vec<&[u8]> = link.components().collect();
    parts.pop();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    let rest = path.below(link);
    parts.extend(rest.iter().flat_map(TreePath::components));
    TreePath::parse(&parts.join(&b'/')).ok()
}

#[cfg(test)]
mod tests {
    use protocol::digest::Digest;

    use super::*;

    fn at(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn links_are_followed_within_the_tree_and_no_further() {
        let file = |path| Entry {
            path: at(path),
            mode: 0o644,
            mtime: 0,
            kind: EntryKind::File { size: 1, digest: Digest::of(b"x"), link_group: None },
        };
        let dir = |path| Entry { kind: EntryKind::Dir, ..file(path) };
        let link = |path, target: &str| {
            let target = target.as_bytes().into();
            Entry { kind: EntryKind::Symlink { target }, ..file(path) }
        };
        let entries = [
            dir("a"),
            dir("a/42"),
            file("a/42/f"),
            link("a/latest", "42"),
            link("a/f", "latest/../42/./f"),
            link("a/up", "../../etc/passwd"),
            link("a/root", "/etc/passwd"),
            link("a/loop", "loop"),
            link("a/gone", "43"),
        ];
        let find = |path: &TreePath| Ok(entries.iter().find(|e| e.path == *path).cloned());
        let resolved = |path| resolve(&at(path), find).map(|entry| entry.path.to_string()).ok();
        for path in ["a/42/f", "a/latest/f", "a/f"] {
            assert_eq!(resolved(path).as_deref(), Some("a/42/f"), "{path}");
        }
        for path in
            ["a", "a/42", "a/latest", "a/up", "a/root", "a/loop", "a/loop/x", "a/gone/f", "b"]
        {
            assert_eq!(resolved(path), None, "{path}");
        }
    }

    #[test]
    fn a_path_is_decoded_once_and_never_leads_out() {
        let text = |asked: &str| path(asked).map(|path| path.to_string()).ok();
        assert_eq!(text("//a//b%20c/").as_deref(), Some("a/b c"));
        for bad in ["/", "/a/../b", "/a/%2e%2e/b", "/a%2f..%2fb", "/./a", "/a%00", "/%zz"] {
            assert_eq!(text(bad), None, "{bad}");
        }
    }
}
