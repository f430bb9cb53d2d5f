//! A tree with everything that points have of it: as it is, or sealed as that of a private tree.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use certs::{
    private::{Names, Sealer, new_secret, tree_key},
    signing::{self, SigningKey, VerifyingKey},
};
use filetree::{
    delta::ReadAt,
    pack::{
        ContentSource, NoBase,
        write::{PackOptions, Shared, SharedObject, write_pack},
    },
};
use mirror_agent::{
    fetch::sealed::{Naming, Sealed, TreeKeys},
    ledger::Ledger,
    stage::Content,
};
use protocol::{
    client::Client,
    digest::Digest,
    generation::{Epoch, Generation, Version},
    manifest::{Entry, EntryKind, Manifest},
    name::TreeName,
    origin::{self, Place},
    path::TreePath,
    statement::{Claim as _, GuardVerdict, Offer, PackFront, Statement},
    wire,
};

use super::server::{ORDERS, ROOTS, WORD};

/// Everything that a tree consists of at a point.
pub(crate) struct Tree {
    pub(crate) name: TreeName,
    pub(crate) files: HashMap<String, Vec<u8>>,
    pub(crate) statement: Statement,
    pub(crate) manifest: Manifest,
    pub(crate) offer: Offer,
    /// Objects that have frames of the pack.
    pub(crate) objects: Vec<Digest>,
    /// One file of it.
    pub(crate) content: Content,
    /// Signs its pointer.
    pub(crate) signer: VerifyingKey,
    /// What lies at points, by its path there.
    pub(crate) stored: HashMap<String, Vec<u8>>,
    /// What opens it, where it is sealed.
    keys: Option<Arc<TreeKeys>>,
}

impl Tree {
    /// The same, as a private tree: what lies at points is sealed. Nothing has to be asked for, the
    /// keys lie in a ledger below `dir`.
    pub(crate) fn sealed(self, dir: &Path) -> Self {
        let version = Version { epoch: Epoch(1), generation: Generation(1) };
        let key = tree_key(&new_secret().unwrap(), &self.name, version);
        let names = Names::new(key.names.clone()).unwrap();
        let mut stored = HashMap::new();
        for (path, content) in &self.files {
            let Some(place) = Place::parse(path) else { continue };
            let digest = Digest::of(content);
            let sealer =
                Sealer::new(&content[..], &place, &names, (version, &key.key), &digest).unwrap();
            let mut sealed = Vec::new();
            { sealer }.read_to_end(&mut sealed).unwrap();
            stored.insert(names.place(&place).path(), sealed);
        }
        let ledger = Ledger::open(dir).unwrap();
        ledger.set_tree_keys(&self.name, &[key]).unwrap();
        let http = super::public_client();
        let nobody = Client::new("http://127.0.0.1:9", Arc::new(move || http.clone()));
        let keys = Some(Arc::new(TreeKeys::new(&self.name, nobody, Arc::new(ledger))));
        Self { stored, keys, ..self }
    }

    /// How a point of this tree is sealed, where it is.
    pub(crate) fn seal(&self) -> Option<Sealed> {
        Some(Sealed::new(Arc::clone(self.keys.as_ref()?), Naming::Public))
    }
}

/// Shared objects in a directory; none is found again.
struct Objects {
    dir: PathBuf,
    kept: Mutex<Vec<Digest>>,
}

impl Shared for Objects {
    fn find(&self, _from: Option<Digest>, _to: Digest) -> Option<(SharedObject, PathBuf)> {
        None
    }

    fn unfinished(&self) -> io::Result<PathBuf> {
        Ok(self.dir.join("unfinished"))
    }

    fn keep(&self, object: SharedObject, unfinished: &Path) -> io::Result<()> {
        self.kept.lock().unwrap().push(object.name);
        std::fs::rename(unfinished, self.dir.join(object.name.hex()))
    }
}

struct Files(HashMap<TreePath, Vec<u8>>);

impl ContentSource for Files {
    fn open(&self, entry: &Entry) -> io::Result<Box<dyn ReadAt>> {
        Ok(Box::new(self.0[&entry.path].clone()))
    }
}

pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(byte).take(len).collect()
}

/// What is tried in many combinations is small.
pub(crate) fn small_tree(dir: &Path) -> Tree {
    tree_of(dir, &[50_000, 50_000, 1_100_000], 0)
}

/// So many files that the index of the pack is fetched in parts by who keeps few of its directories.
pub(crate) fn wide_tree(dir: &Path) -> Tree {
    tree_of(dir, &[40; 14_000], 20)
}

/// The last two files are in objects of their own; the others fill more than one frame.
pub(crate) fn tree(dir: &Path) -> Tree {
    tree_of(dir, &[&[700_000; 7][..], &[2_000_000; 2]].concat(), 0)
}

/// Files of these sizes, evenly in so many directories; none are needed where that is 0.
fn tree_of(dir: &Path, sizes: &[usize], dirs: usize) -> Tree {
    let name: TreeName = "fedora".parse().unwrap();
    let parse = |path: String| TreePath::parse(path.as_bytes()).unwrap();
    let path = |n: u64| match dirs {
        0 => parse(format!("f{n:06}")),
        _ => parse(format!("d{:02}/f{n:06}", n as usize * dirs / sizes.len())),
    };
    let contents: HashMap<TreePath, Vec<u8>> =
        (0..).zip(sizes).map(|(n, size)| (path(n), noise(n + 1, *size))).collect();
    let bytes = contents.values().map(|content| content.len() as u64).sum();
    let file = |path: TreePath, content: &[u8]| Entry {
        path,
        mode: 0o644,
        mtime: 0,
        kind: EntryKind::File {
            size: content.len() as u64,
            digest: Digest::of(content),
            link_group: None,
        },
    };
    let mut entries: Vec<Entry> = contents.iter().map(|(path, c)| file(path.clone(), c)).collect();
    entries.extend((0..dirs).map(|n| Entry {
        path: parse(format!("d{n:02}")),
        mode: 0o755,
        mtime: 0,
        kind: EntryKind::Dir,
    }));
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let manifest = Manifest::new(entries).unwrap();
    let packed = dir.join("pack");
    let content = contents[&path(1)].clone();
    let objects = Objects { dir: dir.to_path_buf(), kept: Mutex::default() };
    let options = PackOptions { shared: Some(&objects), ..PackOptions::new() };
    let made = write_pack(None, &NoBase, &manifest, &Files(contents), &packed, &options).unwrap();
    let offer = Offer {
        tree: name.clone(),
        from: None,
        to: made.to,
        pack: made.digest,
        length: made.length,
        index_length: made.index_length,
        index: made.index_digest,
        front: Some(PackFront { length: made.front_length, digest: made.front_digest }),
        shared_length: made.shared_length(),
        encryption: None,
        figures: None,
    };
    let mut files = HashMap::new();
    files.insert(origin::pack_path(&name, &made.digest), std::fs::read(&packed).unwrap());
    let objects = objects.kept.into_inner().unwrap();
    for object in &objects {
        let stored = std::fs::read(dir.join(object.hex())).unwrap();
        files.insert(origin::shared_path(&name, object), stored);
    }
    let list = manifest.list().encode();
    let compressed = |bytes: &[u8]| wire::compress(bytes, 3).unwrap();
    files.insert(origin::manifest_path(&name, &manifest.digest()), compressed(&list));
    for block in manifest.blocks() {
        files.insert(origin::block_path(&name, &block.digest()), compressed(block.bytes()));
    }
    let whole = origin::content_path(&name, &manifest.digest(), &path(1));
    let digest = Digest::of(&content);
    let size = content.len() as u64;
    files.insert(whole, content);
    let statement = Statement {
        tree: name.clone(),
        epoch: Epoch(1),
        generation: Generation(1),
        manifest: manifest.digest(),
        manifest_length: list.len() as u64,
        entries: sizes.len() as u64,
        bytes,
        parent: None,
        guard: GuardVerdict { removed_files: 0, removed_bytes: 0, approved_by: None },
        created: jiff::Timestamp::UNIX_EPOCH,
        expires: jiff::Timestamp::MAX,
        basis: None,
    };
    let me = concat!(
        r#"{"network":"net","role":"agent","name":"a","serial":"1","#,
        r#""not-after":"2030-01-01T00:00:00Z"}"#
    );
    let orders = concat!(
        r#"{"revision":1,"restore-epoch":1,"agent":"a","site":"s","root":1,"head":"#,
        r#"{"payloadType":"head","payload":"","signatures":[]},"assignments":[]}"#
    );
    files.insert(WORD.into(), me.into());
    files.insert(ORDERS.into(), orders.into());
    files.insert(ROOTS.into(), r#"{"newest":1,"roots":[],"online":false}"#.into());
    let signer = SigningKey::generate().unwrap();
    let pointer = signing::sign_json(&signer, Statement::PAYLOAD_TYPE, &statement).unwrap();
    files.insert(origin::latest_path(&name), serde_json::to_vec(&pointer).unwrap());
    let stored = files.clone();
    Tree {
        name,
        files,
        statement,
        manifest,
        offer,
        objects,
        content: Content { digest, size, path: path(1) },
        signer: signer.verifying_key(),
        stored,
        keys: None,
    }
}
