//! A tree with everything that its source and upstream add to it.

use protocol::{
    filter::{Level, Origin as RuleOrigin},
    name::{IdentityName, TreeName, UpstreamName},
    point::PointRef,
    schedule::Schedule,
    spec::{
        EncoderChoice, GuardSpec, Layout, SourceSpec, Transport, TreeSpec, UpstreamKind,
        UpstreamSpec,
    },
    symlinks::Symlinks,
    units::Span,
    v1::{
        agent::{Origin, PublisherOrigin, RsyncdOrigin, SshAccess},
        definitions::EffectiveSetting,
    },
};

use super::{
    DEFAULT_ASK_INTERVAL, DEFAULT_SCAN_INTERVAL,
    guard::guard,
    setting::{Setting, choice},
};
use crate::app::definition::{Definitions, upstream_url::RsyncUrl};

/// A tree with every setting merged.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveTree {
    /// Its name.
    pub name: TreeName,
    /// The upstream that it comes from.
    pub upstream: UpstreamName,
    /// How agents reach it; a publisher's address and key are for the caller to add.
    pub origin: Origin,
    /// Absolute directory at a publisher; `MODULE` or `MODULE/PATH` at a stock daemon.
    pub path: String,
    /// How it is organized.
    pub layout: Layout,
    /// The wall.
    pub limit: Vec<String>,
    /// Which symbolic links it has.
    pub symlinks: Symlinks,
    /// Which encoders its packs may use.
    pub encoders: EncoderChoice,
    /// Other stock daemons that have it, in the order in which they are asked.
    pub fallback: Vec<RsyncdOrigin>,
    /// How often it is scanned, or asked for.
    pub interval: Span,
    /// When, where that is not an interval.
    pub schedule: Option<Schedule>,
    /// Runs that are due begin up to so much later.
    pub splay: Option<Span>,
    /// The highest goes first.
    pub priority: i32,
    /// Small files that tell whether anything changed.
    pub quick_list: Vec<String>,
    /// Whether a pack from nothing is published too.
    pub initial_pack: bool,
    /// Whether what lies at further points is encrypted.
    pub private: bool,
    /// What stops a generation; every part is set.
    pub guard: GuardSpec,
    /// The same with provenance.
    pub settings: Vec<EffectiveSetting>,
}

impl EffectiveTree {
    /// The publisher that publishes it; none where it comes from a stock daemon.
    pub fn publisher(&self) -> Option<&IdentityName> {
        match &self.origin {
            Origin::Publisher(origin) => Some(&origin.publisher),
            Origin::Rsyncd(_) => None,
        }
    }

    /// The limit as a level of the filter.
    pub fn limit_level(&self) -> Level {
        Level::rules(RuleOrigin::Limit, self.name.as_str(), &self.limit)
    }
}

/// Merges one tree. `None` when it is not defined, or when what it refers to is not: stored
/// definitions always hold together.
pub fn tree(definitions: &Definitions, name: &TreeName) -> Option<EffectiveTree> {
    let tree = definitions.trees.get(name)?;
    let source = definitions.sources.get(&tree.source)?;
    let upstream = definitions.upstreams.get(&source.upstream)?;
    let path = full_path(source, tree);
    let from = format!("tree {name}");
    let points = match (&tree.points, &upstream.points) {
        (own, _) if !own.is_empty() => Setting::new(own.clone(), from.as_str()),
        (_, theirs) if !theirs.is_empty() => {
            Setting::new(theirs.clone(), format!("upstream {}", upstream.name))
        }
        _ => Setting::default(Vec::new()),
    };
    let origin = origin(upstream, &path, &points.value, tree.private)?;
    let path = match &tree.path {
        Some(_) => Setting::new(path, from.as_str()),
        None => Setting::new(path, format!("source {}", source.name)),
    };
    let default = match upstream.kind {
        UpstreamKind::Publisher => DEFAULT_SCAN_INTERVAL,
        UpstreamKind::Rsyncd => DEFAULT_ASK_INTERVAL,
    };
    let interval = Setting::first([(tree.interval, from.as_str())], default);
    let (guard, shown_guard) = guard(tree, source, definitions.networks.values().next());
    let mut settings = vec![
        Setting::new(&upstream.name, format!("source {}", source.name)).shown("upstream"),
        Setting::new(&source.name, from.as_str()).shown("source"),
        path.shown("upstream-path"),
        choice(tree.layout, &from).shown("layout"),
        interval.shown("interval"),
        choice(tree.symlinks, &from).shown("symlinks"),
        choice(tree.encoders, &from).shown("encoders"),
        choice(tree.initial_pack, &from).shown("initial-pack"),
        points.shown("points"),
    ];
    let named = Some(&tree.fallback).filter(|list| !list.is_empty());
    settings.extend(tree.private.then(|| choice(tree.private, &from).shown("private")));
    settings.extend(named.map(|list| Setting::new(list, from.as_str()).shown("fallback")));
    settings.extend(tree.when().map(|when| Setting::new(when, from.as_str()).shown("schedule")));
    settings.extend(tree.splay.map(|splay| Setting::new(splay, from.as_str()).shown("splay")));
    settings.extend((tree.priority != 0).then(|| choice(tree.priority, &from).shown("priority")));
    let quick = Some(&tree.quick_list).filter(|list| !list.is_empty());
    settings.extend(quick.map(|list| Setting::new(list, from.as_str()).shown("quick-list")));
    settings.extend(shown_guard);
    Some(EffectiveTree {
        name: name.clone(),
        upstream: upstream.name.clone(),
        origin,
        path: path.value,
        layout: tree.layout,
        limit: tree.limit.clone(),
        symlinks: tree.symlinks,
        encoders: tree.encoders,
        fallback: others(definitions, tree),
        interval: interval.value,
        schedule: tree.when(),
        splay: tree.splay,
        priority: tree.priority,
        quick_list: tree.quick_list.clone(),
        initial_pack: tree.initial_pack,
        private: tree.private,
        guard,
        settings,
    })
}

/// Where the tree lies at its upstream.
fn full_path(source: &SourceSpec, tree: &TreeSpec) -> String {
    let top = match source.path.trim_end_matches('/') {
        "" => "/",
        top => top,
    };
    match &tree.path {
        None => top.to_owned(),
        // Checked when it was defined: the path is text, so its raw bytes are what it shows.
        Some(path) => {
            let path = String::from_utf8_lossy(path.as_bytes());
            format!("{}/{path}", top.trim_end_matches('/'))
        }
    }
}

fn origin(
    upstream: &UpstreamSpec,
    path: &str,
    points: &[PointRef],
    private: bool,
) -> Option<Origin> {
    Some(match upstream.kind {
        UpstreamKind::Publisher => Origin::Publisher(PublisherOrigin {
            publisher: publisher_of(upstream)?,
            address: None,
            points: points.to_vec(),
            relays: Vec::new(),
            private,
        }),
        UpstreamKind::Rsyncd => {
            let url: RsyncUrl = upstream.url.as_deref()?.parse().ok()?;
            Origin::Rsyncd(RsyncdOrigin {
                host: url.host,
                port: url.port.unwrap_or_else(|| upstream.transport.default_port()),
                path: path.to_owned(),
                user: upstream.user.clone(),
                password_file: upstream.password_file.clone(),
                transport: upstream.transport,
                ssh: ssh_access(upstream),
                max_connections: upstream.max_connections,
            })
        }
    })
}

/// What ssh needs, where it is the transport; checked when it was defined.
fn ssh_access(upstream: &UpstreamSpec) -> Option<SshAccess> {
    let access = || {
        let (key_file, host_key) = (upstream.key_file.clone()?, upstream.host_key.clone()?);
        Some(SshAccess { key_file, host_key })
    };
    (upstream.transport == Transport::Ssh).then(access).flatten()
}

/// The other daemons that have the tree, in their order.
fn others(definitions: &Definitions, tree: &TreeSpec) -> Vec<RsyncdOrigin> {
    let origin_at = |name| {
        let source = definitions.sources.get(name)?;
        let upstream = definitions.upstreams.get(&source.upstream)?;
        match origin(upstream, &full_path(source, tree), &[], false)? {
            Origin::Rsyncd(origin) => Some(origin),
            Origin::Publisher(_) => None,
        }
    };
    tree.fallback.iter().filter_map(origin_at).collect()
}

/// The identity that publishes for an upstream: the one it names, else the one of its own name.
fn publisher_of(upstream: &UpstreamSpec) -> Option<IdentityName> {
    match &upstream.publisher {
        Some(publisher) => Some(publisher.clone()),
        None => upstream.name.as_str().parse().ok(),
    }
}
