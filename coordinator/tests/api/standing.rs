//! What third parties and auditors see: revocation lists, the audit log, expiry dates.

use protocol::{
    error::ProblemKind,
    role::Role,
    v1::{audit, identities::RevokeRequest},
};

use crate::support::{Network, kind};

#[tokio::test]
async fn the_revocation_list_is_there_for_anyone_and_openssl_reads_it() {
    let (network, _, lisbon, _) = Network::with_peers().await;
    let why = RevokeRequest { reason: "sold".into() };
    network.admin().revoke(Role::Agent, &"lisbon-1".parse().unwrap(), &why).await.unwrap();
    certs::install_provider();
    let ca = std::fs::read(network.config.data.join("ca/root.pem")).unwrap();
    let http = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
        .build()
        .unwrap();
    let url = format!("https://{}/v1/crl", network.coordinator().enroll_addr());
    let pem = http.get(url).send().await.unwrap().text().await.unwrap();
    assert_eq!(pem.matches("BEGIN X509 CRL").count(), 2);
    let file = network.dir.path().join("crl.pem");
    std::fs::write(&file, &pem).unwrap();
    let read = std::process::Command::new("openssl")
        .args(["crl", "-noout", "-text", "-in"])
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&read.stdout).to_lowercase();
    let serial = lisbon.identity.serial.to_string();
    assert!(text.contains(serial.trim_start_matches('0')), "{serial} in {text}");
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_and_is_whole() {
    let (network, build, ..) = Network::with_peers().await;
    let why = RevokeRequest { reason: "sold".into() };
    network.admin().revoke(Role::Agent, &"oslo-1".parse().unwrap(), &why).await.unwrap();
    assert_eq!(kind(build.client.audit().await), ProblemKind::Forbidden);
    let log = network.admin().audit().await.unwrap();
    assert_eq!(audit::verify(&log), Ok(()));
    let revoked = log.iter().find(|entry| entry.what == "revoke").unwrap();
    assert_eq!((revoked.who.as_str(), revoked.detail.as_str()), ("admin/ann", "sold"));
    assert_eq!(log, network.audit().await);
}
