//! The smallest whole network: one publisher with the tree `tree`, one agent at the site `site`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    Daemon, Link, Rsyncd, Testbed, compare, encoders,
    network::{Agent, Publisher},
};

/// Definitions of the tree `tree` in a directory of the publisher `build`, and of the site `site`, which
/// holds it; `tree` and `assignment` are further lines of theirs.
pub fn published(source: &Path, tree: &str, assignment: &str) -> String {
    let upstream = "kind = \"publisher\"";
    one_tree(
        "build",
        upstream,
        source.to_str().unwrap(),
        &format!("interval = \"1h\"\n{tree}"),
        assignment,
    )
}

/// The same of a tree below the module `pub` of a stock daemon; `upstream` are further lines of the
/// daemon's definition.
pub fn mirrored(rsyncd: &Rsyncd, upstream: &str, tree: &str, assignment: &str) -> String {
    let upstream = format!("kind = \"rsyncd\"\nurl = \"{}\"\n{upstream}", rsyncd.url());
    one_tree("stock", &upstream, "pub", tree, assignment)
}

/// The same with an upstream of any kind: its name, the lines of its kind, and the path of its source.
pub fn one_tree(name: &str, upstream: &str, source: &str, tree: &str, assignment: &str) -> String {
    format!(
        r#"
[[upstream]]
name = "{name}"
{upstream}

[[source]]
name = "source"
upstream = "{name}"
path = {source:?}

[[tree]]
name = "tree"
source = "source"
path = "tree"
{tree}

[[site]]
name = "site"

[[grant]]
site = "site"
tree = "tree"

[[assignment]]
site = "site"
tree = "tree"
{assignment}
"#
    )
}

/// One tree on its way to one site. The agent is enrolled but does not run by itself.
pub struct OneTree {
    /// The network around it.
    pub testbed: Testbed,
    /// The publisher.
    pub publisher: Publisher,
    /// The publisher's process.
    pub publishing: Daemon,
    /// The agent.
    pub agent: Agent,
    /// The directory that is published.
    pub upstream: PathBuf,
}

impl OneTree {
    /// Starts it; `tree` are further lines for the tree's definition, `assignment` for the
    /// assignment's. What the upstream removes goes at once, unless the assignment says otherwise.
    pub fn start(tree: &str, assignment: &str) -> Self {
        Self::start_in(Testbed::start(), tree, assignment)
    }

    /// [`OneTree::start`] with the agent at the other end of a line.
    pub fn start_over(link: &Link, tree: &str, assignment: &str) -> Self {
        Self::start_in(Testbed::start_on(link.origin(), link.site()), tree, assignment)
    }

    /// [`OneTree::start`], in a network that runs already.
    pub fn start_in(testbed: Testbed, tree: &str, assignment: &str) -> Self {
        let upstream = testbed.make_dir("upstream/tree");
        let source = testbed.path("upstream");
        let keep = match assignment.contains("keep-withdrawn") {
            true => "",
            false => "keep-withdrawn = \"0s\"",
        };
        testbed.apply(&published(&source, tree, &format!("{assignment}\n{keep}")));
        let publisher = testbed.enroll_publisher("build");
        let publishing = testbed.run_publisher(&publisher);
        let agent = testbed.enroll_agent("agent", "site");
        Self { testbed, publisher, publishing, agent, upstream }
    }

    /// Writes a file of the upstream.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        write(&self.upstream.join(path), content);
    }

    /// Adds lines to the publisher's configuration, and starts it anew.
    pub fn configure_publisher(&mut self, lines: &str) {
        append(&self.publisher.config, lines);
        assert!(self.publishing.end().success());
        self.publishing = self.testbed.run_publisher(&self.publisher);
    }

    /// Adds lines to the agent's configuration.
    pub fn configure_agent(&self, lines: &str) {
        append(&self.agent.config, lines);
    }

    /// Publishes what the upstream holds now.
    pub fn publish(&self) {
        self.testbed.publish(&self.publisher, "tree");
    }

    /// Publishes what the upstream holds now, and has the agent bring it over.
    pub fn publish_and_sync(&self) -> Value {
        self.publish();
        self.sync()
    }

    /// Has the agent bring its tree up to date, and takes the report.
    ///
    /// # Panics
    /// Where encoders are forced, and others made what came.
    pub fn sync(&self) -> Value {
        self.agent.sync();
        let run = self.last_run();
        encoders::assert_forced(&run);
        run
    }

    /// The newest run, as the coordinator tells it.
    pub fn last_run(&self) -> Value {
        self.testbed.runs("tree@site").into_iter().next().unwrap_or_default()
    }

    /// Where the tree is published at the site.
    pub fn mirror(&self) -> PathBuf {
        self.agent.published("tree")
    }

    /// # Panics
    /// When the mirror differs from the upstream, in the opinion of rsync and sha256sum.
    pub fn assert_same(&self) {
        compare::assert_same(&self.upstream, &self.mirror(), &[]);
    }
}

fn append(file: &Path, lines: &str) {
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, format!("{text}{lines}\n")).unwrap();
}

/// Writes a file with everything above it.
pub fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Text that compresses like source code and differs by seed, of about `len` bytes.
pub fn prose(seed: u64, len: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::with_capacity(len + 64);
    while text.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("line {:016x} of file {seed}: {}\n", state, state % 97));
    }
    text
}

/// Bytes that do not compress, by seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
