//! Direct rsync by ALPN, with the real client.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use tests::{compare, fixture::prose, programs::isolate};

use crate::reader::Served;

fn rsync(port: u16, args: &[&str], module: &str, into: &Path) -> (Option<i32>, String) {
    let mut command = Command::new("rsync");
    isolate(&mut command);
    command.args(["-rlpt", "--timeout=20", "--contimeout=10"]).args(args);
    command.arg(format!("rsync://127.0.0.1:{port}/{module}")).arg(into);
    let output = command.output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code(), said)
}

#[test]
fn rsync_gives_the_announced_generation_and_only_to_its_readers() {
    let served = Served::start("limit = [\"- *.key\"]\nsymlinks = \"all\"", "");
    for n in 0..30 {
        served.write(&format!("one/d{}/f{n}", n % 3), prose(n, 3_000));
    }
    served.write("one/d1/private.key", "secret");
    symlink("/etc", served.upstream.join("one/etc")).unwrap();
    served.write("two/b", "b");
    served.publish("one");
    served.publish("two");
    // What was not announced is not served, whatever the source holds now.
    served.write("one/d0/later", "not announced");
    let reader = served.reader("agent", "agent");
    let port = reader.rsync_port();
    let into = served.testbed.make_dir("into");

    let (code, said) = rsync(port, &[], "one@1/", &into);
    assert_eq!(code, Some(0), "{said}");
    assert!(!into.join("d0/later").exists() && !into.join("d1/private.key").exists());
    assert!(into.join("etc").is_symlink());
    fs::remove_file(served.upstream.join("one/d0/later")).unwrap();
    compare::assert_same(&served.upstream.join("one"), &into, &["- *.key"]);

    for module in ["two@1/", "two/", "one@2/", "one/"] {
        let (code, said) = rsync(port, &[], module, &served.testbed.make_dir("other"));
        assert_eq!(code, Some(5), "{module}: {said}");
        assert!(said.contains("Unknown module"), "{module}: {said}");
    }
    let (_, listing) = rsync(port, &["--list-only"], "", Path::new("/nonexistent"));
    assert!(!listing.contains("two"), "{listing}");
    let (code, said) = rsync(port, &["--copy-links"], "one@1/", &served.testbed.make_dir("links"));
    assert_ne!(code, Some(0), "{said}");
    assert!(!served.testbed.path("links/etc").exists(), "a link was followed");

    let mut push = Command::new("rsync");
    isolate(&mut push);
    push.arg("-r")
        .arg(served.upstream.join("two/"))
        .arg(format!("rsync://127.0.0.1:{port}/one@1/"));
    assert!(!push.output().unwrap().status.success(), "a view was written to");

    let (code, said) = rsync(port, &["--files-from=/dev/null"], "one@1/", &into);
    assert_eq!(code, Some(0), "{said}");
    let list = served.testbed.path("list");
    fs::write(&list, "d0/f0\0gone\0").unwrap();
    let list = format!("--files-from={}", list.display());
    let (code, said) = rsync(port, &[&list, "--from0"], "one@1/", &served.testbed.make_dir("some"));
    assert_eq!(code, Some(23), "a missing file must not be success: {said}");
    assert!(served.testbed.path("some/d0/f0").exists());
}

#[test]
fn a_host_without_rsync_says_so() {
    let served = Served::start("", "rsync = \"/nonexistent/rsync\"");
    served.write("one/a", "a");
    served.publish("one");
    let reader = served.reader("agent", "agent");
    let (code, said) = rsync(reader.rsync_port(), &[], "one@1/", &served.testbed.make_dir("into"));
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("there is no rsync program on this host"), "{said}");
}

#[test]
fn nothing_is_left_of_a_session() {
    let served = Served::start("", "");
    served.write("one/a", "a");
    served.publish("one");
    let reader = served.reader("agent", "agent");
    let (code, said) = rsync(reader.rsync_port(), &[], "one@1/", &served.testbed.make_dir("into"));
    assert_eq!(code, Some(0), "{said}");
    let run = served.publisher.data.join("run");
    tests::wait_until("the session's configuration to be gone", || {
        fs::read_dir(&run).is_ok_and(|mut entries| entries.next().is_none())
    });
}
