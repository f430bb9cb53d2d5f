//! The whole network with PostgreSQL behind its coordinator.

use std::fs;

use tests::{
    Testbed,
    cluster::Cluster,
    compare,
    fixture::{prose, published, write},
    network::bytes_by,
    programs::{program, succeed},
};

/// Makes the network anew on a PostgreSQL, with further settings in the coordinator's file.
pub(super) fn start_on(cluster: &Cluster, settings: &str) -> Testbed {
    let mut net = Testbed::start_with(settings);
    net.kill_coordinator();
    let data = net.coordinator_data();
    fs::remove_dir_all(&data).unwrap();
    let mut init = program("coordinator");
    init.args(["init", "--network", "test", "--hostname", "127.0.0.1", "--data"]).arg(&data);
    init.args(["--listen", &net.api().to_string(), "--enroll-listen", &net.enroll().to_string()]);
    init.args(["--database-url", &cluster.url()]);
    succeed(&mut init);
    let file = net.path("coordinator.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{config}[database]\nurl = {:?}\n", cluster.url())).unwrap();
    net.start_coordinator();
    net
}

#[test]
fn a_network_on_postgresql_publishes_updates_and_survives_a_crash() {
    let Some(cluster) = Cluster::start() else { return };
    let mut net = start_on(&cluster, "");
    let upstream = net.make_dir("upstream/tree");
    net.apply(&published(&net.path("upstream"), "", ""));
    let publisher = net.enroll_publisher("build");
    let _publishing = net.run_publisher(&publisher);
    let agent = net.enroll_agent("agent", "site");
    let daemon = net.run_agent(&agent);
    for n in 0..10 {
        write(&upstream.join(format!("f{n}")), prose(n, 30_000));
    }
    net.publish(&publisher, "tree");
    net.wait_for_generation("tree@site", 1);

    net.kill_coordinator();
    net.start_coordinator();
    write(&upstream.join("f3"), format!("{}edited\n", prose(3, 30_000)));
    net.publish(&publisher, "tree");
    let run = net.wait_for_generation("tree@site", 2);
    compare::assert_same(&upstream, &agent.published("tree"), &[]);
    assert!(bytes_by(&run, "pack") > 0, "{run:#}");
    assert!(daemon.stop().success());

    assert!(!net.coordinator_data().join("coordinator.db").exists());
    net.ctl(&["revoke", "agent/agent", "--reason", "test"]);
    assert!(!agent.run_once().status.success());
}
