//! An autonomous tree whose publication point is an object store.

use tests::{
    Nginx,
    network::bytes_by,
    nginx::Scheme,
    stores::{self, Store},
    wait_until,
};

use super::{Net, Setup, testbed};

/// The store wants to know who reads, and takes any signature: what a public bucket does without.
const SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=reader/20260101/us-east-1/s3/aws4_request, \
                         SignedHeaders=host, Signature=any";

#[test]
fn what_a_publisher_put_there_while_it_was_alone_is_followed_when_it_is_gone_as_well() {
    let testbed = testbed();
    let bucket = testbed.make_dir("bucket");
    let Some(store) = Store::start(stores::Kind::Moto, &bucket) else { return };
    let server = format!(
        "proxy_http_version 1.1;
         location / {{
             proxy_set_header Authorization \"{SIGNATURE}\";
             proxy_pass {}/{}/mirror/;
         }}",
        store.endpoint(),
        stores::BUCKET,
    );
    let nginx = Nginx::start(&testbed.path("nginx"), Scheme::Plain, "", &server);
    let base = format!("http://127.0.0.1:{}", nginx.port());
    let credentials = testbed.path("s3.toml");
    stores::write_credentials(&credentials, stores::SECRET_KEY);
    let publisher = format!(
        "autonomous-after = \"2s\"\n\
         [[points]]\nkind = \"object-store\"\nurl = \"s3://{}/mirror\"\nrequired = true\n\
         endpoint = \"{}\"\ncredentials = {credentials:?}\n",
        stores::BUCKET,
        store.endpoint(),
    );
    let setup = Setup {
        publisher: &publisher,
        free: &format!("points = [\"{base}\"]"),
        agent: "[points]\nplain-http = true\nprivate = [\"127.0.0.0/8\"]\n",
        valve: None,
    };
    let mut net = Net::start_in(testbed, setup);
    net.testbed.kill_coordinator();
    net.write(2);
    net.wait_for_publisher("generation 2");
    // Whatever comes now comes from there.
    net.stop_publisher();
    let before = nginx.requests().len();
    net.wait_for_content(2);
    assert_eq!(net.held("bound"), Some(1));
    let requests = nginx.requests().split_off(before);
    for wanted in ["/trees/free/latest", "/trees/free/packs/"] {
        let asked = requests.iter().filter(|line| line.contains(wanted));
        assert!(asked.clone().count() > 0, "{wanted} is not among {requests:#?}");
        assert!(asked.clone().all(|line| line.starts_with("GET ")), "{requests:#?}");
    }
    assert!(!requests.iter().any(|line| line.contains("/trees/bound/")), "{requests:#?}");

    net.testbed.start_coordinator();
    net.start_publisher();
    wait_until("the coordinator to be told", || net.generations("free") == [2, 1]);
    net.agent.sync();
    let run = net.testbed.wait_for_generation("free@site", 2);
    assert!(bytes_by(&run, "pack") > 0, "{run}");
    assert_eq!((bytes_by(&run, "whole"), bytes_by(&run, "rsync")), (0, 0), "{run}");
    net.write(3);
    net.publish();
    net.agent.sync();
    assert_eq!((net.held("free"), net.held("bound")), (Some(3), Some(3)));
}
