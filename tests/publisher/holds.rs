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

/// The name of the only hold, as `status` tells it.
fn hold_id(served: &Served) -> String {
    let status = served.testbed.ctl(&["status"]);
    let at = status.find("tree one is held (").unwrap_or_else(|| panic!("{status}"));
    status[at + "tree one is held (".len()..].chars().take("hold-".len() + 12).collect()
}

#[test]
fn what_was_held_is_published_as_it_was_held_whatever_the_tree_became_meanwhile() {
    let mut served = Served::start("", "");
    for n in 0..10 {
        served.write(&format!("one/f{n}"), format!("content {n}"));
    }
    served.publish("one");
    let reader = served.reader("agent", "agent");
    for n in 3..10 {
        fs::remove_file(served.upstream.join(format!("one/f{n}"))).unwrap();
    }
    served.write("one/new", "held");
    held(&served);
    let id = hold_id(&served);
    let listed = served.testbed.ctl(&["get", "generations", "one"]);
    assert!(listed.contains(&id) && listed.contains("-7 files of 10, +1"), "{listed}");
    // Neither a restart nor a change of the source costs what was held.
    served.stop();
    served.write("one/later", "came after the hold");
    served.write("one/new", "changed after the hold");
    served.testbed.ctl(&["approve", &id]);
    served.start_again();
    tests::wait_until("what was approved, and then what is there", || {
        reader.latest("one").generation.0 == 3
    });
    let now = reader.latest("one");
    let has = |statement, path: &[u8]| {
        let path = protocol::path::TreePath::parse(path).unwrap();
        reader.manifest("one", statement).get(&path).is_some()
    };
    assert!(has(&now, b"later") && has(&now, b"new") && has(&now, b"f2") && !has(&now, b"f3"));
    assert!(now.guard.approved_by.is_none(), "one approval is for one step");
    let parent = now.parent.unwrap();
    let all = served.testbed.ctl_json(&["get", "generation", "one@2"]);
    assert_eq!(all[0]["manifest"], parent.manifest.to_string());
    assert_eq!(all[0]["entries"], 4, "f0, f1, f2 and new: as it was held");
}

#[test]
fn an_approval_is_used_once_and_a_hold_ends_with_its_cause() {
    let served = Served::start("", "");
    let write = || (0..10).for_each(|n| served.write(&format!("one/f{n}"), "x"));
    let remove =
        || (1..10).for_each(|n| drop(fs::remove_file(served.upstream.join(format!("one/f{n}")))));
    write();
    let time = fs::metadata(served.upstream.join("one/f0")).unwrap().modified().unwrap();
    let same_time = || {
        for file in fs::read_dir(served.upstream.join("one")).unwrap() {
            fs::File::options()
                .write(true)
                .open(file.unwrap().path())
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
    };
    same_time();
    served.publish("one");
    remove();
    held(&served);
    served.testbed.ctl(&["approve", &hold_id(&served)]);
    tests::wait_until("the approved generation", || {
        let all = served.testbed.ctl_json(&["get", "generations", "one"]);
        all.as_array().unwrap().iter().any(|item| item["version"]["generation"] == 2)
    });
    // After what was approved the publisher looks again by itself; let it have done so.
    assert!(served.publish("one").contains("unchanged since generation 2"));
    write();
    same_time();
    assert!(served.publish("one").contains("generation 3 announced"));
    remove();
    // The very same content as was approved before, and yet another step.
    held(&served);
    let id = hold_id(&served);
    write();
    same_time();
    assert!(served.publish("one").contains("unchanged since generation 3"));
    let status = served.testbed.ctl(&["status"]);
    assert!(!status.contains("tree one is held"), "its cause is gone: {status}");
    let said = served.testbed.ctl_fails(&["approve", &id]);
    assert!(said.contains("no hold"), "{said}");

    let root = served.upstream.join("one");
    fs::rename(&root, served.upstream.join("away")).unwrap();
    held(&served);
    let said = served.testbed.ctl_fails(&["approve", &hold_id(&served)]);
    assert!(said.contains("nothing to approve"), "{said}");
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
