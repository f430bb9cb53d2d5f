//! What a publisher on this host is told of the trees that this agent has published.

use std::{sync::Arc, time::Duration};

use protocol::{
    digest::Digest,
    hub::{MAX_WAIT_SECONDS, Published, PublishedTree, Vouched},
    spec::AssignmentName,
};
use tokio::time::{Instant, timeout_at};

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
pub fn vouched(agent: &Agent, name: &AssignmentName) -> Result<Vouched, crate::Failure> {
    let held = agent.ledger.record(name)?.and_then(|record| record.held);
    let manifest = held.and_then(|held| agent.manifests.load_for(&held.manifest, &held.filter));
    let manifest = manifest.ok_or_else(|| NoSuchTree { tree: name.to_string() })?;
    Ok(Vouched::of(&manifest))
}

#[cfg(test)]
mod tests {
    use protocol::hub::Question;

    use crate::control::Request;

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
