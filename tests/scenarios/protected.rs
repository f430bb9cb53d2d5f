//! A directory with a PROTECTED file is not touched at all, at any depth, wherever the tree comes
//! from.

use std::{fs, path::Path};

use tests::{
    Rsyncd, Testbed,
    fixture::{OneTree, mirrored, prose, write},
    network::inodes,
};

type Inodes = [std::collections::BTreeMap<std::path::PathBuf, u64>; 4];

/// Protects two directories of a mirror and puts something of its own into each.
fn protect(mirror: &Path) {
    // Below a directory that goes, in something that only exists here.
    write(&mirror.join("gone/local/x/PROTECTED"), "");
    write(&mirror.join("gone/local/x/own"), "local");
    // Below a directory that stays as it is.
    write(&mirror.join("a/b/d/local/x/PROTECTED"), "");
    for dir in ["a/b/c", "top"] {
        write(&mirror.join(dir).join("PROTECTED"), "");
        write(&mirror.join(dir).join("own"), "local");
        write(&mirror.join(dir).join("deep/er/own"), "local");
        fs::write(mirror.join(dir).join("f"), "edited here").unwrap();
    }
}

fn fill(tree: &Path) {
    for dir in ["a/b/c", "a/b/d", "top", "other", "gone"] {
        for n in 0..8 {
            write(&tree.join(dir).join(format!("f{n}")), prose(n, 300));
        }
        write(&tree.join(dir).join("f"), "as published");
    }
}

/// Changes what lies below a protected directory, removes one, and changes something beside them.
fn change(tree: &Path) {
    write(&tree.join("a/b/c/f"), "published again");
    write(&tree.join("a/b/c/new"), "new");
    fs::remove_file(tree.join("a/b/c/f1")).unwrap();
    fs::remove_dir_all(tree.join("top")).unwrap();
    fs::remove_dir_all(tree.join("gone")).unwrap();
    write(&tree.join("other/f"), "published again");
}

/// What changed beside the protected directories is there, and in them nothing is different.
fn is_untouched(mirror: &Path, before: Inodes) {
    assert_eq!(before, protected_inodes(mirror));
    for dir in ["a/b/c", "top"] {
        assert_eq!(fs::read(mirror.join(dir).join("f")).unwrap(), b"edited here");
        assert_eq!(fs::read(mirror.join(dir).join("deep/er/own")).unwrap(), b"local");
    }
    assert!(!mirror.join("gone/f1").exists());
    assert!(mirror.join("a/b/c/f1").exists() && !mirror.join("a/b/c/new").exists());
    assert_eq!(fs::read(mirror.join("other/f")).unwrap(), b"published again");
}

fn protected_inodes(mirror: &Path) -> Inodes {
    ["a/b/c", "top", "gone/local/x", "a/b/d/local/x"].map(|dir| inodes(&mirror.join(dir)))
}

const GUARD: &str = "guard = { max-delete-files = \"90%\", max-delete-bytes = \"90%\" }";

#[test]
fn a_protected_directory_stays_as_it_is_whatever_a_publisher_announces() {
    let net = OneTree::start(GUARD, "");
    fill(&net.upstream);
    net.publish_and_sync();
    protect(&net.mirror());
    let before = protected_inodes(&net.mirror());
    change(&net.upstream);
    let run = net.publish_and_sync();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    is_untouched(&net.mirror(), before.clone());
    let notices = run["notices"].to_string();
    assert!(notices.contains("PROTECTED file is there: a/b/c"), "{run:#}");
    // And the time after.
    write(&net.upstream.join("a/b/c/f2"), "again");
    write(&net.upstream.join("other/f2"), "again");
    net.publish_and_sync();
    is_untouched(&net.mirror(), before);
    assert_eq!(fs::read(net.mirror().join("other/f2")).unwrap(), b"again");
}

#[test]
fn a_protected_directory_stays_as_it_is_whatever_a_stock_daemon_shows() {
    let testbed = Testbed::start();
    let upstream = testbed.make_dir("upstream/tree");
    fill(&upstream);
    let rsyncd = Rsyncd::start(&testbed.path("rsyncd"), &[("pub", &testbed.path("upstream"))], "");
    testbed.apply(&mirrored(&rsyncd, "", GUARD, "keep-withdrawn = \"0s\""));
    let agent = testbed.enroll_agent("agent", "site");
    agent.sync();
    let mirror = agent.published("tree");
    protect(&mirror);
    let before = protected_inodes(&mirror);
    change(&upstream);
    agent.sync();
    is_untouched(&mirror, before.clone());
    write(&upstream.join("a/b/c/f2"), "again");
    write(&upstream.join("other/f2"), "again");
    agent.sync();
    is_untouched(&mirror, before);
    assert_eq!(fs::read(mirror.join("other/f2")).unwrap(), b"again");
}
