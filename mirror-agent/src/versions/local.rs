//! What lies in the published directory.

use filetree::{fs::Kind, safe_path::PROTECTED};
use protocol::path::TreePath;

use super::{Directory, Error, MAX_STATUS, Shown, select};
use crate::apply::Site;

/// Whether a PROTECTED file lies in the published directory itself.
pub(super) fn is_frozen(site: &Site) -> Result<bool, Error> {
    let dir = site.area().directory()?;
    Ok(dir.map(|dir| dir.stat(PROTECTED)).transpose()?.flatten().is_some())
}

impl Directory<'_> {
    /// The directories that lie here and could be versions, the oldest first. Links are none.
    pub(super) fn local(&self) -> Result<Vec<Shown>, Error> {
        let Some(dir) = self.site.area().directory()? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for entry in dir.entries()? {
            let Ok(name) = TreePath::parse(&entry.name) else { continue };
            let Some(meta) = dir.stat(&entry.name)?.filter(|meta| meta.kind == Kind::Dir) else {
                continue;
            };
            if select::why_unusable(&name).is_none() {
                found.push(Shown { name, mode: meta.mode, mtime: meta.mtime });
            }
        }
        select::sort(&mut found);
        Ok(found)
    }

    /// Whether a version that lies here is finished, by the status file that was written last.
    pub(super) fn is_finished(&self, name: &TreePath) -> Result<bool, Error> {
        let Some(dir) = self.site.area().directory()? else { return Ok(false) };
        if dir.stat(name.name())?.is_none_or(|meta| meta.kind != Kind::Dir) {
            return Ok(false);
        }
        let version = dir.open_child(name.name())?;
        let file = self.versions.status_file.as_bytes();
        let fits = |meta: filetree::fs::Meta| meta.kind == Kind::File && meta.size <= MAX_STATUS;
        if !version.stat(file)?.is_some_and(fits) {
            return Ok(false);
        }
        let mut text = vec![0; MAX_STATUS as usize];
        let len = version.open_file(file)?.read_at(0, &mut text)?;
        Ok(self.says_finished(&text[..len]))
    }

    /// Whether a status file with this text says that its version is finished.
    pub fn says_finished(&self, text: &[u8]) -> bool {
        text.trim_ascii() == self.versions.finished.as_bytes()
    }

    /// The newest version that lies here and that the upstream shows.
    pub(super) fn newest_here(&self) -> Result<Option<TreePath>, Error> {
        let here = self.local()?;
        let is_here = |shown: &&Shown| here.iter().any(|local| local.name == shown.name);
        Ok(self.chosen.iter().rev().find(is_here).map(|shown| shown.name.clone()))
    }

    /// The latest version that lies here: where the link leads, else the newest by its own time.
    pub(super) fn latest_here(&self) -> Result<Option<TreePath>, Error> {
        let local = self.local()?;
        if let Some(target) = self.latest_target()?
            && local.iter().any(|shown| shown.name == target)
        {
            return Ok(Some(target));
        }
        let mut versions = local.iter().rev();
        Ok(versions.find(|s| self.names.may_be_removed(&s.name)).map(|shown| shown.name.clone()))
    }

    /// A version that lies here and is most like this one: the one before it, else the latest.
    pub fn seed(&self, name: &TreePath) -> Result<Option<TreePath>, Error> {
        let here = self.local()?;
        let is_here = |other: &&Shown| here.iter().any(|local| local.name == other.name);
        let before = self.chosen.iter().take_while(|other| other.name != *name);
        let before = before.filter(is_here).last().map(|shown| shown.name.clone());
        match before {
            Some(before) => Ok(Some(before)),
            None => Ok(self.latest_here()?.filter(|latest| latest != name)),
        }
    }
}
