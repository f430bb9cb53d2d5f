//! What a guard stops, nobody downstream hears of.

use std::fs;

use tests::programs::{program, told};

use crate::reader::Served;

/// `publisher publish one --wait`, which has to be held; takes what it says.
fn held(served: &Served) -> String {
    let mut command = program("publisher");
    command.args(["publish", "one", "--wait", "--data"]).arg(&served.publisher.data);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("held"), "{}", told(&output));
    said
}

#[test]
fn an_emptied_tree_is_held_until_an_admin_approves_it() {
    let served = Served::start("", "");
    for n in 0..10 {
        served.write(&format!("one/f{n}"), "x");
    }
    served.publish("one");
    let reader = served.reader("agent", "agent");
    for n in 1..10 {
        fs::remove_file(served.upstream.join(format!("one/f{n}"))).unwrap();
    }
    let said = held(&served);
    assert!(said.contains("9 of 10 files would be gone, 1 may be"), "{said}");
    assert_eq!(reader.latest("one").generation.0, 1, "nothing was announced");
    let manifest = said.split("manifest ").nth(1).unwrap().trim().trim_end_matches(')').to_owned();
    assert!(served.testbed.ctl(&["status"]).contains(&manifest), "the admin is told");

    served.testbed.ctl(&["approve", "one", "--manifest", &manifest]);
    tests::wait_until("the approved generation", || reader.latest("one").generation.0 == 2);
    let statement = reader.latest("one");
    assert_eq!(statement.manifest.to_string(), manifest);
    assert_eq!(statement.guard.removed_files, 9);
    assert_eq!(statement.guard.approved_by.unwrap().as_str(), "admin");
}

#[test]
fn a_missing_root_and_an_incomplete_tree_are_held() {
    let served = Served::start("guard = { must-contain = [\"index\"] }", "");
    served.write("one/file", "x");
    assert!(held(&served).contains("must contain index"));
    served.write("one/index", "x");
    assert!(served.publish("one").contains("generation 1 announced"));

    let (root, away) = (served.upstream.join("one"), served.upstream.join("away"));
    fs::rename(&root, &away).unwrap();
    assert!(held(&served).contains("the root of the tree is not there"));
    // An empty directory where a file system was mounted.
    fs::create_dir(&root).unwrap();
    let said = held(&served);
    assert!(said.contains("no files") && said.contains("mounted or unmounted"), "{said}");
    fs::remove_dir(&root).unwrap();
    fs::rename(&away, &root).unwrap();
    assert!(served.publish("one").contains("unchanged since generation 1"));
}
