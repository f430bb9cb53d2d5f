//! What a publisher on this host is told of the trees that this agent has published.

use std::{io, sync::Arc, time::Duration};

use protocol::{
    digest::Digest,
    hub::{MAX_WAIT_SECONDS, Published, PublishedTree, Vouched},
    manifest::StoredManifest,
    spec::AssignmentName,
};
use tokio::{
    io::AsyncWriteExt,
    task::block_in_place,
    time::{Instant, timeout_at},
};

use crate::{
    agent::{Agent, NoSuchTree},
    apply::os_path,
    ledger,
};

/// What is published, once that is another state than `known` or the wait (in seconds) is over.
pub async fn published(
    agent: &Arc<Agent>,
    known: Option<Digest>,
    wait: u64,
) -> Result<Published, ledger::Error> {
    let until = Instant::now() + Duration::from_secs(wait.min(MAX_WAIT_SECONDS));
    loop {
        // Asked for before one looks, so that nothing happens in between.
        let mut news = std::pin::pin!(agent.applied.notified());
        news.as_mut().enable();
        let published = look(agent)?;
        if known != Some(published.state) || timeout_at(until, news).await.is_err() {
            return Ok(published);
        }
    }
}

fn look(agent: &Agent) -> Result<Published, ledger::Error> {
    let publish = agent.config.publish();
    let trees = agent.ledger.records()?.into_iter().filter_map(|record| {
        let held = record.held.filter(|_| record.moving.is_none())?;
        let root = publish.join(os_path(&record.path)).to_str()?.to_owned();
        let busy = agent.is_busy(&record.name);
        Some(PublishedTree { assignment: record.name, root, manifest: held.manifest, busy })
    });
    Ok(Published::of(trees.collect()))
}

/// The manifest of what is published of an assignment: whoever finds a file of that path, size and
/// time there need not read it.
pub fn vouched(agent: &Agent, name: &AssignmentName) -> Result<StoredManifest, crate::Failure> {
    let held = agent.ledger.record(name)?.and_then(|record| record.held);
    let manifest = held.and_then(|held| agent.manifests.get_alone(&held.manifest, &held.filter));
    Ok(manifest.ok_or_else(|| NoSuchTree { tree: name.to_string() })?)
}

/// Answers with such a manifest, which is never held as a whole. Where a block cannot be read after
/// all, the line has no end, and nobody takes it for an answer.
pub async fn tell_vouched(
    to: &mut (impl AsyncWriteExt + Unpin),
    manifest: &StoredManifest,
) -> io::Result<()> {
    to.write_all(br#"{"answer":"#).await?;
    let mut pieces = Vouched::pieces(manifest);
    while let Some(piece) = block_in_place(|| pieces.next()) {
        to.write_all(piece.map_err(io::Error::other)?.as_bytes()).await?;
    }
    to.write_all(b"}\n").await
}

#[cfg(test)]
mod tests {
    use protocol::{
        hub::{Question, Vouched},
        manifest::{Entry, EntryKind, Manifest, StoredManifest},
        path::TreePath,
    };

    use super::tell_vouched;
    use crate::{
        control::{Line, Request},
        fetch::manifest::Store,
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn a_manifest_goes_over_the_socket_as_one_answer_and_half_of_one_is_none() {
        let link = |n: u32| Entry {
            path: TreePath::parse(format!("link-{n:05}").as_bytes()).unwrap(),
            mode: 0,
            mtime: 7,
            kind: EntryKind::Symlink { target: n.to_le_bytes().map(|b| b | 1).into() },
        };
        let manifest = Manifest::new((0..20_000).map(link).collect()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let stored: StoredManifest = store.put(&manifest).unwrap();
        let mut told = Vec::new();
        tell_vouched(&mut told, &stored).await.unwrap();
        let Ok(Line::Answer(answer)) = serde_json::from_slice(&told) else { panic!("no answer") };
        assert_eq!(told.iter().filter(|byte| **byte == b'\n').count(), 1);
        let vouched: Vouched = serde_json::from_value(answer).unwrap();
        assert_eq!(vouched.manifest().unwrap(), manifest);

        let last = stored.list().blocks().last().unwrap().digest.hex();
        std::fs::remove_file(dir.path().join("manifests/blocks").join(last)).unwrap();
        let mut half = Vec::new();
        tell_vouched(&mut half, &stored).await.unwrap_err();
        assert!(half.len() > told.len() / 2 && !half.ends_with(b"\n"));
        assert!(serde_json::from_slice::<Line>(&half).is_err());
    }

    #[test]
    fn what_a_publisher_asks_is_a_request_that_the_control_socket_knows() {
        let assignment = "fedora@lisbon".parse().unwrap();
        let known = Some(protocol::digest::Digest::of(b"x"));
        for question in [Question::Published { known, wait: 5 }, Question::Vouched { assignment }] {
            let text = serde_json::to_string(&question).unwrap();
            let request: Request = serde_json::from_str(&text).unwrap();
            assert_eq!(request, Request::Hub(question));
        }
    }
}
