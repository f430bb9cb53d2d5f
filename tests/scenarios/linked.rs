//! A tree that is published behind a symbolic link: served through it, renamed, and taken out again.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
};

use tests::{
    PATIENCE, Rsyncd,
    fixture::OneTree,
    network::inodes,
    nginx::{Nginx, Scheme},
    programs::{isolate, succeed, told},
};

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).unwrap().is_symlink()
}

fn fetched(port: u16, path: &str) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(connection, "GET /{path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn mirrored(rsyncd: &Rsyncd, module: &str, to: &Path) {
    let mut command = Command::new("rsync");
    isolate(&mut command);
    command.args(["-a", "--delete", "--timeout=60"]);
    succeed(command.arg(format!("{}{module}/", rsyncd.url())).arg(to));
}

#[test]
fn servers_follow_the_link_and_the_parent_can_be_served_beside_it() {
    let net = OneTree::start("", "switch = \"symlink\"");
    net.write("f", "one");
    net.write("d/g", "stays");
    let run = net.publish_and_sync();
    assert!(run["switch"].as_str().unwrap().starts_with("symlink: "), "{run}");
    assert!(is_link(&net.mirror()));
    net.assert_same();
    let (dir, live) = (net.testbed.path("servers"), net.mirror());
    let nginx =
        Nginx::start(&dir.join("nginx"), Scheme::Plain, "", &format!("root {};", live.display()));
    let root = rustix::process::geteuid().is_root();
    let settings =
        format!("use chroot = {}\nexclude = /.mirrornet/", if root { "yes" } else { "no" });
    let modules: [(&str, &Path); 2] = [("tree", &live), ("parent", live.parent().unwrap())];
    let rsyncd = Rsyncd::start(&dir.join("rsyncd"), &modules, &settings);
    for (round, content) in ["one", "two", "three"].into_iter().enumerate() {
        if round > 0 {
            net.write("f", content);
            net.publish_and_sync();
        }
        assert_eq!(fetched(nginx.port(), "f"), content);
        mirrored(&rsyncd, "tree", &dir.join("got"));
        tests::compare::assert_same(&net.upstream, &dir.join("got"), &[]);
        mirrored(&rsyncd, "parent", &dir.join("parent"));
        let names = fs::read_dir(dir.join("parent")).unwrap().map(|e| e.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["tree"]);
    }
}

#[test]
fn a_tree_behind_a_link_is_renamed_and_taken_out_again_and_nothing_is_fetched() {
    let net = OneTree::start("", "path = \"one/tree\"\nswitch = \"auto\"");
    net.write("f", "content");
    net.write("d/g", "more");
    net.publish_and_sync();
    let definitions = fs::read_to_string(net.testbed.path("network.toml")).unwrap();
    let order = |path: &str, switch: &str| {
        let text = definitions.replace("one/tree", path).replace("\"auto\"", switch);
        net.testbed.apply(&text);
        let run = net.sync();
        assert_eq!(run["result"], "SYNC_UP_TO_DATE", "{run}");
        net.agent.published(path)
    };
    let before = inodes(&net.agent.published("one/tree"));
    let linked = order("one/tree", "\"symlink\"");
    assert!(is_link(&linked));
    assert_eq!(inodes(&linked.canonicalize().unwrap()), before);
    let moved = order("two/deep/tree", "\"symlink\"");
    assert!(is_link(&moved) && !linked.exists());
    assert_eq!(inodes(&moved.canonicalize().unwrap()), before);
    let left = linked.parent().unwrap().join(".mirrornet");
    assert!(!left.exists(), "trees were left where the tree was published before");
    let plain = order("two/deep/tree", "\"auto\"");
    assert!(!is_link(&plain));
    assert_eq!(inodes(&plain), before);
    net.write("f", "changed");
    net.publish_and_sync();
    tests::compare::assert_same(&net.upstream, &plain, &[]);
}

#[test]
fn a_link_that_the_agent_did_not_make_is_left_alone_until_somebody_decides() {
    let net = OneTree::start("", "switch = \"symlink\"");
    net.write("f", "content");
    net.publish();
    let (link, older) = (net.mirror(), net.agent.published("tree-before"));
    fs::create_dir_all(&older).unwrap();
    fs::copy(net.upstream.join("f"), older.join("f")).unwrap();
    std::os::unix::fs::symlink("tree-before", &link).unwrap();
    let said = told(&net.agent.run_once());
    assert!(said.contains("is a symbolic link to tree-before"), "{said}");
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("tree-before"));
    // As the error says.
    fs::remove_file(&link).unwrap();
    fs::rename(&older, &link).unwrap();
    net.sync();
    assert!(is_link(&link));
    net.assert_same();
}
