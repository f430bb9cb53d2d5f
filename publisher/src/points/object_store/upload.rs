//! Large objects go up in parts, several at a time, and what went up is written down: an upload
//! that was interrupted, by a network or by the end of the process, goes on where it was.
//!
//! Nothing that is written down is believed about content: the whole object is read back and
//! digested afterwards, as every object is.

use std::io::{self, Read};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{PutMultipartOptions, PutPayload, multipart::PartId, path::Path};
use protocol::{digest::Digest, name::TreeName};
use serde::{Deserialize, Serialize};

use super::{BINARY, FOREVER, ObjectStore, PART, attributes, backend::has_forgotten_upload, to_io};
use crate::durable;

/// Stores take at most 10,000 parts.
const MAX_PARTS: u64 = 9_000;
/// Parts that are sent at a time.
const PARALLEL: usize = 4;
/// Largest record.
const MAX_RECORD: u64 = 4 << 20;

/// An upload that is under way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Upload {
    /// Which object, as a path in the bucket.
    path: String,
    /// The store's name for the upload.
    id: String,
    length: u64,
    part: u64,
    /// The store's names for the parts that went up, from the first.
    done: Vec<String>,
}

impl ObjectStore {
    pub(super) fn put_in_parts(
        &self,
        path: &Path,
        content: &mut dyn Read,
        length: u64,
    ) -> io::Result<()> {
        let mut upload = self.begin(path, length)?;
        let result = self.send(path, content, &mut upload);
        match result {
            // The store has forgotten the upload: the next attempt begins a new one.
            Err(error) if has_forgotten_upload(&error) => {
                self.forget(path)?;
                Err(io::Error::other(error))
            }
            other => other,
        }
    }

    /// Goes on with the upload of this object, or begins one.
    fn begin(&self, path: &Path, length: u64) -> io::Result<Upload> {
        // A record that cannot be read only costs the parts that it names.
        let known = durable::read_json::<Upload>(&self.uploads, &record(path), MAX_RECORD);
        if let Ok(Some(upload)) = known
            && (upload.path.as_str(), upload.length) == (path.as_ref(), length)
            && upload.part > 0
        {
            tracing::info!(object = %path, parts = upload.done.len(), "going on with an upload");
            return Ok(upload);
        }
        let options = PutMultipartOptions {
            attributes: attributes(FOREVER, BINARY),
            ..PutMultipartOptions::default()
        };
        let id = match self.runtime.block_on(self.store.create_multipart_opts(path, options)) {
            // Azure is told attributes with the last request, which the library leaves no way to: to
            // go on after an interruption is worth more.
            Err(
                object_store::Error::NotImplemented { .. }
                | object_store::Error::NotSupported { .. },
            ) => self.runtime.block_on(self.store.create_multipart(path)),
            other => other,
        };
        let megabyte = 1 << 20;
        let part = length.div_ceil(MAX_PARTS).next_multiple_of(megabyte).max(PART);
        let id = id.map_err(to_io)?;
        let upload = Upload { path: path.to_string(), id, length, part, done: Vec::new() };
        durable::replace_json(&self.uploads, &record(path), &upload)?;
        Ok(upload)
    }

    fn send(&self, path: &Path, content: &mut dyn Read, upload: &mut Upload) -> io::Result<()> {
        let sent = upload.done.len() as u64 * upload.part;
        let skipped = io::copy(&mut content.take(sent), &mut io::sink())?;
        if skipped != sent.min(upload.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let at_a_time = usize::try_from((PARALLEL as u64 * PART / upload.part).max(1));
        let mut left = upload.length - skipped;
        while left > 0 {
            let mut parts = Vec::new();
            while left > 0 && parts.len() < at_a_time.unwrap_or(1) {
                let length = left.min(upload.part);
                let mut bytes = Vec::new();
                content.take(length).read_to_end(&mut bytes)?;
                if bytes.len() as u64 != length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                left -= length;
                parts.push(bytes);
            }
            let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
            let first = upload.done.len();
            let id = &upload.id;
            let sending = parts.into_iter().enumerate().map(|(number, part)| async move {
                self.store.put_part(path, id, first + number, PutPayload::from(part)).await
            });
            let sending = stream::iter(sending).buffered(PARALLEL);
            let done: Vec<PartId> = self.runtime.block_on(sending.try_collect()).map_err(to_io)?;
            upload.done.extend(done.into_iter().map(|part| part.content_id));
            self.sent.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            durable::replace_json(&self.uploads, &record(path), upload)?;
        }
        let parts = upload.done.iter().map(|id| PartId { content_id: id.clone() }).collect();
        let completed = self.store.complete_multipart(path, &upload.id, parts);
        self.runtime.block_on(completed).map_err(to_io)?;
        self.forget(path)
    }

    /// Ends the uploads of a tree whose objects nobody needs any longer.
    pub(super) fn abandon_uploads(
        &self,
        tree: &TreeName,
        needed: &dyn Fn(&str) -> bool,
    ) -> io::Result<()> {
        let below = format!("{}trees/{tree}/", self.prefix);
        for entry in self.uploads.entries().map_err(durable::io)? {
            let upload = durable::read_json::<Upload>(&self.uploads, &entry.name, MAX_RECORD);
            let Ok(Some(upload)) = upload else { continue };
            let name = upload.path.strip_prefix(&self.prefix).unwrap_or(&upload.path);
            if !upload.path.starts_with(&below) || needed(name) {
                continue;
            }
            let path = Path::parse(&upload.path).map_err(io::Error::other)?;
            match self.runtime.block_on(self.store.abort_multipart(&path, &upload.id)) {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(to_io(error)),
            }
            self.forget(&path)?;
        }
        Ok(())
    }

    fn forget(&self, path: &Path) -> io::Result<()> {
        match self.uploads.unlink(&record(path)) {
            Err(error) if !error.is_not_found() => Err(durable::io(error)),
            _ => Ok(()),
        }
    }
}

/// Name of the record of an upload.
fn record(path: &Path) -> Vec<u8> {
    Digest::of(path.as_ref().as_bytes()).hex().into_bytes()
}
