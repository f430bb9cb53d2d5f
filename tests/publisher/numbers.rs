//! Numbers belong to the coordinator, whatever the publisher has lost.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tests::fixture::prose;

use crate::reader::Served;

#[test]
fn a_publisher_that_lost_its_trees_takes_up_the_announced_generation() {
    let mut served = Served::start("", "");
    served.write("one/a", "1");
    served.publish("one");
    served.write("one/a", "2");
    served.publish("one");
    served.stop();
    for lost in ["trees", "view", "orders.json"] {
        let path = served.publisher.data.join(lost);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
    served.start_again();
    let said = served.publish("one");
    assert!(said.contains("unchanged since generation 2"), "{said}");
    let reader = served.reader("agent", "agent");
    reader.manifest("one", &reader.latest("one"));
    served.write("one/a", "3");
    assert!(served.publish("one").contains("generation 3 announced"));
    let statement = reader.latest("one");
    assert_eq!(statement.parent.unwrap().generation.0, 2);
}

#[test]
fn readers_are_served_and_trees_watched_while_the_coordinator_is_away() {
    let mut served = Served::start("", "");
    served.write("one/a", "1");
    served.publish("one");
    let reader = served.reader("agent", "agent");
    served.testbed.kill_coordinator();
    served.stop();
    served.start_again();
    tests::wait_until("the tree to be served again", || {
        reader.get("/trees/one/latest", &[]).status == 200
    });
    reader.manifest("one", &reader.latest("one"));
    served.write("one/a", "2");
    served.testbed.start_coordinator();
    tests::wait_until("the change to be announced", || {
        served.publish("one");
        reader.latest("one").generation.0 == 2
    });
}

#[test]
fn a_tree_that_is_being_written_is_taken_when_it_has_settled() {
    let served = Served::start("", "");
    served.write("one/still", "still");
    let writing = Arc::new(AtomicBool::new(true));
    let (flag, path) = (Arc::clone(&writing), served.upstream.join("one/moving"));
    let writer = std::thread::spawn(move || {
        // Made before, or a busy machine would leave the file alone for as long as that takes.
        let versions = [prose(1, 200_000), prose(2, 200_000)];
        for version in versions.iter().cycle().take_while(|_| flag.load(Ordering::Relaxed)) {
            fs::write(&path, version).unwrap();
        }
    });
    let mut command = tests::programs::program("publisher");
    command.args(["publish", "one", "--wait", "--data"]).arg(&served.publisher.data);
    let output = command.output().unwrap();
    writing.store(false, Ordering::Relaxed);
    writer.join().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success(), "half of a file was taken: {said}");
    served.publish("one");
    let reader = served.reader("agent", "agent");
    let manifest = reader.manifest("one", &reader.latest("one"));
    let path = protocol::path::TreePath::parse(b"moving").unwrap();
    let content = fs::read(served.upstream.join("one/moving")).unwrap();
    let digest = protocol::digest::Digest::of(&content);
    assert_eq!(manifest.get(&path).unwrap().digest(), Some(digest));
}
