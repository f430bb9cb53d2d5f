//! What a relay answers over HTTPS: the layout of a publication point ([`protocol::origin`]).
//!
//! - `GET|HEAD /trees/{tree}/…` → what a publisher answers there; only those that the coordinator
//!   names, each with its trees
//! - `GET|HEAD /healthz` → 200 while the relay runs; any certificate of the network

use std::{convert::Infallible, sync::Arc};

use axum::body::Body;
use certs::identity::PeerIdentity;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use protocol::{
    digest::Digest,
    error::{PROBLEM_JSON, Problem, ProblemKind},
    origin::{
        self, Kind, Object,
        asked::Asked,
        file::{self, Representation},
    },
    wire,
};
use tower::util::BoxCloneSyncService;

use super::{
    body::{Part, Source},
    cache::Cache,
    content, readers,
    through::{Through, order_of},
};
use crate::{agent::Agent, fetch::ranges::Error};

/// zstd level of manifests and blocks, which are kept here in a form of their own.
const LEVEL: i32 = 3;

type Service = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

struct Relay {
    agent: Arc<Agent>,
    cache: Option<Arc<Cache>>,
}

/// The service of the whole relay.
pub(super) fn service(agent: Arc<Agent>) -> Service {
    let dir = agent.config.work().join("relay");
    let cache = match Cache::open(&dir, agent.config.relay.cache.0) {
        Ok(cache) => Some(Arc::new(cache)),
        Err(error) => {
            let dir = dir.display();
            tracing::error!(%error, %dir, "others are only served with what is held here");
            None
        }
    };
    let relay = Arc::new(Relay { agent, cache });
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Incoming>| {
        let relay = Arc::clone(&relay);
        async move { Ok(relay.handle(request).await) }
    }))
}

impl Relay {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, _body) = request.into_parts();
        let peer = parts.extensions.get::<Arc<PeerIdentity>>().cloned();
        match self.respond(&parts, peer.as_deref()).await {
            Ok(response) => response,
            Err(problem) => {
                let peer = peer.map(|peer| peer.to_string());
                tracing::debug!(peer, path = parts.uri.path(), %problem, "refused");
                problem_response(&problem, parts.method == Method::HEAD)
            }
        }
    }

    async fn respond(
        &self,
        parts: &http::request::Parts,
        peer: Option<&PeerIdentity>,
    ) -> Result<Response<Body>, Problem> {
        let peer =
            peer.ok_or_else(|| ProblemKind::Unauthenticated.with("no certificate was shown"))?;
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            let text = format!("{} is not for this server; it only gives", parts.method);
            return Err(ProblemKind::BadRequest.with(text));
        }
        if parts.uri.path() == "/healthz" {
            return Ok(Response::new(Body::from("ok\n")));
        }
        let asked: Asked = parts.uri.path().parse().map_err(|_| not_found())?;
        readers::check(&self.agent, peer, asked.tree()).await?;
        let (of, source) = self.find(asked).await?;
        let is_get = parts.method == Method::GET;
        let answer = file::answer(&of, &parts.headers, is_get);
        let (status, headers) = file::head(&of, answer);
        let (offset, length) = (file::offset(answer), file::length(&of, answer));
        let body = match is_get && length > 0 {
            true => source.body(offset..offset + length),
            false => Body::empty(),
        };
        let mut response = Response::new(body);
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }

    /// What was asked for: from what is held, else from the cache and what is behind it.
    async fn find(&self, asked: Asked) -> Result<(Representation, Source), Problem> {
        let held = held(Arc::clone(&self.agent), asked.clone());
        if let Some(found) = tokio::task::spawn_blocking(held).await.map_err(|error| {
            tracing::error!(%error, "looking for what is held failed");
            ProblemKind::Internal.with("")
        })? {
            return Ok(found);
        }
        let (path, digest) = match &asked {
            Asked::Latest(_) => return Err(not_found()),
            Asked::Object(Object { tree, kind, name }) => match kind {
                Kind::Manifest => (origin::manifest_path(tree, name), None),
                Kind::Block => (origin::block_path(tree, name), None),
                Kind::Pack => (origin::pack_path(tree, name), Some(*name)),
                Kind::Object => (origin::shared_path(tree, name), Some(*name)),
            },
            Asked::Content { tree, manifest, path } => {
                let url = origin::content_path(tree, manifest, path);
                let (agent, manifest, path) = (Arc::clone(&self.agent), *manifest, path.clone());
                let look = move || content::entry(&agent, &manifest, &path)?.digest();
                (url, tokio::task::spawn_blocking(look).await.ok().flatten())
            }
        };
        let is_content = matches!(asked, Asked::Content { .. });
        let part = self.part(&asked, path, digest, is_content || digest.is_none()).await?;
        let digest = digest.unwrap_or(part.name);
        let of = Representation { length: part.object.length(), digest, immutable: true };
        Ok((of, Source::Cached(part)))
    }

    async fn part(
        &self,
        asked: &Asked,
        path: String,
        digest: Option<Digest>,
        only_members: bool,
    ) -> Result<Part, Problem> {
        let cache = self.cache.as_ref().ok_or_else(|| {
            ProblemKind::Unavailable
                .with("this relay can keep nothing, and does not hold it itself")
        })?;
        let (order, from) = order_of(&self.agent, asked.tree()).ok_or_else(not_found)?;
        let of = (&order.name.tree, &from);
        let name = Digest::of(path.as_bytes());
        let kept = cache.get(&name);
        let through = match &kept {
            Some(object) => Through::known(&self.agent, of, path, only_members, object.length()),
            None => Through::find(&self.agent, of, path, only_members).await,
        };
        let through = Arc::new(through.map_err(|error| problem(&error))?);
        let object = match kept {
            Some(object) => object,
            None => cache
                .insert(name, through.length(), digest)
                .map_err(|error| ProblemKind::Unavailable.with(error.to_string()))?,
        };
        Ok(Part { cache: Arc::clone(cache), name, object, through })
    }
}

/// Looks for what lies here, as far as this agent holds the tree. Reads the disk.
fn held(agent: Arc<Agent>, asked: Asked) -> impl FnOnce() -> Option<(Representation, Source)> {
    move || {
        let (order, _) = order_of(&agent, asked.tree())?;
        let packed = |bytes: Vec<u8>| {
            let bytes = wire::compress(&bytes, LEVEL).ok()?;
            Some((of_bytes(&bytes, true), Source::Memory(bytes)))
        };
        match &asked {
            Asked::Latest(_) => {
                let bytes = serde_json::to_vec(&order.target?.statement).ok()?;
                Some((of_bytes(&bytes, false), Source::Memory(bytes)))
            }
            Asked::Object(Object { kind, name, .. }) => match kind {
                Kind::Manifest => packed(agent.manifests.list_bytes(name)?),
                Kind::Block => packed(agent.manifests.block_bytes(name)?),
                Kind::Pack | Kind::Object => None,
            },
            Asked::Content { manifest, path, .. } => {
                let (entry, file) = content::open(&agent, &order, manifest, path)?;
                let digest = entry.digest()?;
                let of = Representation { length: entry.size(), digest, immutable: true };
                Some((of, Source::File(Arc::new(file))))
            }
        }
    }
}

fn of_bytes(bytes: &[u8], immutable: bool) -> Representation {
    Representation { length: bytes.len() as u64, digest: Digest::of(bytes), immutable }
}

fn not_found() -> Problem {
    ProblemKind::NotFound.with("")
}

/// Why something cannot be had from behind this relay.
fn problem(error: &Error) -> Problem {
    match error {
        Error::Missing { .. } => not_found(),
        error => {
            let error = crate::chain(error);
            tracing::info!(error, "what another site asked for cannot be had");
            ProblemKind::Unavailable.with(error)
        }
    }
}

fn problem_response(problem: &Problem, is_head: bool) -> Response<Body> {
    let json = serde_json::to_vec(problem).unwrap_or_default();
    let mut response = Response::new(if is_head { Body::empty() } else { Body::from(json) });
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    response
}
