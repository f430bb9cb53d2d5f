//! A publisher beside an agent: what one site brings from a stock rsync server goes further by
//! pack.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, path::PathBuf};

use tests::{
    Daemon, Rsyncd, Testbed, compare,
    fixture::{prose, write},
    network::{Agent, Publisher, bytes_by},
    wait_until,
};

/// A stock server, the site `first` that mirrors it, and the site `second` behind its hub.
struct Chain {
    testbed: Testbed,
    rsyncd: Rsyncd,
    upstream: PathBuf,
    first: Agent,
    second: Agent,
    hub: Publisher,
}

impl Chain {
    fn new() -> Self {
        let testbed = Testbed::start();
        let upstream = testbed.make_dir("upstream");
        let rsyncd = Rsyncd::start(&testbed.path("rsyncd"), &[("pub", &upstream)], "");
        let published = testbed.path("storage-first").join("pub");
        let tree = |name: &str, site: &str| {
            format!(
                "[[grant]]\nsite = \"{site}\"\ntree = \"{name}\"\n\
                 [[assignment]]\nsite = \"{site}\"\ntree = \"{name}\"\n"
            )
        };
        testbed.apply(&format!(
            "[[upstream]]\nname = \"stock\"\nkind = \"rsyncd\"\nurl = \"{}\"\n\
             [[source]]\nname = \"stock\"\nupstream = \"stock\"\npath = \"pub\"\n\
             [[tree]]\nname = \"tree\"\nsource = \"stock\"\ninterval = \"1h\"\n\
             [[upstream]]\nname = \"hub\"\nkind = \"publisher\"\n\
             [[source]]\nname = \"hub\"\nupstream = \"hub\"\npath = {published:?}\n\
             [[tree]]\nname = \"further\"\nsource = \"hub\"\npath = \"tree\"\ninterval = \"1d\"\n\
             [[site]]\nname = \"first\"\n[[site]]\nname = \"second\"\n{}{}",
            rsyncd.url(),
            tree("tree", "first"),
            tree("further", "second"),
        ));
        let first = testbed.enroll_agent("first", "first");
        let second = testbed.enroll_agent("second", "second");
        for (agent, last) in [(&first, 2), (&second, 3)] {
            let bind = Ipv4Addr::new(127, 0, 0, last);
            let text = fs::read_to_string(&agent.config).unwrap();
            fs::write(&agent.config, format!("{text}bind = \"{bind}\"\n")).unwrap();
        }
        let hub = testbed.enroll_publisher("hub");
        // Without the agent's word a changed tree would be looked at again only after an hour.
        let text = fs::read_to_string(&hub.config).unwrap();
        fs::write(&hub.config, format!("{text}agent = {:?}\nsettle = \"1h\"\n", first.data))
            .unwrap();
        Self { testbed, rsyncd, upstream, first, second, hub }
    }

    fn sync_first(&self) {
        let output = self.first.command(&["sync", "tree"]).output().unwrap();
        assert!(output.status.success(), "{}", tests::programs::told(&output));
    }

    fn assert_same(&self) {
        compare::assert_same(&self.upstream, &self.second.published("further"), &[]);
    }

    /// Addresses that the stock server saw.
    fn clients(&self) -> BTreeSet<String> {
        let log = self.rsyncd.log();
        let froms =
            log.lines().filter_map(|line| line.split_once("connect from ")?.1.split_once('('));
        let agents = froms.filter_map(|(_, rest)| Some(rest.split_once(')')?.0.to_owned()));
        // The test itself asks whether the server listens.
        agents.filter(|address| address != "127.0.0.1").collect()
    }
}

#[test]
fn a_tree_of_a_stock_server_reaches_a_second_site_by_pack_and_the_server_sees_one_client() {
    let chain = Chain::new();
    for n in 0..60 {
        write(&chain.upstream.join(format!("d{}/f{n}", n % 6)), prose(n, 20_000));
    }
    let _agents: Vec<Daemon> =
        [&chain.first, &chain.second].map(|agent| chain.testbed.run_agent(agent)).into();
    chain.testbed.wait_for_generation("tree@first", 1);
    let _hub = chain.testbed.run_publisher(&chain.hub);
    chain.testbed.wait_for_generation("further@second", 1);
    chain.assert_same();

    for n in 0..20 {
        let path = chain.upstream.join(format!("d{}/f{n}", n % 6));
        fs::remove_file(&path).unwrap();
        write(&path, format!("{}edited\n", prose(n, 20_000)));
    }
    chain.sync_first();
    let run = chain.testbed.wait_for_generation("further@second", 2);
    chain.assert_same();
    let pack = bytes_by(&run, "pack");
    assert!(pack > 0 && pack < 40_000, "20 files of 20 kB with a line more: {run:#}");
    assert_eq!(chain.clients(), BTreeSet::from(["127.0.0.2".to_owned()]));
}

#[test]
fn a_hub_whose_agent_is_away_goes_on_by_its_own_looks() {
    let chain = Chain::new();
    write(&chain.upstream.join("f"), prose(1, 20_000));
    chain.first.sync();
    let mut hub = chain.testbed.run_publisher(&chain.hub);
    hub.wait_for_log("the agent cannot be asked");
    // It is published once it is settled, as any tree is, and the agent is heard when it is back.
    let text = fs::read_to_string(&chain.hub.config).unwrap().replace("\"1h\"", "\"10ms\"");
    fs::write(&chain.hub.config, text).unwrap();
    assert!(hub.stop().success());
    let _hub = chain.testbed.run_publisher(&chain.hub);
    chain.testbed.publish(&chain.hub, "further");
    chain.second.sync();
    chain.assert_same();
    let _first = chain.testbed.run_agent(&chain.first);
    write(&chain.upstream.join("g"), prose(2, 20_000));
    wait_until("the agent to answer", || {
        chain.first.command(&["status"]).output().unwrap().status.success()
    });
    chain.sync_first();
    wait_until("the second site to follow", || {
        chain.second.sync();
        chain.second.published("further/g").exists()
    });
    chain.assert_same();
}
