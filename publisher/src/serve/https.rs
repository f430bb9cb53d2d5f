//! The origin's HTTPS: manifests, blocks, packs and whole content.
//!
//! - `GET|HEAD /trees/{tree}/latest` → signed statement, JSON
//! - `GET|HEAD /trees/{tree}/manifests/{HEX}` → block list, one zstd frame
//! - `GET|HEAD /trees/{tree}/blocks/{HEX}` → block, one zstd frame
//! - `GET|HEAD /trees/{tree}/packs/{HEX}` → pack
//! - `GET|HEAD /trees/{tree}/objects/{HEX}` → frames that packs share, if an announced generation of
//!   the tree refers to them
//! - `GET|HEAD /trees/{tree}/content/{HEX}/{PATH}` → a file of the generation whose manifest is
//!   `HEX`; problem `source-moved` when it is no longer what was announced
//! - `GET|HEAD /signed/trees/{tree}/{KIND}/{HEX}` → 307 to the same in a bucket that is not public, by
//!   a URL that holds for a short while; 404 where no bucket has it or signs
//! - `GET|HEAD /healthz` → 200 while the program runs; `/readyz` → 200 while readers are served, for
//!   every role
//! - `GET|HEAD /metrics` → OpenMetrics text; roles admin and viewer
//!
//! All else needs the role agent and the tree among the reader's; anything else is a problem, and a tree
//! that the peer may not read looks like one that does not exist. The layout is
//! [`protocol::origin`]'s, and `{PATH}` is percent-encoded bytes.

use std::{
    convert::Infallible,
    io::{self, Read, Seek, SeekFrom},
    sync::Arc,
};

use axum::body::{Body, Bytes};
use certs::identity::PeerIdentity;
use futures_util::TryStreamExt as _;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use protocol::{
    digest::Digest,
    error::{PROBLEM_JSON, Problem, ProblemKind},
    manifest::Entry,
    name::TreeName,
    open_metrics,
    origin::{self, asked::Asked},
    path::TreePath,
    role::Role,
};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;
use tower::util::BoxCloneSyncService;
use tracing::{debug, error, warn};

use super::{
    file::{self, Answer, Representation},
    metrics::{self, Metrics},
};
use crate::{
    catalog::Served,
    error_chain,
    points::{Form, Kind, Object, Point as _},
    state::State,
    view,
};

/// How much is read at once; bodies of at most this length are sent in one piece. Less than 64 KiB: from
/// there on the C library, as units set it up, maps memory anew for each piece, which costs more CPU than
/// reading it.
const PIECE: u64 = 60 * 1024;
/// Largest manifest list or block that is served.
const MAX_METADATA: u64 = 128 << 20;

pub(super) type Service = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// The service of the whole origin.
pub(super) fn router(state: Arc<State>) -> Service {
    let metrics = Arc::new(Metrics::default());
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Incoming>| {
        let (state, metrics) = (Arc::clone(&state), Arc::clone(&metrics));
        async move {
            let response = handle(state, &metrics, request).await;
            let bytes = response.body().size_hint().exact().or_else(|| length_of(&response));
            metrics.count(response.status(), bytes.unwrap_or(0));
            Ok(response)
        }
    }))
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Alive,
    Ready,
    Metrics,
    Asked(Asked),
    /// The same in a bucket.
    Signed(Object),
}

/// What is sent: bytes in memory, or a file that is read as it goes.
pub(crate) enum Source {
    Memory(Vec<u8>),
    File(std::fs::File),
}

async fn handle(
    state: Arc<State>,
    metrics: &Metrics,
    request: Request<Incoming>,
) -> Response<Body> {
    let (parts, _body) = request.into_parts();
    let peer = parts.extensions.get::<Arc<PeerIdentity>>().cloned();
    match respond(state, metrics, &parts, peer.as_deref()).await {
        Ok(response) => response,
        Err(problem) => {
            let peer = peer.map(|peer| peer.to_string());
            debug!(peer, path = parts.uri.path(), %problem, "refused");
            problem_response(&problem, parts.method == Method::HEAD)
        }
    }
}

async fn respond(
    state: Arc<State>,
    metrics: &Metrics,
    parts: &http::request::Parts,
    peer: Option<&PeerIdentity>,
) -> Result<Response<Body>, Problem> {
    let peer = peer.ok_or_else(|| ProblemKind::Unauthenticated.with("no certificate was shown"))?;
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        let text = format!("{} is not for this server; it only gives", parts.method);
        return Err(ProblemKind::BadRequest.with(text));
    }
    let target = parse(parts.uri.path())?;
    let tree = match &target {
        Target::Alive => return Ok(Response::new(Body::from("ok\n"))),
        Target::Ready => {
            let ready = metrics::is_ready(&state);
            return ready
                .map(|()| Response::new(Body::from("ok\n")))
                .map_err(|why| ProblemKind::Unavailable.with(why));
        }
        Target::Metrics if !matches!(peer.role, Role::Admin | Role::Viewer) => {
            return Err(ProblemKind::Forbidden
                .with(format!("only admins and viewers read metrics, not the {peer}")));
        }
        Target::Metrics => {
            let mut response = Response::new(Body::from(metrics.render(&state)));
            let media = header::HeaderValue::from_static(open_metrics::MEDIA_TYPE);
            response.headers_mut().insert(header::CONTENT_TYPE, media);
            return Ok(response);
        }
        Target::Asked(asked) => asked.tree(),
        Target::Signed(object) => &object.tree,
    };
    if !state.readable_now(peer).await?.contains(tree) {
        return Err(ProblemKind::Forbidden.with(format!(
            "{peer} may not read {tree}: its site has no live grant for it, or no assignment"
        )));
    }
    let asked = match target {
        Target::Asked(asked) => asked,
        Target::Signed(object) => {
            let found = tokio::task::spawn_blocking(move || signed_url(&state, &object)).await;
            let url = found.map_err(|error| {
                error!(%error, "signing a URL failed");
                ProblemKind::Internal.with("")
            })??;
            return Ok(redirect(&url));
        }
        Target::Alive | Target::Ready | Target::Metrics => return Err(not_found()),
    };
    let opened = tokio::task::spawn_blocking(move || open(&state, &asked)).await;
    let (representation, source) = opened.map_err(|error| {
        error!(%error, "opening a file failed");
        ProblemKind::Internal.with("")
    })??;
    let is_get = parts.method == Method::GET;
    let answer = file::answer(&representation, &parts.headers, is_get);
    send(&representation, answer, source, is_get).await
}

fn parse(path: &str) -> Result<Target, Problem> {
    match path {
        "/healthz" => return Ok(Target::Alive),
        "/readyz" => return Ok(Target::Ready),
        "/metrics" => return Ok(Target::Metrics),
        _ => {}
    }
    match path.strip_prefix(origin::SIGNED) {
        None => path.parse().map(Target::Asked).map_err(|_| not_found()),
        Some(path) => match path.parse() {
            Ok(Asked::Object(object)) => Ok(Target::Signed(object)),
            _ => Err(not_found()),
        },
    }
}

fn open(state: &State, asked: &Asked) -> Result<(Representation, Source), Problem> {
    match asked {
        Asked::Latest(tree) => {
            state.catalog.tree(tree).ok_or_else(not_found)?;
            let latest = state.places.origin.latest(tree).map_err(|error| unreadable(&error))?;
            let bytes = latest.ok_or_else(not_found)?;
            Ok((of_bytes(&bytes, false), Source::Memory(bytes)))
        }
        Asked::Object(object) => {
            check_announced(state, object)?;
            let (mut file, length) =
                state.places.origin.open_file(object).map_err(|error| unreadable(&error))?;
            if object.kind.is_named_as_stored() {
                let pack = Representation { length, digest: object.name, immutable: true };
                return Ok((pack, Source::File(file)));
            }
            // Named by what they unpack to, so their own bytes have to be looked at.
            let mut bytes = Vec::new();
            Read::by_ref(&mut file)
                .take(MAX_METADATA)
                .read_to_end(&mut bytes)
                .map_err(|error| unreadable(&error))?;
            Ok((of_bytes(&bytes, true), Source::Memory(bytes)))
        }
        Asked::Content { tree, manifest, path } => {
            let served = state.catalog.tree(tree).ok_or_else(not_found)?;
            let served = served.with_manifest(manifest).ok_or_else(|| {
                ProblemKind::SourceMoved.with(format!(
                    "the generation of {tree} with manifest {manifest} is no longer kept"
                ))
            })?;
            content(state, tree, served, &entry(state, tree, served, path)?)
        }
    }
}

/// A file of a generation.
pub(crate) fn content(
    state: &State,
    tree: &TreeName,
    served: &Served,
    entry: &Entry,
) -> Result<(Representation, Source), Problem> {
    let digest = entry.digest().ok_or_else(not_found)?;
    let opened = state.views.open(tree, served.generation, served.shared, entry);
    let file = opened.map_err(|error| match error {
        view::Error::Moved { .. } => {
            let path = &entry.path;
            warn!(%tree, %path, "asked for, but its source has changed it in place");
            ProblemKind::SourceMoved.with(format!("{tree}: {error}"))
        }
        view::Error::Fs(_) | view::Error::Manifest(_) => {
            unreadable(&io::Error::other(error_chain(&error)))
        }
    })?;
    let file = file.into_std().ok_or_else(not_found)?;
    let content = Representation { length: entry.size(), digest, immutable: true };
    Ok((content, Source::File(file)))
}

/// What packs share is given out only where an announced generation refers to it.
fn check_announced(state: &State, object: &Object) -> Result<(), Problem> {
    let served = state.catalog.tree(&object.tree).ok_or_else(not_found)?;
    match object.kind {
        Kind::Object if !served.objects.contains(&object.name) => Err(not_found()),
        _ => Ok(()),
    }
}

/// A URL of an object in the first bucket that has it and signs.
fn signed_url(state: &State, object: &Object) -> Result<String, Problem> {
    check_announced(state, object)?;
    let form = form_of(state, &object.tree).ok_or_else(not_found)?;
    let named = form.object(object);
    for point in state.places.further.iter().filter(|point| point.takes(&object.tree)) {
        match point.signed_url(&named) {
            Ok(Some(url)) => return Ok(url),
            Ok(None) => {}
            Err(error) => warn!(error = error_chain(&error), "no URL can be signed"),
        }
    }
    Err(not_found())
}

/// The form in which a tree lies at buckets, as far as that is known without asking anybody.
fn form_of(state: &State, tree: &TreeName) -> Option<Form> {
    let orders = state.orders.follow().borrow().clone();
    let private = orders.and_then(|orders| Some(orders.tree(tree)?.private))?;
    if private { state.private.known(tree) } else { Some(Form::Plain) }
}

fn redirect(url: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let Ok(location) = header::HeaderValue::try_from(url) else {
        return problem_response(&ProblemKind::Internal.with(""), false);
    };
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    // It is for this reader, and for a short while.
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

/// What a streamed answer says of its length.
fn length_of(response: &Response<Body>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Finds a path in the one block that can have it.
pub(crate) fn entry(
    state: &State,
    tree: &TreeName,
    served: &Served,
    path: &TreePath,
) -> Result<Entry, Problem> {
    let blocks = served.list.blocks();
    let after = blocks.partition_point(|block| block.first <= *path);
    let block = after.checked_sub(1).and_then(|at| blocks.get(at)).ok_or_else(not_found)?;
    let damaged = |error: &(dyn std::error::Error + 'static)| {
        error!(%tree, error = error_chain(error), "a manifest block cannot be read");
        ProblemKind::Internal.with("")
    };
    let block = state.places.load_block(tree, block).map_err(|error| damaged(&error))?;
    let entries = block.entries().map_err(|error| damaged(&error))?;
    let at = entries.binary_search_by(|entry| entry.path.cmp(path)).map_err(|_| not_found())?;
    entries.into_iter().nth(at).ok_or_else(not_found)
}

pub(crate) async fn send(
    representation: &Representation,
    answer: Answer,
    source: Source,
    is_get: bool,
) -> Result<Response<Body>, Problem> {
    let (status, headers) = file::head(representation, answer);
    let length = file::length(representation, answer);
    let offset = file::offset(answer);
    let body = match source {
        _ if !is_get || length == 0 => Body::empty(),
        Source::Memory(bytes) => {
            let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            Body::from(Bytes::from(bytes).slice(at(offset)..at(offset + length)))
        }
        Source::File(file) => {
            read(file, offset, length).await.map_err(|error| unreadable(&error))?
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

async fn read(mut file: std::fs::File, offset: u64, length: u64) -> io::Result<Body> {
    if length <= PIECE {
        let piece = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut piece, offset).map(|()| piece)
        });
        return Ok(Body::from(piece.await.map_err(io::Error::other)??));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(PIECE as usize);
    let stream = ReaderStream::with_capacity(file.take(length), PIECE as usize);
    Ok(Body::from_stream(stream.map_err(|error| {
        warn!(%error, "reading failed in the middle of an answer; the connection is cut");
        error
    })))
}

pub(crate) fn of_bytes(bytes: &[u8], immutable: bool) -> Representation {
    Representation { length: bytes.len() as u64, digest: Digest::of(bytes), immutable }
}

pub(crate) fn not_found() -> Problem {
    ProblemKind::NotFound.with("")
}

fn unreadable(error: &io::Error) -> Problem {
    if error.kind() == io::ErrorKind::NotFound {
        return not_found();
    }
    error!(%error, "a file that is published cannot be read");
    ProblemKind::Internal.with("")
}

pub(crate) fn problem_response(problem: &Problem, is_head: bool) -> Response<Body> {
    let json = serde_json::to_vec(problem).unwrap_or_default();
    let mut response = Response::new(if is_head { Body::empty() } else { Body::from(json) });
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let media = header::HeaderValue::from_static(PROBLEM_JSON);
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_layout_writes_is_read_back_and_nothing_else_is() {
        let (tree, name) = ("fedora".parse().unwrap(), Digest::of(b"x"));
        let pack = origin::pack_path(&tree, &name);
        let packed = Object { tree, kind: Kind::Pack, name };
        assert_eq!(parse(&pack), Ok(Target::Asked(Asked::Object(packed.clone()))));
        assert_eq!(parse(&format!("/signed{pack}")), Ok(Target::Signed(packed)));
        for path in [
            "/",
            "/trees/fedora",
            "/signed/trees/fedora/latest",
            "/signed/healthz",
            "/signed/metrics",
            &format!("/signed/signed{pack}"),
            &format!("{pack}/"),
        ] {
            assert!(parse(path).is_err(), "{path}");
        }
    }
}
