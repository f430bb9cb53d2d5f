//! The points besides the publisher's own store: what each should have, and bringing it there.
//!
//! A point is brought to what is wanted, not told what happened: whatever it lacks of the live
//! generations is written, read back and only then counted on, and the pointer moves last. So a
//! point that was away, was added later, or lost something catches up by the same steps, and a
//! point that is away keeps nobody waiting, unless the admin says that it must not be missing.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use protocol::{digest::Digest, name::TreeName};

use super::{
    Directory, Error, Form, Kind, Object, Point, SIGNED_URL_LIFETIME, digest_of, put_verified,
};
use crate::retention::Needed;

/// After what time a point is asked again what it has, in case that someone else removed something.
const LIST_HOLDS: Duration = Duration::from_secs(6 * 3600);

/// One point besides the own store.
#[derive(Debug)]
pub struct Further {
    point: Arc<dyn Point>,
    trees: Vec<String>,
    required: bool,
    known: Mutex<HashMap<TreeName, Known>>,
}

/// What a point has of one tree, under the names that it has there, as far as that was seen.
#[derive(Debug)]
struct Known {
    objects: HashSet<(Kind, Digest)>,
    listed: Instant,
    /// Digest of the pointer.
    latest: Option<Digest>,
}

impl Further {
    /// A point that gets those trees whose names one of the patterns has: a name, or its beginning
    /// with `*`. Nothing is announced that a required point does not have.
    pub fn new(point: Arc<dyn Point>, trees: Vec<String>, required: bool) -> Self {
        Self { point, trees, required, known: Mutex::default() }
    }

    /// What and where it is.
    pub fn describe(&self) -> String {
        self.point.describe()
    }

    /// Whether nothing may be announced that it does not have.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Whether it gets this tree.
    pub fn takes(&self, tree: &TreeName) -> bool {
        self.trees.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => tree.as_str().starts_with(prefix),
            None => tree.as_str() == pattern,
        })
    }

    /// Brings what is missing there of `wanted`, in its order, from the publisher's own store, in the
    /// form that the tree has at points. Gives how many objects and bytes that were.
    pub fn bring(
        &self,
        origin: &Arc<Directory>,
        tree: &TreeName,
        form: &Form,
        wanted: &[Needed],
    ) -> Result<(u64, u64), Error> {
        let at_points = form.tree(tree);
        let there = self.objects(&at_points)?;
        let (mut objects, mut bytes) = (0, 0);
        for needed in wanted {
            let object = Object { tree: tree.clone(), kind: needed.kind, name: needed.name };
            let named = form.object(&object);
            if there.contains(&(named.kind, named.name)) {
                continue;
            }
            let own =
                |source| Error::Io { object: object.to_string(), point: origin.describe(), source };
            let (_, length) = origin.open_file(&object).map_err(own)?;
            let stored = match object.kind.is_named_as_stored() {
                true => object.name,
                false => digest_of(&**origin, &object).map_err(own)?,
            };
            let open = || origin.open_file(&object).map(|(file, _)| file);
            let (mut content, length, stored) =
                form.dressed(&object, needed.since, &open, (length, stored))?;
            put_verified(&*self.point, &named, &mut content, length, &stored)?;
            if let Some(known) = self.lock().get_mut(&at_points) {
                known.objects.insert((named.kind, named.name));
            }
            (objects, bytes) = (objects + 1, bytes + length);
        }
        Ok((objects, bytes))
    }

    /// Removes all that lies there under a name that a tree has no longer.
    pub fn withdraw(&self, tree: &TreeName) -> Result<u64, Error> {
        let there = self.objects(tree)?;
        for &(kind, name) in &there {
            self.remove(&Object { tree: tree.clone(), kind, name })?;
        }
        let failed =
            |source| Error::Io { object: format!("trees/{tree}"), point: self.describe(), source };
        let pointer = self.point.latest(tree).map_err(failed)?;
        if !there.is_empty() || pointer.is_some() {
            self.point.end_tree(tree).map_err(failed)?;
        }
        Ok(there.len() as u64)
    }

    /// Moves the pointer of the tree that has this name there, unless what is there may not be
    /// replaced.
    pub fn point_to(
        &self,
        tree: &TreeName,
        statement: &[u8],
        may_replace: &dyn Fn(&[u8]) -> bool,
    ) -> Result<(), Error> {
        let digest = Digest::of(statement);
        if self.lock().get(tree).is_some_and(|known| known.latest == Some(digest)) {
            return Ok(());
        }
        let failed = |source| Error::Io {
            object: format!("trees/{tree}/latest"),
            point: self.describe(),
            source,
        };
        let moved = self.point.move_latest(tree, statement, may_replace).map_err(failed)?;
        let there = self.point.latest(tree).map_err(failed)?;
        if moved && there.as_deref().is_none_or(|there| there != statement && may_replace(there)) {
            let (object, point) = (format!("trees/{tree}/latest"), self.describe());
            return Err(Error::Damaged { object, point });
        }
        if let Some(known) = self.lock().get_mut(tree) {
            known.latest = Some(digest);
        }
        Ok(())
    }

    /// Names of everything that it has of the tree that has this name there.
    pub fn objects(&self, tree: &TreeName) -> Result<HashSet<(Kind, Digest)>, Error> {
        if let Some(known) = self.lock().get(tree).filter(|k| k.listed.elapsed() < LIST_HOLDS) {
            return Ok(known.objects.clone());
        }
        let mut objects = HashSet::new();
        for kind in Kind::ALL {
            let failed = |source| Error::Io {
                object: format!("trees/{tree}/{}", kind.dir()),
                point: self.describe(),
                source,
            };
            let names = self.point.list(tree, kind).map_err(failed)?;
            objects.extend(names.into_iter().map(|name| (kind, name)));
        }
        let known = Known { objects: objects.clone(), listed: Instant::now(), latest: None };
        self.lock().insert(tree.clone(), known);
        Ok(objects)
    }

    /// A URL of an object, by the name that it has there, that is known to be there, which holds for a short while; `None` where it is
    /// not there, or the point signs none.
    pub fn signed_url(&self, object: &Object) -> Result<Option<String>, Error> {
        let is_there = |known: &Known| known.objects.contains(&(object.kind, object.name));
        if !self.lock().get(&object.tree).is_some_and(is_there) {
            return Ok(None);
        }
        let signed = self.point.signed_url(object, SIGNED_URL_LIFETIME);
        signed.map_err(|source| Error::Io {
            object: object.to_string(),
            point: self.describe(),
            source,
        })
    }

    /// Removes what nobody needs any longer.
    pub fn remove(&self, object: &Object) -> Result<(), Error> {
        let removed = self.point.remove(object);
        removed.map_err(|source| Error::Io {
            object: object.to_string(),
            point: self.describe(),
            source,
        })?;
        if let Some(known) = self.lock().get_mut(&object.tree) {
            known.objects.remove(&(object.kind, object.name));
        }
        Ok(())
    }

    /// Ends what was begun of objects that nobody needs any longer.
    pub fn abandon(&self, tree: &TreeName, needed: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        self.point.abandon(tree, needed).map_err(|source| Error::Io {
            object: format!("trees/{tree}"),
            point: self.describe(),
            source,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TreeName, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
