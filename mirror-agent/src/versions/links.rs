//! Links beside the versions: the one to the latest, and those that the upstream has.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use filetree::{
    area::units::{Instead, Linked},
    fs::Kind,
    safe_path::link_stays_inside,
};
use protocol::path::{TreePath, escape};

use super::{Directory, Error, now};

impl Directory<'_> {
    fn latest_link(&self) -> Option<TreePath> {
        TreePath::parse(self.versions.latest_link.as_deref()?.as_bytes()).ok()
    }

    /// Where the link to the latest leads, if it leads to a name beside it.
    pub(super) fn latest_target(&self) -> Result<Option<TreePath>, Error> {
        let Some(link) = self.latest_link() else { return Ok(None) };
        let Some(target) = self.link_target(&link)? else { return Ok(None) };
        let end = target.iter().rposition(|&b| b != b'/').map_or(0, |at| at + 1);
        Ok(TreePath::parse(&target[..end]).ok())
    }

    /// Makes the link lead to this version, in one step.
    pub(super) fn link_latest(&mut self, version: &TreePath) -> Result<(), Error> {
        let Some(link) = self.latest_link() else { return Ok(()) };
        let target = version.as_bytes();
        let instead = Instead::OfEmptyDirectory;
        match self.site.area().set_link(&link, target, instead, now())? {
            Linked::Kept | Linked::Made => {}
            Linked::Protected | Linked::Occupied => self.run.notice(format!(
                "the latest link {link} was not made: a directory that is not empty is in its place"
            )),
        }
        Ok(())
    }

    /// Says what [`Directory::link_latest`] would do.
    pub(super) fn foresee_latest(&self, version: &TreePath) -> Result<(), Error> {
        let Some(link) = self.latest_link() else { return Ok(()) };
        if self.link_target(&link)?.as_deref() != Some(version.as_bytes()) {
            self.run.foresee_link(format!("{link} -> {version}"));
        }
        Ok(())
    }

    /// Makes the links that the upstream has beside its versions, as far as they lead to a
    /// directory that lies here.
    pub(super) fn follow_links(&mut self) -> Result<(), Error> {
        let mut links = std::mem::take(&mut self.top.links);
        links.sort();
        for (name, target) in &links {
            let is_latest = self.latest_link().as_ref() == Some(name);
            if !is_latest && self.names.is_version(name, false) && self.rules.keeps(name, false) {
                self.follow_link(name, target)?;
            }
        }
        self.top.links = links;
        Ok(())
    }

    fn follow_link(&mut self, name: &TreePath, target: &[u8]) -> Result<(), Error> {
        let shown = || format!("{name} -> {}", escape(target));
        if self.link_target(name)?.as_deref() == Some(target) {
            return Ok(());
        }
        if !link_stays_inside(name, target) {
            self.run.notice(format!("not linked, because it leads out of the tree: {}", shown()));
            return Ok(());
        }
        if !self.leads_to_directory(name, target)? {
            return Ok(());
        }
        if self.run.is_dry() {
            self.run.foresee_link(shown());
            return Ok(());
        }
        match self.site.area().set_link(name, target, Instead::OfDirectory, now())? {
            Linked::Kept => {}
            Linked::Made => self.run.notice(format!("linked, as at the upstream: {}", shown())),
            Linked::Protected | Linked::Occupied => self.run.notice(format!(
                "not linked, because a PROTECTED file is in the directory there: {}",
                shown()
            )),
        }
        Ok(())
    }

    /// Whether what a link names is a directory here, and not a link that leads back.
    fn leads_to_directory(&self, name: &TreePath, target: &[u8]) -> Result<bool, Error> {
        let end = target.iter().rposition(|&b| b != b'/').map_or(0, |at| at + 1);
        if let Ok(beside) = TreePath::parse(&target[..end])
            && self.link_target(&beside)?.as_deref() == Some(name.as_bytes())
        {
            return Ok(false);
        }
        // The target stays inside by its text; that it is a directory is all that is asked.
        let path = self.site.live.join(OsStr::from_bytes(target));
        Ok(std::fs::metadata(path).is_ok_and(|meta| meta.is_dir()))
    }

    /// Where a link beside the versions leads, if there is one of that name.
    fn link_target(&self, name: &TreePath) -> Result<Option<Vec<u8>>, Error> {
        let Some(dir) = self.site.area().directory()? else { return Ok(None) };
        let Ok(parent) = dir.open_parent(name) else { return Ok(None) };
        let is_link = parent.stat(name.name())?.is_some_and(|meta| meta.kind == Kind::Symlink);
        Ok(if is_link { Some(parent.read_link(name.name())?) } else { None })
    }
}
