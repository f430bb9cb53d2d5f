//! Generations travel and arrive exactly.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    os::unix::fs::{PermissionsExt, symlink},
};

use tests::{
    compare,
    fixture::{OneTree, noise, prose},
    network::{bytes_by, inodes},
};

#[test]
fn an_update_travels_as_a_pack_with_deltas() {
    let net = OneTree::start("", "");
    for n in 0..20 {
        net.write(&format!("src/file{n}.txt"), prose(n, 60_000));
    }
    net.write("image.bin", noise(1, 3_000_000));
    net.publish_and_sync();
    net.assert_same();

    net.write("src/file3.txt", format!("{}one more line\n", prose(3, 60_000)));
    let mut image = noise(1, 3_000_000);
    image[1_500_000..1_500_010].copy_from_slice(b"0123456789");
    net.write("image.bin", image);
    net.write("src/new.txt", prose(99, 5_000));
    fs::remove_file(net.upstream.join("src/file7.txt")).unwrap();
    let run = net.publish_and_sync();

    net.assert_same();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    let pack = bytes_by(&run, "pack");
    assert!(pack > 0 && pack < 100_000, "{pack} bytes by pack for 3 MB: {run:#}");
    assert_eq!(bytes_by(&run, "rsync") + bytes_by(&run, "whole"), 0, "{run:#}");
    assert_eq!(run["changes"]["deleted"], 1, "{run:#}");
}

#[test]
fn nothing_new_touches_nothing() {
    let net = OneTree::start("", "");
    for n in 0..50 {
        net.write(&format!("d{}/f{n}", n % 5), prose(n, 500));
    }
    net.publish_and_sync();
    let before = inodes(&net.agent.storage.join("pub"));
    let run = net.sync();
    assert_eq!(inodes(&net.agent.storage.join("pub")), before);
    assert!(
        matches!(run["result"].as_str(), Some("SYNC_UP_TO_DATE" | "SYNC_COMPLETED")),
        "{run:#}"
    );
}

#[test]
fn a_site_holds_exactly_what_its_filter_keeps() {
    let net = OneTree::start(
        "limit = [\"- /embargo/\"]\nfilter = [\"- *.iso\"]",
        "filter = [\"+ /keep.iso\", \"- /debug/\"]",
    );
    for path in ["a.txt", "b.iso", "keep.iso", "debug/x", "sub/debug/y", "embargo/secret"] {
        net.write(path, prose(7, 900));
    }
    net.publish_and_sync();
    let rules = ["- /embargo/", "+ /keep.iso", "- /debug/", "- *.iso"];
    compare::assert_same(&net.upstream, &net.mirror(), &rules);
    assert!(net.mirror().join("keep.iso").exists() && net.mirror().join("sub/debug/y").exists());
    let manifests = net.publisher.data.join("trees");
    let embargoed = walkdir::WalkDir::new(manifests).into_iter().filter_map(Result::ok).any(|e| {
        e.file_type().is_file() && fs::read(e.path()).unwrap().windows(7).any(|w| w == b"embargo")
    });
    assert!(!embargoed, "what the limit hides is in the publisher's records");
}

#[test]
fn names_kinds_and_modes_survive_every_change_of_kind() {
    // Of so few files each is more than the tenth that may go unasked.
    let net =
        OneTree::start("guard = { max-delete-files = \"100%\", max-delete-bytes = \"100%\" }", "");
    let odd = [
        &b"\xff\xfe"[..],
        b"new\nline",
        b" lead",
        b"-dash",
        b"[x]*?",
        "é".as_bytes(),
        &[b'n'; 255],
    ];
    for name in odd {
        fs::write(net.upstream.join(OsStr::from_bytes(name)), name).unwrap();
    }
    net.write("was-file", "1");
    net.write("was-dir/inside", "2");
    symlink("was-file", net.upstream.join("was-link")).unwrap();
    fs::hard_link(net.upstream.join("was-file"), net.upstream.join("linked")).unwrap();
    fs::create_dir(net.upstream.join("empty")).unwrap();
    fs::set_permissions(net.upstream.join("was-file"), fs::Permissions::from_mode(0o755)).unwrap();
    net.publish_and_sync();
    net.assert_same();

    let clear = |name: &str| {
        let path = net.upstream.join(name);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        }
        .unwrap();
    };
    for name in ["was-file", "was-dir", "was-link"] {
        clear(name);
    }
    net.write("was-file/inside", "3");
    symlink("empty", net.upstream.join("was-dir")).unwrap();
    net.write("was-link", "4");
    net.publish_and_sync();
    net.assert_same();

    for name in ["was-file", "was-dir", "was-link"] {
        clear(name);
    }
    net.write("was-file", "5");
    net.write("was-dir/inside", "6");
    symlink("was-dir/inside", net.upstream.join("was-link")).unwrap();
    net.publish_and_sync();
    net.assert_same();
}

#[test]
fn the_umask_of_whoever_starts_the_agent_does_not_matter() {
    let modes = |umask: &str, uid: Option<u32>| {
        let net = OneTree::start("", "");
        net.write("d/f", "content");
        net.write("d/x", "program");
        fs::set_permissions(net.upstream.join("d/x"), fs::Permissions::from_mode(0o755)).unwrap();
        net.publish();
        let agent = net.agent.command(&["run", "--once"]);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]);
        if let Some(uid) = uid {
            let open = fs::Permissions::from_mode(0o711);
            fs::set_permissions(net.testbed.path(""), open).unwrap();
            for dir in [&net.agent.data, &net.agent.storage, &net.agent.config] {
                for entry in walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok) {
                    std::os::unix::fs::lchown(entry.path(), Some(uid), Some(uid)).unwrap();
                }
            }
            let uid = uid.to_string();
            shell.args(["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"]);
        }
        shell.arg(agent.get_program()).args(agent.get_args());
        tests::programs::isolate(&mut shell);
        tests::programs::succeed(&mut shell);
        let root = net.agent.storage.join("pub");
        walkdir::WalkDir::new(&root)
            .sort_by_file_name()
            .into_iter()
            .map(|entry| entry.unwrap())
            .map(|e| {
                (
                    e.path().strip_prefix(&root).unwrap().to_owned(),
                    e.metadata().unwrap().permissions().mode(),
                )
            })
            .collect::<Vec<_>>()
    };
    let strict = modes("077", None);
    assert_eq!(strict, modes("000", None));
    if rustix::process::geteuid().is_root() {
        assert_eq!(strict, modes("077", Some(12345)), "another user's agent gives other modes");
    }
    assert!(strict.iter().all(|(_, mode)| mode & 0o444 == 0o444), "{strict:?}");
}

#[test]
fn a_first_sync_comes_by_a_pack_from_nothing_where_the_tree_offers_one() {
    let net = OneTree::start("initial-pack = true", "");
    for n in 0..30 {
        net.write(&format!("f{n}"), prose(n, 4_000));
    }
    let run = net.publish_and_sync();
    net.assert_same();
    assert!(bytes_by(&run, "pack") > 0, "{run:#}");
}
