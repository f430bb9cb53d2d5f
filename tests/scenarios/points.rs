//! Publication points: trees that come from a web server, a CDN or an object store, with real
//! servers in between and the origin out of reach.

use std::{fs, path::PathBuf};

use serde_json::Value;
use tests::{
    Nginx,
    fixture::{OneTree, noise, prose},
    network::bytes_by,
    nginx::Scheme,
    rsyncd::free_port,
};

/// What a site needs to ask servers on this machine, certified by the network itself.
fn ask_here(net: &OneTree) -> String {
    let roots = net.agent.data.join("identity/ca.pem");
    format!("[points]\nprivate = [\"127.0.0.0/8\"]\nroots = {roots:?}\n")
}

/// A certificate for 127.0.0.1, and its key.
fn certificate(net: &OneTree) -> (PathBuf, PathBuf) {
    let identity = net.publisher.data.join("identity");
    (identity.join("server.pem"), identity.join("server-key.pem"))
}

/// What each point did in a run.
fn point<'a>(run: &'a Value, name: &str) -> &'a Value {
    let points = run["points"].as_array().into_iter().flatten();
    points.into_iter().find(|point| point["point"] == name).unwrap_or(&Value::Null)
}

fn fill(net: &OneTree, edited: &str) {
    for n in 0..20 {
        net.write(&format!("src/f{n}"), format!("{}{edited}", prose(n, 20_000)));
    }
    let mut image = noise(1, 2_000_000);
    image[1_000_000..1_000_000 + edited.len()].copy_from_slice(edited.as_bytes());
    net.write("image.bin", image);
}

#[test]
fn a_directory_behind_a_web_server_brings_a_tree_and_its_update_while_the_origin_is_gone() {
    let port = free_port();
    let base = format!("https://127.0.0.1:{port}/mirror");
    let mut net = OneTree::start(&format!("initial-pack = true\npoints = [\"{base}\"]"), "");
    let public = net.testbed.make_dir("public");
    net.configure_publisher(&format!("[[points]]\nkind = \"directory\"\npath = {public:?}\n"));
    net.configure_agent(&ask_here(&net));
    let (chain, key) = certificate(&net);
    let nginx = Nginx::start_at(
        &net.testbed.path("nginx"),
        ("127.0.0.1", port),
        Scheme::Tls(&chain, &key),
        "gzip on; gzip_types *; gzip_min_length 1;",
        &format!("location /mirror/ {{ alias {}/; }}", public.display()),
    );
    for edited in ["", "edited\n"] {
        fill(&net, edited);
        net.publish();
        assert!(net.publishing.end().success());
        let run = net.sync();
        net.assert_same();
        assert!(bytes_by(&run, "pack") > 0, "{run:#}");
        assert_eq!(bytes_by(&run, "whole") + bytes_by(&run, "rsync"), 0, "{run:#}");
        let served = point(&run, &base);
        assert!(served["received-bytes"].as_u64() > Some(0), "{run:#}");
        assert_eq!((&served["wrong"], &served["failed"]), (&0.into(), &0.into()), "{run:#}");
        net.publishing = net.testbed.run_publisher(&net.publisher);
    }
    let requests = nginx.requests();
    assert!(requests.iter().any(|line| line.contains("/packs/")), "{requests:#?}");
    for line in &requests {
        assert!(
            line.contains("protocol=HTTP/2.0") && line.contains("encoding=\"identity\""),
            "{line}"
        );
    }
    // A reader outside of the network finds the pointer, and it is the newest statement.
    let latest = fs::read(public.join("trees/tree/latest")).unwrap();
    assert!(!latest.is_empty());
}

#[test]
fn a_point_that_a_site_does_not_allow_is_not_asked_and_the_report_says_so() {
    let port = free_port();
    let base = format!("http://127.0.0.1:{port}");
    let net = OneTree::start(&format!("points = [\"{base}\"]"), "");
    let nginx = Nginx::start_at(
        &net.testbed.path("nginx"),
        ("127.0.0.1", port),
        Scheme::Plain,
        "",
        "location / { return 404; }",
    );
    net.write("f", prose(1, 2_000));
    let run = net.publish_and_sync();
    net.assert_same();
    let notices = run["notices"].to_string();
    assert!(notices.contains(&base) && notices.contains("points.plain-http"), "{run:#}");
    assert_eq!(nginx.requests(), [""; 0]);
    net.configure_agent("[points]\nplain-http = true\nprivate = [\"127.0.0.1\"]\n");
    net.write("f", prose(2, 2_000));
    let run = net.publish_and_sync();
    net.assert_same();
    assert!(!nginx.requests().is_empty(), "{run:#}");
}
