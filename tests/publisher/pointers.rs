//! No pointer leads to what is not whole: a publication fails, or its publisher is killed, at each step
//! in turn, and whoever looked at a point at that moment found all that its pointer leads to.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Output,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use filetree::pack::inspect::inspect;
use protocol::{
    digest::Digest,
    dsse::Envelope,
    manifest::{Block, BlockList},
    statement::Statement,
    wire,
};
use tests::{
    Daemon,
    fixture::{noise, prose},
    programs::{program, told},
    rsyncd::free_port,
    stores::{self, Store},
    wait_until,
};

use super::{
    gate::{Fault, Gate},
    reader::Served,
};

/// Steps of a publication to a directory at which it is disturbed, evenly among all.
const DISTURBED: usize = 16;

/// What there is to look at.
struct Watched {
    /// Where the publisher keeps the tree, and where further points have it.
    own: PathBuf,
    points: Vec<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The newest generation that was published without a fault, and all that lay beside it.
    generation: u64,
    objects: BTreeMap<String, Digest>,
    /// What files that do not change had in them.
    digests: HashMap<(PathBuf, u64, i64), Digest>,
}

impl Watched {
    fn new(own: PathBuf, points: Vec<PathBuf>) -> Arc<Self> {
        Arc::new(Self { own, points, known: Mutex::default() })
    }

    /// Everything that lies at a point, by kind and name.
    fn objects(&self, known: &mut Known, dir: &Path) -> BTreeMap<String, Digest> {
        let mut objects = BTreeMap::new();
        for kind in ["manifests", "blocks", "packs", "objects"] {
            let entries = fs::read_dir(dir.join(kind)).into_iter().flatten().flatten();
            for entry in entries {
                let name = entry.file_name().into_string().unwrap();
                let is_object = Digest::from_hex(&name).is_ok();
                let Some(meta) = entry.metadata().ok().filter(|_| is_object) else { continue };
                let key = (entry.path(), meta.len(), meta.mtime_nsec() ^ meta.ino().cast_signed());
                let digest = known
                    .digests
                    .entry(key)
                    .or_insert_with(|| Digest::of(&fs::read(entry.path()).unwrap_or_default()));
                objects.insert(format!("{kind}/{name}"), *digest);
            }
        }
        objects
    }

    /// What is wrong at any point.
    fn look(&self) -> Result<(), String> {
        let mut known = self.known.lock().unwrap();
        leads_to_whole(&self.own)?;
        for point in &self.points {
            let Some(statement) = leads_to_whole(point)? else { continue };
            // A new generation needs what the publisher has made; one that was there, what was there.
            let needed = match statement.generation.0 == known.generation {
                true => known.objects.clone(),
                false => self.objects(&mut known, &self.own),
            };
            let there = self.objects(&mut known, point);
            let missing = needed.iter().find(|(name, digest)| there.get(*name) != Some(digest));
            if let Some((name, _)) = missing {
                let generation = statement.generation;
                return Err(format!("{name} is not whole while generation {generation} is named"));
            }
        }
        Ok(())
    }

    /// Takes what is there for a generation that is published everywhere.
    fn all_have(&self, generation: u64) {
        self.look().unwrap();
        for place in [&self.own].into_iter().chain(&self.points) {
            let named = pointer(place).unwrap().generation.0;
            assert_eq!(named, generation, "{}", place.display());
        }
        let mut known = self.known.lock().unwrap();
        known.objects = self.objects(&mut known, &self.own);
        known.generation = generation;
    }
}

/// The statement to which the pointer of a tree's directory leads.
fn pointer(dir: &Path) -> Option<Statement> {
    let bytes = fs::read(dir.join("latest")).ok()?;
    let envelope: Envelope = serde_json::from_slice(&bytes).unwrap();
    Some(serde_json::from_slice(&envelope.payload.0).unwrap())
}

/// As a reader does: from the pointer to the manifest, its blocks, and a pack that leads there.
pub(super) fn leads_to_whole(dir: &Path) -> Result<Option<Statement>, String> {
    let Some(statement) = pointer(dir) else { return Ok(None) };
    let generation = statement.generation;
    let read = |kind: &str, name: &Digest| {
        let path = dir.join(kind).join(name.hex());
        fs::read(path).map_err(|error| format!("generation {generation} is named: {kind}: {error}"))
    };
    let unpack = |stored: Vec<u8>, length| {
        wire::decompress(&stored, length).map_err(|error| format!("{generation}: {error}"))
    };
    let list = unpack(read("manifests", &statement.manifest)?, statement.manifest_length)?;
    if Digest::of(&list) != statement.manifest {
        return Err(format!("the manifest of generation {generation} is another one"));
    }
    for named in BlockList::parse(&list).map_err(|error| error.to_string())?.blocks() {
        let block = unpack(read("blocks", &named.digest)?, named.bytes)?;
        if Block::parse(block).map_err(|error| error.to_string())?.digest() != named.digest {
            return Err(format!("a block of generation {generation} is another one"));
        }
    }
    let packs = fs::read_dir(dir.join("packs")).into_iter().flatten().flatten();
    let leads_there = |path: PathBuf| {
        let is_whole = inspect(&path).is_ok_and(|pack| pack.to == statement.manifest);
        is_whole
            && Digest::of(&fs::read(&path).unwrap()).hex()
                == path.file_name().unwrap().to_str().unwrap()
    };
    match packs.map(|entry| entry.path()).any(leads_there) {
        true => Ok(Some(statement)),
        false => Err(format!("no whole pack leads to generation {generation}, which is named")),
    }
}

/// A publisher of the tree `one`, each generation of which makes new objects of every kind.
pub(super) struct World {
    pub(super) served: Served,
    number: u64,
    image_bytes: usize,
}

impl World {
    /// Prepares it. The publisher is to be started when the first generation is written: it looks at
    /// the tree as soon as it runs, and would hold it for being empty, or take half of what is written.
    fn prepare(image_bytes: usize) -> Self {
        Self::prepare_with("initial-pack = true", "", image_bytes)
    }

    /// The same with these lines of the tree's definition and of the publisher's configuration.
    pub(super) fn prepare_with(tree: &str, config: &str, image_bytes: usize) -> Self {
        Self { served: Served::prepare(tree, config), number: 0, image_bytes }
    }

    /// Where the publisher itself keeps the tree.
    pub(super) fn own(&self) -> PathBuf {
        self.served.publisher.data.join("trees/one")
    }

    /// Adds a point to the configuration.
    pub(super) fn add_point(&self, lines: &str) {
        let config = &self.served.publisher.config;
        let text = fs::read_to_string(config).unwrap();
        fs::write(config, format!("{text}[[points]]\nrequired = true\n{lines}\n")).unwrap();
    }

    /// Gives the upstream what will be the next generation.
    pub(super) fn write_next(&mut self) {
        self.number += 1;
        self.served.write("one/image", noise(self.number, self.image_bytes));
        self.served.write("one/notes", prose(self.number, 3_000));
    }

    pub(super) fn publish(&self) -> Output {
        let mut command = program("publisher");
        command.args(["publish", "one", "--wait", "--data"]).arg(&self.served.publisher.data);
        command.output().unwrap()
    }

    pub(super) fn publish_well(&self) {
        let output = self.publish();
        assert!(output.status.success(), "{}", told(&output));
    }

    /// Starts a publisher that is killed, or whose disk fails, at a step; the steps are noted. It listens
    /// then, or has ended.
    pub(crate) fn start_disturbed(&self, fail_at: Option<&str>, steps: &Path) -> Daemon {
        let publisher = &self.served.publisher;
        let listen = publisher.data.join("listen");
        let _ = fs::remove_file(&listen);
        let mut command = program("publisher");
        command.args(["run", "--config"]).arg(&publisher.config).env("FILETREE_FAIL_SITES", steps);
        if let Some(fail_at) = fail_at {
            command.env("MIRRORNET_FAIL_AT", fail_at);
        }
        let log = self.served.testbed.path("disturbed.log");
        let mut daemon = Daemon::start("publisher", &mut command, &log);
        wait_until("the publisher to listen, or to end", || daemon.has_ended() || listen.exists());
        daemon
    }

    /// Whether the coordinator has heard of the generation that is under way.
    fn is_announced(&self) -> bool {
        let list = self.served.testbed.ctl_json(&["get", "generations", "one"]);
        list.as_array().unwrap().iter().any(|one| one["version"]["generation"] == self.number)
    }

    /// What is announced is whole at every point that must not miss it.
    fn check_announced(&self, watched: &Watched) {
        if !self.is_announced() {
            return;
        }
        let mut known = watched.known.lock().unwrap();
        let own = watched.objects(&mut known, &watched.own);
        for point in &watched.points {
            let there = watched.objects(&mut known, point);
            let missing: Vec<_> = own.iter().filter(|(n, d)| there.get(*n) != Some(d)).collect();
            assert!(missing.is_empty(), "generation {} lacks {missing:?}", self.number);
        }
    }
}

#[test]
fn no_pointer_of_an_object_store_leads_to_what_is_not_whole_whatever_fails() {
    let mut world = World::prepare((8 << 20) + 100_000);
    let bucket = world.served.testbed.path("bucket");
    let port = free_port();
    let Some(_store) = Store::start_by(stores::Kind::S3s, &bucket, port, true, &|command| command)
    else {
        return;
    };
    wait_until("the store to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let tree = bucket.join(stores::BUCKET).join("mirror/trees/one");
    let watched = Watched::new(world.own(), vec![tree]);
    let look = Arc::clone(&watched);
    let gate = Gate::open(port, Box::new(move || look.look()));
    let credentials = world.served.testbed.path("s3.toml");
    stores::write_credentials(&credentials, stores::SECRET_KEY);
    world.add_point(&format!(
        "kind = \"object-store\"\nurl = \"s3://{}/mirror\"\nendpoint = \"{}\"\n\
         credentials = {credentials:?}",
        stores::BUCKET,
        gate.endpoint()
    ));
    world.write_next();
    world.served.start_again();
    world.publish_well();
    watched.all_have(1);
    gate.mend();
    world.write_next();
    world.publish_well();
    watched.all_have(2);
    let steps = gate.mend();
    // Two packs, parts of a large object, a block, a manifest, and the pointer.
    assert!(steps.len() >= 8 && steps.last().unwrap().ends_with("/latest"), "{steps:#?}");
    for step in 1..=steps.len() {
        for fault in [Fault::Refuse, Fault::Kill] {
            world.write_next();
            let mut publishing = world.served.publishing.take().unwrap();
            gate.fail_at(step, fault, publishing.pid());
            let output = world.publish();
            if fault == Fault::Kill {
                assert!(!publishing.wait().success());
            }
            let is_last = step == steps.len();
            assert!(is_last || !output.status.success(), "step {step}: {}", told(&output));
            watched.look().unwrap_or_else(|wrong| panic!("{fault:?} at {step}: {wrong}"));
            world.check_announced(&watched);
            gate.mend();
            match fault {
                Fault::Kill => world.served.start_again(),
                Fault::Refuse => world.served.publishing = Some(publishing),
            }
            world.publish_well();
            watched.all_have(world.number);
            gate.mend();
        }
    }
}

/// Starts a publisher that is disturbed there, has it publish what is new, and ends it. It may come to
/// its end by itself at any moment; whether it did.
fn publish_disturbed(world: &World, fail_at: Option<&str>, steps: &Path) -> bool {
    let mut daemon = world.start_disturbed(fail_at, steps);
    let output = world.publish();
    assert!(fail_at.is_some() || output.status.success(), "{}", told(&output));
    // Its client hears of a kill a moment before the system has taken the process away.
    let deadline = Instant::now() + Duration::from_secs(2);
    let has_failed = !output.status.success();
    while has_failed && !daemon.has_ended() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    let has_ended = has_failed && daemon.has_ended();
    daemon.end();
    has_ended
}

#[test]
fn no_pointer_of_a_directory_leads_to_what_is_not_whole_whatever_fails() {
    let wanted = std::env::var("MIRRORNET_DISTURBED").ok();
    let wanted = wanted.map_or(DISTURBED, |wanted| wanted.parse().unwrap());
    let mut world = World::prepare(1_200_000);
    let public = world.served.testbed.make_dir("public");
    let watched = Watched::new(world.own(), vec![public.join("trees/one")]);
    world.add_point(&format!("kind = \"directory\"\npath = {public:?}"));
    world.write_next();
    world.served.start_again();
    world.publish_well();
    watched.all_have(1);
    world.served.stop();

    // What an undisturbed start and publication do.
    let log = world.served.testbed.path("steps");
    world.write_next();
    publish_disturbed(&world, None, &log);
    watched.all_have(world.number);
    let steps = fs::read_to_string(&log).unwrap().lines().count();
    let mut killed = 0;
    let tried = wanted.min(steps);
    for number in 0..tried {
        let at = 1 + number * steps / tried;
        // SIGKILL, or a disk that is full at this one step.
        let fail_at = if number % 2 == 0 { format!("any:{at}") } else { format!("any:{at}:28") };
        world.write_next();
        killed += usize::from(publish_disturbed(&world, Some(&fail_at), &log));
        watched.look().unwrap_or_else(|wrong| panic!("{fail_at}: {wrong}"));
        world.check_announced(&watched);
        world.served.start_again();
        world.publish_well();
        watched.all_have(world.number);
        world.served.stop();
    }
    // Half of these are kills, and the last steps are not reached in each start.
    assert!(killed * 4 >= tried, "of {tried} times it was killed {killed} times, of {steps} steps");
}
