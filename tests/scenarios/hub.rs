//! A hub: a site that mirrors a stock rsync server and publishes what it holds, so that further
//! sites get packs and the server sees one client.

use std::fs;

use tests::{
    Rsyncd, Testbed, compare,
    fixture::{prose, write},
    network::bytes_by,
    programs::directory,
};

#[test]
fn trees_of_a_stock_server_reach_further_sites_by_pack_and_the_server_sees_one_client() {
    let testbed = Testbed::start();
    let upstream = testbed.make_dir("upstream/tree");
    let rsyncd = Rsyncd::start(&testbed.path("rsyncd"), &[("pub", &testbed.path("upstream"))], "");
    let published = testbed.path("storage-hub-1/pub");
    testbed.apply(&format!(
        r#"
[[upstream]]
name = "stock"
kind = "rsyncd"
url = "{}"

[[upstream]]
name = "hub"
kind = "publisher"

[[source]]
name = "stock"
upstream = "stock"
path = "pub"

[[source]]
name = "hub"
upstream = "hub"
path = {published:?}

[[tree]]
name = "from-stock"
source = "stock"
path = "tree"
interval = "1h"

[[tree]]
name = "tree"
source = "hub"
path = "from-stock"
interval = "1h"

[[site]]
name = "hub"

[[site]]
name = "far"

[[grant]]
site = "hub"
tree = "from-stock"

[[grant]]
site = "far"
tree = "tree"

[[assignment]]
site = "hub"
tree = "from-stock"
path = "from-stock"
switch = "in-place"

[[assignment]]
site = "far"
tree = "tree"
"#,
        rsyncd.url()
    ));
    let (hub, far) = (testbed.enroll_agent("hub-1", "hub"), testbed.enroll_agent("far-1", "far"));
    let publisher = testbed.enroll_publisher("hub");
    let publishing = testbed.run_publisher(&publisher);
    let text = fs::read_to_string(&hub.config).unwrap();
    let program = directory().join("publisher");
    let command = format!(
        "after-change = [{program:?}, \"publish\", \"tree\", \"--wait\", \"--data\", {:?}]",
        publisher.data
    );
    fs::write(&hub.config, format!("{text}[hooks]\n{command}\n")).unwrap();
    let _far = testbed.run_agent(&far);

    for n in 0..40 {
        write(&upstream.join(format!("d{}/f{n}", n % 4)), prose(n, 20_000));
    }
    hub.sync();
    testbed.wait_for_generation("tree@far", 1);
    compare::assert_same(&upstream, &far.published("tree"), &[]);
    for n in 0..5 {
        let edited = format!("{}edited\n", prose(n, 20_000));
        write(&upstream.join(format!("d{}/f{n}", n % 4)), edited);
    }
    hub.sync();
    let run = testbed.wait_for_generation("tree@far", 2);
    compare::assert_same(&upstream, &far.published("tree"), &[]);
    assert!(bytes_by(&run, "pack") > 0 && bytes_by(&run, "rsync") == 0, "{run:#}");

    // Twice a listing, the content, and a second look: of the hub's two runs alone, and the test
    // asked once whether the server listens.
    let asked = rsyncd.log().matches("rsync on pub").count();
    assert!((2..=6).contains(&asked), "{}", rsyncd.log());
    assert!(publishing.stop().success());
    let notices = testbed.runs("from-stock@hub")[0]["notices"].to_string();
    assert!(!notices.contains("hooks."), "{notices}");
}
