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

use super::{Directory, Error, Kind, Object, Point, SIGNED_URL_LIFETIME, digest_of, put_verified};

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

/// What a point has of one tree, as far as that was seen.
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

    /// Brings what is missing there of `wanted`, in its order, from the publisher's own store.
    /// Gives how many objects and bytes that were.
    pub fn bring(
        &self,
        origin: &Directory,
        tree: &TreeName,
        wanted: &[(Kind, Digest)],
    ) -> Result<(u64, u64), Error> {
        let there = self.objects(tree)?;
        let (mut objects, mut bytes) = (0, 0);
        for &(kind, name) in wanted.iter().filter(|wanted| !there.contains(wanted)) {
            let object = Object { tree: tree.clone(), kind, name };
            let own =
                |source| Error::Io { object: object.to_string(), point: origin.describe(), source };
            let (mut file, length) = origin.open_file(&object).map_err(own)?;
            let stored = match kind.is_named_as_stored() {
                true => name,
                false => digest_of(origin, &object).map_err(own)?,
            };
            put_verified(&*self.point, &object, &mut file, length, &stored)?;
            if let Some(known) = self.lock().get_mut(tree) {
                known.objects.insert((kind, name));
            }
            (objects, bytes) = (objects + 1, bytes + length);
        }
        Ok((objects, bytes))
    }

    /// Moves the pointer, unless what is there may not be replaced.
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

    /// Names of everything that it has of a tree.
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

    /// A URL of an object that is known to be there, which holds for a short while; `None` where it is
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
