//! The network's root is replaced, under programs that go on.

use std::sync::Arc;

use certs::identity::{Identity, Pending};
use coordinator::authorities;
use jiff::Timestamp;
use protocol::{role::Role, v1::enroll::RenewRequest};

use crate::support::{Network, client};

/// Renews an identity as a program does, and uses the result.
async fn renew(network: &Network, name: &str, identity: &Arc<Identity>) -> Arc<Identity> {
    renew_in(network, &network.data_of(name), identity).await
}

async fn renew_admin(network: &Network) {
    let data = network.config.data.join("admin");
    renew_in(network, &data, &Identity::load(&data).unwrap()).await;
}

async fn renew_in(
    network: &Network,
    data: &std::path::Path,
    identity: &Arc<Identity>,
) -> Arc<Identity> {
    let at = network.client(identity);
    let pending = Pending::renew(data, identity).unwrap();
    let request = RenewRequest { keys: pending.keys().clone() };
    let certificates = at.renew(&request).await.unwrap().certificates;
    let url = network.url();
    let check = async |identity: Arc<Identity>| client(&url, &identity).whoami().await.map(drop);
    pending.install(&identity.membership, &certificates, check).await.unwrap()
}

#[tokio::test]
async fn a_root_is_replaced_step_by_step_and_nobody_is_cut_off() {
    let (mut network, build, lisbon, oslo) = Network::with_peers().await;
    let config = network.config.clone();
    let status = async || authorities::status(&config).await.unwrap();
    assert!(status().await.starts_with("One root"));
    let early = authorities::switch(&config, false).await.unwrap_err();
    assert!(early.to_string().contains("rotate"), "{early}");

    network.stop().await;
    authorities::rotate(&config.data, None, Timestamp::now()).unwrap();
    authorities::rotate(&config.data, None, Timestamp::now()).unwrap_err();
    network.restart().await;
    let told = network.admin().status().await.unwrap().attention.join("\n");
    assert!(told.contains("root is being replaced: 0 of 4"), "{told}");
    let roots = network.admin().roots(protocol::generation::RootNumber(0)).await.unwrap();
    let newest = certs::root::TrustedRoot::pin(roots.roots.last().unwrap()).unwrap();
    assert_eq!(newest.root().authorities.matches("BEGIN CERTIFICATE").count(), 2);

    let build = renew(&network, "build", &build.identity).await;
    let lisbon = renew(&network, "lisbon-1", &lisbon.identity).await;
    let refused = authorities::switch(&config, false).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("agent/oslo-1") && !text.contains("lisbon"), "{text}");
    let oslo = renew(&network, "oslo-1", &oslo.identity).await;
    let told = status().await;
    assert!(told.contains("3 of 4 identities hold both roots"), "{told}");
    let refused = authorities::switch(&config, false).await.unwrap_err();
    assert!(refused.to_string().contains("admin/ann"), "the last admin must not be cut off");
    renew_admin(&network).await;
    network.stop().await;
    authorities::switch(&config, false).await.unwrap();
    network.restart().await;

    // Certificates of the old root go on; what is issued now is of the new one.
    for identity in [&build, &lisbon, &oslo] {
        network.client(identity).whoami().await.unwrap();
    }
    let refused = authorities::finish(&config, false).await.unwrap_err();
    assert!(refused.to_string().contains("agent/lisbon-1"), "{refused}");
    let mut renewed = Vec::new();
    for (name, identity) in [("build", &build), ("lisbon-1", &lisbon), ("oslo-1", &oslo)] {
        renewed.push(renew(&network, name, identity).await);
    }
    authorities::finish(&config, false).await.unwrap_err();
    renew_admin(&network).await;
    network.stop().await;
    authorities::finish(&config, false).await.unwrap();
    assert!(!config.data.join("ca-previous").exists() && !config.data.join("ca-gone").exists());
    network.restart().await;
    for identity in &renewed {
        network.client(identity).whoami().await.unwrap();
    }
    network.admin().whoami().await.unwrap();
    assert!(network.client(&lisbon).whoami().await.is_err(), "the old root is forgotten");
    assert!(status().await.starts_with("One root"));
}

#[tokio::test]
async fn a_switch_that_was_interrupted_between_its_renames_is_completed() {
    let mut network = Network::start().await;
    let data = network.config.data.clone();
    network.stop().await;
    authorities::rotate(&data, None, Timestamp::now()).unwrap();
    // What the first of the two renames leaves.
    std::fs::rename(data.join("ca"), data.join("x")).unwrap();
    std::fs::rename(data.join("ca-next"), data.join("ca")).unwrap();
    std::fs::rename(data.join("x"), data.join("ca-next")).unwrap();
    let told = authorities::status(&network.config).await.unwrap();
    assert!(told.starts_with("The next root issues"), "{told}");
    assert!(data.join("ca-previous").exists() && !data.join("ca-next").exists());
    network.restart().await;
}

#[tokio::test]
async fn a_backup_made_meanwhile_has_both_roots() {
    let mut network = Network::start().await;
    network.stop().await;
    authorities::rotate(&network.config.data, None, Timestamp::now()).unwrap();
    let out = network.dir.path().join("backup");
    let key_file = coordinator::key_file_of(&out);
    coordinator::back_up(&network.config, &out, &key_file).await.unwrap();
    network.config = crate::support::config(&network.dir.path().join("restored"));
    coordinator::restore(&out, &key_file, &network.config.data, &[]).await.unwrap();
    let told = authorities::status(&network.config).await.unwrap();
    assert!(told.starts_with("The next root is trusted"), "{told}");
    network.restart().await;
    let invite = network.invite(Role::Viewer, "vic", None).await;
    network.enroll(&invite, "vic").await.unwrap();
}
