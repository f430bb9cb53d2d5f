//! Where the files come from that change, and what has to be staged for them.
//!
//! The same content may be wanted at many paths and lie at many others, so all of it has to be looked
//! at together, and a first sync wants all contents of a tree. They are looked at in parts, by what
//! their digests begin with, so that no more than some hundred thousand are held at a time.

use std::collections::{HashMap, hash_map};

use protocol::{digest::Digest, manifest, path::TreePath};

use super::{
    FileKey, Item, Plan, Reserve, Source,
    marks::{From, Mark},
};

/// Contents that are held at a time, about.
pub(super) const CONTENTS: u64 = 100_000;
/// Digests begin with one of so many pairs of bytes.
const BEGINNINGS: u64 = 1 << 16;

/// All that the site holds, each time that it is asked for.
type Had<'a> = dyn Fn() -> Box<dyn Iterator<Item = Result<Item, manifest::Error>> + 'a> + 'a;

/// Marks where each file comes from, and counts what is staged; looks at so many contents at a time.
pub(super) fn find(
    plan: &mut Plan,
    had: &Had<'_>,
    reserve: &Reserve,
    at_a_time: u64,
) -> Result<(), manifest::Error> {
    let is_file = |mark: Mark| mark.from().is_some();
    let files = plan.marks.all(is_file).count() as u64;
    let files = files + plan.odd.iter().filter(|odd| is_file(odd.mark)).count() as u64;
    let parts = files.div_ceil(at_a_time).min(BEGINNINGS);
    for part in 0..parts {
        let is_meant = |digest: &Digest| {
            let [one, two, ..] = *digest.as_bytes();
            u64::from(u16::from_be_bytes([one, two])) * parts / BEGINNINGS == part
        };
        // A little more than is likely: a table that grows takes half as much again while it does.
        let likely = (files / parts).saturating_mul(21) / 20 + 64;
        Part::of(plan, likely, &is_meant)?.settle(plan, had, reserve)?;
    }
    plan.from.sort_unstable_by_key(|(number, _)| *number);
    Ok(())
}

/// A file that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// An entry of the wanted manifest.
    Numbered(u64),
    /// One of those that stay readable.
    Odd(usize),
}

/// A content that is wanted.
struct Content {
    first: Place,
    size: u64,
    key: FileKey,
    /// Further attributes with which it is wanted.
    more: Vec<FileKey>,
    local: Option<Box<Local>>,
}

/// Where the live tree has a content.
struct Local {
    anywhere: TreePath,
    /// With attributes that are wanted.
    exactly: Vec<(FileKey, TreePath)>,
    /// The first use of a copy, and the attributes that copies are wanted with.
    copied: Option<(Place, Vec<FileKey>)>,
}

impl Content {
    fn wants(&self, key: &FileKey) -> bool {
        self.key == *key || self.more.contains(key)
    }
}

/// The contents of one part.
struct Part(HashMap<Digest, Content>);

impl Part {
    fn of(
        plan: &Plan,
        likely: u64,
        is_meant: &dyn Fn(&Digest) -> bool,
    ) -> Result<Self, manifest::Error> {
        let likely = usize::try_from(likely).unwrap_or_default();
        let mut contents: HashMap<Digest, Content> = HashMap::with_capacity(likely);
        each_file(plan, &mut |place, item| {
            let Some(key) = item.key().filter(|key| is_meant(&key.digest)) else { return };
            match contents.entry(key.digest) {
                hash_map::Entry::Vacant(vacant) => {
                    let size = item.entry.size();
                    let (first, more) = (place, Vec::new());
                    vacant.insert(Content { first, size, key, more, local: None });
                }
                hash_map::Entry::Occupied(mut occupied) => {
                    let content = occupied.get_mut();
                    if !content.wants(&key) {
                        content.more.push(key);
                    }
                }
            }
        })?;
        Ok(Self(contents))
    }

    fn settle(
        mut self,
        plan: &mut Plan,
        had: &Had<'_>,
        reserve: &Reserve,
    ) -> Result<(), manifest::Error> {
        if self.find_local(had, reserve)? {
            self.use_local(plan, reserve)?;
        }
        for content in self.0.into_values() {
            match content.local {
                None => {
                    plan.sums.needs += 1;
                    plan.sums.fetch_bytes = plan.sums.fetch_bytes.saturating_add(content.size);
                    stage(plan, content.first, content.more, content.size);
                }
                Some(local) => {
                    if let Some((first, mut keys)) = local.copied {
                        keys.remove(0);
                        stage(plan, first, keys, content.size);
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks for the contents in the live tree; says whether any is there.
    fn find_local(&mut self, had: &Had<'_>, reserve: &Reserve) -> Result<bool, manifest::Error> {
        let mut any = false;
        if self.0.is_empty() {
            return Ok(any);
        }
        for item in had() {
            let item = item?;
            let path = &item.entry.path;
            let Some(key) = item.key() else { continue };
            let Some(content) = self.0.get_mut(&key.digest) else { continue };
            if reserve.unsure.contains(path) {
                continue;
            }
            any = true;
            let is_wanted = content.wants(&key);
            let local = content.local.get_or_insert_with(|| {
                let (anywhere, exactly) = (path.clone(), Vec::new());
                Box::new(Local { anywhere, exactly, copied: None })
            });
            if is_wanted && !local.exactly.iter().any(|(known, _)| *known == key) {
                local.exactly.push((key, path.clone()));
            }
        }
        Ok(any)
    }

    /// Decides for each file whether the live tree has it, or its content.
    fn use_local(&mut self, plan: &mut Plan, reserve: &Reserve) -> Result<(), manifest::Error> {
        let mut decided = Vec::new();
        each_file(plan, &mut |place, item| {
            let Some(key) = item.key() else { return };
            let local = self.0.get_mut(&key.digest).and_then(|content| content.local.as_mut());
            let Some(local) = local else { return };
            let live = local.exactly.iter().find(|(known, _)| *known == key);
            let (from, at) = match live.filter(|_| !reserve.unread) {
                Some((_, at)) => (From::Live, at),
                None => (From::Copy, &local.anywhere),
            };
            decided.push((place, from, (*at != item.entry.path).then(|| at.clone())));
            if from == From::Copy {
                let (_, keys) = local.copied.get_or_insert((place, Vec::new()));
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        })?;
        for (place, from, at) in decided {
            match place {
                Place::Numbered(number) => {
                    let mut mark = plan.marks.of(number);
                    mark.set_from(from);
                    plan.marks.set(number, mark);
                    plan.from.extend(at.map(|at| (number, at)));
                }
                Place::Odd(place) => {
                    let odd = &mut plan.odd[place];
                    let at = at.unwrap_or_else(|| odd.change.path.clone());
                    odd.mark.set_from(from);
                    odd.change.source = Some(match from {
                        From::Live => Source::Live(at),
                        _ => Source::Copy(at),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Passes every file that changes, in path order but for those that stay readable, which come last.
fn each_file(plan: &Plan, take: &mut dyn FnMut(Place, &Item)) -> Result<(), manifest::Error> {
    let numbers = plan.marks.all(|mark| mark.from().is_some());
    for found in plan.want.chosen(numbers) {
        let (number, entry) = found?;
        take(Place::Numbered(number), &plan.wanted(entry, number));
    }
    for (at, odd) in plan.odd.iter().enumerate() {
        if let Some(item) = plan.withdrawn_item(&odd.change.path) {
            take(Place::Odd(at), &item);
        }
    }
    Ok(())
}

/// From now on a content is to be staged: for its first use, and with further attributes.
fn stage(plan: &mut Plan, first: Place, more: Vec<FileKey>, size: u64) {
    let files = 1 + more.len() as u64;
    plan.sums.staged_files += files;
    plan.sums.staged_bytes = plan.sums.staged_bytes.saturating_add(size.saturating_mul(files));
    match first {
        Place::Numbered(number) => {
            let mut mark = plan.marks.of(number);
            mark.set_first();
            plan.marks.set(number, mark);
            if !more.is_empty() {
                plan.more_keys.insert(number, more);
            }
        }
        Place::Odd(at) => {
            plan.odd[at].mark.set_first();
            plan.odd[at].more_keys = more;
        }
    }
}
