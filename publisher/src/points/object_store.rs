//! A publication point in an object store: one that speaks S3, or Azure's blob storage.
//!
//! Objects are created only where there is none, so that two publishers of one tree cannot replace
//! what the other wrote; they say that they never change, and the pointer that it soon does. What
//! is large goes up in parts ([`upload`]), and a part that went up once is not sent again.
//!
//! The HTTP beneath is the same as everywhere in this program ([`certs::live`]): its roots, its
//! proxy, its deadlines.

mod backend;
mod upload;

use std::{
    fmt,
    io::{self, Read},
    path::{Path as FilePath, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use certs::{
    dial::{Dialer, Reach},
    keyfile, live,
    tls::PublicRoots,
};
use filetree::fs::Dir;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    Attribute, Attributes, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion,
    client::HttpClient, path::Path,
};
use protocol::{digest::Digest, name::TreeName};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use self::backend::{Backend, Credentials, Scheme};
use super::{Kind, Object, Point};
use crate::state::error_chain;

/// What is at most this long goes up by one request; also the length of a part, where the number of
/// parts allows it.
const PART: u64 = 8 << 20;
/// Longest pointer that is read.
const MAX_LATEST: u64 = 1 << 20;
/// What caches may do with an object.
const FOREVER: &str = "public, max-age=31536000, immutable";
/// What caches may do with the pointer.
const SOON: &str = "public, max-age=30";
/// How often a pointer is tried that someone else moves at the same time.
const TRIES: usize = 4;

/// Where a bucket is and who writes to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ObjectStoreConfig {
    /// `s3://BUCKET[/PREFIX]` or `az://CONTAINER[/PREFIX]`.
    pub url: String,
    /// `https://HOST[:PORT][/PATH]` of the store; Amazon's own for the region, or Azure's for the
    /// account, by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The store's region, where it speaks S3.
    #[serde(default = "default_region")]
    pub region: String,
    /// A private file (0600), as TOML: for S3 with `access-key-id`, `secret-access-key` and, where
    /// there is one, `session-token`, for Azure with `account` and `access-key`.
    pub credentials: PathBuf,
    /// Whether the bucket is a part of the host name instead of the path.
    #[serde(default)]
    pub virtual_hosted: bool,
    /// Whether agents that may read a tree are given URLs of the bucket that hold for a short while.
    #[serde(default)]
    pub signed_urls: bool,
    /// A PEM file of further authorities that certify the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<PathBuf>,
}

pub(crate) fn default_region() -> String {
    "us-east-1".into()
}

/// Why an object store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the URL of a bucket.
    #[error(
        "points.url = {0:?} is not s3://BUCKET[/PREFIX] or az://CONTAINER[/PREFIX], of letters, digits, '-', '.' and '_'"
    )]
    Url(String),
    /// Not the URL of a store.
    #[error("points.endpoint = {0:?} is not https://HOST[:PORT] (or http://)")]
    Endpoint(String),
    /// The credentials cannot be read, or others can read them too.
    #[error(transparent)]
    Secret(#[from] keyfile::Error),
    /// They are not what is expected. Their text is not repeated.
    #[error(
        "the credentials in {path} cannot be read: write {wanted}",
        path = path.display()
    )]
    Credentials {
        /// Which file.
        path: PathBuf,
        /// What belongs there.
        wanted: &'static str,
    },
    /// No HTTP client.
    #[error(transparent)]
    Live(#[from] live::Error),
    /// The roots.
    #[error(transparent)]
    Tls(#[from] certs::tls::Error),
    /// The library refuses.
    #[error("the object store {url} cannot be used")]
    Store {
        /// Its URL.
        url: String,
        /// Why.
        source: Box<object_store::Error>,
    },
}

impl ObjectStoreConfig {
    /// Checks what can be checked without the credentials.
    pub fn check(&self) -> Result<(), Error> {
        self.place()?;
        let endpoint = self.endpoint.as_deref().unwrap_or("https://amazonaws.com");
        let host = endpoint.parse::<protocol::point::BaseUrl>();
        host.map(drop).map_err(|_| Error::Endpoint(endpoint.into()))
    }

    /// The kind of store, bucket and prefix.
    fn place(&self) -> Result<(Scheme, &str, &str), Error> {
        let bad = || Error::Url(self.url.clone());
        let (scheme, rest) = Scheme::of(&self.url).ok_or_else(bad)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let component = |c: &str| !c.is_empty() && c != "." && c != ".." && c.bytes().all(plain);
        let valid = component(bucket) && (prefix.is_empty() || prefix.split('/').all(component));
        valid.then_some((scheme, bucket, prefix)).ok_or_else(bad)
    }

    fn credentials(&self, scheme: Scheme) -> Result<Credentials, Error> {
        let text = keyfile::read_text(&self.credentials)?;
        let wanted = scheme.credentials_wanted();
        Credentials::parse(scheme, &text)
            .ok_or_else(|| Error::Credentials { path: self.credentials.clone(), wanted })
    }

    /// The store as messages name it.
    fn name(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("{} at {endpoint}", self.url),
            None => self.url.clone(),
        }
    }
}

/// A publication point in an object store. Its methods block, and must not be called by a task of
/// the runtime.
pub struct ObjectStore {
    store: Box<dyn Backend>,
    name: String,
    prefix: String,
    runtime: Handle,
    uploads: Dir,
    signed_urls: bool,
    /// Bytes of content that were sent, those of earlier processes not counted.
    sent: AtomicU64,
}

impl ObjectStore {
    /// Opens it; nothing is asked yet. `uploads` remembers parts that went up.
    pub fn open(
        config: &ObjectStoreConfig,
        dialer: &Dialer,
        uploads: Dir,
        runtime: Handle,
    ) -> Result<Self, Error> {
        config.check()?;
        let (scheme, bucket, prefix) = config.place()?;
        let credentials = config.credentials(scheme)?;
        let client = HttpClient::new(http_client(config.roots.as_deref(), dialer)?);
        let store = backend::open(config, bucket, credentials, client)?;
        let name = config.name();
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let (signed_urls, sent) = (config.signed_urls, AtomicU64::new(0));
        Ok(Self { store, name, prefix, runtime, uploads, signed_urls, sent })
    }

    /// Bytes of content that this process has sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn path(&self, below: impl fmt::Display) -> io::Result<Path> {
        // Names are hex digits and names of trees, which no store escapes.
        Path::parse(format!("{}{below}", self.prefix)).map_err(io::Error::other)
    }

    fn is_there(&self, path: &Path) -> io::Result<bool> {
        match self.runtime.block_on(self.store.head(path)) {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(to_io(error)),
        }
    }

    fn put_small(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        let length = content.len() as u64;
        let payload = PutPayload::from(content);
        let options = PutOptions { mode: PutMode::Create, ..headed(FOREVER, BINARY) };
        let created = self.store.put_opts(path, payload.clone(), options);
        let result = match self.runtime.block_on(created) {
            // A store without conditions: what is put is named by its content all the same.
            Err(
                object_store::Error::NotImplemented { .. }
                | object_store::Error::NotSupported { .. },
            ) => self.runtime.block_on(self.store.put_opts(path, payload, headed(FOREVER, BINARY))),
            other => other,
        };
        match result {
            Ok(_) => {
                self.sent.fetch_add(length, Ordering::Relaxed);
                Ok(())
            }
            Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(to_io(error)),
        }
    }

    /// What is there now, and the version that it has.
    fn latest_with_version(&self, path: &Path) -> io::Result<Option<(Vec<u8>, UpdateVersion)>> {
        self.runtime.block_on(async {
            let found = match self.store.get(path).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                found => found.map_err(to_io)?,
            };
            if found.meta.size > MAX_LATEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the pointer is too long"));
            }
            let version = UpdateVersion {
                e_tag: found.meta.e_tag.clone(),
                version: found.meta.version.clone(),
            };
            Ok(Some((found.bytes().await.map_err(to_io)?.to_vec(), version)))
        })
    }
}

impl Point for ObjectStore {
    fn describe(&self) -> String {
        format!("the object store {}", self.name)
    }

    fn put(&self, object: &Object, content: &mut dyn Read, length: u64) -> io::Result<()> {
        let path = self.path(object)?;
        if length > PART {
            if self.is_there(&path)? {
                return Ok(());
            }
            return self.put_in_parts(&path, content, length);
        }
        let mut bytes = Vec::new();
        content.take(length + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.put_small(&path, bytes)
    }

    fn open(&self, object: &Object) -> io::Result<Box<dyn Read + Send>> {
        let path = self.path(object)?;
        let found = self.runtime.block_on(self.store.get(&path)).map_err(to_io)?;
        let stream = found.into_stream();
        Ok(Box::new(Body { runtime: self.runtime.clone(), stream, piece: Bytes::new() }))
    }

    fn list(&self, tree: &TreeName, kind: Kind) -> io::Result<Vec<Digest>> {
        let path = self.path(format_args!("trees/{tree}/{}", kind.dir()))?;
        let names = self.store.list(Some(&path)).try_filter_map(async |meta| {
            let name = meta.location.filename().and_then(|name| Digest::from_hex(name).ok());
            Ok(name)
        });
        self.runtime.block_on(names.try_collect()).map_err(to_io)
    }

    fn remove(&self, object: &Object) -> io::Result<()> {
        let path = self.path(object)?;
        match self.runtime.block_on(self.store.delete(&path)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(to_io(error)),
        }
    }

    fn latest(&self, tree: &TreeName) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(format_args!("trees/{tree}/latest"))?;
        Ok(self.latest_with_version(&path)?.map(|(bytes, _)| bytes))
    }

    fn move_latest(
        &self,
        tree: &TreeName,
        statement: &[u8],
        may_replace: &dyn Fn(&[u8]) -> bool,
    ) -> io::Result<bool> {
        let path = self.path(format_args!("trees/{tree}/latest"))?;
        for _ in 0..TRIES {
            let mode = match self.latest_with_version(&path)? {
                Some((there, _)) if !may_replace(&there) => return Ok(false),
                Some((_, version)) if version.e_tag.is_some() => PutMode::Update(version),
                Some(_) => PutMode::Overwrite,
                None => PutMode::Create,
            };
            let put = |mode| {
                let options = PutOptions { mode, ..headed(SOON, "application/json") };
                let payload = PutPayload::from(statement.to_vec());
                self.runtime.block_on(self.store.put_opts(&path, payload, options))
            };
            let result = match put(mode) {
                Err(
                    object_store::Error::NotImplemented { .. }
                    | object_store::Error::NotSupported { .. },
                ) => put(PutMode::Overwrite),
                other => other,
            };
            match result {
                Ok(_) => return Ok(true),
                // Someone else moved it meanwhile.
                Err(
                    object_store::Error::Precondition { .. }
                    | object_store::Error::AlreadyExists { .. },
                ) => {}
                Err(error) => return Err(to_io(error)),
            }
        }
        Err(io::Error::other("the pointer is moved by others all the time"))
    }

    fn end_tree(&self, tree: &TreeName) -> io::Result<()> {
        let path = self.path(format_args!("trees/{tree}/latest"))?;
        match self.runtime.block_on(self.store.delete(&path)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(to_io(error)),
        }
    }

    fn signed_url(&self, object: &Object, lifetime: Duration) -> io::Result<Option<String>> {
        if !self.signed_urls {
            return Ok(None);
        }
        let path = self.path(object)?;
        let signed = self.store.signed_url(http::Method::GET, &path, lifetime);
        Ok(Some(self.runtime.block_on(signed).map_err(to_io)?.to_string()))
    }

    fn abandon(&self, tree: &TreeName, needed: &dyn Fn(&str) -> bool) -> io::Result<()> {
        self.abandon_uploads(tree, needed)
    }
}

impl fmt::Debug for ObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectStore({})", self.name)
    }
}

const BINARY: &str = "application/octet-stream";

/// What caches and browsers are told of an object.
fn headed(cache: &'static str, content_type: &'static str) -> PutOptions {
    PutOptions { attributes: attributes(cache, content_type), ..PutOptions::default() }
}

fn attributes(cache: &'static str, content_type: &'static str) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::CacheControl, cache.into());
    attributes.insert(Attribute::ContentType, content_type.into());
    attributes
}

/// The client for a store: where it lies is the admin's word, so any address will do.
fn http_client(roots: Option<&FilePath>, dialer: &Dialer) -> Result<reqwest::Client, Error> {
    let system = PublicRoots::of_system().unwrap_or_else(|_| PublicRoots::none());
    let roots = match roots {
        Some(file) => system.and_file(file)?,
        None => system,
    };
    Ok(live::public_http_client(&roots, dialer, &Reach::everywhere())?)
}

/// The content of an object as it comes.
struct Body {
    runtime: Handle,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                None => return Ok(0),
                Some(piece) => self.piece = piece.map_err(to_io)?,
            }
        }
        let length = into.len().min(self.piece.len());
        into[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// The library's error, with all that it says.
fn to_io(error: object_store::Error) -> io::Error {
    use object_store::Error as E;

    let kind = match &error {
        E::NotFound { .. } => io::ErrorKind::NotFound,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error_chain(&error))
}

#[cfg(test)]
mod tests;
