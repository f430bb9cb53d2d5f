//! Sites that reach the world through a proxy only.

use std::{fs, path::Path, process::Command};

use tests::{
    Daemon, Rsyncd, Testbed, compare,
    fixture::{OneTree, mirrored, prose, write},
    network::bytes_by,
    programs::isolate,
    rsyncd::free_port,
};

/// A real proxy that allows CONNECT to every port, and its log.
fn start_proxy(dir: &Path) -> (Daemon, u16) {
    fs::create_dir_all(dir).unwrap();
    let port = free_port();
    let log = dir.join("tinyproxy.log");
    let config = dir.join("tinyproxy.conf");
    fs::write(
        &config,
        format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 600\nLogFile \"{}\"\nLogLevel Connect\nMaxClients 50\n",
            log.display()
        ),
    )
    .unwrap();
    let mut command = Command::new("tinyproxy");
    isolate(&mut command);
    command.args(["-d", "-c"]).arg(&config);
    let daemon = Daemon::start("tinyproxy", &mut command, &dir.join("tinyproxy.out"));
    tests::wait_until("tinyproxy to listen", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    (daemon, port)
}

#[test]
fn every_connection_of_an_agent_goes_through_its_proxy_rsync_included() {
    let net = OneTree::start("", "");
    let (_proxy, port) = start_proxy(&net.testbed.path("proxy"));
    let config = fs::read_to_string(&net.agent.config).unwrap();
    fs::write(&net.agent.config, format!("{config}proxy = \"http://127.0.0.1:{port}\"\n")).unwrap();
    for n in 0..40 {
        net.write(&format!("f{n}"), prose(n, 30_000));
    }
    net.publish_and_sync();
    net.assert_same();
    for n in 0..40 {
        net.write(&format!("f{n}"), format!("{}edited\n", prose(n, 30_000)));
    }
    net.publish();
    for pack in fs::read_dir(net.publisher.data.join("trees/tree/packs")).unwrap() {
        fs::remove_file(pack.unwrap().path()).unwrap();
    }
    let run = net.sync();
    net.assert_same();
    assert!(bytes_by(&run, "rsync") > 0, "{run:#}");

    let log = fs::read_to_string(net.testbed.path("proxy/tinyproxy.log")).unwrap();
    let api = net.testbed.api().to_string();
    let publisher = fs::read_to_string(net.publisher.data.join("listen")).unwrap();
    assert!(log.contains(&format!("CONNECT {api}")), "{log}");
    assert!(log.contains(&format!("CONNECT {}", publisher.trim())), "{log}");
}

#[test]
fn a_stock_rsync_daemon_is_reached_through_the_proxy_too() {
    let testbed = Testbed::start();
    let upstream = testbed.make_dir("upstream");
    write(&upstream.join("tree/f"), prose(1, 30_000));
    let rsyncd = Rsyncd::start(&testbed.path("rsyncd"), &[("pub", &upstream)], "");
    testbed.apply(&mirrored(&rsyncd, "", "", ""));
    let agent = testbed.enroll_agent("agent", "site");
    let (_proxy, port) = start_proxy(&testbed.path("proxy"));
    let config = fs::read_to_string(&agent.config).unwrap();
    fs::write(&agent.config, format!("{config}proxy = \"http://127.0.0.1:{port}\"\n")).unwrap();
    agent.sync();
    compare::assert_same(&upstream.join("tree"), &agent.published("tree"), &[]);
    let log = fs::read_to_string(testbed.path("proxy/tinyproxy.log")).unwrap();
    assert!(log.contains(&format!("CONNECT 127.0.0.1:{}", rsyncd.port())), "{log}");
}
