//! An assignment with everything that its tree, source, site and upstream add to it.

use std::fmt;

use jiff::Timestamp;
use protocol::{
    filter::{Level, LevelKind, Origin as RuleOrigin},
    name::{IdentityName, SiteName},
    path::TreePath,
    spec::{AssignmentName, AssignmentSpec, SiteSpec, SourceSpec, TreeSpec},
    v1::{
        agent::{AssignmentOrder, Stopped},
        definitions::{Effective, EffectiveRule, EffectiveSetting},
    },
};

use super::{
    Agents, DEFAULT_KEEP_WITHDRAWN, DEFAULT_LINGER, granted,
    setting::{Setting, choice},
    tree::{EffectiveTree, tree},
    versions::{status_level, versions},
};
use crate::app::definition::Definitions;

/// An assignment with every setting merged.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveAssignment {
    /// The agent that holds it.
    pub agent: Result<IdentityName, NoAgent>,
    /// What that agent is told. The target, the number of sync requests, and a publisher's address
    /// and key are for the caller to add.
    pub order: AssignmentOrder,
    /// Every setting with its provenance, in a fixed order.
    pub settings: Vec<EffectiveSetting>,
    /// Every rule with its provenance, in the order in which they are asked.
    pub rules: Vec<EffectiveRule>,
}

/// Why no agent holds an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAgent {
    /// The site has none.
    NoneAtSite(SiteName),
    /// The one it names is not enrolled at the site.
    NotAtSite(IdentityName, SiteName),
}

impl EffectiveAssignment {
    /// What `describe` shows.
    pub fn describe(&self) -> Effective {
        Effective {
            name: self.order.name.to_string(),
            settings: self.settings.clone(),
            rules: self.rules.clone(),
            stopped: self.why_stopped(),
        }
    }

    /// Why it is not carried out and what to do about it; none when it is.
    pub fn why_stopped(&self) -> Option<String> {
        let AssignmentName { tree, site } = &self.order.name;
        match (&self.order.stopped, &self.agent) {
            (Some(Stopped::Disabled), _) => {
                Some(format!("disabled; `mirrorctl enable {tree}@{site}` carries it out again"))
            }
            (Some(Stopped::NoGrant), _) => Some(format!(
                "site {site} has no live grant for tree {tree}; add a [[grant]] with site = \"{site}\" and tree = \"{tree}\""
            )),
            (None, Err(reason)) => Some(reason.to_string()),
            (None, Ok(_)) => None,
        }
    }
}

impl fmt::Display for NoAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoneAtSite(site) => write!(
                f,
                "site {site} has no enrolled agent; `mirrorctl invite --role agent --name NAME --site {site}` makes an invite for one"
            ),
            Self::NotAtSite(agent, site) => write!(
                f,
                "agent {agent} is not enrolled at site {site}; invite it, or name another in the assignment"
            ),
        }
    }
}

/// Merges one assignment. `None` when it is not defined, or when what it refers to is not: stored
/// definitions always hold together.
pub fn assignment(
    definitions: &Definitions,
    name: &AssignmentName,
    agents: &Agents,
    now: Timestamp,
) -> Option<EffectiveAssignment> {
    let spec = definitions.assignments.get(name)?;
    let site = definitions.sites.get(&spec.site)?;
    let tree_spec = definitions.trees.get(&spec.tree)?;
    let source = definitions.sources.get(&tree_spec.source)?;
    let tree = tree(definitions, &spec.tree)?;
    let filter = filter_levels(spec, tree_spec, source, site);
    let agent = agent(spec, agents);
    let stopped = if !spec.enabled {
        Some(Stopped::Disabled)
    } else if !granted(definitions, name, now) {
        Some(Stopped::NoGrant)
    } else {
        None
    };
    let own = format!("assignment {name}");
    let path = Setting {
        value: published_path(spec, site)?,
        from: if spec.path.is_some() { own.clone() } else { "default".into() },
    };
    let linger = Setting::first([(spec.linger, own.as_str())], DEFAULT_LINGER);
    let keep_withdrawn =
        Setting::first([(spec.keep_withdrawn, own.as_str())], DEFAULT_KEEP_WITHDRAWN);
    let at_site = format!("site {}", site.name);
    let optional =
        |value: &Option<String>| Setting::first([(value.clone().map(Some), own.as_str())], None);
    let mut settings = vec![
        Setting {
            value: agent.as_ref().ok(),
            from: if spec.agent.is_some() { own.clone() } else { "default".into() },
        }
        .shown("agent"),
        path.shown("path"),
        Setting {
            value: spec.enabled,
            from: if spec.enabled { "default".into() } else { own.clone() },
        }
        .shown("enabled"),
        Setting {
            value: spec.dry_run_only,
            from: if spec.dry_run_only { own.clone() } else { "default".into() },
        }
        .shown("dry-run-only"),
    ];
    let (versions, shown_versions) = versions(spec, tree_spec, site);
    settings.extend(tree.settings.iter().cloned());
    settings.extend(shown_versions);
    settings.extend([
        choice(spec.switch, &own).shown("switch"),
        optional(&spec.together).shown("together"),
        choice(spec.on_exclude, &own).shown("on-exclude"),
        choice(spec.on_end, &own).shown("on-end"),
        optional(&spec.group).shown("group"),
        optional(&spec.chmod).shown("chmod"),
        linger.shown("linger"),
        keep_withdrawn.shown("keep-withdrawn"),
        Setting::first([(site.default_rate, at_site.as_str())], protocol::spec::Rate(None))
            .shown("default-rate"),
        Setting::first([(site.timezone.clone().map(Some), at_site.as_str())], None)
            .shown("timezone"),
    ]);
    let EffectiveTree {
        symlinks,
        origin,
        fallback,
        interval,
        schedule,
        splay,
        priority,
        quick_list,
        guard,
        ..
    } = tree;
    Some(EffectiveAssignment {
        agent,
        rules: rules(&filter),
        order: AssignmentOrder {
            name: name.clone(),
            path: path.value,
            stopped,
            dry_run_only: spec.dry_run_only,
            filter,
            versions,
            symlinks,
            origin,
            fallback,
            target: None,
            interval,
            schedule,
            splay,
            priority,
            quick_list,
            sync_requests: 0,
            guard,
            approved: Vec::new(),
            on_exclude: spec.on_exclude,
            on_end: spec.on_end,
            switch: spec.switch,
            together: spec.together.clone(),
            group: spec.group.clone(),
            chmod: spec.chmod.clone(),
            linger: linger.value,
            keep_withdrawn: keep_withdrawn.value,
            undelete: Vec::new(),
        },
        settings,
    })
}

/// The limit and the merged rules, in order. Levels without rules are left out.
pub fn filter_levels(
    assignment: &AssignmentSpec,
    tree: &TreeSpec,
    source: &SourceSpec,
    site: &SiteSpec,
) -> Vec<Level> {
    let own = assignment.name().to_string();
    let (in_tree, in_source, in_site) =
        (tree.name.as_str(), source.name.as_str(), site.name.as_str());
    let status = status_level(tree);
    let levels = [
        Level::rules(RuleOrigin::Limit, in_tree, &tree.limit),
        Level::rules(RuleOrigin::Assignment, &own, &assignment.filter),
        Level::rules(RuleOrigin::Tree, in_tree, &tree.filter),
        Level::excludes(RuleOrigin::Assignment, &own, &assignment.exclude),
        Level::excludes(RuleOrigin::Tree, in_tree, &tree.exclude),
        Level::excludes(RuleOrigin::Source, in_source, &source.exclude),
        Level::excludes(RuleOrigin::Site, in_site, &site.exclude),
    ];
    let levels = levels.into_iter().chain(status);
    levels.filter(|level| !level.rules.is_empty()).collect()
}

/// Where an assignment is published, below the agents' publish directory; `None` when prefix and
/// path do not make one.
pub(in crate::app) fn published_path(spec: &AssignmentSpec, site: &SiteSpec) -> Option<TreePath> {
    let path = match &spec.path {
        Some(path) => path.clone(),
        None => TreePath::parse(spec.tree.as_str().as_bytes()).ok()?,
    };
    match site.prefix.as_str() {
        "" => Some(path),
        prefix => TreePath::parse(prefix.as_bytes()).ok()?.child(path.as_bytes()).ok(),
    }
}

/// The agent that holds it: the one it names, else the site's oldest.
fn agent(spec: &AssignmentSpec, agents: &Agents) -> Result<IdentityName, NoAgent> {
    let mut at_site = agents.iter().filter(|(_, site)| *site == spec.site).map(|(name, _)| name);
    match &spec.agent {
        Some(named) => at_site
            .find(|name| *name == named)
            .cloned()
            .ok_or_else(|| NoAgent::NotAtSite(named.clone(), spec.site.clone())),
        None => at_site.next().cloned().ok_or_else(|| NoAgent::NoneAtSite(spec.site.clone())),
    }
}

/// The rules of all levels, each with the definition and key in which it stands.
fn rules(levels: &[Level]) -> Vec<EffectiveRule> {
    let from = |level: &Level| {
        let key = match (level.origin, level.kind) {
            (RuleOrigin::Limit, _) => return format!("tree {}, limit", level.label),
            (_, LevelKind::Rules) => "filter",
            (_, LevelKind::Excludes) => "exclude",
        };
        format!("{} {}, {key}", level.origin, level.label)
    };
    let each = |level: &Level| {
        let from = from(level);
        let rule = |text: &String| EffectiveRule { rule: text.clone(), from: from.clone() };
        level.rules.iter().map(rule).collect::<Vec<_>>()
    };
    levels.iter().flat_map(each).collect()
}
