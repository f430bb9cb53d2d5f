//! Orders for publishers.

use std::{cmp::Reverse, collections::HashMap};

use jiff::Timestamp;
use protocol::{
    digest::Digest,
    filter::Level,
    name::{IdentityName, SiteName, TreeName},
    role::Role,
    v1::publisher::{HeldBase, PublisherOrders, Reader, TreeOrder},
};

use crate::app::{
    effective::{self, EffectiveTree},
    picture::Picture,
};

/// Most manifests that are named as worth a pack.
const MAX_HELD: usize = 16;
/// Most filters that are named for a tree.
const MAX_FILTERS: usize = 32;

/// Everything that one publisher has to do, and whom it may serve.
pub fn publisher(picture: &Picture, name: &IdentityName, now: Timestamp) -> PublisherOrders {
    let trees = trees_of(picture, name);
    let mut upstreams: Vec<_> = trees.iter().map(|tree| tree.upstream.clone()).collect();
    upstreams.sort();
    upstreams.dedup();
    let names: Vec<_> = trees.iter().map(|tree| tree.name.clone()).collect();
    PublisherOrders {
        revision: picture.revision,
        restore_epoch: picture.restore_epoch,
        upstreams,
        trees: trees.into_iter().map(|tree| order(picture, tree, now)).collect(),
        readers: readers(picture, &names, now),
    }
}

/// The trees that a publisher publishes.
pub fn trees_of(picture: &Picture, publisher: &IdentityName) -> Vec<EffectiveTree> {
    let definitions = &picture.wanted.definitions;
    let trees = definitions.trees.keys().filter_map(|name| effective::tree(definitions, name));
    trees.filter(|tree| tree.publisher() == Some(publisher)).collect()
}

/// Names what the definitions say of what may be published of a tree: what was made by other rules may
/// have what an admin has hidden since.
pub fn rules(tree: &EffectiveTree) -> Digest {
    let EffectiveTree { path, layout, limit, symlinks, private, guard, .. } = tree;
    let said = serde_json::to_vec(&(path, layout, limit, symlinks, private, guard));
    // Plain values always have a JSON form.
    Digest::of(&said.unwrap_or_default())
}

/// Whether the publisher of a tree may go on without its coordinator.
pub fn is_autonomous(picture: &Picture, tree: &TreeName) -> bool {
    picture.wanted.definitions.trees.get(tree).is_some_and(|tree| tree.autonomous)
}

fn order(picture: &Picture, tree: EffectiveTree, now: Timestamp) -> TreeOrder {
    let contents = picture.contents.tree(&tree.name);
    let current = contents.current();
    TreeOrder {
        rules: Some(rules(&tree)),
        autonomous: is_autonomous(picture, &tree.name),
        path: tree.path,
        layout: tree.layout,
        limit: tree.limit,
        symlinks: tree.symlinks,
        encoders: tree.encoders,
        interval: tree.interval,
        schedule: tree.schedule,
        initial_pack: tree.initial_pack,
        private: tree.private,
        secrets: picture.wanted.secrets(&tree.name),
        guard: tree.guard,
        epoch: picture.root.root().epoch(&tree.name),
        current: current.map(|current| current.statement.clone()),
        held: held(picture, &tree.name),
        filters: filters(picture, &tree.name, now),
        publish_requests: picture.wanted.publish_requests(&tree.name),
        approved: contents.approvals(None),
        rejected: contents.rejections(),
        tree: tree.name,
    }
}

/// The manifests that agents hold, those first of which all sites together keep most bytes: so much
/// the more does a pack from there save.
fn held(picture: &Picture, tree: &TreeName) -> Vec<HeldBase> {
    let mut agents: HashMap<Digest, (u64, u64)> = HashMap::new();
    for receipt in picture.receipts.values() {
        if receipt.assignment.tree == *tree && !receipt.observed {
            let held = agents.entry(receipt.manifest).or_default();
            *held = (held.0 + 1, held.1.saturating_add(receipt.bytes));
        }
    }
    let mut held: Vec<_> = agents
        .into_iter()
        .map(|(manifest, (agents, bytes))| HeldBase { manifest, agents, bytes })
        .collect();
    held.sort_by_key(|base| (Reverse(base.bytes), Reverse(base.agents), base.manifest));
    held.truncate(MAX_HELD);
    held
}

/// The filters of the tree's assignments that are carried out, those of most sites first.
fn filters(picture: &Picture, tree: &TreeName, now: Timestamp) -> Vec<Vec<Level>> {
    let mut sites: HashMap<Vec<Level>, u64> = HashMap::new();
    let names = picture.wanted.definitions.assignments.keys().filter(|name| name.tree == *tree);
    for order in names.filter_map(|name| picture.effective(name, now)).map(|merged| merged.order) {
        if order.stopped.is_none() {
            // Whose rules they are makes no difference to what they keep.
            let nameless = |level| Level { label: String::new(), ..level };
            *sites.entry(order.filter.into_iter().map(nameless).collect()).or_default() += 1;
        }
    }
    let mut filters: Vec<_> = sites.into_iter().collect();
    filters.sort_by_cached_key(|(filter, sites)| (Reverse(*sites), format!("{filter:?}")));
    filters.truncate(MAX_FILTERS);
    filters.into_iter().map(|(filter, _)| filter).collect()
}

/// Every live certificate of an agent that has a live grant and an enabled assignment of one of
/// the trees.
fn readers(picture: &Picture, trees: &[TreeName], now: Timestamp) -> Vec<Reader> {
    readers_of(picture, trees, now, |_| true)
}

/// The same of the agents at some sites.
pub(super) fn readers_of(
    picture: &Picture,
    trees: &[TreeName],
    now: Timestamp,
    at: impl Fn(&SiteName) -> bool,
) -> Vec<Reader> {
    let mut readers = Vec::new();
    for identity in picture.fleet.identities() {
        let Some(site) = identity.site.as_ref().filter(|_| identity.role == Role::Agent) else {
            continue;
        };
        if identity.revoked.is_some() || !at(site) {
            continue;
        }
        let readable = |tree: &TreeName| {
            let held = picture.assignments_of(&identity.name).iter();
            held.filter(|name| name.tree == *tree).any(|name| {
                let merged = picture.effective(name, now);
                merged.is_some_and(|merged| merged.order.stopped.is_none())
            })
        };
        let trees: Vec<_> = trees.iter().filter(|tree| readable(tree)).cloned().collect();
        if trees.is_empty() {
            continue;
        }
        for serial in picture.fleet.live_serials(Role::Agent, &identity.name, now) {
            readers.push(Reader {
                serial: serial.to_owned(),
                identity: identity.name.clone(),
                site: site.clone(),
                trees: trees.clone(),
            });
        }
    }
    readers
}
