//! One run for a directory of versions at a stock rsync daemon.
//!
//! First only the top of the tree is listed, with the files that say which versions are finished;
//! then the content of those versions that are worked on, in one listing. Where that fails, each is
//! listed alone, so that one that cannot be read keeps no other waiting. Names are told to the
//! daemon in rules and lists of files, never as part of a path, which it would take for a pattern.

use std::{collections::BTreeSet, path::PathBuf};

use filetree::fs::Dir;
use protocol::{
    filter::{Filter, Level, Origin},
    manifest,
    path::TreePath,
    v1::agent::{AssignmentOrder, RsyncdOrigin, RunResult, VersionsOrder},
};
use tokio::task::block_in_place;

use super::{Brought, Error, Look, Quick, STAGE, Unit, next_version, quick, recorded, source};
use crate::{
    agent::Agent,
    apply::{self, Rules, Site},
    gather::stage_dir,
    ledger::Held,
    published::{Outcome, held_of},
    report::Run,
    rsync::{
        listing::{Listed, ListedKind, Listing, NANOS},
        source::Asked,
    },
    versions::{Directory, Done, MAX_STATUS, Shown, Top},
};

/// Brings a directory of versions to what its upstream shows now.
pub(super) async fn sync(
    agent: &Agent,
    order: &AssignmentOrder,
    versions: &VersionsOrder,
    from: &RsyncdOrigin,
    run: &Run,
) -> Result<Outcome, Error> {
    let rules = Rules::of(order, true)?;
    let mut site =
        block_in_place(|| Site::open(&agent.config, &order.name.to_string(), &order.path))?;
    if !run.is_dry() {
        block_in_place(|| site.set_group(&rules))?;
    }
    let applied = site.applied()?.filter(|applied| applied.observed);
    let last = applied.as_ref().map(|applied| applied.version);
    let same_rules = applied.as_ref().is_some_and(|applied| applied.rules.same_as(&rules));
    run.set_versions(last, last);
    let (work, home) = (site.scratch()?, site.home()?);
    let upstream = source(agent, from, run, &work);
    let content = upstream.clone();
    let look = Look { agent, order, from, rules: &rules, upstream, content, run, home };
    run.progress().phase("list", "bytes", 0);
    let quick = match look.quick(same_rules, &work).await? {
        Quick::Unchanged if run.is_dry() => return Ok((RunResult::UpToDateDryRun, None)),
        Quick::Unchanged => return Ok((RunResult::UpToDate, None)),
        Quick::ToBeListed(quick) => quick,
    };
    let shown = look.list_through(&top_filter(versions)?, &work).await?;
    look.tell_refused(&shown.refused);
    let mut directory =
        Directory::new(site, order, versions, &rules, block_in_place(|| top(&shown))?, run)?;
    // Another server may be behind, and lack what is newest here.
    directory.may_remove = recorded::is_usual_server(agent, order, from)?;
    let candidates = directory.candidates()?;
    let ready = look.ready(&directory, &shown, &candidates, &work).await?;
    let taken = directory.take(candidates, &ready);
    if !taken.is_empty() && !run.is_dry() {
        directory.prepare()?;
    }
    let mut together = look.list_versions(&taken, &work).await;
    for version in &taken {
        let listing = match look.of_version_in(&mut together, &version.name)? {
            Some(listing) => listing,
            None => {
                look.of_version(&version.name, &rules.of_version(&version.name))?.list(&work).await
            }
        };
        let brought = match listing {
            Ok(listing) => {
                let number = next_version(last);
                look.bring_version(&directory, version, &listing, number, &work).await
            }
            Err(error) => Err(error),
        };
        match brought {
            Ok(done) => directory.complete(version, done)?,
            Err(error) => {
                let reached = error.reached();
                directory.fail(version, crate::chain(&error));
                if !reached {
                    break;
                }
            }
        }
    }
    directory.end()?;
    if run.is_dry() {
        return Ok((directory.tally.result(true), None));
    }
    if directory.tally.is_whole() {
        quick::remember(agent, order, quick)?;
    }
    let held = note_held(agent, &mut directory, last)?;
    run.set_versions(last, Some(held.version));
    if directory.tally.is_whole() && directory.tally.has_changed() {
        recorded::remember_server(agent, order, from)?;
    }
    Ok((directory.tally.result(false), Some(held)))
}

/// What all versions make up together is what is observed: a new number where it is another.
fn note_held(
    agent: &Agent,
    directory: &mut Directory<'_>,
    last: Option<protocol::generation::Version>,
) -> Result<Held, Error> {
    let union = block_in_place(|| directory.held(&agent.manifests))?;
    let manifest = block_in_place(|| agent.manifests.put(&union))?;
    let digest = manifest.digest();
    let before = directory.site.applied()?;
    let version = match (before, last) {
        (Some(before), Some(last)) if before.manifest == digest => last,
        _ => next_version(last),
    };
    directory.remember(&agent.ledger, &union)?;
    let rules = directory.rules;
    // Where nothing was ever published there is no directory to note it for.
    if directory.site.is_published()? {
        directory.prepare()?;
        directory.site.note_applied((version, digest), rules)?;
    }
    Ok(held_of(&manifest, version, digest, rules, true)?)
}

/// What came of listing all versions at once.
enum Together {
    Listed(Listing),
    /// Nobody was reached: no other version is tried after the first.
    Unreached(Error),
    EachAlone,
}

impl Look<'_> {
    /// The same look at one version alone.
    fn of_version<'l>(&'l self, name: &TreePath, rules: &'l Rules) -> Result<Look<'l>, Error> {
        let mut content = self.upstream.clone();
        // Names that are not text are left out before.
        let name = String::from_utf8_lossy(name.as_bytes());
        content.path = format!("{}/{name}", content.path.trim_end_matches('/'));
        let home = self.home.reopen().map_err(apply::Error::from)?;
        let Self { agent, order, from, run, .. } = *self;
        Ok(Look { agent, order, from, rules, upstream: self.upstream.clone(), content, run, home })
    }

    /// Which of the candidates the upstream says are finished.
    async fn ready(
        &self,
        directory: &Directory<'_>,
        shown: &Listing,
        candidates: &[Shown],
        work: &std::path::Path,
    ) -> Result<BTreeSet<TreePath>, Error> {
        if !directory.versions.sealed {
            return Ok(BTreeSet::new());
        }
        let file = directory.versions.status_file.as_bytes();
        let mut paths: Vec<TreePath> = Vec::new();
        for candidate in candidates {
            let Ok(path) = candidate.name.child(file) else { continue };
            let listed = block_in_place(|| shown.get(&path))?;
            if listed.is_some_and(|listed| listed.is_file() && listed.size() <= MAX_STATUS) {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Ok(BTreeSet::new());
        }
        let start = std::time::Instant::now();
        let stage = stage_dir(work).map_err(|source| self.failed(source))?;
        let asked = |path: &TreePath| Asked { path: path.clone(), size: MAX_STATUS };
        let files: Vec<Asked> = paths.iter().map(asked).collect();
        let (passed, result) = self.upstream.fetch(&files, &[], &stage, work).await;
        let came = crate::report::Came {
            received_bytes: passed.received,
            sent_bytes: passed.sent,
            ..crate::report::Came::default()
        };
        self.run.add_figures(passed.figures);
        self.run.add_way(protocol::transfer::Way::Metadata, &self.upstream.host, came.since(start));
        result.map_err(|source| self.failed(source))?;
        let arrived = crate::gather::Arrived::open(&self.home, &stage)?;
        let mut ready = BTreeSet::new();
        for path in &paths {
            if let (Some(text), Some(version)) = (small_file(arrived.dir(), path), path.parent())
                && directory.says_finished(&text)
            {
                ready.insert(version);
            }
        }
        std::fs::remove_dir_all(work.join(STAGE)).ok();
        Ok(ready)
    }

    /// Lists all versions that are worked on at once. Where that fails for another reason than
    /// the connection, each is to be listed alone.
    async fn list_versions(&self, versions: &[Shown], work: &std::path::Path) -> Together {
        if versions.is_empty() {
            return Together::EachAlone;
        }
        let all = match filter_of(self.order, versions.iter().map(|version| &version.name)) {
            Ok(filter) => self.list_through(&filter, work).await,
            Err(error) => Err(error),
        };
        match all {
            Ok(all) => {
                self.tell_refused(&all.refused);
                Together::Listed(all)
            }
            Err(error) if !error.reached() => Together::Unreached(error),
            Err(error) => {
                tracing::info!(error = crate::chain(&error), "each version is listed alone");
                Together::EachAlone
            }
        }
    }

    /// What the listing of all versions shows of one; `None` where it has to be listed alone.
    fn of_version_in(
        &self,
        together: &mut Together,
        name: &TreePath,
    ) -> Result<Option<Result<Listing, Error>>, Error> {
        Ok(match std::mem::replace(together, Together::EachAlone) {
            Together::Listed(all) => {
                let own = block_in_place(|| match all.get(name)? {
                    Some(_) => all.below(name)?.without_links(self.rules.symlinks).map(Some),
                    None => Ok(None),
                })?;
                *together = Together::Listed(all);
                own.map(Ok)
            }
            Together::Unreached(error) => Some(Err(error)),
            Together::EachAlone => None,
        })
    }

    async fn bring_version(
        &self,
        directory: &Directory<'_>,
        version: &Shown,
        listing: &Listing,
        number: protocol::generation::Version,
        work: &std::path::Path,
    ) -> Result<Done, Error> {
        let name = &version.name;
        let live = directory.site.live.join(apply::os_path(name));
        if self.run.is_dry() && !live.is_dir() {
            for listed in listing.each() {
                let listed = listed?;
                if !listed.is_dir() {
                    self.run.foresee_transfer(&listed.path, Some(name));
                }
            }
            return Ok(Done::Changed);
        }
        let rules = directory.rules.of_version(name);
        let look = self.of_version(name, &rules)?;
        let mut site = block_in_place(|| directory.site.version(name))?;
        let applied = site.applied()?.filter(|applied| applied.observed);
        let seed = directory.seed(name)?;
        let bases: Vec<PathBuf> =
            seed.iter().map(|seed| directory.site.live.join(apply::os_path(seed))).collect();
        let unit = Unit { listing, applied, version: number, bases: &bases };
        let mut share = |site: &Site, needs: &[filetree::plan::Need]| {
            match directory.share(name, site, needs, &self.agent.manifests) {
                Ok(_) => Ok(()),
                Err(crate::versions::Error::Apply(error)) => Err(error),
                // Sharing saves room and nothing else.
                Err(error) => {
                    tracing::warn!(error = crate::chain(&error), "no file is shared");
                    Ok(())
                }
            }
        };
        Ok(match look.bring_unit(&mut site, unit, work, Some(&mut share)).await? {
            Brought::Nothing => Done::UpToDate,
            Brought::Foreseen | Brought::Switched(..) => Done::Changed,
        })
    }
}

/// Keeps the names at the top and, in sealed trees, the files that say what is finished.
fn top_filter(versions: &VersionsOrder) -> Result<Filter, Error> {
    let mut rules = Vec::new();
    if versions.sealed {
        rules.push(format!("+ /*/{}", versions.status_file));
    }
    rules.push("- /*/*".to_owned());
    let filter = Filter::build(&[Level::rules(Origin::Tree, "versions", rules)]);
    Ok(filter.map_err(apply::Error::from)?)
}

/// The assignment's rules, for these versions alone.
pub(super) fn filter_of<'v>(
    order: &AssignmentOrder,
    versions: impl IntoIterator<Item = &'v TreePath>,
) -> Result<Filter, Error> {
    let mut rules: Vec<String> = versions.into_iter().map(rule_for).collect();
    rules.push("- /*".to_owned());
    let mut levels = vec![Level::rules(Origin::Assignment, "versions", rules)];
    levels.extend(order.filter.iter().cloned());
    Ok(Filter::build(&levels).map_err(apply::Error::from)?)
}

/// Includes one directory at the top, whatever its name. Backslashes escape only in patterns that
/// have a wildcard.
fn rule_for(name: &TreePath) -> String {
    let name = String::from_utf8_lossy(name.as_bytes());
    if !name.contains(['*', '?', '[']) {
        return format!("+ /{name}/");
    }
    let escaped: String = name
        .chars()
        .flat_map(|c| {
            let escape = matches!(c, '*' | '?' | '[' | '\\').then_some('\\');
            escape.into_iter().chain([c])
        })
        .collect();
    format!("+ /{escaped}/")
}

fn top(listing: &Listing) -> Result<Top, manifest::Error> {
    let mut top = Top::default();
    for listed in listing.each() {
        let Listed { path: name, kind, mode, mtime } = listed?;
        if name.parent().is_some() {
            continue;
        }
        top.names.insert(name.clone());
        match kind {
            ListedKind::Dir => {
                top.dirs.push(Shown { name, mode, mtime: mtime.saturating_mul(NANOS) });
            }
            ListedKind::Symlink { target } => top.links.push((name, target)),
            ListedKind::File { .. } => {}
        }
    }
    Ok(top)
}

fn small_file(dir: &Dir, path: &TreePath) -> Option<Vec<u8>> {
    let file = dir.open_parent(path).ok()?.open_file(path.name()).ok()?;
    let len = file.meta().ok().map(|meta| meta.size).filter(|len| *len <= MAX_STATUS)?;
    let mut text = vec![0; usize::try_from(len).ok()?];
    let read = file.read_at(0, &mut text).ok()?;
    text.truncate(read);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_for_a_name_means_that_name_and_no_other() {
        for (name, others) in [
            ("q[1]", ["q1", "q[2]"]),
            ("a*", ["ab", "a"]),
            ("back\\slash", ["backslash", "back"]),
            ("w\\*x", ["w\\yx", "w*x"]),
            ("plain", ["plain2", "plai"]),
        ] {
            let path = |text: &str| TreePath::parse(text.as_bytes()).unwrap();
            let rules = [rule_for(&path(name)), "- /*".to_owned()];
            let filter = Filter::parse(&rules).unwrap();
            assert!(filter.keeps(&path(name), true), "{name}");
            for other in others {
                assert!(!filter.keeps(&path(other), true), "{name} {other}");
            }
        }
    }
}
