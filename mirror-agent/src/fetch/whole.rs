//! Whole content from the site's relay or the publisher: many files at a time over one connection.
//!
//! What came of a large file is kept over an interruption, in a file named by its digest, and made durable
//! now and then: what a killed process, or a loss of power, costs is fetched again, and no more. It is
//! believed when it is whole and has its digest, and not before.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf, time::Instant};

use filetree::fs::Dir;
use futures_util::{FutureExt, StreamExt, stream};
use protocol::{digest::Digest, name::TreeName, origin, transfer::NoDelta};

use super::{
    points::{Point, Points},
    ranges::{self, Ask, Patience},
    retries::get_from,
};
use crate::stage::{Content, Stage};

/// Files that are asked for at a time.
const PARALLEL: usize = 16;
/// Files that are prepared at a time, so that a tree of a million needs no more memory.
const BATCH: usize = 512;

/// From this length on the beginning of a content is kept, and so often it is made durable.
const KEPT: u64 = 8 << 20;

/// A private directory for the beginnings of large contents.
#[derive(Debug)]
pub struct Beginnings {
    /// Its absolute path.
    pub path: PathBuf,
    /// The same, opened.
    pub dir: Dir,
}

/// Which generation's files are asked for, and where.
#[derive(Debug)]
pub struct Request<'a> {
    /// The points; only the publisher and relays have whole content.
    pub points: &'a Points,
    /// Whose files.
    pub tree: &'a TreeName,
    /// Of which generation.
    pub manifest: Digest,
    /// How patient transfers are.
    pub patience: Patience,
    /// Where the beginnings of large contents are kept.
    pub beginnings: &'a Beginnings,
}

/// A content that did not come.
#[derive(Debug)]
pub struct Failed {
    /// Its number in the list that was asked for.
    pub content: usize,
    /// Why.
    pub reason: NoDelta,
    /// What exactly was seen.
    pub detail: String,
}

/// Fetches each content into `stage`, which verifies it; gives those that did not come.
///
/// # Errors
/// When staging cannot be written: no other way would help.
pub async fn fetch(
    request: &Request<'_>,
    contents: &[Content],
    stage: &dyn Stage,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> io::Result<Vec<Failed>> {
    if request.points.with_content().next().is_none() {
        let unreachable = |content| Failed {
            content,
            reason: NoDelta::PointUnreachable,
            detail: "the publisher has not said yet where it is".into(),
        };
        return Ok((0..contents.len()).map(unreachable).collect());
    }
    let mut failed = Vec::new();
    for (at, batch) in contents.chunks(BATCH).enumerate() {
        let mut fetching = Vec::with_capacity(batch.len());
        for (number, content) in batch.iter().enumerate() {
            let fetch = fetch_one(request, content, stage, progress);
            fetching.push(fetch.map(move |result| (at * BATCH + number, result)));
        }
        let mut results = stream::iter(fetching).buffer_unordered(PARALLEL);
        while let Some((content, result)) = results.next().await {
            match result {
                Ok(()) => {}
                Err(Problem::Stage(error)) => return Err(error),
                Err(Problem::Way(reason, detail)) => {
                    failed.push(Failed { content, reason, detail });
                }
            }
        }
    }
    Ok(failed)
}

enum Problem {
    Stage(io::Error),
    Way(NoDelta, String),
}

/// Asks one after the other for a content, until one gave it.
async fn fetch_one(
    request: &Request<'_>,
    content: &Content,
    stage: &dyn Stage,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), Problem> {
    let mut last = None;
    for point in request.points.with_content() {
        match fetch_from(request, point, content, stage, progress).await {
            Err(problem @ Problem::Way(..)) => last = Some(problem),
            ended => return ended,
        }
    }
    // There was one when it was begun.
    let none = || Problem::Way(NoDelta::PointUnreachable, "nobody has whole content".into());
    Err(last.unwrap_or_else(none))
}

async fn fetch_from(
    request: &Request<'_>,
    point: &Point,
    content: &Content,
    stage: &dyn Stage,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), Problem> {
    let path = origin::content_path(request.tree, &request.manifest, &content.path);
    let ask = Ask::whole(path, content.size);
    let start = Instant::now();
    let taken = if content.size < KEPT {
        let mut writer = stage.writer(content).map_err(Problem::Stage)?;
        get_from(point, &ask, request.patience, |piece| {
            progress(piece.len() as u64);
            writer.write_all(piece)
        })
        .await
        .map_err(explain)?;
        writer.finish()
    } else {
        fetch_rest(request, point, &ask, content, progress).await?;
        let name = content.digest.hex();
        let taken = stage.take(content, &request.beginnings.dir, name.as_bytes());
        if taken.is_err() {
            std::fs::remove_file(request.beginnings.path.join(&name)).ok();
        }
        taken
    };
    match taken {
        Ok(()) => {
            point.note_good(content.size, start.elapsed());
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let url = format!("{}{}", point.base, ask.path);
            point.note_failure(&ranges::Error::Wrong { url, what: "it is damaged" });
            Err(Problem::Way(NoDelta::Corrupt, format!("{}: {error}", content.path)))
        }
        Err(error) => Err(Problem::Stage(error)),
    }
}

/// Fetches what is missing of a large content.
async fn fetch_rest(
    request: &Request<'_>,
    point: &Point,
    whole: &Ask,
    content: &Content,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), Problem> {
    let path = request.beginnings.path.join(content.digest.hex());
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(Problem::Stage)?;
    let mut have = file.metadata().map_err(Problem::Stage)?.len();
    if have > content.size {
        file.set_len(0).map_err(Problem::Stage)?;
        have = 0;
    }
    let mut ask = whole.clone();
    ask.range.start = have;
    let mut durable = have;
    let came = get_from(point, &ask, request.patience, |piece| {
        progress(piece.len() as u64);
        file.write_all_at(piece, have)?;
        have += piece.len() as u64;
        if have - durable >= KEPT {
            file.sync_data()?;
            durable = have;
        }
        Ok(())
    });
    let came = came.await;
    if let Err(ranges::Error::Wrong { .. } | ranges::Error::Long { .. }) = &came {
        // Whatever it began as, it does not go on like this.
        std::fs::remove_file(&path).ok();
    }
    came.map_err(explain)
}

fn explain(error: ranges::Error) -> Problem {
    match error {
        ranges::Error::Sink { source, .. } => Problem::Stage(source),
        ranges::Error::Wrong { .. } | ranges::Error::Long { .. } => {
            Problem::Way(NoDelta::Corrupt, crate::chain(&error))
        }
        ranges::Error::Missing { .. } => Problem::Way(NoDelta::SourceMoved, error.to_string()),
        error => Problem::Way(NoDelta::PointUnreachable, crate::chain(&error)),
    }
}
