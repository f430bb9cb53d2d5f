//! A coordinator that comes back from a backup.

use coordinator::{back_up, journal, key_file_of, restore, start, verify};
use protocol::{
    error::ProblemKind,
    generation::Revision,
    role::Role,
    v1::{events::EventKind, identities::RevokeRequest},
};

use crate::support::{AT_ONCE, Network, client, config, kind, statement};

#[tokio::test]
async fn a_backup_made_while_it_runs_gives_the_network_back_under_a_higher_epoch() {
    let (mut network, build, lisbon, _) = Network::with_peers().await;
    build.state("alpha", 1, "one", None).await.unwrap();
    let out = network.dir.path().join("backup");
    let key_file = key_file_of(&out);
    back_up(&network.config, &out, &key_file).await.unwrap();
    assert!(back_up(&network.config, &out, &key_file).await.is_err(), "nothing is written over");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&out).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    // After the backup: forgotten by it.
    build.state("alpha", 2, "two", Some("one")).await.unwrap();
    let lost = build.sign(&statement("alpha", 3, "three", Some("two")));
    let late = network.peer(Role::Viewer, "late", None).await;
    let before = lisbon.orders().await;
    network.stop().await;

    let restored = config(&network.dir.path().join("restored"));
    restore(&out, &key_file, &restored.data, &[]).await.unwrap();
    let again = restore(&out, &key_file, &restored.data, &[]).await;
    assert!(again.is_err(), "nothing is restored over");
    let running = start(restored.clone()).await.unwrap();
    let at_lisbon = client(running.api_url(), &lisbon.identity);
    // It may know more than the backup, and is answered at once all the same.
    let known = Revision(before.revision.0 + 100);
    let news = at_lisbon.agent_orders(known, AT_ONCE).await.unwrap();
    let news = news.expect("a restore is always news");
    assert!(news.restore_epoch > before.restore_epoch);
    // Also to one that asks only after many changes since.
    assert!(news.revision > known, "{} of {known}", news.revision);
    let generation = |orders: &protocol::v1::agent::AgentOrders| {
        orders.assignments[0].target.as_ref().unwrap().statement.clone()
    };
    assert_ne!(generation(&news), generation(&before));
    let refused = client(running.api_url(), &late.identity).whoami().await;
    assert_eq!(kind(refused), ProblemKind::Unauthenticated);
    let admin = certs::identity::Identity::load(&restored.data.join("admin")).unwrap();
    let admin = client(running.api_url(), &admin);
    admin.status().await.unwrap();
    // What was made before and cannot be taken any more is told of; what is made now is merely refused.
    let publisher = client(running.api_url(), &build.identity);
    for statement in [lost, build.sign(&statement("alpha", 3, "other", Some("two")))] {
        let told = publisher.announce_statement(&"alpha".parse().unwrap(), &statement).await;
        assert_eq!(kind(told), ProblemKind::ParentMismatch);
    }
    let events = admin.events(None, 100, AT_ONCE).await.unwrap();
    let refusals = events.iter().filter(|event| event.kind == EventKind::GenerationRefused);
    let refusals: Vec<&str> = refusals.map(|event| event.text.as_str()).collect();
    assert!(refusals.len() == 1 && refusals[0].contains("restored at"), "{refusals:?}");
    running.stop().await;
}

#[tokio::test]
async fn no_key_of_the_network_is_readable_in_a_backup_or_left_beside_it() {
    let network = Network::start().await;
    let out = network.dir.path().join("backups").join("monday");
    std::fs::create_dir(out.parent().unwrap()).unwrap();
    let key_file = network.dir.path().join("secret");
    certs::keyfile::create(&key_file, b"a passphrase that somebody typed\n").unwrap();
    back_up(&network.config, &out, &key_file).await.unwrap();
    let sealed = std::fs::read(&out).unwrap();
    let names: Vec<_> = std::fs::read_dir(out.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["monday"], "the secret is elsewhere, and nothing else was left");
    assert!(!network.config.data.join("backup.unfinished").exists());
    let data = &network.config.data;
    for key in ["head.key", "root.key", "ca/clients.key", "ca/root.key", "admin/identity/key.pem"] {
        let text = std::fs::read_to_string(data.join(key)).unwrap();
        let body = text.lines().nth(1).unwrap().as_bytes();
        assert!(body.len() > 20 && !sealed.windows(body.len()).any(|part| part == body), "{key}");
    }
    assert!(!sealed.windows(6).any(|part| part == b"SQLite"), "nor anything of the database");

    let elsewhere = network.dir.path().join("elsewhere");
    verify(&out, &key_file, &elsewhere).await.unwrap();
    let other = network.dir.path().join("other");
    certs::keyfile::create(&other, b"another passphrase, just as long\n").unwrap();
    for (changed, key_file) in [(false, &other), (true, &key_file)] {
        let file = network.dir.path().join(format!("copy-{changed}"));
        let mut bytes = sealed.clone();
        if changed {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        std::fs::write(&file, bytes).unwrap();
        assert!(verify(&file, key_file, &elsewhere).await.is_err());
        assert!(restore(&file, key_file, &elsewhere, &[]).await.is_err());
    }
    // A failed restore leaves a directory that the right one can still use.
    restore(&out, &key_file, &elsewhere, &[]).await.unwrap();
}

#[tokio::test]
async fn what_was_revoked_after_the_backup_stays_revoked_and_open_invites_end() {
    let (mut network, _, lisbon, oslo) = Network::with_peers().await;
    let unused = network.invite(Role::Agent, "lisbon-2", Some("lisbon")).await;
    let out = network.dir.path().join("backup");
    let key_file = key_file_of(&out);
    back_up(&network.config, &out, &key_file).await.unwrap();
    let why = RevokeRequest { reason: "stolen".into() };
    let name = "lisbon-1".parse().unwrap();
    network.admin().revoke(Role::Agent, &name, &why).await.unwrap();
    let revoked = journal::read(&network.config.data.join(journal::FILE)).unwrap();
    assert_eq!(revoked.len(), 1);
    network.stop().await;

    network.config = config(&network.dir.path().join("restored"));
    let again = restore(&out, &key_file, &network.config.data, &revoked).await.unwrap();
    assert_eq!(again, 1);
    network.restart().await;
    let at = |identity| client(&network.url(), identity);
    assert_eq!(kind(at(&lisbon.identity).whoami().await), ProblemKind::Revoked);
    at(&oslo.identity).whoami().await.unwrap();
    // The invite leads to the old address; its secret is what counts.
    let enroll_url = format!("https://{}", network.coordinator().enroll_addr());
    let unused = format!("{}.{enroll_url}", unused.rsplit_once(".https").unwrap().0);
    let refused = network.enroll(&unused, "lisbon-2").await.unwrap_err();
    assert!(refused.to_string().contains("expired"), "{refused}");
    let log = network.audit().await;
    let entry = log.iter().find(|entry| entry.what == "revoke").unwrap();
    assert!(entry.detail.contains("stolen"), "{entry:?}");
    assert_eq!(protocol::v1::audit::verify(&log), Ok(()));
}

#[tokio::test]
async fn a_name_that_enrolled_anew_since_is_not_revoked_for_what_its_predecessor_did() {
    let (mut network, _, lisbon, _) = Network::with_peers().await;
    let name = "lisbon-1".parse().unwrap();
    network.admin().revoke(Role::Agent, &name, &RevokeRequest::default()).await.unwrap();
    let invite = network.invite(Role::Agent, "lisbon-1", Some("lisbon")).await;
    let successor = network.enroll(&invite, "new-disk").await.unwrap();
    let out = network.dir.path().join("backup");
    back_up(&network.config, &out, &key_file_of(&out)).await.unwrap();
    let revoked = journal::read(&network.config.data.join(journal::FILE)).unwrap();
    network.stop().await;
    network.config = config(&network.dir.path().join("restored"));
    let again = restore(&out, &key_file_of(&out), &network.config.data, &revoked).await.unwrap();
    assert_eq!(again, 0);
    network.restart().await;
    client(&network.url(), &successor).whoami().await.unwrap();
    assert_eq!(kind(client(&network.url(), &lisbon.identity).whoami().await), ProblemKind::Revoked);
}
