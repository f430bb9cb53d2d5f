//! `mirrorctl filter` against the real rsync.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Command, Output},
};

fn mirrorctl(args: &[&OsStr]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirrorctl"));
    command.args(args).env_remove("MIRRORNET_IDENTITY").env_remove("HOME").output().unwrap()
}

/// A tree with names that are easy to get wrong.
fn make_tree(dir: &Path) {
    let files: &[&[u8]] = &[
        b"README",
        b"a.iso",
        b"keep.iso",
        b"debug/x",
        b"debug/keep/y",
        b"images/boot.iso",
        b"images/deep/er/z.tmp",
        b"a-b/c",
        b"a/c",
        b"sp ace/f",
        b"line\nfeed",
        b"latin\xe9/f\xff",
        b"[x]/y",
        b"rules/.rsync-filter",
        b"rules/drop",
        b"rules/stay",
    ];
    for file in files {
        let path = dir.join(OsStr::from_bytes(file));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, if file.ends_with(b".rsync-filter") { "- drop\n" } else { "" }).unwrap();
    }
    fs::create_dir(dir.join("empty")).unwrap();
    std::os::unix::fs::symlink("debug", dir.join("link")).unwrap();
}

/// What rsync would transfer.
fn rsync_keeps(rules: &Path, src: &Path, dst: &Path) -> BTreeSet<Vec<u8>> {
    let mut merge = OsStr::new("--filter=merge ").to_owned();
    merge.push(rules);
    let output = Command::new("rsync")
        .args(["-rln", "-8", "--out-format=%n"].map(OsStr::new))
        .arg(merge)
        .arg(src.join(""))
        .arg(dst)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    split(&output.stdout, b'\n').map(unescape).filter(|name| name != b"./").collect()
}

fn split(bytes: &[u8], end: u8) -> impl Iterator<Item = &[u8]> {
    bytes.strip_suffix(&[end]).unwrap_or(bytes).split(move |b| *b == end)
}

/// rsync prints control characters as `\#` and three octal digits.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        match tail {
            [b'#', a, b, c, after @ ..] if *first == b'\\' => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[test]
fn a_preview_is_what_rsync_would_transfer() {
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    fs::create_dir(&src).unwrap();
    fs::create_dir(&dst).unwrap();
    make_tree(&src);
    let lists = [
        "",
        "# comment\n\n+ /keep.iso\n- *.iso\n",
        "- /debug/\n",
        "+ /debug/\n+ /debug/keep/***\n- /debug/*\n",
        "- *.tmp\n- a-b\n- sp?ace/\n",
        "- latin*\n- line?feed\n",
        "- \\[x]/\n",
        ": .rsync-filter\n",
        "+ */\n- *\n",
        "- link\n-! */\n",
    ];
    let rules = dir.path().join("rules");
    for list in lists {
        fs::write(&rules, list).unwrap();
        let args =
            [OsStr::new("filter"), OsStr::new("preview"), OsStr::new("-0"), OsStr::new("--rules")];
        let args: Vec<_> = args.into_iter().chain([rules.as_os_str(), src.as_os_str()]).collect();
        let output = mirrorctl(&args);
        assert!(output.status.success(), "{list:?}: {}", String::from_utf8_lossy(&output.stderr));
        let ours: BTreeSet<_> = split(&output.stdout, 0).map(<[u8]>::to_vec).collect();
        let theirs = rsync_keeps(&rules, &src, &dst);
        let text = |set: &BTreeSet<Vec<u8>>| {
            set.iter().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(text(&ours), text(&theirs), "{list:?}");
    }
}

#[test]
fn an_explanation_names_the_rule_of_each_entry_and_sums_up() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("src");
    fs::create_dir(&src).unwrap();
    make_tree(&src);
    let rules = dir.path().join("rules");
    fs::write(&rules, "# isos\n- *.iso\n- /debug/\n").unwrap();
    let args = ["filter", "preview", "--explain", "--rules"].map(OsStr::new);
    let args: Vec<_> = args.into_iter().chain([rules.as_os_str(), src.as_os_str()]).collect();
    let output = mirrorctl(&args);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("a.iso: left out by given rules, rule 2: - *.iso\n"), "{text}");
    assert!(text.contains("debug/: left out by given rules, rule 3: - /debug/\n"), "{text}");
    assert!(text.contains("README: kept, since no rule speaks of it\n"), "{text}");
    assert!(text.contains("rule 2: - *.iso: leaves out 3 files, 0 directories"), "{text}");
    assert!(text.contains("line%0Afeed: kept"), "{text}");
}

#[test]
fn for_programs_each_entry_has_its_rule_and_size_and_each_rule_its_sums() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("src");
    fs::create_dir_all(src.join("debug/deep")).unwrap();
    for (file, len) in [("a.iso", 100), ("README", 7), ("debug/x", 20), ("debug/deep/y", 3)] {
        fs::write(src.join(file), vec![b'x'; len]).unwrap();
    }
    let rules = dir.path().join("rules");
    fs::write(&rules, "- *.iso\n- /debug/\n").unwrap();
    let args = ["filter", "preview", "--explain", "--output", "json", "--rules"].map(OsStr::new);
    let args: Vec<_> = args.into_iter().chain([rules.as_os_str(), src.as_os_str()]).collect();
    let output = mirrorctl(&args);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let entries = told["entries"].as_array().unwrap();
    let paths: Vec<_> = entries.iter().map(|e| e["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["README", "a.iso", "debug"]);
    assert_eq!((&entries[0]["kept"], &entries[0]["bytes"]), (&true.into(), &7.into()));
    assert_eq!(entries[1]["rule"]["text"], "- *.iso");
    let by_rule = &told["sums"]["by-rule"];
    assert_eq!(by_rule[0]["left-out"]["bytes"], 100, "{told:#}");
    // What lies in a directory that is left out counts for the rule that leaves it out.
    assert_eq!(by_rule[1]["left-out"]["files"], 2, "{told:#}");
    assert_eq!(by_rule[1]["left-out"]["directories"], 2, "{told:#}");
    assert_eq!(by_rule[1]["left-out"]["bytes"], 23, "{told:#}");
    assert_eq!(told["sums"]["kept"]["bytes"], 7, "{told:#}");
}

#[test]
fn paths_that_need_not_exist_are_tested_with_their_directories() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    fs::write(&rules, "+ /debug/keep\n- /debug/\n- *.iso\n").unwrap();
    let args = ["filter", "test"].map(OsStr::new).into_iter().chain([rules.as_os_str()]);
    let paths = ["debug/keep", "debug/", "a.iso", "README"].map(OsStr::new);
    let output = mirrorctl(&args.chain(paths).collect::<Vec<_>>());
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "debug/keep: left out with the directory debug/ by given rules, rule 2: - /debug/\n\
         debug/: left out by given rules, rule 2: - /debug/\n\
         a.iso: left out by given rules, rule 3: - *.iso\n\
         README: kept, since no rule speaks of it\n"
    );
}

#[test]
fn rules_and_directories_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    fs::write(&rules, "- fine\n\nzap\n-foo\n").unwrap();
    let preview = |rules: &Path, dir: &Path| {
        let args = ["filter", "preview", "--rules"].map(OsStr::new);
        let args: Vec<_> = args.into_iter().chain([rules.as_os_str(), dir.as_os_str()]).collect();
        let output = mirrorctl(&args);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = preview(&rules, dir.path());
    assert_eq!(code, Some(1));
    assert!(text.contains("rules:3:1: 'zap'") && text.contains("rules:4:2: '-foo'"), "{text}");
    fs::write(&rules, "- fine\n").unwrap();
    let (code, text) = preview(&rules, &dir.path().join("none"));
    assert_eq!(code, Some(1));
    assert!(text.contains("cannot walk") && text.contains("none"), "{text}");
    let (_, text) = preview(&dir.path().join("none"), dir.path());
    assert!(text.contains("cannot read") && text.contains("none"), "{text}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..5000 {
        fs::write(dir.path().join(format!("file-with-a-long-name-{i}")), "").unwrap();
    }
    let rules = dir.path().join("rules");
    fs::write(&rules, "").unwrap();
    let script = "\"$0\" filter preview --rules \"$1\" \"$2\" | head -1; test ${PIPESTATUS[0]} = 0";
    let output = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_mirrorctl")])
        .args([&rules, dir.path()])
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
