//! Which symbolic links a mirror has: those that its tree may have, wherever they come from.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use serde_json::Value;
use tests::{Rsyncd, Testbed, fixture::OneTree};

const LINKS: [(&str, &str); 4] =
    [("d/in", "../f"), ("d/up", "../../elsewhere"), ("abs", "/etc/passwd"), ("through", "d/../f")];

fn fill(upstream: &Path) {
    fs::create_dir_all(upstream.join("d")).unwrap();
    fs::write(upstream.join("f"), "content").unwrap();
    // What a mirror must not pass on, whatever the links are.
    fs::set_permissions(upstream.join("f"), fs::Permissions::from_mode(0o6755)).unwrap();
    for (link, target) in LINKS {
        symlink(target, upstream.join(link)).unwrap();
    }
}

fn links(mirror: &Path) -> BTreeSet<String> {
    let is_there = |link: &&str| mirror.join(link).is_symlink();
    LINKS.iter().map(|(link, _)| *link).filter(is_there).map(str::to_owned).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

fn tree(symlinks: &str) -> String {
    format!(
        "[[tree]]\nname = \"tree\"\nsource = \"source\"\npath = \"tree\"\ninterval = \"1h\"\n\
         symlinks = \"{symlinks}\"\n\
         guard = {{ max-delete-files = \"100%\", max-delete-bytes = \"100%\" }}\n"
    )
}

fn left_out(run: &Value) -> usize {
    let notices = run["notices"].as_array().into_iter().flatten();
    notices.filter(|notice| notice.as_str().unwrap().contains("symbolic link")).count()
}

fn has_no_set_ids(mirror: &Path) {
    assert_eq!(fs::metadata(mirror.join("f")).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn a_publisher_takes_the_links_that_its_tree_may_have_and_agents_look_again() {
    let net = OneTree::start("", "");
    fill(&net.upstream);
    net.publish_and_sync();
    assert_eq!(links(&net.mirror()), set(&["d/in"]));
    has_no_set_ids(&net.mirror());
    assert!(net.publishing.log().contains("a symbolic link that may lead out of the tree"));
    for (symlinks, there) in [
        ("relative", &["d/in", "d/up", "through"][..]),
        ("all", &["abs", "d/in", "d/up", "through"]),
    ] {
        net.testbed.apply(&tree(symlinks));
        net.publish_and_sync();
        assert_eq!(links(&net.mirror()), set(there), "{symlinks}");
    }
    // The publisher's generation has them all; what a site may have is the admin's word.
    let OneTree { testbed, publishing, agent, .. } = net;
    assert!(publishing.stop().success());
    testbed.apply(&tree("inside"));
    agent.sync();
    assert_eq!(links(&agent.published("tree")), set(&["d/in"]));
    let run = &testbed.runs("tree@site")[0];
    assert_eq!(left_out(run), 3, "{run:#}");
    assert!(agent.command(&["verify", "tree"]).output().unwrap().status.success());
}

#[test]
fn a_mirror_of_a_stock_server_has_the_links_that_its_tree_may_have() {
    let testbed = Testbed::start();
    let upstream = testbed.make_dir("upstream/tree");
    fill(&upstream);
    let rsyncd = Rsyncd::start(&testbed.path("rsyncd"), &[("pub", &testbed.path("upstream"))], "");
    testbed.apply(&format!(
        "[[upstream]]\nname = \"stock\"\nkind = \"rsyncd\"\nurl = \"{}\"\n\
         [[source]]\nname = \"source\"\nupstream = \"stock\"\npath = \"pub\"\n{}\
         [[site]]\nname = \"site\"\n\
         [[grant]]\nsite = \"site\"\ntree = \"tree\"\n\
         [[assignment]]\nsite = \"site\"\ntree = \"tree\"\n",
        rsyncd.url(),
        tree("inside")
    ));
    let agent = testbed.enroll_agent("agent", "site");
    for (symlinks, there) in [
        ("inside", &["d/in"][..]),
        ("relative", &["d/in", "d/up", "through"]),
        ("all", &["abs", "d/in", "d/up", "through"]),
        ("inside", &["d/in"]),
    ] {
        testbed.apply(&tree(symlinks));
        agent.sync();
        assert_eq!(links(&agent.published("tree")), set(there), "{symlinks}");
        let run = &testbed.runs("tree@site")[0];
        assert_eq!(left_out(run), 4 - there.len(), "{symlinks}: {run:#}");
        has_no_set_ids(&agent.published("tree"));
    }
}
