//! A coordinator that comes back from a backup.

use coordinator::{back_up, restore, start};
use protocol::{error::ProblemKind, generation::Revision, role::Role};

use crate::support::{AT_ONCE, Network, client, config, kind};

#[tokio::test]
async fn a_backup_made_while_it_runs_gives_the_network_back_under_a_higher_epoch() {
    let (mut network, build, lisbon, _) = Network::with_peers().await;
    build.state("alpha", 1, "one", None).await.unwrap();
    let out = network.dir.path().join("backup");
    back_up(&network.config, &out).await.unwrap();
    assert!(back_up(&network.config, &out).await.is_err(), "nothing is written over");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&out).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    // After the backup: forgotten by it.
    build.state("alpha", 2, "two", Some("one")).await.unwrap();
    let late = network.peer(Role::Viewer, "late", None).await;
    let before = lisbon.orders().await;
    network.stop().await;

    let restored = config(&network.dir.path().join("restored"));
    restore(&out, &restored.data).await.unwrap();
    assert!(restore(&out, &restored.data).await.is_err(), "nothing is restored over");
    let running = start(restored.clone()).await.unwrap();
    let at_lisbon = client(running.api_url(), &lisbon.identity);
    // It knows more than the restored coordinator, and is answered at once all the same.
    let news = at_lisbon.agent_orders(Revision(before.revision.0 + 100), AT_ONCE).await.unwrap();
    let news = news.expect("a restore is always news");
    assert!(news.restore_epoch > before.restore_epoch);
    let generation = |orders: &protocol::v1::agent::AgentOrders| {
        orders.assignments[0].target.as_ref().unwrap().statement.clone()
    };
    assert_ne!(generation(&news), generation(&before));
    let refused = client(running.api_url(), &late.identity).whoami().await;
    assert_eq!(kind(refused), ProblemKind::Unauthenticated);
    let admin = certs::identity::Identity::load(&restored.data.join("admin")).unwrap();
    client(running.api_url(), &admin).status().await.unwrap();
    running.stop().await;
}
