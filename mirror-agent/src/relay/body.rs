//! What an answer's bytes come from.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use axum::body::{Body, Bytes};
use futures_util::stream;
use protocol::digest::Digest;

use super::{
    cache::{Cache, Cached, PIECE},
    through::Through,
};

/// Where the bytes of something are.
pub(super) enum Source {
    /// In memory.
    Memory(Vec<u8>),
    /// In a published file.
    File(Arc<File>),
    /// Partly kept, partly still elsewhere.
    Cached(Part),
}

/// An object of the cache, and where the rest of it comes from.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) cache: Arc<Cache>,
    pub(super) name: Digest,
    pub(super) object: Arc<Cached>,
    pub(super) through: Arc<Through>,
}

impl Source {
    /// The body that has these bytes of it.
    pub(super) fn body(self, range: Range<u64>) -> Body {
        let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        match self {
            Self::Memory(bytes) => {
                Body::from(Bytes::from(bytes).slice(at(range.start)..at(range.end)))
            }
            Self::File(file) => pieces(range, move |range| {
                let file = Arc::clone(&file);
                async move {
                    let len = at((range.end - range.start).min(PIECE));
                    let read = tokio::task::spawn_blocking(move || {
                        let mut bytes = vec![0; len];
                        file.read_exact_at(&mut bytes, range.start).map(|()| bytes)
                    });
                    read.await.map_err(io::Error::other)?
                }
            }),
            Self::Cached(part) => pieces(range, move |range| {
                let part = part.clone();
                async move {
                    let Part { cache, name, object, through } = &part;
                    object.read(cache, name, range, &**through).await
                }
            }),
        }
    }
}

/// Reads piece after piece until all of the range was read, or reading fails.
fn pieces<F>(range: Range<u64>, read: impl Fn(Range<u64>) -> F + Send + 'static) -> Body
where
    F: Future<Output = io::Result<Vec<u8>>> + Send + 'static,
{
    let next = move |left: Option<Range<u64>>| {
        let reading = left.filter(|left| !left.is_empty()).map(|left| (read(left.clone()), left));
        async move {
            let (reading, left) = reading?;
            match reading.await {
                Ok(bytes) if !bytes.is_empty() => {
                    let rest = left.start + bytes.len() as u64..left.end;
                    Some((Ok(Bytes::from(bytes)), Some(rest)))
                }
                Ok(_) => Some((Err(io::Error::from(io::ErrorKind::UnexpectedEof)), None)),
                Err(error) => {
                    let shown = crate::chain(&error);
                    tracing::warn!(error = shown, "an answer to another site ends in the middle");
                    Some((Err(error), None))
                }
            }
        }
    };
    Body::from_stream(stream::unfold(Some(range), next))
}
