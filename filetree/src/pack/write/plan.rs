//! What becomes of each changed path, and the tasks that make it so.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use protocol::{
    digest::Digest,
    manifest::{Entry, EntryKind, Manifest},
    pack::{Content, Encoder, NoDelta, Op},
};

use super::{
    PackOptions,
    changes::{Change, changes},
    contents::Contents,
    encode::{Context, Large, Member, SharedLarge, Way},
    pipeline::Tasks,
    shared::Part,
};
use crate::{
    delta::{
        choose::{DELTA_WORTH_SHARE, EncoderChoice, Partners},
        copy::OldContent,
        group,
        patch::{self, Alignment},
        rsync::{self, Delta},
        whole,
    },
    pack::Error,
    signature::{self, Signature},
};

/// Old files larger than this are no bases of small ones in a group.
const OLD_MEMBER_BYTES: u64 = 2 * group::MEMBER_BYTES;
/// New files below this are small even if their old version is not.
const TINY_BYTES: u64 = 64 << 10;
/// Compressed content is encoded against its old version only if the old one has this share.
const COPIED_WORTH_SHARE: f64 = 0.1;

/// One piece of work.
pub(super) enum Task<'a> {
    /// Small files, together.
    Batch(Vec<Member<'a>>),
    /// One segment of a large file: a range of it, or of its delta.
    Segment { file: SharedLarge<'a>, range: Range<u64>, last: bool },
    /// A large file that an earlier pack has.
    Shared { member: Member<'a>, part: Part },
}

/// Every operation of the pack, and the files that need work.
pub(super) struct Plan<'a> {
    changes: Arc<[Change]>,
    /// Content that is known already, by number of the operation.
    contents: Contents,
    work: Vec<Member<'a>>,
    options: &'a PackOptions<'a>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(from: &Manifest, to: &'a Manifest, options: &'a PackOptions<'a>) -> Self {
        let changes: Arc<[Change]> = changes(from, to).into();
        let contents = Contents::of(changes.len());
        let mut plan = Self { contents, changes, work: Vec::new(), options };
        plan.find_content(from, to);
        plan.find_bases(from);
        plan
    }

    /// Content bytes that need work.
    pub(super) fn total_bytes(&self) -> u64 {
        self.work.iter().map(|member| member.entry.size()).sum()
    }

    /// Content that is known already, to be completed by what the tasks give: it is asked for once.
    pub(super) fn take_contents(&mut self) -> Contents {
        std::mem::take(&mut self.contents)
    }

    /// The operations without content.
    pub(super) fn changes(&self) -> Arc<[Change]> {
        Arc::clone(&self.changes)
    }

    /// Finds content that needs no bytes; the rest is work.
    fn find_content(&mut self, from: &Manifest, to: &'a Manifest) {
        let put = |change: &Change| match *change {
            Change::Put { to: number, old_file } => {
                Some((&to.entries()[number as usize], old_file))
            }
            Change::Attributes { .. } | Change::Delete { .. } => None,
        };
        let class = self.options.class;
        // Where there is nothing old, everything is new, and may be a million contents.
        let old = if from.entries().is_empty() {
            OldContent::default()
        } else {
            let puts = self.changes.iter().filter_map(put);
            let wanted: HashSet<Digest> = puts.filter_map(|(entry, _)| entry.digest()).collect();
            OldContent::find(from, &wanted, &class)
        };
        let mut seen: HashMap<&'a Digest, u32> = HashMap::new();
        let changes = Arc::clone(&self.changes);
        for (op, change) in changes.iter().enumerate() {
            let Some((entry, old_file)) = put(change) else { continue };
            let EntryKind::File { digest, .. } = &entry.kind else { continue };
            let content = if entry.size() == 0 {
                Content::Slices { encoder: Encoder::Whole, slices: Vec::new() }
            } else if let Some(from_entry) = old.get(digest, class(&entry.path)) {
                Content::Copy { from_entry }
            } else if let Some(&op) = seen.get(digest) {
                Content::Same { op: op.into() }
            } else {
                seen.insert(digest, op as u32);
                let old = old_file.map(u64::from);
                self.work.push(Member { op, entry, old });
                continue;
            };
            self.contents.set(op, content);
        }
    }

    /// Finds old files that resemble new ones, for those that have none of their own.
    fn find_bases(&mut self, from: &Manifest) {
        if self.options.encoders == EncoderChoice::Whole {
            self.work.iter_mut().for_each(|member| member.old = None);
            return;
        }
        if from.entries().is_empty() {
            return;
        }
        let lonely = self.work.iter().filter(|member| member.old.is_none());
        let partners = Partners::find(from, lonely.map(|member| &member.entry.path));
        let class = self.options.class;
        for member in self.work.iter_mut().filter(|member| member.old.is_none()) {
            let fits = |old: &Entry| class(&old.path) == class(&member.entry.path);
            member.old = partners.get(from, member.entry, &fits);
        }
    }

    /// Sends every task: batches as they fill, segments of large files where they come.
    pub(super) fn send_tasks(
        &self,
        context: &Context<'_>,
        tasks: &Tasks<Task<'a>>,
    ) -> Result<(), Error> {
        let mut batches = BTreeMap::<u8, Gathering<'a>>::new();
        for member in &self.work {
            self.options.check_canceled()?;
            let mut member = *member;
            let old_bytes = context.old_entry(member.old).map_or(0, |(_, old)| old.size());
            let size = member.entry.size();
            if size > group::MEMBER_BYTES || (old_bytes > OLD_MEMBER_BYTES && size > TINY_BYTES) {
                if !self.send_large(context, member, tasks)? {
                    return Ok(());
                }
                continue;
            }
            if old_bytes > OLD_MEMBER_BYTES {
                member.old = None;
            }
            let batch = batches.entry((self.options.class)(&member.entry.path)).or_default();
            if batch.is_full_with(size, old_bytes, self.options.encoders)
                && !tasks.send(Task::Batch(std::mem::take(batch).members))
            {
                return Ok(());
            }
            batch.push(member, size, old_bytes);
        }
        for batch in batches.into_values().filter(|batch| !batch.members.is_empty()) {
            tasks.send(Task::Batch(batch.members));
        }
        Ok(())
    }

    /// Sends the segments of a large file; `false` when an error has ended it all.
    fn send_large(
        &self,
        context: &Context<'_>,
        member: Member<'a>,
        tasks: &Tasks<Task<'a>>,
    ) -> Result<bool, Error> {
        if let Some(shared) = self.options.shared {
            let old = context.old_entry(member.old);
            if let Some(part) = Part::find(shared, old, member.entry, self.options.encoders) {
                return Ok(tasks.send(Task::Shared { member, part }));
            }
        }
        let file = Arc::new(self.prepare(context, member)?);
        let len = match &file.way {
            Way::Rsync { delta, .. } => delta.len(),
            Way::Inside { new, .. } => new.len(),
            Way::Whole { .. } | Way::Patch { .. } => member.entry.size(),
        };
        for range in patch::segments(len) {
            let last = range.end == len;
            if !tasks.send(Task::Segment { file: Arc::clone(&file), range, last }) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens a large file and decides how it is encoded.
    fn prepare(&self, context: &Context<'_>, member: Member<'a>) -> Result<Large<'a>, Error> {
        let entry = member.entry;
        let read = |source| Error::reading(&entry.path, source);
        let new = context.new.open(entry).map_err(read)?;
        let raw = whole::is_incompressible(&*new, entry.size()).map_err(read)?;
        let mut file = Large { member, new, way: Way::Whole { raw }, reason: None };
        let Some((number, old)) = context.old_entry(member.old) else { return Ok(file) };
        if let Some(way) = context.look_inside(member, (number, old))? {
            return Ok(Large { way, ..file });
        }
        let wants_delta = self.options.encoders == EncoderChoice::Rsync;
        let content = context.base.content(old).and_then(|content| {
            let block = if wants_delta {
                signature::stored_block_size(old.size())
            } else {
                signature::alignment_block_size(old.size())
            };
            let signature = Signature::calculate_with(&*content, old.size(), block).ok();
            let (signature, digest) = signature?;
            (Some(digest) == old.digest()).then_some((signature, content))
        });
        let (signature, content) = match content {
            Some((signature, content)) => (signature, Some(content)),
            None => match context.signature_of(old) {
                Some(signature) => (signature, None),
                None => {
                    file.reason = Some(NoDelta::BaseNotHeld);
                    return Ok(file);
                }
            },
        };
        let delta = self.delta(&signature, &file, entry)?;
        file.way = match content {
            Some(old_content) if !wants_delta => {
                let alignment = Alignment::of(&delta, old.size());
                if raw && (alignment.copied_bytes() as f64) < size_share(entry, COPIED_WORTH_SHARE)
                {
                    file.reason = Some(NoDelta::LargerThanWhole);
                    return Ok(file);
                }
                Way::Patch { alignment, old: old_content, number }
            }
            _ if delta.literal_bytes as f64 > size_share(entry, DELTA_WORTH_SHARE) => {
                file.reason = Some(NoDelta::LargerThanWhole);
                return Ok(file);
            }
            _ => Way::Rsync { delta, number },
        };
        Ok(file)
    }

    fn delta(
        &self,
        signature: &Signature,
        file: &Large<'_>,
        entry: &Entry,
    ) -> Result<Delta, Error> {
        let path = || entry.path.clone();
        let go_on = || self.options.check_canceled().is_ok();
        let delta = Delta::new(signature, &*file.new, entry.size(), &go_on);
        let delta = delta.map_err(|source| match source {
            rsync::Error::Canceled => Error::Canceled,
            rsync::Error::Io(source) => Error::reading(&entry.path, source),
            source => Error::Delta { path: path(), source },
        })?;
        if Some(delta.new_digest) != entry.digest() {
            return Err(Error::Changed { path: path() });
        }
        Ok(delta)
    }
}

fn size_share(entry: &Entry, share: f64) -> f64 {
    entry.size() as f64 * share
}

/// A batch that is being filled.
#[derive(Default)]
struct Gathering<'a> {
    members: Vec<Member<'a>>,
    bytes: u64,
    old_bytes: u64,
}

impl<'a> Gathering<'a> {
    /// Whether it must be sent before another file.
    fn is_full_with(&self, size: u64, old_bytes: u64, encoders: EncoderChoice) -> bool {
        !self.members.is_empty()
            && (self.bytes + size > group::CONTENT_BYTES
                || self.old_bytes + old_bytes > group::OLD_BYTES
                || self.members.len() >= group::MEMBERS
                || encoders == EncoderChoice::Patch)
    }

    fn push(&mut self, member: Member<'a>, size: u64, old_bytes: u64) {
        self.members.push(member);
        self.bytes += size;
        self.old_bytes += old_bytes;
    }
}

/// The operation that a change is, with its content.
pub(super) fn operation(
    change: Change,
    content: Option<Content>,
    from: &Manifest,
    to: &Manifest,
) -> Op {
    match change {
        Change::Put { to: number, .. } => {
            Op::Put { entry: to.entries()[number as usize].clone(), content }
        }
        Change::Attributes { to: number } => {
            let entry = &to.entries()[number as usize];
            let link_group = match entry.kind {
                EntryKind::File { link_group, .. } => link_group,
                EntryKind::Dir | EntryKind::Symlink { .. } => None,
            };
            let (path, mode, mtime) = (entry.path.clone(), entry.mode, entry.mtime);
            Op::Attributes { path, mode, mtime, link_group }
        }
        Change::Delete { from: number } => {
            Op::Delete { path: from.entries()[number as usize].path.clone() }
        }
    }
}
