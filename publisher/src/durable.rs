//! Small files that survive a power cut: written beside, synced, renamed, and the directory synced.

use std::io::{self, Read};

use filetree::fs::{self, Dir};
use serde::{Serialize, de::DeserializeOwned};

/// Names of files that are not finished begin with this; whatever is left of them is garbage.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// The system's error, with the path in its text.
pub(crate) fn io(error: fs::Error) -> io::Error {
    let kind = error.source.kind();
    io::Error::new(kind, format!("{error}: {}", error.source))
}

/// Makes `name` with this content, durable but for its name in the directory.
pub(crate) fn create(dir: &Dir, name: &[u8], content: &mut dyn Read) -> io::Result<()> {
    let written = fill(dir, name, content);
    if written.is_err() {
        // The content's own error is what matters.
        drop(dir.unlink(name));
    }
    written
}

fn fill(dir: &Dir, name: &[u8], content: &mut dyn Read) -> io::Result<()> {
    let file = dir.create_file(name).map_err(io)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut offset = 0;
    loop {
        let read = content.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        file.write_at(offset, &buffer[..read]).map_err(io)?;
        offset += read as u64;
    }
    file.set_mode(0o644).map_err(io)?;
    file.sync().map_err(io)
}

/// Makes or replaces `name` in one durable step.
pub(crate) fn replace(dir: &Dir, name: &[u8], content: &[u8]) -> io::Result<()> {
    let mut unfinished = UNFINISHED.as_bytes().to_vec();
    unfinished.extend_from_slice(name);
    match dir.unlink(&unfinished) {
        Err(error) if !error.is_not_found() => return Err(io(error)),
        _ => {}
    }
    create(dir, &unfinished, &mut &content[..])?;
    dir.rename(&unfinished, dir, name).map_err(io)?;
    dir.sync().map_err(io)
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(dir: &Dir, name: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let file = dir.open_file(name).map_err(io)?;
    // A buffer that grows would take twice as much of a long file.
    let likely = file.meta().map_err(io)?.size.min(limit) + 1;
    let mut content = Vec::with_capacity(usize::try_from(likely).unwrap_or_default());
    file.reader().take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        let text = format!("{} is larger than {limit} bytes", file.path().display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(content)
}

/// Reads a JSON file; `None` where there is none.
pub(crate) fn read_json<T: DeserializeOwned>(
    dir: &Dir,
    name: &[u8],
    limit: u64,
) -> io::Result<Option<T>> {
    let bytes = match read(dir, name, limit) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let invalid = |error: serde_json::Error| {
        let text = format!(
            "{}/{} cannot be read ({error}); move it away to start without it",
            dir.path().display(),
            String::from_utf8_lossy(name)
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    serde_json::from_slice(&bytes).map(Some).map_err(invalid)
}

/// Makes or replaces a JSON file.
pub(crate) fn replace_json(dir: &Dir, name: &[u8], value: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
    replace(dir, name, &bytes)
}
