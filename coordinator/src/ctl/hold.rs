//! `approve` and `reject`: what becomes of content that a guard stopped.

use clap::Args;
use protocol::{
    digest::Digest,
    generation::TreeAt,
    hold::HoldId,
    name::TreeName,
    v1::{definitions::HoldDecision, history::GenerationStatus},
};

use super::{error::Error, print::Print, session::Session, text};

/// Let held content be published, although a guard stopped it.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl approve fedora\n  mirrorctl approve hold-9f2c1a7b3d04\n  mirrorctl approve fedora@13\n  mirrorctl approve fedora --manifest b3:9f2c…"
)]
pub(super) struct Approve {
    #[command(flatten)]
    which: Which,
}

/// Do not publish held content; the tree stays at its generation until the upstream changes again.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl reject fedora\n  mirrorctl reject fedora --manifest b3:9f2c…"
)]
pub(super) struct Reject {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
struct Which {
    /// TREE, TREE@N for the hold that would become generation N, or the name of a hold.
    #[arg(value_name = "TREE[@N]|HOLD")]
    tree: String,
    /// Exactly this manifest; needed where several are held.
    #[arg(long, value_name = "DIGEST")]
    manifest: Option<Digest>,
}

impl Approve {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let api = session.api(print).await?;
        let (tree, hold) = self.which.find(&api).await?;
        api.approve(&tree, &hold).await?;
        print.result(&hold, |hold| {
            format!("approved {} of tree {tree}; it is taken next", hold.manifest)
        })
    }
}

impl Reject {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let api = session.api(print).await?;
        let (tree, hold) = self.which.find(&api).await?;
        api.reject(&tree, &hold).await?;
        print.result(&hold, |hold| format!("rejected {} of tree {tree}", hold.manifest))
    }
}

impl Which {
    async fn find(
        &self,
        api: &protocol::client::Client,
    ) -> Result<(TreeName, HoldDecision), Error> {
        let usage = |error: &dyn ToString| Error::Usage(error.to_string());
        if let Ok(id) = self.tree.parse::<HoldId>() {
            return named(&id, &api.generations(None).await?.items);
        }
        let (tree, number) = if self.tree.contains('@') {
            let at: TreeAt = self.tree.parse().map_err(|error| usage(&error))?;
            (at.tree, Some(at.generation.0))
        } else {
            (self.tree.parse::<TreeName>().map_err(|error| usage(&error))?, None)
        };
        if let (Some(manifest), None) = (self.manifest, number) {
            return Ok((tree, HoldDecision { manifest }));
        }
        let history = api.generations(Some(&tree)).await?.items;
        let manifest = choose(&tree, number, self.manifest, &history)?;
        Ok((tree, HoldDecision { manifest }))
    }
}

/// The hold of that name.
fn named(id: &HoldId, history: &[GenerationStatus]) -> Result<(TreeName, HoldDecision), Error> {
    let is_meant = |hold: &&GenerationStatus| hold.hold.as_ref().is_some_and(|hold| hold.id == *id);
    match history.iter().find(is_meant) {
        Some(hold) => Ok((hold.tree.clone(), HoldDecision { manifest: hold.manifest })),
        None => Err(Error::Other(anyhow::anyhow!(
            "there is no hold {id}: it was decided, or what it held has changed meanwhile; `mirrorctl status` lists what is held"
        ))),
    }
}

/// The hold that is meant: the only one of the tree, which would become generation `number`.
fn choose(
    tree: &TreeName,
    number: Option<u64>,
    manifest: Option<Digest>,
    history: &[GenerationStatus],
) -> Result<Digest, Error> {
    let current = history.iter().filter_map(|generation| generation.version).max();
    let next = current.map_or(1, |version| version.generation.next().0);
    if let Some(number) = number
        && number != next
    {
        return Err(Error::Other(anyhow::anyhow!(
            "what is held of tree {tree} would become generation {next}, not {number}; `mirrorctl get generations {tree}` lists both"
        )));
    }
    let mut held: Vec<_> = history
        .iter()
        .filter(|generation| generation.version.is_none())
        .filter(|hold| manifest.is_none_or(|manifest| hold.manifest == manifest))
        .collect();
    // The agents of several sites may hold the same; one word decides for all of them.
    held.sort_by_key(|hold| hold.manifest);
    held.dedup_by_key(|hold| hold.manifest);
    match held[..] {
        [hold] => Ok(hold.manifest),
        [] => Err(Error::Other(anyhow::anyhow!("nothing of tree {tree} is held"))),
        _ => {
            let line = |hold: &&GenerationStatus| {
                let reason = hold.held.as_deref().unwrap_or_default();
                format!("\n  --manifest {}  {}  {reason}", hold.manifest, text::time(hold.created))
            };
            let list: String = held.iter().map(line).collect();
            Err(Error::Usage(format!("tree {tree} has several holds; say which:{list}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use protocol::generation::{Epoch, Generation, Version};

    use super::*;

    fn entry(number: Option<u64>, content: &str) -> GenerationStatus {
        let version = |number| Version { epoch: Epoch(1), generation: Generation(number) };
        GenerationStatus {
            tree: "fedora".parse().unwrap(),
            version: number.map(version),
            manifest: Digest::of(content.as_bytes()),
            parent: None,
            entries: 0,
            bytes: 0,
            created: Timestamp::UNIX_EPOCH,
            held: number.is_none().then(|| "30 % of files gone".into()),
            hold: None,
            packs: vec![],
        }
    }

    #[test]
    fn a_hold_is_meant_only_when_there_is_no_doubt() {
        let tree = "fedora".parse().unwrap();
        let a = Digest::of(b"a");
        let one = [entry(None, "a"), entry(Some(12), "x"), entry(Some(11), "y")];
        assert_eq!(choose(&tree, None, None, &one).unwrap(), a);
        assert_eq!(choose(&tree, Some(13), None, &one).unwrap(), a);
        let wrong = choose(&tree, Some(12), None, &one).unwrap_err().to_string();
        assert!(wrong.contains("generation 13, not 12"), "{wrong}");
        let two = [entry(None, "a"), entry(None, "b"), entry(Some(12), "x")];
        let several = choose(&tree, None, None, &two).unwrap_err();
        assert!(several.is_usage() && several.to_string().contains(&a.to_string()));
        assert_eq!(choose(&tree, None, Some(a), &two).unwrap(), a);
        assert!(choose(&tree, None, None, &one[1..]).unwrap_err().to_string().contains("nothing"));
    }
}
