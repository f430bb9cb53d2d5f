//! Takes away what is ours, and sets aside what is not.

use protocol::path::TreePath;

use crate::{
    area::trash::{self, Batch},
    fs::{self, Dir, Kind},
};

/// Removes `name` with everything in it. Only for trees of our own that were swept: nothing in it
/// is asked about.
pub(crate) fn remove_all(dir: &Dir, name: &[u8]) -> fs::Result<()> {
    let Some(meta) = dir.stat(name)? else { return Ok(()) };
    if meta.kind != Kind::Dir {
        return dir.unlink(name);
    }
    // A stack of our own: the depth is the tree's choice.
    let listed = |dir: Dir, name: &[u8]| {
        let entries = dir.entries()?.into_iter();
        Ok::<_, fs::Error>((dir, name.to_vec(), entries))
    };
    let mut open = vec![listed(opened(dir, name)?, name)?];
    while let Some((current, _, entries)) = open.last_mut() {
        let mut deeper = None;
        for entry in entries {
            let is_dir = match entry.is_dir {
                Some(is_dir) => is_dir,
                None => current.stat(&entry.name)?.is_some_and(|meta| meta.kind == Kind::Dir),
            };
            if is_dir {
                deeper = Some(listed(opened(current, &entry.name)?, &entry.name)?);
                break;
            }
            current.unlink(&entry.name)?;
        }
        match deeper {
            Some(below) => open.push(below),
            None => {
                let Some((_, name, _)) = open.pop() else { break };
                open.last().map_or(dir, |(above, ..)| above).remove_dir(&name)?;
            }
        }
    }
    Ok(())
}

fn opened(dir: &Dir, name: &[u8]) -> fs::Result<Dir> {
    let child = dir.open_child(name)?;
    let mode = child.meta()?.mode;
    if mode & 0o700 != 0o700 {
        child.set_mode(mode | 0o700)?;
    }
    Ok(child)
}

/// Moves local content out of a tree, to the trash below the work directory: what we did not make
/// we do not destroy. The directory it leaves keeps its modification time.
pub(crate) fn to_trash(work: &Dir, now: i64, from: &Dir, path: &TreePath) -> fs::Result<()> {
    let dir = trash::place_of(work, &Batch::local(now), path)?;
    let mtime = from.meta()?.mtime;
    let mut name = path.name().to_vec();
    let mut again = 0;
    loop {
        match from.rename_new(path.name(), &dir, &name) {
            Err(error) if error.is_already_there() => {
                again += 1;
                name = [
                    &path.name()[..path.name().len().min(200)],
                    b".",
                    again.to_string().as_bytes(),
                ]
                .concat();
            }
            Ok(()) => return from.set_mtime(mtime),
            Err(error) => return Err(error),
        }
    }
}
