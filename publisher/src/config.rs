//! What an admin may set, with the built-in defaults.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use filetree::confine::Confine;
use protocol::units::{ByteSize, Span};
use serde::{Deserialize, Serialize};

use crate::{
    consumers::{self, ConsumersConfig},
    points::{
        SIGNED_URL_LIFETIME,
        object_store::{self, ObjectStoreConfig},
    },
};

/// The publisher's configuration (`publisher.toml`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Config {
    /// Everything that the publisher keeps: identity, orders, manifests, packs, the view.
    pub data: PathBuf,
    /// `ADDRESS:PORT` for HTTPS and rsync, both by mutual TLS. Port 0 takes a free one.
    pub listen: String,
    /// `HOST:PORT` at which agents reach it; the bound address by default.
    pub advertise: Option<String>,
    /// How much of the past is kept, and how.
    pub retain: Retain,
    /// Memory that encoders may use together.
    pub memory: ByteSize,
    /// Private trees of announced generations; `DATA/view` by default. Best on the file system of
    /// the trees, where content is shared instead of copied.
    pub view: Option<PathBuf>,
    /// zstd level of packs, 1 to 22; by default it follows from what is packed.
    pub level: Option<i32>,
    /// CPU time that a pack should take, roughly: levels follow from it.
    pub pack_time: Span,
    /// Data directory of a mirror agent on this host: where a tree's source is one that this agent
    /// publishes, each of its generations is published further at once.
    pub agent: Option<PathBuf>,
    /// How long a changed tree must stay as it is before it is taken.
    pub settle: Span,
    /// How long readers are served after the coordinator was last heard.
    pub readers_max_age: Span,
    /// How long a statement holds for agents that cannot reach the coordinator.
    pub statement_lifetime: Span,
    /// How long the coordinator must not have been reached before trees that are autonomous go on
    /// without it.
    pub autonomous_after: Span,
    /// For how long they do, counted from when the coordinator was last heard.
    pub autonomous_for: Span,
    /// The rsync program, by name or absolute path.
    pub rsync: PathBuf,
    /// Longest rsync session.
    pub rsync_max_time: Span,
    /// Most rsync sessions at a time.
    pub rsync_max_sessions: u32,
    /// Whether the kernel keeps the rsync of a session to the trees that its peer may read: `auto`,
    /// `required` or `off`.
    pub confine: Confine,
    /// How long what no kept generation needs stays readable at every point.
    pub collect_after: Span,
    /// Further places that packs and manifests are written to.
    pub points: Vec<PointConfig>,
    /// Consumers who are no agents, and what they are served.
    pub consumers: Option<ConsumersConfig>,
}

/// How much of the past is kept, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Retain {
    /// How content is kept.
    pub mode: RetainMode,
    /// How many generations of each tree are kept.
    pub generations: u32,
    /// How long a generation that was replaced is kept, unless sites still hold it.
    pub age: Option<Span>,
    /// Most bytes that the replaced generations of a tree may take together.
    pub bytes: Option<ByteSize>,
}

/// How the content of a generation is kept while its source moves on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum RetainMode {
    /// By reflink where the file system can, else by hard link; where neither can be, the newest
    /// generation by copy and of the others only signatures.
    #[default]
    Auto,
    /// By reflink, else by copy: nothing that happens to the source can reach it.
    Content,
    /// By hard link, else by copy: takes no room, but content that is edited in place is lost.
    HardLink,
    /// The newest generation by hard link, else by copy; of the others only signatures.
    Signatures,
}

/// A publication point besides the publisher itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PointConfig {
    /// Which trees are written there: names, or beginnings with `*`. All by default.
    pub trees: Vec<String>,
    /// Whether nothing may be announced that is not there.
    pub required: bool,
    /// Where it is.
    #[serde(flatten)]
    pub place: PlaceConfig,
}

/// Where a publication point is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum PlaceConfig {
    /// A directory that any web server may serve.
    Directory {
        /// Where `trees/` is made.
        path: PathBuf,
    },
    /// A bucket that is written to in the language of S3.
    ObjectStore(ObjectStoreConfig),
}

/// As it is written: flattening would let unknown keys pass.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
enum WrittenPoint {
    #[serde(rename_all = "kebab-case")]
    Directory {
        path: PathBuf,
        #[serde(default = "all_trees")]
        trees: Vec<String>,
        #[serde(default)]
        required: bool,
    },
    #[serde(rename_all = "kebab-case")]
    ObjectStore {
        url: String,
        endpoint: Option<String>,
        #[serde(default = "object_store::default_region")]
        region: String,
        credentials: PathBuf,
        #[serde(default)]
        virtual_hosted: bool,
        #[serde(default)]
        signed_urls: bool,
        roots: Option<PathBuf>,
        #[serde(default = "all_trees")]
        trees: Vec<String>,
        #[serde(default)]
        required: bool,
    },
}

fn all_trees() -> Vec<String> {
    vec!["*".into()]
}

impl<'de> Deserialize<'de> for PointConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match WrittenPoint::deserialize(deserializer)? {
            WrittenPoint::Directory { path, trees, required } => {
                Self { trees, required, place: PlaceConfig::Directory { path } }
            }
            WrittenPoint::ObjectStore {
                url,
                endpoint,
                region,
                credentials,
                virtual_hosted,
                signed_urls,
                roots,
                trees,
                required,
            } => {
                let store = ObjectStoreConfig {
                    url,
                    endpoint,
                    region,
                    credentials,
                    virtual_hosted,
                    signed_urls,
                    roots,
                };
                Self { trees, required, place: PlaceConfig::ObjectStore(store) }
            }
        })
    }
}

impl PointConfig {
    fn check(&self) -> Result<(), Error> {
        let valid = |pattern: &String| {
            let name = pattern.strip_suffix('*').unwrap_or(pattern);
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
            !pattern.is_empty() && name.bytes().all(plain)
        };
        if let Some(pattern) = self.trees.iter().find(|pattern| !valid(pattern)) {
            return Err(Error::Trees(pattern.clone()));
        }
        let absolute = |path: &PathBuf| match path.is_absolute() {
            true => Ok(()),
            false => Err(Error::Relative { key: "points", path: path.clone() }),
        };
        match &self.place {
            PlaceConfig::Directory { path } => absolute(path),
            PlaceConfig::ObjectStore(store) => {
                store.check()?;
                store.roots.iter().chain([&store.credentials]).try_for_each(absolute)
            }
        }
    }
}

/// A value that cannot be meant.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not `ADDRESS:PORT`.
    #[error("listen = {0:?} is not an address and a port, such as 0.0.0.0:8445 or [::]:8445")]
    Listen(String),
    /// Not `HOST:PORT`.
    #[error("advertise = {0:?} is not a host and a port, such as build.example.org:8445")]
    Advertise(String),
    /// Out of zstd's range.
    #[error("level = {0} is not between 1 and 22")]
    Level(i32),
    /// Nothing would be kept to serve.
    #[error("retain.generations = 0 would leave nothing to serve; keep at least 1")]
    NoGenerations,
    /// Neither a name nor the beginning of one.
    #[error("points.trees has {0:?}; write names of trees, or their beginnings with a '*' behind")]
    Trees(String),
    /// A bucket that is none.
    #[error(transparent)]
    ObjectStore(#[from] object_store::Error),
    /// What stands about consumers.
    #[error(transparent)]
    Consumers(#[from] consumers::config::Error),
    /// Someone could still be reading.
    #[error("collect-after = {0} is shorter than 15m, the life of a signed URL")]
    CollectAfter(Span),
    /// One failed request would be enough.
    #[error(
        "autonomous-after = {0} is shorter than 1s; a coordinator that is merely started again is not gone"
    )]
    AutonomousAfter(Span),
    /// Never, by a slip.
    #[error(
        "autonomous-for = {0} is not longer than autonomous-after = {1}, so that no tree would ever go on alone; to forbid that, define none as autonomous"
    )]
    AutonomousFor(Span, Span),
    /// Not absolute.
    #[error("{key} = {path:?} is not an absolute path")]
    Relative {
        /// Which key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
    },
}

impl Config {
    /// Where the private trees lie.
    pub fn view_dir(&self) -> PathBuf {
        self.view.clone().unwrap_or_else(|| self.data.join("view"))
    }

    /// Where the control socket lies.
    pub fn control_socket(&self) -> PathBuf {
        control_socket(&self.data)
    }

    /// Checks what the types cannot say.
    pub fn check(&self) -> Result<(), Error> {
        if self.listen.parse::<std::net::SocketAddr>().is_err() {
            return Err(Error::Listen(self.listen.clone()));
        }
        if let Some(advertise) = self.advertise.as_ref().filter(|text| !is_host_and_port(text)) {
            return Err(Error::Advertise(advertise.clone()));
        }
        if let Some(level) = self.level.filter(|level| !(1..=22).contains(level)) {
            return Err(Error::Level(level));
        }
        if self.retain.generations == 0 {
            return Err(Error::NoGenerations);
        }
        self.points.iter().try_for_each(PointConfig::check)?;
        self.consumers.iter().try_for_each(ConsumersConfig::check)?;
        if self.collect_after.duration() < SIGNED_URL_LIFETIME {
            return Err(Error::CollectAfter(self.collect_after));
        }
        let (after, most) = (self.autonomous_after, self.autonomous_for);
        if after.duration() < Duration::from_secs(1) {
            return Err(Error::AutonomousAfter(after));
        }
        if most.duration() <= after.duration() {
            return Err(Error::AutonomousFor(most, after));
        }
        let view = self.view.iter().map(|path| ("view", path));
        let agent = self.agent.iter().map(|path| ("agent", path));
        let paths = std::iter::once(("data", &self.data)).chain(view).chain(agent);
        for (key, path) in paths {
            if !path.is_absolute() {
                return Err(Error::Relative { key, path: path.clone() });
            }
        }
        Ok(())
    }
}

/// Where the control socket of a data directory lies.
pub fn control_socket(data: &Path) -> PathBuf {
    data.join("control.sock")
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "/var/lib/mirrornet/publisher".into(),
            listen: "0.0.0.0:8445".into(),
            advertise: None,
            retain: Retain::default(),
            memory: ByteSize(512 << 20),
            view: None,
            level: None,
            pack_time: Span::from_secs(300),
            agent: None,
            settle: Span::from_secs(1),
            readers_max_age: Span::from_secs(24 * 3600),
            statement_lifetime: Span::from_secs(30 * 24 * 3600),
            autonomous_after: Span::from_secs(3600),
            autonomous_for: Span::from_secs(7 * 24 * 3600),
            rsync: "rsync".into(),
            rsync_max_time: Span::from_secs(12 * 3600),
            rsync_max_sessions: 32,
            confine: Confine::default(),
            collect_after: Span::from_secs(24 * 3600),
            points: Vec::new(),
            consumers: None,
        }
    }
}

impl Retain {
    /// Generations of which content is kept.
    pub fn content_generations(&self) -> usize {
        match self.mode {
            RetainMode::Signatures => 1,
            RetainMode::Auto | RetainMode::Content | RetainMode::HardLink => {
                self.generations.max(1) as usize
            }
        }
    }
}

impl Default for Retain {
    fn default() -> Self {
        Self { mode: RetainMode::Auto, generations: 5, age: None, bytes: None }
    }
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_meant_and_each_slip_is_named() {
        Config::default().check().unwrap();
        type Change = fn(&mut Config);
        fn point(c: &mut Config, text: &str) {
            #[derive(Deserialize)]
            struct Points {
                points: Vec<PointConfig>,
            }
            let text =
                format!("[[points]]\ncredentials = \"/etc/s3\"\nkind = \"object-store\"\n{text}");
            c.points = toml::from_str::<Points>(&text).unwrap().points;
        }
        let slips: [(Change, &str); 13] = [
            (|c| c.collect_after = Span::from_secs(60), "collect-after"),
            (|c| point(c, "url = \"https://b\""), "points.url"),
            (|c| point(c, "url = \"s3://b/../c\""), "points.url"),
            (|c| point(c, "url = \"s3://b\"\nendpoint = \"b\""), "points.endpoint"),
            (|c| point(c, "url = \"s3://b\"\ntrees = [\"a*b\"]"), "points.trees"),
            (|c| c.listen = "8445".into(), "listen"),
            (|c| c.advertise = Some("build.example.org".into()), "advertise"),
            (|c| c.advertise = Some("https://build:1".into()), "advertise"),
            (|c| c.level = Some(23), "level"),
            (|c| c.autonomous_after = Span::from_secs(0), "autonomous-after"),
            (|c| c.autonomous_for = Span::from_secs(3600), "autonomous-for"),
            (|c| c.retain.generations = 0, "retain.generations"),
            (|c| c.view = Some("view".into()), "view"),
        ];
        for (slip, key) in slips {
            let mut config = Config::default();
            slip(&mut config);
            let text = config.check().unwrap_err().to_string();
            assert!(text.starts_with(key), "{text}");
        }
    }

    #[test]
    fn an_unknown_key_of_a_point_is_an_error() {
        let text = "kind = \"directory\"\npath = \"/p\"\nrequird = true\n";
        let error = toml::from_str::<PointConfig>(text).unwrap_err().to_string();
        assert!(error.contains("requird"), "{error}");
        let point: PointConfig = toml::from_str("kind = \"directory\"\npath = \"/p\"").unwrap();
        assert_eq!((point.trees, point.required), (vec!["*".to_owned()], false));
    }
}
